"""What there is to measure, by name, and what a library makes of it.

An *operation* is a public function, an option or none, and the way its result is delivered
(``"softmax out="``). It knows no library, no array and no clock.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Every operation, the limit in limits.py that moves memory in the same way, and how many arrays of
# the logits' size have to be read and written.
OPERATIONS: Mapping[str, tuple[str, int]] = {
    "logsumexp": ("read", 1),
    "cross_entropy": ("read", 1),
    "cross_entropy weight=": ("read", 1),
    "cross_entropy label_smoothing=": ("read", 1),
    "cross_entropy z_loss=": ("read", 1),
    "cross_entropy class_mask=": ("read", 1),
    "cross_entropy softcap=": ("read", 1),
    "cross_entropy of probabilities": ("read", 2),
    "token_logprobs": ("read", 1),
    "evaluate": ("read", 1),
    "softmax": ("streaming copy", 2),
    "softmax out=": ("streaming copy", 2),
    "log_softmax": ("streaming copy", 2),
    "log_softmax out=": ("streaming copy", 2),
    "cross_entropy_with_grad": ("streaming copy", 2),
    "cross_entropy_with_grad out=": ("streaming copy", 2),
    "cross_entropy_with_grad in place": ("in-place scale", 2),
    "cross_entropy_with_grad label_smoothing=": ("streaming copy", 2),
    "cross_entropy_with_grad label_smoothing= out=": ("streaming copy", 2),
    "cross_entropy_with_grad class_mask=": ("streaming copy", 2),
    "cross_entropy_with_grad class_mask= out=": ("streaming copy", 2),
    "cross_entropy_with_grad of probabilities": ("streaming copy", 3),
    "cross_entropy_with_grad of probabilities out=": ("streaming copy", 3),
    "softmax_grad_hess": ("streaming copy", 3),
    "softmax_grad_hess out=": ("streaming copy", 3),
    "kl_divergence": ("read", 2),
    "kl_divergence_with_grad": ("streaming copy", 3),
    "kl_divergence_with_grad out=": ("streaming copy", 3),
    "js_divergence": ("read", 2),
    "js_divergence_with_grad": ("streaming copy", 3),
    "js_divergence_with_grad out=": ("streaming copy", 3),
    "partial_cross_entropy": ("read", 1),
    "shard_grad": ("streaming copy", 2),
    "shard_grad out=": ("streaming copy", 2),
}


def nothing() -> None:
    """The preparation of a call that needs none."""


class Call(NamedTuple):
    """One call to measure. ``prepare`` goes before each ``run`` and is not on the clock."""

    run: Callable[[], Any]
    prepare: Callable[[], None] = nothing

    @property
    def repeatable(self) -> bool:
        """Whether it can run many times in a row."""
        return self.prepare is nothing

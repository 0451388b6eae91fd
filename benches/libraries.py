"""The functions under measurement, ours and the peers', behind one face.

Each library turns a ``Batch`` into the operations that it has, as calls without arguments. This module
knows no clock. A new peer is one function and one line in ``LIBRARIES``.
"""

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import softxent as sx

from benches import compiled, interpreted
from benches.batch import OF_PROBABILITIES, Batch, function_of, option_of
from benches.operations import OPERATIONS, Call

Array = npt.NDArray[Any]


def softxent_calls(batch: Batch) -> dict[str, Call]:
    x, y, out = batch.logits, batch.targets, batch.out
    options: dict[str, Any] = {"threads": batch.threads}

    def loss(operation: str) -> Call:
        function, option = getattr(sx, function_of(operation)), option_of(operation)
        keywords = options | ({"out": out} if operation.endswith("out=") else {})
        if option == OF_PROBABILITIES:  # which are made when they are first needed
            return Call(lambda: function(x, batch.probabilities, **keywords))
        return Call(partial(function, x, y, **batch.keywords_of(option), **keywords))

    def divergence(operation: str) -> Call:
        function = getattr(sx, function_of(operation))
        keywords = options | ({"out": out} if operation.endswith("out=") else {})
        # The teacher is made when it is first needed.
        return Call(lambda: function(batch.teacher, x, **keywords))

    def partial_loss() -> Any:
        return sx.finish_cross_entropy(sx.partial_cross_entropy(x, y, class_offset=0, **options))

    def shard_grad(out: Array | None = None) -> Array:
        return sx.shard_grad(x, y, merged[0], class_offset=0, out=out, **options)

    def merge() -> None:
        if not merged:
            merged.append(sx.partial_cross_entropy(x, y, class_offset=0))

    merged: list[Array] = []
    losses = ("cross_entropy", "cross_entropy_with_grad")
    divergences = [o for o in OPERATIONS if "divergence" in o]
    return {o: loss(o) for o in OPERATIONS if function_of(o) in losses} | {
        **{o: divergence(o) for o in divergences},
        "partial_cross_entropy": Call(partial_loss),
        "shard_grad": Call(shard_grad, prepare=merge),
        "shard_grad out=": Call(lambda: shard_grad(out), prepare=merge),
        "logsumexp": Call(lambda: sx.logsumexp(x, **options)),
        "token_logprobs": Call(lambda: sx.token_logprobs(x, y, **options)),
        "evaluate": Call(lambda: sx.evaluate(x, y, **options)),
        "softmax": Call(lambda: sx.softmax(x, **options)),
        "softmax out=": Call(lambda: sx.softmax(x, out=out, **options)),
        "log_softmax": Call(lambda: sx.log_softmax(x, **options)),
        "log_softmax out=": Call(lambda: sx.log_softmax(x, out=out, **options)),
        "cross_entropy_with_grad in place": Call(
            lambda: sx.cross_entropy_with_grad(out, y, out=out, **options),
            prepare=lambda: np.copyto(out, x),
        ),
        "softmax_grad_hess": Call(lambda: sx.softmax_grad_hess(x, y, **options)),
        "softmax_grad_hess out=": Call(
            lambda: sx.softmax_grad_hess(x, y, out=(out, batch.second_out), **options)
        ),
    }


class Library(NamedTuple):
    """What makes the calls of a batch, and the packages that it needs for that."""

    calls: Callable[[Batch], dict[str, Call]]
    packages: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


OURS = "softxent"
LIBRARIES: Mapping[str, Library] = {
    OURS: Library(softxent_calls, ("softxent",)),
    "numpy": Library(interpreted.numpy_calls, ("numpy",)),
    "scipy": Library(interpreted.scipy_calls, ("scipy",)),
    "torch": Library(interpreted.torch_calls, ("torch",)),
    "torch.compile": Library(compiled.torch_compile_calls, ("torch",)),
    "jax": Library(compiled.jax_calls, ("jax", "jaxlib")),
    "numba": Library(compiled.numba_calls, ("numba",)),
    "onnxruntime": Library(compiled.onnxruntime_calls, ("onnx", "onnxruntime")),
}
PEERS = tuple(name for name in LIBRARIES if name != OURS)


def installed(library: str) -> bool:
    return not LIBRARIES[library].missing

"""The compiled core. Private: `functions.py` gives its functions their names, defaults and documentation."""

from typing import Any, TypedDict

__all__ = [
    "_linear_products",
    "_set_thresholds",
    "cross_entropy",
    "cross_entropy_with_grad",
    "divergence",
    "divergence_with_grad",
    "evaluate",
    "finish_cross_entropy",
    "get_threads",
    "linear_cross_entropy",
    "linear_cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "partial_cross_entropy",
    "release_memory",
    "runtime",
    "set_threads",
    "shard_grad",
    "softmax",
    "softmax_grad_hess",
    "token_logprobs",
]

class _Runtime(TypedDict):
    version: str
    isa: str
    threads: int
    profile: str

def softmax(logits: Any, reading: tuple[Any, ...], out: Any, /) -> Any: ...
def log_softmax(logits: Any, reading: tuple[Any, ...], out: Any, /) -> Any: ...
def logsumexp(logits: Any, reading: tuple[Any, ...], keepdims: Any, /) -> Any: ...
def cross_entropy(
    logits: Any,
    targets: Any,
    reading: tuple[Any, ...],
    options: tuple[Any, ...],
    reducing: tuple[Any, ...],
    /,
) -> Any: ...
def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    reading: tuple[Any, ...],
    options: tuple[Any, ...],
    reducing: tuple[Any, ...],
    grad_output: Any,
    out: Any,
    /,
) -> tuple[Any, Any]: ...
def token_logprobs(
    logits: Any, tokens: Any, reading: tuple[Any, ...], ignore_index: Any, /
) -> Any: ...
def evaluate(
    logits: Any,
    targets: Any,
    reading: tuple[Any, ...],
    sample_weight: Any,
    ignore_index: Any,
    /,
) -> dict[str, Any]: ...
def softmax_grad_hess(
    logits: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    sample_weight: Any,
    ignore_index: Any,
    out: Any,
    threads: Any,
    /,
) -> tuple[Any, Any]: ...
def linear_cross_entropy(
    hidden: Any,
    linear_weight: Any,
    targets: Any,
    linear_bias: Any,
    reading: tuple[Any, ...],
    options: tuple[Any, ...],
    reducing: tuple[Any, ...],
    /,
) -> Any: ...
def linear_cross_entropy_with_grad(
    hidden: Any,
    linear_weight: Any,
    targets: Any,
    linear_bias: Any,
    reading: tuple[Any, ...],
    options: tuple[Any, ...],
    reducing: tuple[Any, ...],
    grad_output: Any,
    grads: Any,
    out: Any,
    accumulate: Any,
    /,
) -> tuple[Any, list[Any]]: ...
def divergence(
    teacher_logits: Any,
    student_logits: Any,
    reading: tuple[Any, ...],
    comparing: tuple[Any, ...],
    reducing: tuple[Any, ...],
    /,
) -> Any: ...
def divergence_with_grad(
    teacher_logits: Any,
    student_logits: Any,
    reading: tuple[Any, ...],
    comparing: tuple[Any, ...],
    reducing: tuple[Any, ...],
    grad_output: Any,
    out: Any,
    /,
) -> tuple[Any, Any]: ...
def partial_cross_entropy(
    logits_shard: Any, targets: Any, reading: tuple[Any, ...], shard: tuple[Any, ...], /
) -> dict[str, Any]: ...
def finish_cross_entropy(
    merged: Any,
    sample_weight: Any,
    label_smoothing: Any,
    z_loss: Any,
    reducing: tuple[Any, ...],
    dtype: Any,
    /,
) -> Any: ...
def shard_grad(
    logits_shard: Any,
    targets: Any,
    merged: Any,
    reading: tuple[Any, ...],
    shard: tuple[Any, ...],
    sample_weight: Any,
    label_smoothing: Any,
    z_loss: Any,
    reducing: tuple[Any, ...],
    grad_output: Any,
    out: Any,
    /,
) -> Any: ...
def runtime() -> _Runtime: ...
def set_threads(threads: Any, /) -> None: ...
def get_threads() -> int: ...
def release_memory() -> int: ...
def _linear_products(
    hidden: Any, linear_weight: Any, out: tuple[Any, ...], threads: Any, /
) -> None: ...
def _set_thresholds(parallel: Any, stream: Any, task: Any, /) -> None: ...

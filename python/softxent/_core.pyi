"""The compiled core. Private: `functions.py` gives its functions their names, defaults and documentation."""

from typing import Any, TypedDict

__all__ = [
    "_set_thresholds",
    "cross_entropy",
    "cross_entropy_with_grad",
    "get_threads",
    "log_softmax",
    "logsumexp",
    "runtime",
    "set_threads",
    "softmax",
]

class _Runtime(TypedDict):
    version: str
    isa: str
    threads: int
    profile: str

def softmax(
    logits: Any, axis: Any, temperature: Any, out: Any, dtype: Any, threads: Any, /
) -> Any: ...
def log_softmax(
    logits: Any, axis: Any, temperature: Any, out: Any, dtype: Any, threads: Any, /
) -> Any: ...
def logsumexp(
    logits: Any, axis: Any, keepdims: Any, temperature: Any, dtype: Any, threads: Any, /
) -> Any: ...
def cross_entropy(logits: Any, targets: Any, options: tuple[Any, ...], /) -> Any: ...
def cross_entropy_with_grad(
    logits: Any, targets: Any, options: tuple[Any, ...], grad_output: Any, out: Any, /
) -> tuple[Any, Any]: ...
def runtime() -> _Runtime: ...
def set_threads(threads: Any, /) -> None: ...
def get_threads() -> int: ...
def _set_thresholds(parallel: Any, stream: Any, task: Any, /) -> None: ...

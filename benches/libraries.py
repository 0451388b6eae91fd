"""The functions under measurement, ours and the peers', behind one face.

An *operation* is a public function and the way its result is delivered (``"softmax out="``). Each
library turns a ``Batch`` into the operations that it has, as calls without arguments. This module
knows no clock. A new peer is one function and one line in ``LIBRARIES``.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import softxent as sx

from benches.batch import Batch

Array = npt.NDArray[Any]

# Every operation, and the limit in limits.py that moves the same bytes.
OPERATIONS: Mapping[str, str] = {
    "logsumexp": "read",
    "cross_entropy": "read",
    "softmax": "streaming copy",
    "softmax out=": "streaming copy",
    "log_softmax": "streaming copy",
    "log_softmax out=": "streaming copy",
    "cross_entropy_with_grad": "streaming copy",
    "cross_entropy_with_grad out=": "streaming copy",
    "cross_entropy_with_grad in place": "in-place scale",
}


def function_of(operation: str) -> str:
    """The public function of an operation."""
    return operation.split()[0]


class Call(NamedTuple):
    """One call to measure. ``prepare`` goes before each ``run`` and is not on the clock."""

    run: Callable[[], Any]
    prepare: Callable[[], None] = lambda: None


def softxent_calls(batch: Batch) -> dict[str, Call]:
    x, y, out = batch.logits, batch.targets, batch.out
    options: dict[str, Any] = {"threads": batch.threads}
    return {
        "logsumexp": Call(lambda: sx.logsumexp(x, **options)),
        "cross_entropy": Call(lambda: sx.cross_entropy(x, y, **options)),
        "softmax": Call(lambda: sx.softmax(x, **options)),
        "softmax out=": Call(lambda: sx.softmax(x, out=out, **options)),
        "log_softmax": Call(lambda: sx.log_softmax(x, **options)),
        "log_softmax out=": Call(lambda: sx.log_softmax(x, out=out, **options)),
        "cross_entropy_with_grad": Call(lambda: sx.cross_entropy_with_grad(x, y, **options)),
        "cross_entropy_with_grad out=": Call(
            lambda: sx.cross_entropy_with_grad(x, y, out=out, **options)
        ),
        "cross_entropy_with_grad in place": Call(
            lambda: sx.cross_entropy_with_grad(out, y, out=out, **options),
            prepare=lambda: np.copyto(out, x),
        ),
    }


def numpy_calls(batch: Batch) -> dict[str, Call]:
    """As a careful user writes it: one temporary, reused. 16-bit logits are widened to float32."""
    x, y, out = batch.logits, batch.targets, batch.out
    rows = np.arange(len(y))
    wide = np.result_type(x.dtype, np.float32)

    def shifted(x: Array, out: Array | None) -> tuple[Array, Array]:
        if x.dtype != wide:
            x = out = x.astype(wide)
        largest = x.max(axis=-1, keepdims=True)
        return largest, np.subtract(x, largest, out=out)

    def softmax(out: Array | None = None) -> Array:
        _, p = shifted(x, out)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        return p.astype(x.dtype, copy=False)

    def log_softmax(out: Array | None = None) -> Array:
        _, z = shifted(x, out)
        z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
        return z.astype(x.dtype, copy=False)

    def logsumexp() -> Array:
        largest, e = shifted(x, None)
        np.exp(e, out=e)
        return np.asarray(largest[:, 0] + np.log(e.sum(axis=-1)))

    def loss() -> Any:
        _, z = shifted(x, None)
        at_target = z[rows, y]
        np.exp(z, out=z)
        return (np.log(z.sum(axis=-1)) - at_target).mean()

    def loss_with_grad(x: Array, out: Array | None = None) -> Any:
        _, p = shifted(x, out)
        at_target = p[rows, y]
        np.exp(p, out=p)
        total = p.sum(axis=-1)
        p /= total[:, np.newaxis] * wide.type(len(y))
        p[rows, y] -= wide.type(1 / len(y))
        return (np.log(total) - at_target).mean(), p.astype(x.dtype, copy=False)

    calls = {
        "logsumexp": Call(logsumexp),
        "cross_entropy": Call(loss),
        "softmax": Call(softmax),
        "log_softmax": Call(log_softmax),
        "cross_entropy_with_grad": Call(lambda: loss_with_grad(x)),
    }
    if x.dtype == wide:
        calls |= {
            "softmax out=": Call(lambda: softmax(out)),
            "log_softmax out=": Call(lambda: log_softmax(out)),
            "cross_entropy_with_grad out=": Call(lambda: loss_with_grad(x, out)),
            "cross_entropy_with_grad in place": Call(
                lambda: loss_with_grad(out, out), prepare=lambda: np.copyto(out, x)
            ),
        }
    return calls


def scipy_calls(batch: Batch) -> dict[str, Call]:
    """SciPy has no loss; its log_softmax makes one. 16-bit logits are computed in float32."""
    special = importlib.import_module("scipy.special")
    x, y = batch.logits, batch.targets
    rows = np.arange(len(y))
    wide = np.result_type(x.dtype, np.float32)

    def widened() -> Array:
        return x.astype(wide, copy=False)

    return {
        "logsumexp": Call(lambda: special.logsumexp(widened(), axis=-1)),
        "cross_entropy": Call(lambda: -special.log_softmax(widened(), axis=-1)[rows, y].mean()),
        "softmax": Call(lambda: special.softmax(widened(), axis=-1)),
        "log_softmax": Call(lambda: special.log_softmax(widened(), axis=-1)),
    }


def torch_calls(batch: Batch) -> dict[str, Call]:
    """Torch in its eager mode, on the same memory."""
    torch = importlib.import_module("torch")
    functional = torch.nn.functional
    torch.set_num_threads(batch.threads)

    def tensor(a: Array) -> Any:
        if a.dtype.name == "bfloat16":  # from_numpy does not know it
            return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(a)

    x, y, out = tensor(batch.logits), tensor(batch.targets), tensor(batch.out)

    def loss_with_grad() -> Any:
        leaf = x.detach().requires_grad_()
        loss = functional.cross_entropy(leaf, y)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    return {
        "logsumexp": Call(lambda: torch.logsumexp(x, -1)),
        "cross_entropy": Call(lambda: functional.cross_entropy(x, y)),
        "softmax": Call(lambda: torch.softmax(x, -1)),
        "softmax out=": Call(lambda: torch.softmax(x, -1, out=out)),
        "log_softmax": Call(lambda: torch.log_softmax(x, -1)),
        "log_softmax out=": Call(lambda: torch.log_softmax(x, -1, out=out)),
        "cross_entropy_with_grad": Call(loss_with_grad),
    }


OURS = "softxent"
LIBRARIES: Mapping[str, Callable[[Batch], dict[str, Call]]] = {
    OURS: softxent_calls,
    "numpy": numpy_calls,
    "scipy": scipy_calls,
    "torch": torch_calls,
}
PEERS = tuple(name for name in LIBRARIES if name != OURS)


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None

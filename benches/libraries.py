"""The functions under measurement, ours and the peers', behind one face.

An *operation* is a public function, an option or none, and the way its result is delivered
(``"softmax out="``). Each library turns a ``Batch`` into the operations that it has, as calls without
arguments. This module knows no clock. A new peer is one function and one line in ``LIBRARIES``.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import softxent as sx

from benches.batch import OF_PROBABILITIES, Batch, function_of, option_of, without_delivery

Array = npt.NDArray[Any]

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


class Call(NamedTuple):
    """One call to measure. ``prepare`` goes before each ``run`` and is not on the clock."""

    run: Callable[[], Any]
    prepare: Callable[[], None] = lambda: None


def softxent_calls(batch: Batch) -> dict[str, Call]:
    x, y, out = batch.logits, batch.targets, batch.out
    options: dict[str, Any] = {"threads": batch.threads}

    def loss(operation: str) -> Call:
        targets, keywords = batch.arguments[option_of(operation)]
        keywords = keywords | options | ({"out": out} if operation.endswith("out=") else {})
        return Call(partial(getattr(sx, function_of(operation)), x, targets, **keywords))

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


def numpy_calls(batch: Batch) -> dict[str, Call]:
    """As a careful user writes it: one temporary, reused. 16-bit logits are widened to float32."""
    x, y, out, t = batch.logits, batch.targets, batch.out, batch.probabilities
    rows = np.arange(len(y))
    wide = np.result_type(x.dtype, np.float32)
    options = batch.options

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

    def nll(x: Array, out: Array | None = None, where: Any = True) -> Array:
        _, e = shifted(x, out)
        at_target = e[rows, y]
        np.exp(e, out=e)
        return np.asarray(np.log(e.sum(axis=-1, where=where)) - at_target)

    def smoothed() -> Any:
        share = options["label_smoothing"]
        at_target, at_all = x[rows, y].astype(wide), x.mean(axis=-1, dtype=wide)
        return (logsumexp() - (1 - share) * at_target - share * at_all).mean()

    def with_z_loss() -> Any:
        lse = logsumexp()
        return (lse - x[rows, y] + options["z_loss"] * lse**2).mean()

    def capped() -> Any:
        s = np.divide(x, options["softcap"], dtype=wide)
        np.tanh(s, out=s)
        s *= options["softcap"]
        return nll(s, out=s).mean()

    def of_probabilities() -> Any:
        at_targets = np.einsum("nv,nv->n", t, x, dtype=wide)
        return (logsumexp() * t.sum(axis=-1, dtype=wide) - at_targets).mean()

    def evaluate() -> Any:
        _, z = shifted(x, None)
        rank = (z > z[rows, y][:, np.newaxis]).sum(axis=-1)
        e = np.exp(z)
        total = e.sum(axis=-1)
        nll = np.log(total) - z[rows, y]
        e *= z
        entropy = np.log(total) - e.sum(axis=-1) / total
        return SimpleNamespace(nll=nll, entropy=entropy, predicted=x.argmax(axis=-1), rank=rank)

    def loss_with_grad(x: Array, out: Array | None = None) -> Any:
        _, p = shifted(x, out)
        at_target = p[rows, y]
        np.exp(p, out=p)
        total = p.sum(axis=-1)
        p /= total[:, np.newaxis] * wide.type(len(y))
        p[rows, y] -= wide.type(1 / len(y))
        return (np.log(total) - at_target).mean(), p.astype(x.dtype, copy=False)

    def grad_hess() -> Any:
        _, p = shifted(x, None)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        hess = p * (1 - p)
        p[rows, y] -= 1
        return p.astype(x.dtype, copy=False), hess.astype(x.dtype, copy=False)

    def kl() -> Any:
        p = log_softmax_of(batch.teacher)
        q = log_softmax_of(x)
        q -= p
        np.exp(p, out=p)
        return -np.einsum("nv,nv->n", p, q).mean()

    def log_softmax_of(x: Array) -> Array:
        _, z = shifted(x, None)
        z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
        return z

    calls = {
        "softmax_grad_hess": Call(grad_hess),
        "kl_divergence": Call(kl),
        "logsumexp": Call(logsumexp),
        "token_logprobs": Call(lambda: -nll(x)),
        "evaluate": Call(evaluate),
        "cross_entropy": Call(lambda: nll(x).mean()),
        "cross_entropy weight=": Call(lambda: np.average(nll(x), weights=options["weight"][y])),
        "cross_entropy label_smoothing=": Call(smoothed),
        "cross_entropy z_loss=": Call(with_z_loss),
        "cross_entropy class_mask=": Call(lambda: nll(x, where=options["class_mask"]).mean()),
        "cross_entropy softcap=": Call(capped),
        "cross_entropy of probabilities": Call(of_probabilities),
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
    probabilities = tensor(batch.probabilities)
    options = batch.options
    weight, masked = tensor(options["weight"]).to(x.dtype), ~tensor(options["class_mask"])
    cap = options["softcap"]

    def with_z_loss(x: Any) -> Any:
        lse = torch.logsumexp(x, -1)
        return (lse - x.gather(-1, y[:, None])[:, 0] + options["z_loss"] * lse**2).mean()

    losses: dict[str, Callable[[Any], Any]] = {
        "": lambda x: functional.cross_entropy(x, y),
        "weight=": lambda x: functional.cross_entropy(x, y, weight=weight),
        "label_smoothing=": lambda x: functional.cross_entropy(
            x, y, label_smoothing=options["label_smoothing"]
        ),
        "z_loss=": with_z_loss,
        "class_mask=": lambda x: functional.cross_entropy(x.masked_fill(masked, -torch.inf), y),
        "softcap=": lambda x: functional.cross_entropy(cap * torch.tanh(x / cap), y),
        OF_PROBABILITIES: lambda x: functional.cross_entropy(x, probabilities),
    }

    def evaluate() -> Any:
        """What our function says of each row, read as few times as torch's own functions allow."""
        logp = torch.log_softmax(x, -1)
        nll = -logp.gather(-1, y[:, None])[:, 0]
        entropy = torch.special.entr(logp.exp()).sum(-1)
        rank = (x > x.gather(-1, y[:, None])).sum(-1)
        return SimpleNamespace(nll=nll, entropy=entropy, predicted=x.argmax(-1), rank=rank)

    def grad_hess() -> Any:
        p = torch.softmax(x, -1)
        hess = p * (1 - p)
        p[torch.arange(len(y)), y] -= 1
        return p, hess

    def kl(x: Any) -> Any:
        p, q = (torch.log_softmax(side, -1) for side in (tensor(batch.teacher), x))
        return functional.kl_div(q, p, log_target=True, reduction="batchmean")

    def js(x: Any) -> Any:
        p, q = (torch.log_softmax(side, -1) for side in (tensor(batch.teacher), x))
        middle = torch.logaddexp(p, q) - math.log(2)
        of = [
            functional.kl_div(middle, side, log_target=True, reduction="batchmean")
            for side in (p, q)
        ]
        return (of[0] + of[1]) / 2

    def with_grad(function: Callable[[Any], Any]) -> Any:
        leaf = x.detach().requires_grad_()
        loss = function(leaf)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    ways = {
        "cross_entropy": lambda operation: losses[option_of(operation)](x),
        "cross_entropy_with_grad": lambda operation: with_grad(losses[option_of(operation)]),
    }
    of_losses = {
        operation: Call(partial(ways[function_of(operation)], operation))
        for operation in OPERATIONS
        if function_of(operation) in ways and operation == without_delivery(operation)
    }
    return of_losses | {
        "softmax_grad_hess": Call(grad_hess),
        "kl_divergence": Call(lambda: kl(x)),
        "kl_divergence_with_grad": Call(lambda: with_grad(kl)),
        "js_divergence": Call(lambda: js(x)),
        "js_divergence_with_grad": Call(lambda: with_grad(js)),
        "logsumexp": Call(lambda: torch.logsumexp(x, -1)),
        "token_logprobs": Call(lambda: x.gather(-1, y[:, None])[:, 0] - torch.logsumexp(x, -1)),
        "evaluate": Call(evaluate),
        "softmax": Call(lambda: torch.softmax(x, -1)),
        "softmax out=": Call(lambda: torch.softmax(x, -1, out=out)),
        "log_softmax": Call(lambda: torch.log_softmax(x, -1)),
        "log_softmax out=": Call(lambda: torch.log_softmax(x, -1, out=out)),
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

"""The peers that carry out one operation after the other: NumPy, SciPy and torch in its eager mode.

Each turns a ``Batch`` into calls, by operation, as a careful user of that library writes them.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from benches.batch import OF_PROBABILITIES, Batch, function_of, option_of, without_delivery
from benches.operations import OPERATIONS, Call

Array = npt.NDArray[Any]


def numpy_calls(batch: Batch) -> dict[str, Call]:
    """As a careful user writes it: one temporary, reused. 16-bit logits are widened to float32."""
    x, y, out = batch.logits, batch.targets, batch.out
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
        t = batch.probabilities
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


def as_tensor(a: Array) -> Any:
    """The array as a tensor of torch's, in the same memory."""
    torch = importlib.import_module("torch")
    if a.dtype.name == "bfloat16":  # from_numpy does not know it
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def torch_calls(batch: Batch) -> dict[str, Call]:
    """Torch in its eager mode, on the same memory."""
    torch = importlib.import_module("torch")
    functional, tensor = torch.nn.functional, as_tensor
    torch.set_num_threads(batch.threads)

    x, y, out = tensor(batch.logits), tensor(batch.targets), tensor(batch.out)
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
        OF_PROBABILITIES: lambda x: functional.cross_entropy(x, tensor(batch.probabilities)),
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

"""The operations that are measured, and how each library that is installed computes them.

Each is written as a careful user of that library writes it: NumPy in blocks of rows that fit into a cache.
A contestant is a function of the arrays that returns what can be checked: the loss, or the sum of what it
wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from softxent.functions.cross_entropy import cross_entropy, cross_entropy_with_grad
from softxent.functions.evaluation import evaluate
from softxent.functions.probabilities import softmax

BLOCK_BYTES = 2**20  # of logits: a block stays in the second-level cache between passes
LOSS, GRADIENT, SOFTMAX, EVALUATE = "loss", "loss + gradient", "softmax", "evaluate"
OPERATIONS = (LOSS, GRADIENT, SOFTMAX, EVALUATE)
#: Which limit an operation has.
LIMITS = {LOSS: "read", EVALUATE: "read", GRADIENT: "copy", SOFTMAX: "copy"}


@dataclass(frozen=True)
class Arrays:
    """Float32 logits (N, V), class ids (N,), and memory for a result."""

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    out: NDArray[np.float32]
    threads: int


Contestant: TypeAlias = Callable[[Arrays], float]


def contestants() -> dict[tuple[str, str], Contestant]:
    """Everyone who is there, by operation and library."""
    found: dict[tuple[str, str], Contestant] = {
        (LOSS, "softxent"): _loss,
        (GRADIENT, "softxent"): _gradient,
        (SOFTMAX, "softxent"): _softmax,
        (EVALUATE, "softxent"): _evaluate,
        (LOSS, "numpy"): _numpy_loss,
        (GRADIENT, "numpy"): _numpy_gradient,
        (SOFTMAX, "numpy"): _numpy_softmax,
    }
    if find_spec("scipy") is not None:
        found[LOSS, "scipy"] = _scipy_loss
        found[SOFTMAX, "scipy"] = _scipy_softmax
    if find_spec("torch") is not None:
        found[LOSS, "torch"] = _torch_loss
        found[GRADIENT, "torch"] = _torch_gradient
        found[SOFTMAX, "torch"] = _torch_softmax
    return dict(sorted(found.items(), key=lambda item: OPERATIONS.index(item[0][0])))


def answers_agree(operation: str, answer: float, expected: float) -> bool:
    """Whether what a contestant returned is right: to the digits that float32 gives a mean."""
    del operation
    return bool(np.isclose(answer, expected, rtol=1e-3, atol=1e-3))


def _loss(a: Arrays) -> float:
    return float(cross_entropy(a.logits, a.targets, threads=a.threads))


def _gradient(a: Arrays) -> float:
    loss, _ = cross_entropy_with_grad(a.logits, a.targets, out=a.out, threads=a.threads)
    return float(loss)


def _softmax(a: Arrays) -> float:
    softmax(a.logits, out=a.out, threads=a.threads)
    return float(a.out[0].sum())


def _evaluate(a: Arrays) -> float:
    return evaluate(a.logits, a.targets, threads=a.threads).loss


def _blocks(a: Arrays) -> list[slice]:
    step = max(1, BLOCK_BYTES // a.logits[0].nbytes)
    return [slice(start, start + step) for start in range(0, len(a.logits), step)]


def _numpy_loss(a: Arrays) -> float:
    total, blocks = 0.0, _blocks(a)
    work = np.empty_like(a.logits[blocks[0]])
    for rows in blocks:
        x, y = a.logits[rows], a.targets[rows]
        largest = x.max(axis=1, keepdims=True)
        e = np.subtract(x, largest, out=work[: len(x)])
        lse = np.log(np.exp(e, out=e).sum(axis=1)) + largest[:, 0]
        total += float((lse - x[np.arange(len(x)), y]).sum(dtype=np.float64))
    return total / len(a.logits)


def _numpy_gradient(a: Arrays) -> float:
    total = 0.0
    for rows in _blocks(a):
        x, y, grad = a.logits[rows], a.targets[rows], a.out[rows]
        places = np.arange(len(x)), y
        largest = x.max(axis=1, keepdims=True)
        np.subtract(x, largest, out=grad)
        np.exp(grad, out=grad)
        sums = grad.sum(axis=1, keepdims=True)
        total += float((np.log(sums[:, 0]) + largest[:, 0] - x[places]).sum(dtype=np.float64))
        grad *= 1 / (sums * np.float32(len(a.logits)))
        grad[places] -= np.float32(1 / len(a.logits))
    return total / len(a.logits)


def _numpy_softmax(a: Arrays) -> float:
    for rows in _blocks(a):
        p = a.out[rows]
        np.subtract(a.logits[rows], a.logits[rows].max(axis=1, keepdims=True), out=p)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
    return float(a.out[0].sum())


def _scipy_loss(a: Arrays) -> float:
    from scipy.special import logsumexp

    lse = logsumexp(a.logits, axis=1)
    return float((lse - a.logits[np.arange(len(lse)), a.targets]).mean(dtype=np.float64))


def _scipy_softmax(a: Arrays) -> float:
    from scipy.special import softmax as scipy_softmax

    return float(scipy_softmax(a.logits, axis=1)[0].sum())


def _torch_loss(a: Arrays) -> float:
    import torch

    torch.set_num_threads(a.threads)
    logits, targets = torch.from_numpy(a.logits), torch.from_numpy(a.targets)
    return float(torch.nn.functional.cross_entropy(logits, targets))


def _torch_gradient(a: Arrays) -> float:
    import torch

    torch.set_num_threads(a.threads)
    logits = torch.from_numpy(a.logits).requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(a.targets))
    loss.backward()
    return float(loss.detach())


def _torch_softmax(a: Arrays) -> float:
    import torch

    torch.set_num_threads(a.threads)
    torch.softmax(torch.from_numpy(a.logits), -1, out=torch.from_numpy(a.out))
    return float(a.out[0].sum())

"""One batch's loss and gradient: softxent and plain NumPy, checked against each other, then timed.

Knows arrays and clocks only. The one idea: a comparison is worth what its slower side is worth. So
the NumPy twin works in place too, and block by block, so that its five passes over a block find it
in the cache; both sides get the same logits, in turn, and the best of several rounds counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

import softxent

ROUNDS = 7
BLOCK_BYTES = 2**20  # of logits; fits the second-level cache of a current core

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
LossAndGradient = Callable[[Floats, Ids], float]  # the gradient overwrites the logits


@dataclass(frozen=True)
class Comparison:
    """Seconds of each side's best round; largest absolute differences of the results."""

    numpy_seconds: float
    one_thread_seconds: float
    all_threads_seconds: float
    loss_difference: float
    gradient_difference: float
    gradient_size: float


def numpy_loss_and_gradient(logits: Floats, targets: Ids) -> float:
    """Mean cross-entropy of (N, V) logits; its gradient takes their place."""
    total = 0.0
    block = max(1, BLOCK_BYTES // logits[0].nbytes)
    for start in range(0, len(logits), block):
        x = logits[start : start + block]
        target = np.arange(len(x)), targets[start : start + block]
        x -= x.max(axis=1, keepdims=True)
        score = x[target]
        np.exp(x, out=x)
        sums = x.sum(axis=1, keepdims=True)
        total += float((np.log(sums[:, 0]) - score).sum(dtype=np.float64))
        x *= 1 / (sums * np.float32(len(logits)))
        x[target] -= np.float32(1 / len(logits))
    return total / len(logits)


def compare(logits: Floats, targets: Ids) -> Comparison:
    """Check both sides against each other on one batch, then time them in turn."""

    def softxent_threads(threads: int | None) -> LossAndGradient:
        def loss_and_gradient(logits: Floats, targets: Ids) -> float:
            loss, _ = softxent.cross_entropy_with_grad(logits, targets, out=logits, threads=threads)
            return float(loss)

        return loss_and_gradient

    sides = numpy_loss_and_gradient, softxent_threads(1), softxent_threads(None)
    work = np.empty_like(logits)

    results: list[tuple[float, Floats]] = []
    for side in (sides[0], sides[-1]):
        np.copyto(work, logits)
        results.append((side(work, targets), work.copy()))
    (numpy_loss, numpy_gradient), (loss, gradient) = results

    best = [float("inf")] * len(sides)
    for _ in range(ROUNDS):
        for i, side in enumerate(sides):
            np.copyto(work, logits)
            start = perf_counter()
            side(work, targets)
            best[i] = min(best[i], perf_counter() - start)

    numpy_seconds, one_thread_seconds, all_threads_seconds = best
    return Comparison(
        numpy_seconds=numpy_seconds,
        one_thread_seconds=one_thread_seconds,
        all_threads_seconds=all_threads_seconds,
        loss_difference=abs(loss - numpy_loss),
        gradient_difference=float(np.abs(gradient - numpy_gradient).max()),
        gradient_size=float(np.abs(gradient).max()),
    )

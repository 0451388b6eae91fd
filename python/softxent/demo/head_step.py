"""One step of a head with and without its logits: seconds, and the memory that it takes.

Each way runs in a process of its own, because a process has one peak of memory and never forgets
it: this file is also the program that runs there. Knows arrays and clocks, and no model.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softxent

TOKENS = 2048
ROUNDS = 3

Floats = NDArray[np.float32]
Step = Callable[[Floats, Floats, NDArray[Any], Floats, Floats], Any]


@dataclass(frozen=True)
class Cost:
    """Of a step: the seconds of the best round; the growth of the peak, where the system tells it."""

    seconds: float
    extra_bytes: int | None


def with_logits(h: Floats, head: Floats, targets: NDArray[Any], dh: Floats, dhead: Floats) -> None:
    """The logits held whole, and turned into their gradient where they stand."""
    logits = h @ head.T
    softxent.cross_entropy_with_grad(logits, targets, out=logits)
    np.matmul(logits, head, out=dh)
    np.matmul(logits.T, h, out=dhead)


def without(h: Floats, head: Floats, targets: NDArray[Any], dh: Floats, dhead: Floats) -> None:
    """No more of the logits at a time than a chunk."""
    softxent.linear_cross_entropy_with_grad(h, head, targets, out=(dh, dhead, None))


WAYS: dict[str, Step] = {
    "logits held, NumPy's products": with_logits,
    "linear_cross_entropy_with_grad": without,
}


def measure(width: int, classes: int) -> dict[str, Cost]:
    """The cost of each way for a head of (classes, width)."""
    costs = {}
    for way in WAYS:
        command = [sys.executable, "-m", __name__, way, str(width), str(classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        costs[way] = Cost(*json.loads(done.stdout))
    return costs


def cost_of(step: Step, width: int, classes: int) -> Cost:
    """What a step costs this process, which should be a young one."""
    random = np.random.default_rng(0)
    h = random.standard_normal((TOKENS, width), np.float32)
    head = random.standard_normal((classes, width), np.float32)
    targets = random.integers(classes, size=TOKENS)
    dh, dhead = np.ones_like(h), np.ones_like(head)  # written, so that their pages are there
    few = slice(0, 2)
    step(h[few], head[few], targets[few] * 0, dh[few].copy(), dhead[few].copy())

    before = peak_bytes()
    seconds = []
    for _ in range(ROUNDS):
        start = perf_counter()
        step(h, head, targets, dh, dhead)
        seconds.append(perf_counter() - start)
    after = peak_bytes()
    extra = None if before is None or after is None else after - before
    return Cost(min(seconds), extra)


def peak_bytes() -> int | None:
    """The most memory that this process has had, where the system says it of this one alone.

    Linux's `getrusage` begins a child with the peak of its parent; so that is not asked.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    cost = cost_of(WAYS[sys.argv[1]], *map(int, sys.argv[2:]))
    print(json.dumps([cost.seconds, cost.extra_bytes]))

"""Everything once a round, in turn: a change of clock speed or a busy neighbour meets all of them.

Knows clocks and medians. Nothing is timed before its answer is right.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from softxent.bench.contestants import LIMITS, LOSS, Arrays, answers_agree, contestants
from softxent.bench.limits import Limits


@dataclass(frozen=True)
class Result:
    """Seconds of every round, of each operation and library; the limits are those of "NumPy"."""

    rows: int
    classes: int
    threads: int
    limits: dict[str, list[float]]
    seconds: dict[tuple[str, str], list[float]]
    wrong: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the logits."""
        return 4 * self.rows * self.classes

    def median(self, operation: str, library: str) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.seconds[operation, library])

    def of_limit(self, operation: str, library: str) -> float:
        """The limit's time over this one's: 1 is as fast as memory is."""
        limit = statistics.median(self.limits[LIMITS[operation]])
        return limit / self.median(operation, library)


def make_arrays(rows: int, classes: int, threads: int) -> Arrays:
    """The same arrays for everyone; three times the memory of the logits at most, with a peer's own."""
    random = np.random.default_rng(0)
    logits = np.empty((rows, classes), np.float32)
    for row in logits:
        random.standard_normal(dtype=np.float32, out=row)
    return Arrays(logits, random.integers(0, classes, rows), np.empty_like(logits), threads)


def measure(arrays: Arrays, rounds: int) -> Iterator[Result]:
    """The results so far, after every round; the first comes after everyone was checked."""
    everyone = contestants()
    result = Result(
        len(arrays.logits),
        arrays.logits.shape[1],
        arrays.threads,
        {"read": [], "copy": []},
        {who: [] for who in everyone},
    )
    expected = everyone[LOSS, "softxent"](arrays)
    for who, contestant in list(everyone.items()):
        right = 1.0 if who[0] == "softmax" else expected
        if not answers_agree(who[0], contestant(arrays), right):
            result.wrong.append(" of ".join(who))
            del everyone[who], result.seconds[who]
    limits = Limits(arrays.threads)
    try:
        yield result
        for _ in range(rounds):
            result.limits["read"].append(_seconds(lambda: limits.read(arrays.logits)))
            result.limits["copy"].append(_seconds(lambda: limits.copy(arrays.logits, arrays.out)))
            for who, contestant in everyone.items():
                result.seconds[who].append(_seconds(lambda c=contestant: c(arrays)))  # type: ignore[misc]
            yield result
    finally:
        limits.close()


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start

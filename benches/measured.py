"""What was timed, and how two of them compare. It knows no array and no clock."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LIMIT = "limit"  # the library of the rows that are no library's

Statistic = Callable[[Sequence[float]], float]
STATISTICS: dict[str, Statistic] = {"min": min, "median": statistics.median}


class What(NamedTuple):
    """An operation of a library on the arrays of a setting.

    ``threads`` is 0 for as many as the run has, ``isa`` empty for the best that the processor has.
    """

    setting: str
    library: str
    operation: str
    dtype: str = "float32"
    threads: int = 0
    isa: str = ""

    def __str__(self) -> str:
        pins = [f"{self.threads} thread{'s' * (self.threads > 1)}"] * (self.threads > 0)
        dtype = [self.dtype] * (self.library != LIMIT)
        return ", ".join(
            [f"{self.library} {self.operation}", *dtype, *pins, *[self.isa] * bool(self.isa)]
        )


class Measured(NamedTuple):
    """The seconds of each round of one operation on logits (rows, columns) of ``size`` bytes.

    ``moved`` are the bytes that it cannot but read or write.
    """

    what: What
    rows: int
    columns: int
    size: int
    moved: int
    seconds: list[float]

    @property
    def elements(self) -> int:
        return self.rows * self.columns

    def __str__(self) -> str:
        return str(self.what)

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "what": self.what._asdict()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Measured":
        return cls(**{**content, "what": What(**content["what"])})


def times(slow: Measured, fast: Measured, of: Statistic) -> float:
    """How many times as long ``slow`` takes as ``fast``."""
    return of(slow.seconds) / of(fast.seconds)


def bandwidth(row: Measured, other: Measured, of: Statistic) -> float:
    """1 where the row moves its bytes as fast as the other moves its own."""
    return times(other, row, of) * row.moved / other.moved


def speed(row: Measured, other: Measured, of: Statistic) -> float:
    """How many times as many elements a second the row gets through."""
    return times(other, row, of) * row.elements / other.elements


def rate(row: Measured, of: Statistic) -> float:
    """Elements a second, in thousands of millions."""
    return row.elements / 1e9 / of(row.seconds)

"""From seconds to ratios, and from ratios to a page to read. It knows no array and no clock."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from benches.batch import option_of, without_delivery
from benches.libraries import OPERATIONS, OURS

LIMITS = "limit"  # the library of the rows that are no library's

Statistic = Callable[[Sequence[float]], float]
STATISTICS: tuple[Statistic, ...] = (min, statistics.median)


class Measured(NamedTuple):
    """The seconds of each round of one operation of one library on logits of ``size`` bytes.

    ``moved`` are the bytes that it cannot but read or write.
    """

    library: str
    operation: str
    dtype: str
    size: int
    moved: int
    seconds: list[float]

    def __str__(self) -> str:
        return f"{self.library} {self.operation}, {self.dtype}"


class Ratio(NamedTuple):
    """How many times as long ``slow`` takes as ``fast``."""

    slow: Measured
    fast: Measured

    def by(self, statistic: Statistic) -> float:
        return statistic(self.slow.seconds) / statistic(self.fast.seconds)


def share_of_limit(row: Measured, limit: Measured, statistic: Statistic) -> float:
    """1 where the row moves its bytes as fast as the limit moves its own."""
    return Ratio(limit, row).by(statistic) * row.moved / limit.moved


def ratios(measured: Iterable[Measured]) -> Iterator[Ratio]:
    """The pairs worth comparing: new array to ``out=``, option to none, float32 to 16 bits, peer to ours.

    Where a peer has no ``out=`` of its own, its only way stands against ours with ``out=`` too.
    """
    rows = {(r.library, r.operation, r.dtype): r for r in measured if r.library != LIMITS}
    for (library, operation, dtype), row in rows.items():
        if library != OURS:
            continue
        reused = rows.get((OURS, f"{operation} out=", dtype))
        if reused:
            yield Ratio(row, reused)
        option = option_of(operation)
        if option:
            yield Ratio(row, rows[OURS, operation.replace(f" {option}", ""), dtype])
        if dtype != "float32":
            yield Ratio(rows[OURS, operation, "float32"], row)
    for (library, operation, dtype), row in rows.items():
        if library == OURS:
            continue
        for other in OPERATIONS:
            only_way = operation == without_delivery(other) and (library, other, dtype) not in rows
            if (other == operation or only_way) and (OURS, other, dtype) in rows:
                yield Ratio(row, rows[OURS, other, dtype])


def markdown(facts: dict[str, Any], measured: Sequence[Measured]) -> str:
    """The whole run as a page."""
    limits = {row.operation: row for row in measured if row.library == LIMITS}
    times = []
    for row in measured:
        cells = [row.library, row.operation, row.dtype]
        cells += [f"{1e3 * of(row.seconds):.4g}" for of in STATISTICS]
        cells += [f"{row.size / 1e9 / min(row.seconds):.1f}"]
        if row.library != LIMITS:
            limit = limits[OPERATIONS[row.operation][0]]
            cells += [limit.operation]
            cells += [f"{share_of_limit(row, limit, of):.2f}" for of in STATISTICS]
        times.append(cells)
    compared = [
        [str(r.slow), str(r.fast), *(f"{r.by(of):.2f}" for of in STATISTICS)]
        for r in ratios(measured)
    ]
    sections = [
        "\n".join(f"* {name}: {value}" for name, value in facts.items()),
        _table("by what dtype min/ms median/ms GB/s limit of_it,min of_it,median", times),
        _table("time_of over_time_of min median", compared),
    ]
    return "\n\n".join(sections) + "\n"


def _table(header: str, lines: Sequence[Sequence[str]]) -> str:
    names = [name.replace("_", " ") for name in header.split()]
    padded = [[*line, *[""] * (len(names) - len(line))] for line in lines]
    widths = [max(map(len, column)) for column in zip(names, *padded, strict=True)]

    def line_of(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(str.ljust, cells, widths)) + " |"

    return "\n".join([line_of(names), line_of(["-" * w for w in widths]), *map(line_of, padded)])

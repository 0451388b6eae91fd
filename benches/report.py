"""From seconds to ratios, and from ratios to a page to read. It knows no array and no clock."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from benches.batch import option_of, without_delivery
from benches.libraries import OURS
from benches.measured import LIMIT, STATISTICS, Measured, Statistic, bandwidth, times
from benches.operations import OPERATIONS
from benches.targets import FAMILY, Judged


class Ratio(NamedTuple):
    """How many times as long ``slow`` takes as ``fast``."""

    slow: Measured
    fast: Measured

    def by(self, statistic: Statistic) -> float:
        return times(self.slow, self.fast, statistic)


def ratios(measured: Iterable[Measured]) -> Iterator[Ratio]:
    """The pairs of one setting worth comparing: new array to ``out=``, option to none, peer to ours.

    Where a peer has no ``out=`` of its own, its only way stands against ours with ``out=`` too.
    """
    rows = {(r.what.library, r.what.operation): r for r in measured if r.what.library != LIMIT}
    for (library, operation), row in rows.items():
        if library != OURS:
            continue
        reused = rows.get((OURS, f"{operation} out="))
        if reused:
            yield Ratio(row, reused)
        option = option_of(operation)
        if option:
            yield Ratio(row, rows[OURS, operation.replace(f" {option}", "")])
    for (library, operation), row in rows.items():
        if library == OURS:
            continue
        for other in OPERATIONS:
            only_way = operation == without_delivery(other) and (library, other) not in rows
            if (other == operation or only_way) and (OURS, other) in rows:
                yield Ratio(row, rows[OURS, other])


def markdown(facts: dict[str, Any], judged: Sequence[Judged], measured: Sequence[Measured]) -> str:
    """The whole run as a page: the targets, the times of each setting, the family's ratios."""
    sections = ["\n".join(f"* {name}: {value}" for name, value in facts.items())]
    sections.append(
        table("case what over unit target min median verdict", map(_target_cells, judged))
    )
    for setting in dict.fromkeys(row.what.setting for row in measured):
        rows = [row for row in measured if row.what.setting == setting]
        sections.append(f"## {setting}: {rows[0].rows} x {rows[0].columns}")
        sections.append(_times(rows))
        if setting == FAMILY:
            compared = (
                [str(r.slow), str(r.fast), *(f"{r.by(of):.2f}" for of in STATISTICS.values())]
                for r in ratios(rows)
            )
            sections.append(table("time_of over_time_of min median", compared))
    return "\n\n".join(sections) + "\n"


def _target_cells(row: Judged) -> list[str]:
    values = ["" if value is None else f"{value:.3g}" for value in (row.min, row.median)]
    return [row.case, row.what, row.over, row.unit, row.target, *values, row.verdict]


def _times(rows: Sequence[Measured]) -> str:
    limits = {row.what.operation: row for row in rows if row.what.library == LIMIT}
    lines = []
    for row in rows:
        cells = [str(row)]
        cells += [f"{1e3 * of(row.seconds):.4g}" for of in STATISTICS.values()]
        cells += [f"{row.size / 1e9 / min(row.seconds):.1f}"]
        limit = limits.get(OPERATIONS.get(row.what.operation, ("", 0))[0])
        if limit and not row.what.threads:
            cells += [limit.what.operation]
            cells += [f"{bandwidth(row, limit, of):.2f}" for of in STATISTICS.values()]
        lines.append(cells)
    return table("what min/ms median/ms GB/s limit of_it,min of_it,median", lines)


def table(header: str, lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the header's words are the columns, with _ for a space."""
    names = [name.replace("_", " ") for name in header.split()]
    padded = [[*line, *[""] * (len(names) - len(line))] for line in lines]
    widths = [max(map(len, column)) for column in zip(names, *padded, strict=True)]

    def line_of(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(str.ljust, cells, widths)) + " |"

    return "\n".join([line_of(names), line_of(["-" * w for w in widths]), *map(line_of, padded)])

"""What was measured, as a table, for JSON, and as bars."""

import statistics
from typing import Any

from softxent.bench.contestants import OPERATIONS
from softxent.bench.rounds import Result
from softxent.plots.axes import Drawn


def as_dict(result: Result) -> dict[str, Any]:
    """All numbers by name; times are the seconds of every round."""
    return {
        "rows": result.rows,
        "classes": result.classes,
        "threads": result.threads,
        "limits": result.limits,
        "seconds": [
            {"operation": operation, "library": library, "seconds": seconds}
            for (operation, library), seconds in result.seconds.items()
        ],
        "wrong": result.wrong,
    }


def table(result: Result) -> str:
    """Aligned lines of at most 80 columns."""
    size = f"{result.rows:,} x {result.classes:,} float32, {result.nbytes / 1e9:.2f} GB"
    lines = [f"{size}, {result.threads} threads; medians", ""]
    lines.append(f"{'':<17}{'':<10}{'ms':>9}{'GB/s':>8}{'of limit':>10}{'/ softxent':>12}")
    for name in ("read", "copy"):
        seconds = statistics.median(result.limits[name])
        label = f"limit: {name}"
        lines.append(
            f"{label:<17}{'numpy':<10}{seconds * 1e3:>9.1f}{result.nbytes / seconds / 1e9:>8.1f}"
        )
    for operation in OPERATIONS:
        lines += [_line(result, what, who) for what, who in result.seconds if what == operation]
    lines += [f"left out, as its answer is wrong: {name}" for name in result.wrong]
    return "\n".join(lines)


def _line(result: Result, operation: str, library: str) -> str:
    seconds = result.median(operation, library)
    ratio = seconds / result.median(operation, "softxent")
    return (
        f"{operation:<17}{library:<10}{seconds * 1e3:>9.1f}{result.nbytes / seconds / 1e9:>8.1f}"
        f"{result.of_limit(operation, library):>10.2f}{ratio:>12.1f}"
    )


class BenchDisplay(Drawn):
    """A bar for each operation and library: how near its limit it comes.

    Attributes
    ----------
    labels : list of str
        What and who.
    of_limit : list of float
        The limit's time over its own: 1 is as fast as memory is.
    ax_, figure_
        matplotlib's, once drawn.
    """

    def __init__(self, result: Result) -> None:
        """What was measured."""
        order = [who for what in OPERATIONS for who in result.seconds if who[0] == what]
        self.labels = [f"{operation}, {library}" for operation, library in order]
        self.of_limit = [result.of_limit(*who) for who in order]
        self._ours = [library == "softxent" for _, library in order]
        self._title = f"{result.rows:,} x {result.classes:,} float32, {result.threads} threads"

    def _draw(self, ax: Any) -> None:
        places = range(len(self.labels))
        ax.barh(places, self.of_limit, color=["C0" if ours else "0.7" for ours in self._ours])
        ax.axvline(1, color="C1", linestyle="--", linewidth=1)
        ax.set_yticks(places, self.labels)
        ax.invert_yaxis()
        ax.set(xlabel="speed, as a share of reading or copying the logits", title=self._title)
        ax.grid(alpha=0.3, axis="x")

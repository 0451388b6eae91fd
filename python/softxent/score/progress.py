"""The bar of a long reading: rows, GB/s and the time that is left, on standard error if that is a terminal.

The only file of `score` that knows rich; without rich, or without a terminal, there is no bar.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec


@contextlib.contextmanager
def progress_bar(rows: int, row_bytes: float) -> Iterator[Callable[[int], None]]:
    """Something that hears how many rows each chunk had; `row_bytes` is what a row reads from the files."""
    if not sys.stderr.isatty():
        yield _silent
        return
    if find_spec("rich") is None:
        print('a progress bar needs rich: pip install "softxent[cli]"', file=sys.stderr)
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bar = Progress(*columns, console=Console(stderr=True), expand=True)
    with bar:
        task = bar.add_task("", total=rows, speed="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            seconds = bar.tasks[0].elapsed
            if seconds:
                speed = bar.tasks[0].completed * row_bytes / seconds / 1e9
                bar.update(task, speed=f"{speed:.2f} GB/s")

        yield advance


def _silent(rows: int) -> None:
    del rows

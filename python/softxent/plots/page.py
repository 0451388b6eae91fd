"""Several displays on one page, in a file."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from softxent.files.array_file import one_line
from softxent.files.results import check_result, result_file
from softxent.plots.axes import FORMATS, Drawn, kind_of, save_figure


def save_page(
    displays: Iterable[Drawn], path: str | Path, *, title: str = "", force: bool = False
) -> None:
    """Draw displays side by side, two in a row, into a file that appears when it is complete.

    Parameters
    ----------
    displays : iterable of displays
        What is drawn, in order.
    path : str or Path
        The file: `.png`, `.svg` or `.pdf`.
    title : str
        What stands above all of them.
    force : bool
        Replace the file if it exists.

    Raises
    ------
    ValueError
        A name that ends in something else.
    softxent.files.results.ResultError
        A file that exists, or can't be written.
    ImportError
        There is no matplotlib.
    """
    path = Path(path)
    if kind_of(path) not in FORMATS:
        raise ValueError(f"path: expected .png, .svg or .pdf, got {one_line(path)}")
    check_result(path, force=force)
    page = io.BytesIO()
    functions: list[Any] = [display.plot for display in displays]
    save_figure(functions, title, page, kind_of(path))
    with result_file(path, force=force) as file:
        file.write(page.getvalue())

"""Where a picture is drawn: on the axes that are given, on new ones, or on a page without a window.

The only file of this folder that knows matplotlib.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

MISSING = 'plots need matplotlib: pip install "softxent[plot]"'
FORMATS = ("png", "svg", "pdf")


class Drawn:
    """Something that draws on axes and remembers them."""

    #: The axes that were drawn on, once `plot` was called.
    ax_: Any
    #: Their figure.
    figure_: Any

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError

    def plot(self, ax: Any = None) -> Any:
        """Draw on `ax`, or on axes of a new pyplot figure; returns the display itself.

        ImportError if there is no matplotlib.
        """
        self.ax_ = _new_axes() if ax is None else ax
        self.figure_ = self.ax_.figure
        self._draw(self.ax_)
        return self


def _new_axes() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(MISSING) from error
    _, ax = plt.subplots(layout="constrained")
    return ax


def save_figure(
    draw: Iterable[Callable[[Any], Any]], title: str, file: BinaryIO, kind: str
) -> None:
    """Each function on axes of its own, two in a row, on one page in a file of that kind; no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    functions = list(draw)
    lines = (len(functions) + 1) // 2
    figure = Figure(figsize=(11, 4.2 * lines), dpi=110, layout="constrained")
    figure.suptitle(title)
    for number, function in enumerate(functions, 1):
        function(figure.add_subplot(lines, 2 if len(functions) > 1 else 1, number))
    figure.savefig(file, format=kind)


def kind_of(path: Path) -> str:
    """The kind of picture that a file's name asks for: one of `FORMATS`, or whatever else it ends in."""
    return path.suffix.lower().removeprefix(".")

"""Steps of aligned numbers and bars, as text for a terminal and as HTML for a notebook.

Knows no mathematics. The one idea: a line is a label, a number that is already spelled, and the length of
its bar; both forms are made from the same lines, so they say the same.
"""

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

COLUMNS = 80
EIGHTHS = " ▏▎▍▌▋▊▉█"
_STYLE = (
    "<style>.softxent-explain td{text-align:right;font-variant-numeric:tabular-nums;padding:0 .6em}"
    ".softxent-explain td.bar{width:16em}.softxent-explain td:first-child,"
    ".softxent-explain td.bar,.softxent-explain td:last-child{text-align:left}"
    ".softxent-explain .bar div{background:#4c78a8;height:.7em}</style>"
)


@dataclass(frozen=True)
class Line:
    """A number, what it is of, and a bar whose length is a share of the longest possible one."""

    label: str
    number: str
    bar: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Step:
    """What is computed: its name, its formula, its numbers, and what there is to say about it."""

    title: str
    formula: str
    lines: tuple[Line, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """All steps in order. `str` of it is the text; a notebook shows it as HTML.

    Attributes
    ----------
    title : str
        What is explained.
    steps : tuple of Step
        Its steps.
    values : dict
        The numbers themselves, by name.
    """

    title: str
    steps: tuple[Step, ...]
    values: dict[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """The text, with bars of block characters."""
        return self.text()

    def text(self, *, ascii_only: bool = False) -> str:
        """Lines of at most 80 columns, if the labels are short."""
        lines = [_plain(self.title)]
        labels = [_plain(line.label) for step in self.steps for line in step.lines]
        numbers = [line.number for step in self.steps for line in step.lines]
        widths = max(map(len, labels), default=0), max(map(len, numbers), default=0)
        for number, step in enumerate(self.steps, 1):
            head = f"{number}. {_plain(step.title)}"
            lines += ["", f"{head}{step.formula:>{max(0, COLUMNS - len(head) - 1)}}".rstrip()]
            lines += [_text_line(line, *widths, ascii_only=ascii_only) for line in step.lines]
            lines += [f"   {_plain(remark)}" for remark in step.remarks]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [
            _STYLE,
            '<div class="softxent-explain">',
            f"<p><b>{html.escape(self.title)}</b></p>",
        ]
        for number, step in enumerate(self.steps, 1):
            title, formula = html.escape(step.title), html.escape(step.formula)
            parts.append(f"<p>{number}. <b>{title}</b> &emsp; <code>{formula}</code></p><table>")
            parts += [_html_line(line) for line in step.lines]
            parts.append("</table>")
            parts += [f"<p>{html.escape(remark)}</p>" for remark in step.remarks]
        return "".join([*parts, "</div>"])


def number(value: float, decimals: int) -> str:
    """A number with so many decimals, or more where those would hide what it is: 1.68e-7, 0.999995."""
    if not math.isfinite(value):
        return str(value)
    if 0 < abs(value) < 10.0 ** -max(2, decimals - 1) or abs(value) >= 1e9:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{decimals}f}"
    if decimals < 6 and value < 1 and float(text.replace(",", "")) == 1:
        return f"{value:.6f}"
    return text


def shares(values: Iterable[float]) -> list[float]:
    """Lengths of bars: each value over the largest; nothing for those below 0."""
    known = [value if value == value else 0.0 for value in values]
    largest = max([value for value in known if value < float("inf")], default=0.0)
    return [min(1.0, max(0.0, value / largest)) if largest > 0 else 0.0 for value in known]


def _text_line(line: Line, label_width: int, number_width: int, *, ascii_only: bool) -> str:
    start = f"   {_plain(line.label):<{label_width}}  {line.number:>{number_width}}"
    room = max(8, min(40, COLUMNS - len(start) - len(line.remark) - 5))
    bar = "" if line.bar is None else _bar(line.bar, room, ascii_only=ascii_only)
    remark = f"  {_plain(line.remark)}" if line.remark else ""
    return f"{start}  {bar}{remark}".rstrip()


def _bar(share: float, room: int, *, ascii_only: bool) -> str:
    eighths = round(share * room * 8)
    if ascii_only:
        return "#" * round(eighths / 8)
    return (EIGHTHS[-1] * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _html_line(line: Line) -> str:
    bar = "" if line.bar is None else f'<div style="width:{line.bar:.1%}"></div>'
    cells = f"<td>{html.escape(line.label)}</td><td>{html.escape(line.number)}</td>"
    return f'<tr>{cells}<td class="bar">{bar}</td><td>{html.escape(line.remark)}</td></tr>'


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

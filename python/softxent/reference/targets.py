"""What the rows are compared with: class ids, or probabilities.

What is made of them is not known here.

The one idea: the type of the numbers decides, never the shape. Integers are class ids, and become
the probability 1 of that class; numbers with a point are probabilities of all classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan

from softxent.reference.lists import (
    Nested,
    Shape,
    Table,
    integer,
    one_or_several,
    places,
    read,
    real,
)

IgnoreIndex = int | Iterable[int] | None
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Target:
    """The target of one row."""

    probabilities: dict[int, float]
    is_class: bool

    @property
    def has_nan(self) -> bool:
        """Whether the row is NaN, whatever its logits are."""
        return any(map(isnan, self.probabilities.values()))


def read_targets(nested: Nested, table: Table, ignore_index: IgnoreIndex) -> list[Target | None]:
    """The target of each row, None for an ignored one."""
    shape, numbers = read("targets", nested, _integer_or_float)
    # A list without a number has no type; then the shape alone tells.
    if any(isinstance(number, float) for number in numbers) or (
        not numbers and shape == table.shape
    ):
        if shape != table.shape:
            wanted = f"integers, got float; probabilities for logits {table.shape}"
            raise TypeError(f"targets: expected {wanted} have that shape, not {shape}")
        if read_ignored(ignore_index) - {IGNORE_INDEX}:
            wanted = "None with probabilities as targets"
            raise ValueError(f"ignore_index: expected {wanted}, got {ignore_index!r}")
        rows = table.one_per_place("targets", nested, real)
        return [Target(dict(enumerate(row)), is_class=False) for row in rows]
    ids = read_classes(nested, table, ignore_index)
    return [None if y is None else Target({y: 1.0}, is_class=True) for y in ids]


def read_classes(nested: Nested, table: Table, ignore_index: IgnoreIndex) -> list[int | None]:
    """The class id of each row, in [0, V), or None for an ignored row."""
    ids = table.one_per_row("targets", nested, integer)
    return check_classes("targets", ids, table.rows_shape, table.classes, ignore_index)


def check_classes(
    name: str, ids: list[int], shape: Shape, classes: int, ignore_index: IgnoreIndex
) -> list[int | None]:
    """Class ids in [0, V), None for (one of) `ignore_index`."""
    ignored = read_ignored(ignore_index)
    for place, y in zip(places(shape), ids, strict=True):
        if y not in ignored and not 0 <= y < classes:
            raise IndexError(f"{name}{place} = {y} is outside [0, {classes})")
    return [None if y in ignored else y for y in ids]


def read_ignored(ignore_index: IgnoreIndex) -> set[int]:
    """The class ids that stand for an ignored row."""
    return set() if ignore_index is None else one_or_several("ignore_index", ignore_index)


def _integer_or_float(name: str, value: Nested) -> int | float:
    return value if isinstance(value, float) else integer(name, value)

"""Nested lists: read, checked, cut into rows, joined and nested again.

They stand for arrays of any rank. What the numbers mean is not known here; a bad argument is named.

The one idea: a table of rows. Whatever the rank and the axis of the classes, a function sees a list
of rows, in the order of the other axes, and `Table.join` puts its answers back where they belong.
"""

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias, TypeVar

Nested: TypeAlias = Any  # a number or nested lists of numbers; how deep, only the call knows
Shape: TypeAlias = tuple[int, ...]
Leaf = TypeVar("Leaf")


class AxisError(ValueError, IndexError):
    """An axis that the logits do not have: both kinds of error at once, as in NumPy."""


# Tables.


@dataclass(frozen=True)
class Table:
    """Numbers as rows along one axis, that of the classes."""

    name: str
    shape: Shape
    axis: int
    rows: list[list[float]]

    @property
    def classes(self) -> int:
        """How many classes there are: V."""
        return self.shape[self.axis]

    @property
    def rows_shape(self) -> Shape:
        """The shape without the axis of the classes."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def keepdims_shape(self) -> Shape:
        """The shape with one class."""
        return (*self.shape[: self.axis], 1, *self.shape[self.axis + 1 :])

    def join(self, rows: list[list[float]]) -> Nested:
        """Other rows, nested as these were: `cut` run backwards."""
        outer, inner = math.prod(self.shape[: self.axis]), math.prod(self.shape[self.axis + 1 :])
        places = product(range(outer), range(self.classes), range(inner))
        return nest([rows[o * inner + k][i] for o, i, k in places], self.shape)

    def one_per_row(
        self, name: str, nested: Nested, leaf: Callable[[str, Nested], Leaf]
    ) -> list[Leaf]:
        """One number for each row, given in the shape of the rows."""
        shape, flat = read(name, nested, leaf)
        if shape != self.rows_shape:
            wanted = f"shape {self.rows_shape} to match {self.name} {self.shape}"
            raise ValueError(f"{name}: expected {wanted}, got {shape}")
        return flat

    def one_per_class(self, name: str, nested: Nested) -> list[float]:
        """One real number for each class, the same in all rows."""
        shape, flat = read(name, nested, real)
        if shape != (self.classes,):
            wanted = f"shape {(self.classes,)} to match {self.name} {self.shape}"
            raise ValueError(f"{name}: expected {wanted}, got {shape}")
        return flat

    def one_per_place(
        self, name: str, nested: Nested, leaf: Callable[[str, Nested], Leaf]
    ) -> list[list[Leaf]]:
        """Rows of what broadcasts to this shape; what has one axis lies along the classes."""
        given, flat = read(name, nested, leaf)
        shape = given + (1,) * (len(self.shape) - 1 - self.axis) if len(given) == 1 else given
        shape = (1,) * (len(self.shape) - len(shape)) + shape
        if len(shape) > len(self.shape) or any(
            length not in (1, wanted) for length, wanted in zip(shape, self.shape, strict=True)
        ):
            wanted = f"shape {(self.classes,)} or one that broadcasts to {self.shape}"
            raise ValueError(f"{name}: expected {wanted}, got {given}")
        repeated = []
        for place in product(*map(range, self.shape)):
            position = 0
            for index, length in zip(place, shape, strict=True):
                position = position * length + (index if length > 1 else 0)
            repeated.append(flat[position])
        return cut_flat(repeated, self.shape, self.axis)


def cut(name: str, nested: Nested, axis: int) -> Table:
    """The rows of nested lists along one axis."""
    shape, flat = read(name, nested, real)
    rank, axis = len(shape), operator.index(axis)
    if rank == 0:
        raise ValueError(f"{name}: expected at least one axis, got a number")
    if not -rank <= axis < rank:
        raise AxisError(f"axis: expected {-rank} to {rank - 1} for {name} {shape}, got {axis}")
    axis %= rank
    return Table(name, shape, axis, cut_flat(flat, shape, axis))


def cut_for_loss(name: str, nested: Nested, axis: int) -> Table:
    """The same where there has to be a class to be right about."""
    table = cut(name, nested, axis)
    if table.classes == 0:
        raise ValueError(f"{name}: expected at least one class, got shape {table.shape}")
    return table


def cut_flat(flat: list[Leaf], shape: Shape, axis: int) -> list[list[Leaf]]:
    """The rows along one axis of numbers that are in order."""
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    places = product(range(outer), range(inner))
    return [[flat[(o * size + i) * inner + k] for i in range(size)] for o, k in places]


# Nested lists.


def read(
    name: str, nested: Nested, leaf: Callable[[str, Nested], Leaf]
) -> tuple[Shape, list[Leaf]]:
    """The shape of nested lists, and their numbers in order, each checked by `leaf`."""
    if not isinstance(nested, list | tuple):
        return (), [leaf(name, nested)]
    parts = [read(name, part, leaf) for part in nested]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        raise ValueError(f"{name}: expected one shape side by side, got {sorted(shapes)}")
    inner = shapes.pop() if shapes else ()
    return (len(parts), *inner), [number for _, numbers in parts for number in numbers]


def nest(flat: list[Any], shape: Shape) -> Nested:
    """`read` run backwards."""
    if not shape:
        return flat[0]
    step = math.prod(shape[1:])
    return [nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def places(shape: Shape) -> list[str]:
    """The index of each number as Python writes it: `[1, 2]`; nothing where there is no axis."""
    return [str(list(place)) if place else "" for place in product(*map(range, shape))]


# Single numbers.


def real(name: str, value: Nested) -> float:
    """A real number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected numbers or lists of them, got {type(value).__name__}")
    return float(value)


def integer(name: str, value: Nested) -> int:
    """A whole number; True and False are none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected integers, got {type(value).__name__}")
    return operator.index(value)


def boolean(name: str, value: Nested) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return value


def positive(name: str, value: float) -> float:
    """A number that can be divided by."""
    if not 0 < real(name, value) < math.inf:
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")
    return float(value)


def fraction(name: str, value: float) -> float:
    """A part of 1."""
    if not 0 <= real(name, value) <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)


def one_or_several(name: str, value: int | Iterable[int]) -> set[int]:
    """Whole numbers, alone or in a collection."""
    several = value if isinstance(value, Iterable) else (value,)
    return {integer(name, number) for number in several}

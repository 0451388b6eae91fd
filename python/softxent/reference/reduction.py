"""From the losses of rows to the loss that is returned, and back: what a row's gradient is worth.

What a row's loss is made of is not known here: only which rows are valid, and what each adds to the
denominator of a mean.

The one idea: every reduction is a sum divided by one number, and a row's gradient is divided by the
same. Nothing to take a mean of is None in place of that number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from softxent.reference.lists import Nested, Shape, integer, nest, positive, read, real
from softxent.reference.sums import divide, total

REDUCTIONS = ("mean", "sum", "none", "sequence_mean")
ON_EMPTY = ("nan", "zero", "raise")


@dataclass(frozen=True)
class Reduction:
    """The options of a reduction.

    "none" is the loss of each row; "sum" theirs; "mean" the sum over the sum of what the valid rows
    weigh, or over `normalizer`; "sequence_mean" the sum over the number of sequences: B for rows of
    shape (B, T), or S for rows that `offsets`, of length S + 1, cuts apart. `on_empty` decides what
    a mean over nothing is: "nan", "zero" or "raise".
    """

    kind: str
    offsets: Nested
    normalizer: float | None
    on_empty: str

    def __post_init__(self) -> None:
        """Check the names, and that each option has a use."""
        if self.kind not in REDUCTIONS:
            raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {self.kind!r}")
        if self.on_empty not in ON_EMPTY:
            raise ValueError(f"on_empty: expected one of {ON_EMPTY}, got {self.on_empty!r}")
        if self.normalizer is not None:
            if self.kind != "mean":
                wanted = f"None with {self.kind!r}"
                raise ValueError(f"normalizer: expected {wanted}, got {self.normalizer!r}")
            positive("normalizer", self.normalizer)
        if self.offsets is not None and self.kind != "sequence_mean":
            raise ValueError(f"offsets: expected None with {self.kind!r}, got {self.offsets!r}")

    def denominator(self, shape: Shape, masses: Sequence[float | None]) -> float | None:
        """What the sum of the rows is divided by, None for a mean over nothing.

        `masses` says of each row what it weighs in a mean, None for a row that is not valid.
        """
        denominator: float | None = 1.0
        if self.normalizer is not None:
            denominator = self.normalizer
        elif self.kind == "mean":
            valid = [mass for mass in masses if mass is not None]
            denominator = total(valid) if valid else None
        elif self.kind == "sequence_mean":
            denominator = self._sequences(shape, len(masses)) or None
        if denominator is None and self.on_empty == "raise":
            wanted = f"something to take the {self.kind} of"
            raise ValueError(f"reduction: expected {wanted}, got nothing")
        return denominator

    def _sequences(self, shape: Shape, rows: int) -> int:
        """How many sequences there are; where they are cut makes no difference to the sum of rows."""
        if self.offsets is None:
            if len(shape) != 2:
                wanted = "logits of three axes, or offsets, for 'sequence_mean'"
                raise ValueError(f"reduction: expected {wanted}, got rows of shape {shape}")
            return shape[0]
        offsets_shape, cuts = read("offsets", self.offsets, integer)
        if len(offsets_shape) != 1 or not cuts:
            raise ValueError(f"offsets: expected shape (S + 1,), got {offsets_shape}")
        if cuts[0] != 0 or cuts[-1] != rows or cuts != sorted(cuts):
            raise ValueError(f"offsets: expected to rise from 0 to {rows}, got {cuts}")
        return len(cuts) - 1

    def loss(self, losses: list[float], shape: Shape, denominator: float | None) -> Nested:
        """The loss that is returned, of the losses of the rows (0 for those that are not valid)."""
        if self.kind == "none":
            return nest(losses, shape)
        if denominator is None:
            return math.nan if self.on_empty == "nan" else 0.0
        return divide(total(losses), denominator)

    def upstream(self, grad_output: Nested, shape: Shape) -> list[float]:
        """The gradient of what comes after with respect to the loss that each row is part of."""
        given, factors = read("grad_output", 1.0 if grad_output is None else grad_output, real)
        if given == ():
            return factors * math.prod(shape)
        if self.kind != "none" or given != shape:
            wanted = f"a number or, with 'none', shape {shape}"
            raise ValueError(f"grad_output: expected {wanted}, got shape {given}")
        return factors

"""Totals of an evaluation: sums that are exact however the rows were cut into batches.

Knows nothing of logits: it takes what is known of each row. The one idea: a double is a whole number of units
of 2**-1126, so a sum of doubles is a Python integer. Nothing is rounded until the totals are asked for, and
then once; the order of the rows, of batches and of processes leaves no trace.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_UNIT = (
    1126  # a double is a multiple of 2**-_UNIT: 53 bits below the smallest exponent of frexp, -1073
)
_LOW = 27  # bits of the lower half of a mantissa: 2**26 of them add up exactly in a double
_ROWS = 2**26


@dataclass(frozen=True)
class Totals:
    """What the rows of an evaluation add up to.

    Attributes
    ----------
    rows, ignored : int
        How many rows there were, and how many of them were ignored: by `ignore_index` or a weight of 0.
    weight : float
        The sum of the weights of the others.
    loss, loss_standard_error : float
        The weighted mean of the negative log-likelihood, in nats, and its standard error.
    perplexity, perplexity_standard_error : float
        The exponential of the loss, and its standard error to first order: the perplexity times that of the
        loss.
    bits_per_token : float
        The loss in bits.
    accuracy : float
        The weighted share of rows whose most probable class is the one that came.
    top_k_accuracy : dict of int to float
        For each k the weighted share of rows with fewer than k classes more probable than the one that came.
    """

    rows: int
    ignored: int
    weight: float
    loss: float
    loss_standard_error: float
    perplexity: float
    perplexity_standard_error: float
    bits_per_token: float
    accuracy: float
    top_k_accuracy: dict[int, float]


@dataclass
class ExactSum:
    """A sum of doubles, exact."""

    units: int = 0
    #: The sum of what is not finite: 0, infinite or NaN.
    special: float = 0.0

    def add(self, values: Doubles) -> None:
        """Adds each of some numbers."""
        finite = np.isfinite(values)
        if not finite.all():
            with np.errstate(invalid="ignore"):
                self.special += float(values[~finite].sum())
            values = values[finite]
        for start in range(0, len(values), _ROWS):
            fraction, exponent = np.frexp(values[start : start + _ROWS])
            mantissa = (fraction * 2.0**53).astype(np.int64)
            shift = exponent + (_UNIT - 53)
            lowest = int(shift.min())
            low = np.bincount(shift - lowest, mantissa & (2**_LOW - 1))
            high = np.bincount(shift - lowest, mantissa >> _LOW)
            for i in np.flatnonzero((low != 0) | (high != 0)).tolist():
                self.units += (int(low[i]) + (int(high[i]) << _LOW)) << (lowest + i)

    def merge(self, other: "ExactSum") -> None:
        """Adds what another sum holds."""
        self.units += other.units
        self.special += other.special

    def rounded(self) -> float:
        """The sum as a double."""
        return self.special if self.special != 0.0 else _ratio(self.units, 1 << _UNIT)


@dataclass
class Tally:
    """The sums from which the totals are made."""

    top_k: tuple[int, ...]
    #: The sum of u over the rows within each of `top_k`, and over those that were predicted.
    within: list[ExactSum]
    correct: ExactSum = field(default_factory=ExactSum)
    rows: int = 0
    ignored: int = 0
    #: The sums of u, of u nll, and of u^2, u^2 nll and u^2 nll^2.
    weight: ExactSum = field(default_factory=ExactSum)
    loss: ExactSum = field(default_factory=ExactSum)
    squares: list[ExactSum] = field(default_factory=lambda: [ExactSum() for _ in range(3)])

    @classmethod
    def of_nothing(cls, top_k: tuple[int, ...]) -> "Tally":
        """A tally before the first row."""
        return cls(top_k, [ExactSum() for _ in top_k])

    def add(self, rows: Mapping[str, Any]) -> None:
        """Counts rows as `_core.evaluate` describes them."""
        valid = rows["valid"]
        nll = rows["exact_nll"][valid]
        weights = np.ones(len(nll)) if rows["weights"] is None else rows["weights"][valid]
        rank = np.reshape(rows["rank"], -1)[valid]
        self.rows += len(valid)
        self.ignored += len(valid) - len(nll)
        self.weight.add(weights)
        self.correct.add(weights[np.reshape(rows["correct"], -1)[valid]])
        for k, within in zip(self.top_k, self.within, strict=True):
            within.add(weights[(rank >= 0) & (rank < k)])
        with np.errstate(over="ignore", invalid="ignore"):
            self.loss.add(weights * nll)
            for power, square in enumerate(self.squares):
                square.add(weights * weights * nll**power)

    def merge(self, other: "Tally") -> None:
        """Counts what another tally has counted."""
        if self.top_k != other.top_k:
            raise ValueError(f"other: expected top_k {self.top_k}, got {other.top_k}")
        self.rows += other.rows
        self.ignored += other.ignored
        for ours, theirs in zip(self._sums(), other._sums(), strict=True):
            ours.merge(theirs)

    def totals(self) -> Totals:
        """What all that was counted adds up to."""
        loss = self._share(self.loss)
        error = self._standard_error()
        perplexity = _exp(loss)
        return Totals(
            rows=self.rows,
            ignored=self.ignored,
            weight=self.weight.rounded(),
            loss=loss,
            loss_standard_error=error,
            perplexity=perplexity,
            perplexity_standard_error=perplexity * error,
            bits_per_token=loss / math.log(2),
            accuracy=self._share(self.correct),
            top_k_accuracy={
                k: self._share(within) for k, within in zip(self.top_k, self.within, strict=True)
            },
        )

    def _sums(self) -> list[ExactSum]:
        return [self.weight, self.correct, self.loss, *self.squares, *self.within]

    def _share(self, part: ExactSum) -> float:
        """A sum over the weight of the rows, rounded once."""
        if part.special != 0.0 or self.weight.special != 0.0 or self.weight.units == 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                return float(np.divide(part.rounded(), self.weight.rounded()))
        return _ratio(part.units, self.weight.units)

    def _standard_error(self) -> float:
        """The root of ``n / (n - 1) * sum u^2 (nll - loss)^2 / weight^2``."""
        count = self.rows - self.ignored
        if count < 2 or self.weight.units == 0 or any(part.special for part in self._sums()):
            return math.nan
        weight, loss = self.weight.units, self.loss.units
        ones, losses, squares = (part.units for part in self.squares)
        # The sum times weight^2, in integers. The products were rounded before they were added, so what
        # should be 0 may be less.
        spread = max(0, squares * weight**2 - 2 * losses * loss * weight + ones * loss**2)
        return math.sqrt(_ratio((spread * count) << _UNIT, (count - 1) * weight**4))


def _ratio(a: int, b: int) -> float:
    try:
        return a / b  # of integers Python rounds the exact quotient
    except OverflowError:
        return math.copysign(math.inf, a) * math.copysign(1, b)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf

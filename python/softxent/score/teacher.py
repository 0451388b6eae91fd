"""How far a model is from another one on the same tokens, as reports on quantised models have it.

Knows what was found of the rows of both, and their divergence. The difference of the losses is taken row by
row too, before it is averaged: most of what makes one token harder than another is the same for both models.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent.curves.distribution import Distribution
from softxent.score.rows import Columns
from softxent.totals import Tally

PERCENTILES = [50.0, 90.0, 95.0, 99.0, 99.9]


class Mean:
    """A weighted mean and its standard error, with the formula of `softxent.evaluate`."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._count = 0
        self._weight = self._sum = 0.0
        self._squares = np.zeros(3)

    def add(self, values: NDArray[Any], weights: NDArray[Any]) -> None:
        """Count values."""
        x = values.astype(np.float64)
        self._count += len(x)
        self._weight += float(weights.sum())
        self._sum += float((weights * x).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            self._squares += [float((weights**2 * x**power).sum()) for power in range(3)]

    @property
    def value(self) -> float:
        """The mean, NaN where nothing counts."""
        return self._sum / self._weight if self._weight else math.nan

    @property
    def error(self) -> float:
        """Its standard error, NaN for fewer than two values."""
        if self._count < 2 or not self._weight or not math.isfinite(self._sum):
            return math.nan
        ones, values, squares = self._squares.tolist()
        spread = max(0.0, squares - 2 * self.value * values + self.value**2 * ones)
        return math.sqrt(self._count / (self._count - 1) * spread) / self._weight


class TeacherReport:
    """Divergence from the teacher, agreement on the best class, and what the loss has changed by."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._tally = Tally.of_nothing(())
        self._divergences = Distribution()
        self._divergence, self._agreement = Mean(), Mean()
        self._loss_change, self._p_change, self._p_square = Mean(), Mean(), Mean()

    def add(self, model: Columns, teacher: Columns) -> None:
        """Count rows: what is known of them from the model, and from the teacher."""
        self._tally.add(teacher)
        there = model["valid"]
        weights, divergence = model["weights"][there], teacher["divergence"][there]
        self._divergences.add(divergence)
        self._divergence.add(divergence, weights)
        self._agreement.add((model["predicted"] == teacher["predicted"])[there], weights)
        ours, before = (each["nll"][there].astype(np.float64) for each in (model, teacher))
        with np.errstate(invalid="ignore"):
            self._loss_change.add(ours - before, weights)
        change = np.exp(-ours) - np.exp(-before)
        self._p_change.add(change, weights)
        self._p_square.add(change**2, weights)

    def as_dict(self) -> dict[str, Any]:
        """The report by name; probabilities and losses of the classes that came."""
        totals = self._tally.totals()
        ratio = math.exp(min(self._loss_change.value, 700.0))
        return {
            "kl_divergence": self._divergence.value,
            "kl_divergence_standard_error": self._divergence.error,
            "kl_divergence_percentiles": dict(
                zip(PERCENTILES, self._divergences.percentiles(PERCENTILES), strict=True)
            ),
            "kl_divergence_max": self._divergences.largest if self._divergences.count else math.nan,
            "top_1_agreement": self._agreement.value,
            "teacher_loss": totals.loss,
            "teacher_perplexity": totals.perplexity,
            "loss_change": self._loss_change.value,
            "loss_change_standard_error": self._loss_change.error,
            "perplexity_ratio": ratio,
            "perplexity_ratio_standard_error": ratio * self._loss_change.error,
            "probability_change": self._p_change.value,
            "probability_change_rms": math.sqrt(self._p_square.value),
        }

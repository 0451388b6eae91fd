"""How often the model is right when it says that it is so sure: the data of a reliability diagram."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Calibration:
    """Rows by how sure the model was of the most probable class, in bins of equal width.

    The expected calibration error is ``sum_b w_b |accuracy_b - confidence_b|`` with each bin's share w_b of
    the weight: 0 if among the rows with a confidence of 80 % always 80 % are right.
    """

    def __init__(self, bins: int = 15) -> None:
        """ValueError unless there is a bin."""
        if bins < 1:
            raise ValueError(f"bins: expected at least 1, got {bins}")
        self.edges = np.linspace(0, 1, bins + 1)
        self.weights = np.zeros(bins)
        self._confident = np.zeros(bins)
        self._correct = np.zeros(bins)

    def add(
        self,
        confidence: NDArray[Any],
        correct: NDArray[Any],
        sample_weight: NDArray[Any] | None = None,
    ) -> None:
        """Count rows; where the confidence is NaN, there was no most probable class and nothing counts."""
        there = ~np.isnan(confidence)
        sure = confidence[there].astype(np.float64)
        weights = np.ones(len(sure)) if sample_weight is None else sample_weight[there]
        bins = len(self.weights)
        # A confidence on an edge belongs below it, as 1 must.
        index = np.clip(np.ceil(sure * bins).astype(np.intp) - 1, 0, bins - 1)
        self.weights += np.bincount(index, weights, bins)
        self._confident += np.bincount(index, weights * sure, bins)
        self._correct += np.bincount(index, weights * correct[there], bins)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The mean confidence in each bin, NaN in empty ones."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._confident / self.weights

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The share of rows that are right in each bin, NaN in empty ones."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._correct / self.weights

    @property
    def expected_error(self) -> float:
        """The expected calibration error, NaN where nothing was counted."""
        total = float(self.weights.sum())
        if total == 0:
            return math.nan
        return float(np.abs(self._correct - self._confident).sum() / total)

"""How many rows have which value: percentiles and histograms of numbers that are never below 0.

The one idea: the bits of such a float32, read as an integer, are in the order of the numbers. So the
leading bits are a bin, whose width is a fixed share of the value, be that 1e-9 or 1000; no range has to be
known beforehand.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DROPPED = (
    11  # of the 31 bits behind the sign: 12 of the significand are left, bins are 1/4096 wide
)
_BINS = 2 ** (31 - _DROPPED)
_INFINITE = 0x7F800000 >> _DROPPED


class Distribution:
    """Counts of values by their leading bits: percentiles are right to 1 in 8000."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._counts = np.zeros(_BINS, np.int64)
        self.nan = 0
        self.largest = 0.0

    @property
    def count(self) -> int:
        """How many values there were, NaN left out."""
        return int(self._counts.sum())

    @property
    def infinite(self) -> int:
        """How many of them were infinite."""
        return int(self._counts[_INFINITE])

    @property
    def largest_finite(self) -> float:
        """The largest of those that are finite, to 1 in 8000; 0 if there are none."""
        used = np.flatnonzero(self._counts[:_INFINITE])
        return min(float(_middles(used[-1:])[0]), self.largest) if used.size else 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Count values, of any shape."""
        flat = np.maximum(np.ravel(values).astype(np.float32), np.float32(0))  # also -0; NaN stays
        nan = np.isnan(flat)
        self.nan += int(nan.sum())
        numbers = flat[~nan]
        if numbers.size:
            self.largest = max(self.largest, float(numbers.max()))
            bins, counts = np.unique(numbers.view(np.uint32) >> _DROPPED, return_counts=True)
            self._counts[bins] += counts

    def percentiles(self, percents: list[float]) -> list[float]:
        """The values below which so many percent of the values lie; NaN if there are none."""
        if self.count == 0:
            return [float("nan")] * len(percents)
        rank = np.asarray(percents) / 100 * (self.count - 1)
        used = np.flatnonzero(self._counts)  # of a million bins
        places = np.searchsorted(np.cumsum(self._counts[used]), np.floor(rank), side="right")
        middles = np.minimum(_middles(used[places]), self.largest)
        return [float(value) for value in middles]

    def histogram(self, edges: NDArray[Any]) -> NDArray[np.int64]:
        """How many finite values lie between each edge and the next, the last one included."""
        bins = np.flatnonzero(self._counts[:_INFINITE])
        middles = np.minimum(_middles(bins), self.largest)
        counts, _ = np.histogram(middles, edges, weights=self._counts[bins])
        return counts.astype(np.int64)


def _middles(bins: NDArray[Any]) -> NDArray[np.float64]:
    low = (bins.astype(np.uint32) << _DROPPED).view(np.float32).astype(np.float64)
    after = np.minimum(bins + 1, _INFINITE)
    high = (after.astype(np.uint32) << _DROPPED).view(np.float32).astype(np.float64)
    # The first bin is that of 0, and the infinite one has no other end.
    with np.errstate(invalid="ignore"):
        return np.where((bins == 0) | (bins >= _INFINITE), low, low + (high - low) / 2)

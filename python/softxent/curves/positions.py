"""The mean loss by position in a sequence: later tokens have more to go by.

The one idea: the longest sequence is not known beforehand, so whenever one is longer than the bins reach, two
neighbours become one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 512


class LossByPosition:
    """The weighted mean loss at each position, or, in long sequences, at 2, 4, 8 ... neighbouring ones."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.width = 1
        self._losses = np.zeros(BINS)
        self._weights = np.zeros(BINS)

    def add(
        self,
        positions: NDArray[Any],
        nll: NDArray[Any],
        sample_weight: NDArray[Any] | None = None,
    ) -> None:
        """Count rows at positions, which start at 0."""
        if not positions.size:
            return
        while int(positions.max()) >= BINS * self.width:
            self._losses = _halved(self._losses)
            self._weights = _halved(self._weights)
            self.width *= 2
        index = positions // self.width
        weights = np.ones(len(nll)) if sample_weight is None else sample_weight
        self._losses += np.bincount(index, weights * nll.astype(np.float64), BINS)
        self._weights += np.bincount(index, weights, BINS)

    @property
    def positions(self) -> NDArray[np.float64]:
        """The middle of the positions that each mean is over."""
        used = np.flatnonzero(self._weights)
        return (used * self.width + (self.width - 1) / 2).astype(np.float64)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The mean loss there, in nats."""
        used = np.flatnonzero(self._weights)
        return self._losses[used] / self._weights[used]


def _halved(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    halved = np.zeros(BINS)
    halved[: BINS // 2] = bins.reshape(-1, 2).sum(axis=1)
    return halved

"""The loss at other temperatures: which one would have fitted the model's logits best."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softxent.functions.cross_entropy import cross_entropy


class TemperatureCurve:
    """The mean loss at each of some temperatures, of the same rows."""

    def __init__(self, temperatures: Iterable[float]) -> None:
        """ValueError unless there is a temperature; a bad one is refused when the first rows come."""
        self.temperatures = np.array(list(temperatures), np.float64)
        if self.temperatures.size == 0:
            raise ValueError("temperatures: expected at least one, got none")
        self._sums = np.zeros(len(self.temperatures))
        self._weight = 0.0

    def add(self, logits: ArrayLike, targets: ArrayLike, weight: float, **options: Any) -> None:
        """Count rows of that weight together; options are those of `softxent.cross_entropy`."""
        for i, temperature in enumerate(self.temperatures.tolist()):
            self._sums[i] += cross_entropy(
                logits,
                targets,
                temperature=temperature,
                reduction="sum",
                dtype=np.float64,
                **options,
            )
        self._weight += weight

    @property
    def losses(self) -> NDArray[np.float64]:
        """The mean loss at each temperature, in nats; NaN where nothing counts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sums / np.float64(self._weight)

    @property
    def best(self) -> float:
        """The temperature of the lowest mean loss; NaN where there is none."""
        losses = self.losses
        if np.isnan(losses).all():
            return float("nan")
        return float(self.temperatures[np.nanargmin(losses)])

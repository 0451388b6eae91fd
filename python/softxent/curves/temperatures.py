"""The loss at other temperatures: which one would have fitted the model's logits best."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softxent.functions.cross_entropy import cross_entropy
from softxent.totals import Totals


def losses_at(
    temperatures: Iterable[float], logits: ArrayLike, targets: ArrayLike, **options: Any
) -> NDArray[np.float64]:
    """The sum of the rows' losses at each temperature; options are those of `softxent.cross_entropy`."""
    losses = [
        cross_entropy(
            logits, targets, temperature=each, reduction="sum", dtype=np.float64, **options
        )
        for each in temperatures
    ]
    return np.array(losses, np.float64)


class TemperatureCurve:
    """The mean loss at each of some temperatures, of the same rows."""

    def __init__(self, temperatures: Iterable[float]) -> None:
        """ValueError unless there is a temperature; `losses_at` refuses bad ones."""
        self.temperatures = np.array(list(temperatures), np.float64)
        if self.temperatures.size == 0:
            raise ValueError("temperatures: expected at least one, got none")
        self._sums = np.zeros(len(self.temperatures))
        self._weight = 0.0

    @classmethod
    def of_totals(cls, totals: Mapping[float, Totals]) -> "TemperatureCurve":
        """The curve through evaluations by their temperature; ValueError if their rows are not the same."""
        found = cls(sorted(totals))
        in_order = [totals[temperature] for temperature in sorted(totals)]
        if len({(each.rows, each.ignored, each.weight) for each in in_order}) > 1:
            counts = ", ".join(f"{each.rows - each.ignored:,}" for each in in_order)
            raise ValueError(
                f"evaluations: expected the same rows at each temperature, got {counts}"
            )
        found._sums[:] = [each.loss for each in in_order]
        found._weight = 1.0
        return found

    def add(self, sums: NDArray[np.float64], weight: float) -> None:
        """Count rows of that weight together, with the sums of their losses at each temperature."""
        self._sums += sums
        self._weight += weight

    @property
    def losses(self) -> NDArray[np.float64]:
        """The mean loss at each temperature, in nats; NaN where nothing counts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sums / np.float64(self._weight)

    @property
    def best(self) -> float:
        """The temperature of the lowest mean loss; NaN where none is finite."""
        losses = np.where(np.isfinite(self.losses), self.losses, np.inf)
        if np.isinf(losses).all():
            return float("nan")
        return float(self.temperatures[losses.argmin()])

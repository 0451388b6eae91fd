"""The loss at other temperatures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from softxent.curves.rows import counted, row_weights
from softxent.curves.temperatures import TemperatureCurve, losses_at
from softxent.functions.evaluation import evaluate
from softxent.plots.axes import Drawn
from softxent.totals import Totals

DEFAULT_TEMPERATURES = tuple(np.geomspace(0.5, 2.0, 25).tolist())


class TemperatureDisplay(Drawn):
    """The mean loss against the temperature, with the best one.

    Attributes
    ----------
    temperatures, losses : ndarray, shape (K,)
        The mean loss, in nats, at each temperature.
    best : float
        The temperature of the lowest loss.
    ax_, figure_
        matplotlib's, once drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent.plots import TemperatureDisplay
    >>> logits = 2 * np.log([[0.8, 0.2]] * 5)  # too sure by a factor of 2
    >>> display = TemperatureDisplay.from_logits(logits, [0, 0, 0, 0, 1], temperatures=[1.0, 2.0, 4.0])
    >>> display.best
    2.0
    """

    def __init__(self, curve: TemperatureCurve) -> None:
        """The losses that were gathered."""
        self.temperatures = curve.temperatures
        self.losses = curve.losses
        self.best = curve.best

    @classmethod
    def from_evaluation(
        cls, evaluations: Mapping[float, Totals], *, ax: Any = None
    ) -> "TemperatureDisplay":
        """Draw evaluations of the same rows, each by its temperature: one alone says nothing of others.

        Results of `softxent.Evaluator` do as well, for data that comes in batches. ValueError if there is
        none, or if they are not of the same rows.
        """
        display: TemperatureDisplay = cls(TemperatureCurve.of_totals(evaluations)).plot(ax)
        return display

    @classmethod
    def from_logits(
        cls,
        logits: ArrayLike,
        targets: ArrayLike,
        *,
        temperatures: ArrayLike = DEFAULT_TEMPERATURES,
        ax: Any = None,
        **options: Any,
    ) -> "TemperatureDisplay":
        """Compute and draw; `options` and errors are those of `softxent.evaluate`, but `temperature`."""
        evaluation = evaluate(logits, targets, **options)
        there = counted(evaluation)
        weights = row_weights(evaluation, options.get("sample_weight"))
        curve = TemperatureCurve(np.ravel(np.asarray(temperatures, np.float64)).tolist())
        sums = losses_at(curve.temperatures.tolist(), logits, targets, **options)
        curve.add(sums, float(weights[there].sum()))
        display: TemperatureDisplay = cls(curve).plot(ax)
        return display

    def _draw(self, ax: Any) -> None:
        ax.plot(self.temperatures, self.losses, color="C0", marker="o", markersize=3)
        title = "Loss by temperature"
        if np.isfinite(self.best):
            at_an_end = self.best in (self.temperatures.min(), self.temperatures.max())
            label = f"best: {self.best:.3g}{' or beyond' if at_an_end else ''}"
            ax.axvline(self.best, color="C1", linestyle="--", label=label)
            ax.legend()
        else:
            title += ": none is finite"
        ax.set(xlabel="temperature", ylabel="mean loss (nats per token)", title=title)
        ax.grid(alpha=0.3)

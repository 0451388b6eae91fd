"""How many tokens have which loss."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from softxent.curves.distribution import Distribution
from softxent.curves.rows import counted
from softxent.functions.evaluation import Evaluation, evaluate
from softxent.plots.axes import Drawn

BARS = 60
MEDIAN_AND_TAIL = [50.0, 99.0]


class LossHistogramDisplay(Drawn):
    """A histogram of the losses of all tokens that count, with their mean, median and 99th percentile.

    Attributes
    ----------
    edges : ndarray, shape (bars + 1,)
        Of the bars, in nats.
    counts : ndarray of int64, shape (bars,)
        How many tokens lie in each.
    infinite, nan : int
        How many lie in none, being infinite or NaN.
    mean, median, percentile_99 : float
        Of the losses, in nats.
    ax_, figure_
        matplotlib's, once drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent.plots import LossHistogramDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = LossHistogramDisplay.from_logits(rng.normal(size=(500, 50)), rng.integers(50, size=500))
    >>> int(display.counts.sum()), display.ax_.get_xlabel()
    (500, 'loss (nats per token)')
    """

    def __init__(self, distribution: Distribution, mean: float, *, bars: int = BARS) -> None:
        """`distribution` of the losses, and their mean; ValueError unless there is a bar."""
        if bars < 1:
            raise ValueError(f"bars: expected at least 1, got {bars}")
        self.mean = mean
        self.median, self.percentile_99 = distribution.percentiles(MEDIAN_AND_TAIL)
        self.edges = np.linspace(0, max(distribution.largest_finite, 1e-6), bars + 1)
        self.counts = distribution.histogram(self.edges)
        self.infinite, self.nan = distribution.infinite, distribution.nan

    @classmethod
    def from_evaluation(cls, evaluation: Evaluation, *, ax: Any = None) -> "LossHistogramDisplay":
        """Draw the losses of an evaluation; ImportError without matplotlib."""
        distribution = Distribution()
        distribution.add(np.ravel(evaluation.nll)[counted(evaluation)])
        display: LossHistogramDisplay = cls(distribution, evaluation.loss).plot(ax)
        return display

    @classmethod
    def from_logits(
        cls, logits: ArrayLike, targets: ArrayLike, *, ax: Any = None, **options: Any
    ) -> "LossHistogramDisplay":
        """Evaluate and draw; `options` and errors are those of `softxent.evaluate`."""
        return cls.from_evaluation(evaluate(logits, targets, **options), ax=ax)

    def _draw(self, ax: Any) -> None:
        ax.stairs(self.counts, self.edges, fill=True, color="C0", alpha=0.75)
        for value, name, style in (
            (self.median, "median", ":"),
            (self.mean, "mean", "-"),
            (self.percentile_99, "99 %", "--"),
        ):
            if np.isfinite(value):
                ax.axvline(value, color="C1", linestyle=style, label=f"{name} {value:.4g}")
        others = ((self.infinite, "infinite"), (self.nan, "NaN"))
        not_shown = "".join(f", {count:,} {what} not shown" for count, what in others if count)
        ax.set(xlabel="loss (nats per token)", ylabel="tokens")
        ax.set(title=f"Loss of the tokens{not_shown}", xlim=(0, 1.02 * self.edges[-1]))
        ax.grid(alpha=0.3)
        if np.isfinite([self.median, self.mean, self.percentile_99]).any():
            ax.legend()

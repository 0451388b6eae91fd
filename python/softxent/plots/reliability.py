"""How often the model is right when it is so sure."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softxent.curves.calibration import Calibration
from softxent.curves.rows import row_weights
from softxent.functions.evaluation import Evaluation, evaluate
from softxent.plots.axes import Drawn

BINS = 15


class ReliabilityDisplay(Drawn):
    """A reliability diagram: accuracy over confidence, with the expected calibration error.

    Attributes
    ----------
    confidence, accuracy : ndarray, shape (bins,)
        The mean probability of the most probable class in each bin, and how often it was the one that came;
        NaN in empty bins.
    share : ndarray, shape (bins,)
        How much of all tokens' weight lies in each bin.
    edges : ndarray, shape (bins + 1,)
        Of the bins.
    expected_error : float
        ``sum_b share_b |accuracy_b - confidence_b|``.
    ax_, figure_
        matplotlib's, once drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent.plots import ReliabilityDisplay
    >>> logits = np.log([[0.8, 0.2]] * 5)
    >>> display = ReliabilityDisplay.from_logits(logits, [0, 0, 0, 0, 1])
    >>> round(display.expected_error, 12)
    0.0
    """

    def __init__(self, calibration: Calibration) -> None:
        """The bins that were gathered."""
        self.edges = calibration.edges
        self.confidence = calibration.confidence
        self.accuracy = calibration.accuracy
        total = float(calibration.weights.sum())
        self.share = calibration.weights / (total or 1.0)
        self.expected_error = calibration.expected_error

    @classmethod
    def from_evaluation(
        cls,
        evaluation: Evaluation,
        *,
        sample_weight: ArrayLike | None = None,
        bins: int = BINS,
        ax: Any = None,
    ) -> "ReliabilityDisplay":
        """Draw from an evaluation; ValueError for `sample_weight` of another shape."""
        weights = row_weights(evaluation, sample_weight)
        calibration = Calibration(bins)
        calibration.add(np.ravel(evaluation.confidence), np.ravel(evaluation.correct), weights)
        display: ReliabilityDisplay = cls(calibration).plot(ax)
        return display

    @classmethod
    def from_logits(
        cls,
        logits: NDArray[Any],
        targets: ArrayLike,
        *,
        axis: int = -1,
        bins: int = BINS,
        ax: Any = None,
        **options: Any,
    ) -> "ReliabilityDisplay":
        """Evaluate and draw; `options` and errors are those of `softxent.evaluate`."""
        evaluation = evaluate(logits, targets, axis=axis, **options)
        weight = options.get("sample_weight")
        return cls.from_evaluation(evaluation, sample_weight=weight, bins=bins, ax=ax)

    def _draw(self, ax: Any) -> None:
        ax.stairs(
            self.share, self.edges, fill=True, color="C0", alpha=0.25, label="share of the tokens"
        )
        ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="calibrated")
        used = self.share > 0
        ax.plot(
            self.confidence[used],
            self.accuracy[used],
            color="C0",
            marker="o",
            markersize=4,
            label="accuracy",
            clip_on=False,  # all right, or all wrong, is on the frame
        )
        error = f"{self.expected_error:.2%}" if np.isfinite(self.expected_error) else "of nothing"
        ax.set(
            xlabel="confidence: probability of the predicted class",
            ylabel="share",
            title=f"Reliability: expected calibration error {error}",
            xlim=(0, 1),
            ylim=(0, 1),
        )
        ax.grid(alpha=0.3)
        ax.legend()

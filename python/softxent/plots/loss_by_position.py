"""The mean loss by position in a sequence."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softxent.curves.positions import LossByPosition
from softxent.curves.rows import counted, row_weights
from softxent.functions.evaluation import Evaluation, evaluate
from softxent.plots.axes import Drawn


class LossByPositionDisplay(Drawn):
    """The mean loss at each position: how much the tokens before it help.

    Attributes
    ----------
    positions, losses : ndarray, shape (P,)
        Positions from 0 on, and the mean loss in nats at each. In sequences longer than 512 each is over 2,
        4, 8 ... neighbours, and the position is their middle.
    ax_, figure_
        matplotlib's, once drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent.plots import LossByPositionDisplay
    >>> rng = np.random.default_rng(0)
    >>> logits, targets = rng.normal(size=(8, 32, 50)), rng.integers(50, size=(8, 32))
    >>> display = LossByPositionDisplay.from_logits(logits, targets)
    >>> len(display.positions), display.ax_.get_xlabel()
    (32, 'position in the sequence')
    """

    def __init__(self, curve: LossByPosition) -> None:
        """The means that were gathered."""
        self.positions = curve.positions
        self.losses = curve.losses

    @classmethod
    def from_evaluation(
        cls,
        evaluation: Evaluation,
        *,
        sample_weight: ArrayLike | None = None,
        offsets: ArrayLike | None = None,
        ax: Any = None,
    ) -> "LossByPositionDisplay":
        """Draw the losses of an evaluation of rows (..., T), or of packed rows that `offsets` cut.

        `sample_weight` is that of the evaluation, which does not hold it.
        """
        there = counted(evaluation)
        weights = row_weights(evaluation, sample_weight)
        places = _places(np.shape(evaluation.nll), offsets)
        curve = LossByPosition()
        curve.add(places[there], np.ravel(evaluation.nll)[there], weights[there])
        display: LossByPositionDisplay = cls(curve).plot(ax)
        return display

    @classmethod
    def from_logits(
        cls,
        logits: ArrayLike,
        targets: ArrayLike,
        *,
        offsets: ArrayLike | None = None,
        ax: Any = None,
        **options: Any,
    ) -> "LossByPositionDisplay":
        """Evaluate and draw; `options` and errors are those of `softxent.evaluate`."""
        weight = options.get("sample_weight")
        evaluation = evaluate(logits, targets, **options)
        return cls.from_evaluation(evaluation, sample_weight=weight, offsets=offsets, ax=ax)

    def _draw(self, ax: Any) -> None:
        few = len(self.positions) <= 64
        ax.plot(self.positions, self.losses, color="C0", marker="o" if few else "", markersize=3)
        ax.set(
            xlabel="position in the sequence",
            ylabel="mean loss (nats per token)",
            title="Loss by position",
        )
        ax.grid(alpha=0.3)


def _places(shape: tuple[int, ...], offsets: ArrayLike | None) -> NDArray[np.int64]:
    rows = np.arange(int(np.prod(shape)))
    if offsets is None:
        return rows % shape[-1] if shape and shape[-1] else rows
    starts = np.asarray(offsets, np.int64)
    ends = starts.ndim == 1 and starts.size and starts[0] == 0 and starts[-1] == len(rows)
    if not ends or (np.diff(starts) < 0).any():
        raise ValueError(f"offsets: expected to rise from 0 to {len(rows)}, got {starts}")
    return rows - starts[np.searchsorted(starts, rows, side="right") - 1]

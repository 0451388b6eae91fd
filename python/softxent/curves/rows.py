"""What can be said of each row of an evaluation: whether and how much it counts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softxent.functions.evaluation import Evaluation


def counted(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Which rows were not ignored, flat.

    An ignored row has the loss 0 and no normaliser; where a row that counts has none, its loss is NaN.
    """
    nll, lse = np.ravel(evaluation.nll), np.ravel(evaluation.lse)
    ignored: NDArray[np.bool_] = np.isnan(lse) & (nll == 0)
    return ~ignored


def row_weights(evaluation: Evaluation, sample_weight: ArrayLike | None) -> NDArray[np.float64]:
    """The weight of each row, flat; ValueError for another number of them."""
    rows = np.size(evaluation.nll)
    weights = np.ones(rows) if sample_weight is None else np.ravel(np.asarray(sample_weight, float))
    if len(weights) != rows:
        raise ValueError(f"sample_weight: expected {rows} rows, got {len(weights)}")
    return weights

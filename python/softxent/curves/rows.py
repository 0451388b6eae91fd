"""What can be said of each row of an evaluation: whether and how much it counts, how sure the model was."""

from typing import Any

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


def confidence(
    logits: NDArray[Any],
    predicted: NDArray[Any],
    lse: NDArray[Any],
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> NDArray[np.float64]:
    """The probability of each row's most probable class, flat; NaN where there is none.

    `logits` has the classes along its last axis; the others are an evaluation's, and what it was made with.
    """
    best = np.ravel(predicted)
    rows = logits.reshape(-1, logits.shape[-1])
    largest = rows[np.arange(len(rows)), np.maximum(best, 0)].astype(np.float64)
    if softcap is not None:
        largest = softcap * np.tanh(largest / softcap)
    with np.errstate(invalid="ignore"):
        p = np.exp(largest / temperature - np.ravel(lse).astype(np.float64))
    return np.where(best < 0, np.nan, np.minimum(p, 1.0))

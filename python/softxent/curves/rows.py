"""What can be said of each row from its evaluation: whether it counts, and how sure the model was."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent.functions.evaluation import Evaluation


def counted(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Which rows were not ignored, flat.

    An ignored row has the loss 0 and no normaliser; where a row that counts has none, its loss is NaN.
    """
    nll, lse = np.ravel(evaluation.nll), np.ravel(evaluation.lse)
    ignored: NDArray[np.bool_] = np.isnan(lse) & (nll == 0)
    return ~ignored


def confidence(
    logits: NDArray[Any],
    evaluation: Evaluation,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> NDArray[np.float64]:
    """The probability of each row's most probable class, flat; NaN where there is none.

    `logits` has the classes along its last axis; `temperature` and `softcap` are those of the evaluation.
    """
    predicted = np.ravel(evaluation.predicted)
    rows = logits.reshape(-1, logits.shape[-1])
    largest = rows[np.arange(len(rows)), np.maximum(predicted, 0)].astype(np.float64)
    if softcap is not None:
        largest = softcap * np.tanh(largest / softcap)
    with np.errstate(invalid="ignore"):
        p = np.exp(largest / temperature - np.ravel(evaluation.lse).astype(np.float64))
    return np.where(predicted < 0, np.nan, np.minimum(p, 1.0))

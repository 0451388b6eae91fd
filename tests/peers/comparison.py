"""What the comparisons with other libraries have in common: dtypes, random inputs, how near is near.

Knows no other library. They all compute in float64 here, whatever the dtype of the logits: so they are right
far beyond the precision that is checked, and what is left between the two is the rounding of our own result.
"""

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
REDUCTIONS = ("mean", "sum", "none")
LARGEST = 14.0
# A result in 16 bits is off by half a unit in its last place. The others are by 4 units, by one
# more for each nat between a logit and the largest of its row, and by half the logits' magnitude in
# units where they were divided by a temperature.
UNITS = 4 + 2 * LARGEST + LARGEST
RELATIVE = {
    "float16": 2**-11,
    "bfloat16": 2**-8,
    "float32": UNITS * 2**-23,
    "float64": UNITS * 2**-52,
}
SUBNORMAL = {"float16": 2**-24, "bfloat16": 2**-126, "float32": 2**-126, "float64": 2**-1022}
PEER_ERROR = 2**-49  # of the float64 results of others: they take p - 1, and log 1 + small


def random_logits(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    logits = np.random.default_rng(seed).normal(scale=4, size=shape)
    return np.clip(logits, -LARGEST, LARGEST).astype(DTYPES[dtype])


def random_targets(shape: tuple[int, ...], classes: int) -> Array:
    return np.random.default_rng(1).integers(0, classes, size=shape)


def random_weights(count: int) -> Array:
    return np.random.default_rng(2).integers(1, 9, size=count) / 4


def random_probabilities(shape: tuple[int, ...], axis: int = -1) -> Array:
    """Some of them 0, and not quite normalised."""
    random = np.random.default_rng(3)
    targets = random.standard_exponential(shape) * (random.random(shape) < 0.7)
    return np.asarray(targets / (1 + targets.sum(axis=axis, keepdims=True)))


def statistic(logits: Array) -> np.dtype[Any]:
    """The dtype of losses and log-sum-exps."""
    return np.dtype(np.float64 if logits.dtype == np.float64 else np.float32)


def rounding_of(logits: Array, terms: float) -> float:
    """What a result may be off by that is the difference of terms which are so large."""
    return RELATIVE[statistic(logits).name] * terms


def assert_close(actual: Any, expected: Any, *, absolute: float = 0.0) -> None:
    """Equal within the rounding of the dtype of ``actual``, and of the other library."""
    expected = np.asarray(expected)
    assert expected.dtype == np.float64
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    dtype = actual.dtype.name
    np.testing.assert_allclose(
        np.asarray(actual, np.float64),
        expected,
        rtol=1.01 * RELATIVE[dtype],
        atol=SUBNORMAL[dtype] + PEER_ERROR * largest + absolute,
    )

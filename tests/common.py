"""What tests of values have in common: dtypes and their precision, and what is near or the same.

Knows no function of the library. What may be wrong by how much is each test's own affair; here is only how
such an allowance is applied.
"""

import math
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Dtype: TypeAlias = np.dtype[Any]
Options: TypeAlias = dict[str, Any]
Thresholds: TypeAlias = tuple[int | None, int | None, int | None]

INF, NAN = math.inf, math.nan
FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
DTYPES = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]
# Half a unit in the last place, relatively; and what may be lost below the smallest normal number.
ROUNDING = {FLOAT16: 2.0**-11, BFLOAT16: 2.0**-8, FLOAT32: 2.0**-24, FLOAT64: 2.0**-53}
LOST = {FLOAT16: 2.0**-24, BFLOAT16: 2.0**-120, FLOAT32: 2.0**-120, FLOAT64: 2.0**-1000}
# The ways of working: as the sizes ask for; several threads; and stores that go past the caches.
THRESHOLDS: list[Thresholds] = [(None, None, None), (0, None, 1), (0, 0, 1)]

# The same cases in every run, however long they take; but for constants that Hypothesis finds in the modules
# that happen to be loaded, and draws now and then.
drawn = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def loss_dtype(dtype: Dtype) -> Dtype:
    """Of losses and statistics, for logits of a dtype."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def lists(value: Any) -> Any:
    """An array as the reference takes it, all floating dtypes as doubles; anything else as it is."""
    if not isinstance(value, np.ndarray | np.generic):
        return value
    return (value if value.dtype.kind in "biu" else value.astype(np.float64)).tolist()


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def near(expected: Any, tolerance: float = 1e-15) -> Any:
    """Equal up to a relative error; NaN is equal to NaN."""
    return pytest.approx(expected, rel=tolerance, abs=0.0, nan_ok=True)


def close(got: Any, expected: Any, dtype: Dtype, allowed: Any) -> None:
    """`got` has the dtype, and the values within what is allowed and one rounding to the dtype."""
    assert got.dtype == dtype
    values = np.asarray(got).astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = np.array(expected, np.float64).astype(dtype).astype(np.float64)
    assert values.shape == wanted.shape
    finite = np.isfinite(wanted) & np.isfinite(values)
    np.testing.assert_array_equal(values[~finite], wanted[~finite])
    with np.errstate(invalid="ignore"):
        error = np.abs(values - wanted)
    bound = np.nan_to_num(allowed) + 2 * ROUNDING[dtype] * np.abs(wanted) + LOST[dtype]
    beyond = np.argwhere(finite & (error > bound))
    for place in map(tuple, beyond[:1]):
        found = f"{values[place]!r} where {wanted[place]!r} was expected"
        pytest.fail(f"{list(place)}: {found}, off by {(error / bound)[place]:.2g} times the bound")

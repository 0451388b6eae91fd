"""What errors are measured on and counted in: rows by name, units in the last place, the worst of many.

The exact values are made by the tests themselves, each for its function.
"""

import math
from typing import Any, TypeAlias

import mpmath
import numpy as np
from common import (
    FLOAT32,
    Array,
    Dtype,
)

# By the name of the output: the error and what is allowed, in ulp, where they are closest.
Errors: TypeAlias = dict[str, tuple[float, float]]

mp = mpmath.mp.clone()
mp.dps = 60


def ulp(exact: Any, dtype: Dtype) -> Any:
    """A unit in the last place of a number, or of each of an array of them."""
    return np.spacing(np.abs(np.asarray(exact, np.float64)).astype(dtype)).astype(np.float64)


def note(errors: Errors, name: str, error: float, allowed: float) -> None:
    """Keeps of each output what is closest to its bound, or furthest beyond."""
    before, bound = errors.get(name, (0.0, 1.0))
    if name not in errors or error / allowed > before / bound:
        errors[name] = error, allowed


def assert_within(errors: Errors) -> None:
    beyond = {name: found for name, found in errors.items() if found[0] > found[1]}
    assert not beyond, "error and bound in ulp"


# So many different numbers a row has at most where they are random, since 60 digits take their time.
NUMBERS = 2000


def rows(classes: int, dtype: Dtype) -> dict[str, Array]:
    """Rows by name. Most have the same numbers, and so the same exponentials."""
    random = np.random.default_rng(classes)
    normal = random.standard_normal(min(classes, NUMBERS)).astype(dtype)
    if classes > NUMBERS:
        normal = random.choice(normal, classes)
    masked = np.where(random.random(classes) < 0.5, normal, -np.inf).astype(dtype)
    masked[classes // 2] = normal[classes // 2]
    # 1e-12 is left for the others.
    confident = normal.copy()
    confident[classes // 3] = -math.log(1e-12) + math.log(np.exp(normal.astype(np.float64)).sum())
    steps = np.arange(classes)
    stairs = steps if classes <= NUMBERS else steps // 16 * 16
    return {
        "normal": normal,
        "normal x 10": 10 * normal,
        "normal x 100": 100 * normal,
        "near one-hot": confident,
        "equal": np.full(classes, 2.7, dtype),
        "sorted up": np.sort(normal),
        "sorted down": np.sort(10 * normal)[::-1].copy(),
        "masked": masked,
        # In single precision each of the small terms is half a unit of the large one, or less.
        "one large": np.where(steps == 0, 0.3, -16.7).astype(dtype),
        "large and small side by side": np.where(steps % 64 < 16, 0.3, -16.7).astype(dtype),
        "large and small in quarters": np.where(4 * steps < classes, 0.3, -16.7).astype(dtype),
        "small before large in quarters": np.where(4 * steps < 3 * classes, -17.1, 0.2).astype(
            dtype
        ),
        # Just not enough in a block of 1024 for another reference, and just enough.
        "ramp that keeps the reference": (0.97 / 1024 * stairs).astype(dtype),
        "ramp that raises the reference": (1.03 / 1024 * stairs - 9).astype(dtype),
        "far from 0": (normal + dtype.type(1000)).astype(dtype),
        # What an lse is near 0 for.
        "log-probabilities": normal - np.log(np.exp(normal).sum(dtype=dtype)),
        "largest at 0": 5 * (normal - normal.max()),
    }


NAMES = list(rows(2, FLOAT32))

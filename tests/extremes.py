"""Rows that hold infinities, NaN, the largest numbers: what all tests of extremes put to use.

Literal rows with literal answers, the places around which kernels go wrong, and a comparison that takes no
NaN or infinity for a number. Calls nothing of the library.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from common import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    Array,
    Dtype,
    Thresholds,
)

SetThresholds: TypeAlias = Callable[[int | None, int | None, int | None], None]

LN2 = 0.6931471805599453
PRECISION = {FLOAT16: 1e-3, BFLOAT16: 4e-3, FLOAT32: 3e-7, FLOAT64: 1e-15}
LARGEST = {
    FLOAT16: 65504.0,
    BFLOAT16: (2 - 2.0**-7) * 2.0**127,
    FLOAT32: (2 - 2.0**-23) * 2.0**127,
    FLOAT64: (2 - 2.0**-52) * 2.0**1023,
}
# As the sizes ask for; and several threads, chunks of rows to threads, stores past the caches.
WAYS: list[Thresholds] = [(None, None, None), (0, 0, 1)]


def is_near(got: Any, expected: Any, roundings: float = 1.0) -> bool:
    """NaN, infinities and zeros where expected, other values as the dtype of `got` has them."""
    assert isinstance(got, np.ndarray | np.generic)
    values = np.asarray(got).astype(np.float64)
    wanted = np.array(expected, np.float64)
    assert values.shape == wanted.shape
    precision = roundings * PRECISION[np.dtype(got.dtype)]
    special = np.asarray(~np.isfinite(wanted) | (wanted == 0))
    near, exact = values[~special], wanted[~special]
    return np.array_equal(values[special], wanted[special], equal_nan=True) and bool(
        np.all(np.abs(near - exact) <= precision * np.abs(exact))
    )


# softmax([0, 1]): exp(-1) / (1 + exp(-1)) and the rest, their logarithms, log(1 + e).
P0, P1, LOG_P0, LOG_P1 = (
    0.2689414213699951, 0.7310585786300049, -1.3132616875182228, -0.31326168751822286,
)  # fmt: skip

# Rows, with a target, and what becomes of them:
# probabilities, log-probabilities, log-sum-exp, loss, gradient.
Case: TypeAlias = tuple[list[float], int, list[float], list[float], float, float, list[float]]
NANS = [NAN, NAN, NAN]
CASES: dict[str, Case] = {
    "-inf at the start": (
        [-INF, 0.0, 0.0], 1, [0.0, 0.5, 0.5], [-INF, -LN2, -LN2], LN2, LN2, [0.0, -0.5, 0.5],
    ),
    "-inf in the middle": (
        [0.0, -INF, 0.0], 2, [0.5, 0.0, 0.5], [-LN2, -INF, -LN2], LN2, LN2, [0.5, 0.0, -0.5],
    ),
    "-inf in the tail": (
        [0.0, 0.0, -INF], 0, [0.5, 0.5, 0.0], [-LN2, -LN2, -INF], LN2, LN2, [-0.5, 0.5, 0.0],
    ),
    "-inf everywhere but at the target": (
        [-INF, 3.0, -INF], 1, [0.0, 1.0, 0.0], [-INF, 0.0, -INF], 3.0, 0.0, [0.0, 0.0, 0.0],
    ),
    "-inf everywhere but at another class": (
        [-INF, 3.0, -INF], 2, [0.0, 1.0, 0.0], [-INF, 0.0, -INF], 3.0, INF, [0.0, 1.0, -1.0],
    ),
    "-inf at the target": (
        [5.0, -INF, 5.0], 1, [0.5, 0.0, 0.5], [-LN2, -INF, -LN2], 5 + LN2, INF, [0.5, -1.0, 0.5],
    ),
    "nothing but -inf": ([-INF, -INF, -INF], 0, NANS, NANS, -INF, NAN, NANS),
    "+inf at the target": ([0.0, INF, 0.0], 1, NANS, NANS, INF, NAN, NANS),
    "+inf at another class": ([INF, 0.0, 0.0], 1, NANS, NANS, INF, NAN, NANS),
    "nothing but +inf": ([INF, INF, INF], 2, NANS, NANS, INF, NAN, NANS),
    "both infinities": ([-INF, INF, -INF], 0, NANS, NANS, INF, NAN, NANS),
    "+inf and a target of -inf": ([INF, -INF, 0.0], 1, NANS, NANS, INF, NAN, NANS),
    "NaN at the target": ([0.0, NAN, 0.0], 1, NANS, NANS, NAN, NAN, NANS),
    "NaN at another class": ([NAN, 0.0, 0.0], 1, NANS, NANS, NAN, NAN, NANS),
    "NaN in the tail": ([0.0, 0.0, NAN], 1, NANS, NANS, NAN, NAN, NANS),
    "nothing but NaN": ([NAN, NAN, NAN], 0, NANS, NANS, NAN, NAN, NANS),
    "NaN at the target beside +inf": ([INF, NAN, 0.0], 1, NANS, NANS, NAN, NAN, NANS),
    "NaN beside +inf at the target": ([INF, NAN, 0.0], 0, NANS, NANS, NAN, NAN, NANS),
    "+inf before NaN": ([0.0, INF, NAN], 0, NANS, NANS, NAN, NAN, NANS),
    "NaN at the target beside -inf": ([-INF, NAN, -INF], 1, NANS, NANS, NAN, NAN, NANS),
    "NaN beside -inf at the target": ([-INF, NAN, -INF], 0, NANS, NANS, NAN, NAN, NANS),
    "both infinities and NaN": ([-INF, INF, NAN], 1, NANS, NANS, NAN, NAN, NANS),
    "one class": ([5.0], 0, [1.0], [0.0], 5.0, 0.0, [0.0]),
    "one class below 0": ([-5.0], 0, [1.0], [0.0], -5.0, 0.0, [0.0]),
    "one class, -inf": ([-INF], 0, [NAN], [NAN], -INF, NAN, [NAN]),
    "one class, +inf": ([INF], 0, [NAN], [NAN], INF, NAN, [NAN]),
    "one class, NaN": ([NAN], 0, [NAN], [NAN], NAN, NAN, [NAN]),
    "zeros of both signs": ([0.0, -0.0], 1, [0.5, 0.5], [-LN2, -LN2], LN2, LN2, [0.5, -0.5]),
    "lost beside the largest": (
        [0.0, -1024.0, -2048.0], 1, [1.0, 0.0, 0.0], [0.0, -1024.0, -2048.0], 0.0, 1024.0,
        [1.0, -1.0, 0.0],
    ),
    "a target lost, far from 0": (
        [-30000.0, 30000.0], 0, [0.0, 1.0], [-60000.0, 0.0], 30000.0, 60000.0, [-1.0, 1.0],
    ),
}  # fmt: skip


def case_in(name: str, dtype: Dtype) -> Case:
    """A case whose numbers the dtype has."""
    row, target, p, log_p, lse, loss, grad = CASES[name]
    if dtype == BFLOAT16:
        # The nearest that 8 bits can hold.
        near = {30000.0: 29952.0, -30000.0: -29952.0, 60000.0: 59904.0, -60000.0: -59904.0}
        row, log_p = ([near.get(x, x) for x in values] for values in (row, log_p))
        lse, loss = near.get(lse, lse), near.get(loss, loss)
    return row, target, p, log_p, lse, loss, grad


# Bits of a quiet NaN, one with the sign, a signalling one, and all ones.
NAN_BITS = {
    FLOAT16: [0x7E00, 0xFE00, 0x7C01, 0xFFFF],
    BFLOAT16: [0x7FC0, 0xFFC0, 0x7F81, 0xFFFF],
    FLOAT32: [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF],
    FLOAT64: [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF << 52) + 1, 2**64 - 1],
}


def boundaries(classes: int) -> list[int]:
    """Places around powers of two and around the quarters of a row."""
    quarter = -(-classes // 64) * 16
    edges = [0, classes, *(2**k for k in range(4, 17)), *(i * quarter for i in (1, 2, 3))]
    near = {edge + step for edge in edges for step in (-1, 0, 1)}
    return sorted(place for place in near if 0 <= place < classes)


# Of long rows, what is left when all else is -inf.
MASKS: dict[str, tuple[int, list[slice]]] = {
    "all but the first": (3000, [slice(0, 1)]),
    "all but the last": (3000, [slice(2999, 3000)]),
    "all but one in the middle": (3000, [slice(1500, 1501)]),
    "the first block": (3000, [slice(1024, 3000)]),
    "all but the first vector": (3000, [slice(0, 16)]),
    "the tail": (3000, [slice(0, 2048)]),
    "a block in the middle": (5000, [slice(0, 1024), slice(2048, 5000)]),
    "the first quarter": (32768, [slice(8192, 32768)]),
    "all but the first quarter": (32768, [slice(0, 8192)]),
    "the last quarter": (30000, [slice(0, 22512)]),
    "the first chunk": (80000, [slice(32768, 80000)]),
    "the chunk in the middle": (80000, [slice(0, 32768), slice(65536, 80000)]),
    "the last chunk": (80000, [slice(0, 65536)]),
    "all but the last of a chunk": (80000, [slice(32767, 32768)]),
    "all but the first of a chunk": (80000, [slice(32768, 32769)]),
    "all but the last of all chunks": (80000, [slice(79999, 80000)]),
}


def long_row(name: str, dtype: Dtype, value: float) -> tuple[Array, Array, int]:
    """Logits of -inf but for what is left, which is all of one value; where that is, and how many classes."""
    classes, kept = MASKS[name]
    where = np.zeros(classes, bool)
    for part in kept:
        where[part] = True
    return np.where(where, value, -INF).astype(dtype), where, int(where.sum())

"""Our values beside those of the reference, computed in doubles from the very same numbers.

The one idea: the reference is slow, so what it said once is remembered.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import softxent as sx
from common import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    Array,
    Dtype,
    lists,
)
from softxent import reference

Layout: TypeAlias = Callable[[Array], Array]

FLOATS = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
# The relative error, some 150 roundings, and what may be lost below the smallest normal number.
TOLERANCES = {
    FLOAT16: (1e-3, 6e-8),
    BFLOAT16: (4e-3, 2e-38),
    FLOAT32: (2e-5, 2e-38),
    FLOAT64: (4e-14, 3e-308),
}

# Shapes and class axes: one class; one row; two steps and a tail; a row for each column;
# image-like; more rows than are gathered at a time; sequences; rank 5.
SHAPES: list[tuple[tuple[int, ...], int]] = [
    ((1,), 0),
    ((130,), -1),
    ((5, 37), -1),
    ((5, 37), 0),
    ((7, 1), 1),
    ((2, 21, 3), 1),
    ((9, 2, 19), 0),
    ((2, 3, 35), -1),
    ((2, 1, 3, 2, 11), -2),
]

TEXT = [3.2, 1.0, -0.5, 2.5]  # the next word: mat, hat, sat, rug


def logits_of(shape: tuple[int, ...], dtype: Dtype) -> Array:
    """Logits around 0 that leave some probabilities at 1e-6, or small integers."""
    random = np.random.default_rng(0)
    if dtype.kind in "iu":
        return random.integers(3, 12, size=shape).astype(dtype)
    return (4 * random.standard_normal(shape)).astype(dtype)


def targets_of(logits: Array, axis: int) -> Array:
    """A class id for every row; of three rows or more the second is ignored."""
    targets = np.random.default_rng(0).integers(
        logits.shape[axis], size=[n for i, n in enumerate(logits.shape) if i != axis % logits.ndim]
    )
    if targets.size > 2:
        targets.flat[1] = -100
    return np.asarray(targets)


def like_logits(logits: Array) -> Dtype:
    """The dtype of probabilities and gradients."""
    return FLOAT64 if logits.dtype.kind in "iu" else logits.dtype


def like_loss(logits: Array) -> Dtype:
    """The dtype of losses and of the log-sum-exp."""
    return FLOAT64 if like_logits(logits) == FLOAT64 else FLOAT32


def agree(
    got: Any, expected: Any, dtype: Dtype, precision: Dtype = FLOAT64, beside: float = 0.0
) -> None:
    """`got` has the dtype and the expected values; `beside` what large numbers its terms may be."""
    assert got.dtype == dtype
    relative, absolute = max(TOLERANCES[dtype], TOLERANCES[precision])
    expected = np.array(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(
        got.astype(np.float64), expected, rtol=relative, atol=absolute + relative * beside
    )


KNOWN: dict[Any, Any] = {}


def from_reference(name: str, values: Array, *ids: Any, **options: Any) -> Any:
    """What the reference says; remembered, since several dtypes and ways of working are asked the same."""
    numbers = values if values.dtype.kind in "iu" else values.astype(np.float64)
    key = (name, numbers.dtype, numbers.shape, numbers.tobytes(), repr((ids, options)))
    if key not in KNOWN:
        KNOWN[key] = getattr(reference, name)(lists(values), *ids, **options)
    return KNOWN[key]


def agree_with_reference(
    logits: Any,
    targets: Any,
    values: Array,
    ids: Any,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    **options: Any,
) -> None:
    """All functions on `logits` and `targets` against the reference on `values` and `ids`."""
    like, loss_like = like_logits(values), like_loss(values)
    for_rows: dict[str, Any] = {"axis": axis, "temperature": temperature}
    for name in ("softmax", "log_softmax"):
        got = getattr(sx, name)(logits, **for_rows)
        agree(got, from_reference(name, values, **for_rows), like, loss_like)
    largest = float(np.abs(values.astype(np.float64)).max(initial=0.0)) / temperature
    lse = from_reference("logsumexp", values, **for_rows)
    agree(sx.logsumexp(logits, **for_rows), lse, loss_like, beside=largest)

    loss, grad = from_reference("cross_entropy_with_grad", values, ids, **for_rows, **options)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, targets, **for_rows, **options)
    agree(got_loss, loss, loss_like)
    agree(got_grad, grad, like, loss_like)
    options.pop("grad_output", None)
    agree(sx.cross_entropy(logits, targets, **for_rows, **options), loss, loss_like)

"""Every function gives the values of the reference: over options, dtypes, axes and layouts.

The expected values come from `softxent.reference`, in double precision from the very same logits;
the worked numbers and the shapes are literals. Tolerances are wide enough for any sound
computation in the precision of the dtype: how many digits are right is `test_accuracy`'s
question, what happens at infinities and NaN is `test_extremes`'.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from numpy.typing import NDArray
from softxent import reference

Array: TypeAlias = NDArray[Any]
Layout: TypeAlias = Callable[[Array], Array]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
# Relative error, and what may be lost where a result is below the smallest normal number.
TOLERANCES = {
    np.dtype(np.float16): (1e-3, 1e-7),
    BFLOAT16: (1e-2, 2e-38),
    np.dtype(np.float32): (4e-6, 2e-38),
    np.dtype(np.float64): (1e-13, 3e-308),
}
NOT_MATHEMATICS = {"get_threads", "set_threads", "show_runtime"}

# Logits of some shape with the classes along some axis: one class; one row; two loads and a tail; a
# row per column; image-like; more rows than are gathered at a time; sequences; rank 5.
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


def logits_of(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0) -> Array:
    """Around 0, with a spread that leaves some probabilities at 1e-6."""
    random = np.random.default_rng(seed)
    if dtype.kind in "iu":
        return random.integers(3, 12, size=shape).astype(dtype)
    return (4 * random.standard_normal(shape)).astype(dtype)


def targets_of(logits: Array, axis: int, seed: int = 0) -> Array:
    """Class ids for every row; from three rows on one is ignored."""
    rows_shape = np.delete(logits.shape, axis)
    targets = np.random.default_rng(seed).integers(logits.shape[axis], size=rows_shape)
    if targets.size > 2:
        targets.flat[1] = -100
    return targets


def lists(array: Array) -> Any:
    """As the reference takes it; all floating dtypes have their values among the doubles."""
    return (array if array.dtype.kind in "iu" else array.astype(np.float64)).tolist()


def like_logits(logits: Array) -> np.dtype[Any]:
    """The dtype of probabilities and gradients."""
    return np.dtype(np.float64) if logits.dtype.kind in "iu" else logits.dtype.newbyteorder("=")


def like_loss(logits: Array) -> np.dtype[Any]:
    """The dtype of losses and of the log-sum-exp."""
    return np.dtype(np.float64 if like_logits(logits) == np.float64 else np.float32)


def agree(got: Any, expected: Any, dtype: np.dtype[Any], precision: np.dtype[Any]) -> None:
    """`got` has that dtype, and the expected values as far as dtype and precision can hold them."""
    assert got.dtype == dtype
    wider = max(dtype, precision, key=lambda kind: TOLERANCES[kind])
    relative, absolute = TOLERANCES[wider]
    values = np.asarray(got).astype(np.float64)
    np.testing.assert_allclose(values, np.asarray(expected), rtol=relative, atol=absolute)


def agree_with_reference(
    logits: Any, axis: int, targets: Any, exact: Array, options: dict[str, Any] | None = None
) -> None:
    """All functions on `logits`, of the values `exact`, against the reference on those values."""
    precise = like_loss(exact)
    for name in ("softmax", "log_softmax"):
        got = getattr(sx, name)(logits, axis)
        agree(got, getattr(reference, name)(lists(exact), axis), like_logits(exact), precise)
    got = sx.logsumexp(logits, axis)
    agree(got, reference.logsumexp(lists(exact), axis), like_loss(exact), precise)
    options = {"axis": axis, **(options or {})}
    ids = np.asarray(targets).tolist()
    loss, grad = reference.cross_entropy_with_grad(lists(exact), ids, **options)
    agree(sx.cross_entropy(logits, targets, **options), loss, like_loss(exact), precise)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, targets, **options)
    agree(got_loss, loss, like_loss(exact), precise)
    agree(got_grad, grad, like_logits(exact), precise)


def test_every_function_has_a_twin_in_the_reference() -> None:
    tested = {"softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad"}
    assert set(sx.__all__) - NOT_MATHEMATICS == tested
    assert set(reference.__all__) == tested


# The worked numbers.

TEXT = [3.2, 1.0, -0.5, 2.5]  # the next word: mat, hat, sat, rug


def test_softmax_gives_the_worked_probabilities() -> None:
    p = sx.softmax([12.4, -3.2, 0.1])
    assert round(p[0], 6) == 0.999995
    assert f"{p[1]:.2e}" == "1.68e-07"
    assert f"{p[2]:.2e}" == "4.55e-06"
    assert sx.softmax(TEXT).round(4).tolist() == [0.6127, 0.0679, 0.0151, 0.3043]
    logits = np.array([TEXT], np.float32)
    assert (100 * sx.softmax(logits)).round().tolist() == [[61.0, 7.0, 2.0, 30.0]]


def test_exponentials_and_their_sum_are_the_worked_ones() -> None:
    assert round(math.exp(sx.logsumexp(TEXT)), 2) == 40.04
    exps = sx.softmax(TEXT) * math.exp(sx.logsumexp(TEXT))
    assert exps.round(2).tolist() == [24.53, 2.72, 0.61, 12.18]


def test_loss_and_gradient_are_the_worked_ones() -> None:
    for dtype in FLOATS:
        loss, grad = sx.cross_entropy_with_grad(np.array(TEXT, dtype), 0)
        exact = dtype in (np.float32, np.float64)
        assert loss == pytest.approx(0.4899, abs=5e-5 if exact else 5e-3)
        expected = [0.6127 - 1, 0.0679, 0.0151, 0.3043]
        assert lists(grad) == pytest.approx(expected, abs=5e-5 if exact else 5e-3)
    assert round(sx.cross_entropy(TEXT, 0), 4) == 0.4899
    assert sx.log_softmax(TEXT).round(4).tolist() == [-0.4899, -2.6899, -4.1899, -1.1899]


@pytest.mark.parametrize(
    ("p", "loss"), [(0.80, 0.223), (0.60, 0.511), (0.01, 4.605), (0.001, 6.908)]
)
def test_loss_is_minus_log_of_the_probability(p: float, loss: float) -> None:
    assert round(sx.cross_entropy([math.log(p), math.log(1 - p)], 0), 3) == loss


def test_only_the_target_counts() -> None:
    loss = sx.cross_entropy([math.log(0.80), math.log(0.15), math.log(0.05)], 0)
    assert loss == pytest.approx(0.22314355131420976, rel=1e-14)


def test_dataset_loss_is_the_average_over_sequences_of_the_sum_over_tokens() -> None:
    # Rows of two equal logits cost ln 2; sequences of three tokens and of one.
    logits = np.zeros((4, 2))
    loss = sx.cross_entropy(logits, [0, 1, 1, 0], reduction="sequence_mean", offsets=[0, 3, 4])
    assert loss == pytest.approx((3 + 1) / 2 * math.log(2), rel=1e-15)


@pytest.mark.parametrize(("temperature", "sharper"), [(0.5, True), (2.0, False)])
def test_temperature_below_one_sharpens(temperature: float, sharper: bool) -> None:
    p = sx.softmax(TEXT, temperature=temperature)
    np.testing.assert_allclose(p, sx.softmax(np.array(TEXT) / temperature), rtol=1e-15)
    assert (p[0] > 0.6127) == sharper


# Against the reference.


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_values_over_dtypes_ranks_and_axes(
    shape: tuple[int, ...], axis: int, dtype: np.dtype[Any]
) -> None:
    logits = logits_of(shape, dtype)
    targets = targets_of(logits, axis)
    for reduction in ("none", "mean"):
        agree_with_reference(logits, axis, targets, logits, {"reduction": reduction})


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [0.25, 0.7, 3.0, 100.0])
def test_values_over_temperatures(temperature: float, dtype: np.dtype[Any]) -> None:
    logits = logits_of((3, 150), dtype)
    targets = [0, 149, 77]
    precision = like_loss(logits)
    for name in ("softmax", "log_softmax"):
        got = getattr(sx, name)(logits, temperature=temperature)
        expected = getattr(reference, name)(lists(logits), temperature=temperature)
        values, exact = lists(got), np.array(expected)
        # A temperature of 0.25 makes the gaps 4 times as large, and their rounding as well.
        relative, absolute = TOLERANCES[max(got.dtype, precision, key=lambda kind: TOLERANCES[kind])]
        np.testing.assert_allclose(values, exact, rtol=8 * relative, atol=absolute)
    lse = reference.logsumexp(lists(logits), temperature=temperature)
    agree(sx.logsumexp(logits, temperature=temperature), lse, precision, precision)
    options: dict[str, Any] = {"temperature": temperature, "reduction": "none"}
    loss, grad = reference.cross_entropy_with_grad(lists(logits), targets, **options)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, targets, **options)
    agree(got_loss, loss, precision, precision)
    relative, absolute = TOLERANCES[max(grad_dtype(got_grad), precision, key=TOLERANCES.__getitem__)]
    np.testing.assert_allclose(lists(got_grad), grad, rtol=8 * relative, atol=absolute)

"""The gradient is the derivative of the loss.

That is tested without the formula of the gradient: by finite differences of the loss in double
precision, and by what must hold of any such gradient (rows sum to 0, no change under a shift,
scaling by what comes after, zeros where a row plays no part). How many digits are right is
`test_accuracy`'s question.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from common import (
    DTYPES,
    ROUNDING,
    THRESHOLDS,
    Array,
    Dtype,
    same_bits,
)
from finite_differences import difference_at

Layout: TypeAlias = Callable[[Array], Array]
SetThresholds: TypeAlias = Callable[[int | None, int | None, int | None], None]

# Some of a vector; a step and more; a block and more; a row that is cut in pieces.
CLASSES = [1, 2, 5, 70, 1030, 33001]


def normal(shape: tuple[int, ...], dtype: Any = np.float64, scale: float = 2.0) -> Array:
    return (scale * np.random.default_rng(1).standard_normal(shape)).astype(dtype)


# Finite differences.

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 30.0, "reduction": "sum"},
    {"reduction": "sum", "grad_output": -1.5},
    {"reduction": "none"},
    {"reduction": "none", "grad_output": 3},
    {"reduction": "none", "grad_output": np.array([[1.0, 2.0], [-3.0, 0.5]])},
    {"reduction": "none", "grad_output": [[1, 0], [2, 4]], "temperature": 2.0},
    {"reduction": "sequence_mean", "temperature": 2.5},
    {"reduction": "sequence_mean", "offsets": [0, 1, 1, 4], "grad_output": 2.0},
    {"normalizer": 7.0},
    {"ignore_index": [3, 0]},
    {"ignore_index": [4], "grad_output": np.float32(0.5)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradient_is_what_finite_differences_say(axis: int, options: dict[str, Any]) -> None:
    shape = [2, 2, 2]
    shape[axis] = 6
    if axis != 2 and options.get("reduction") == "sequence_mean":
        options = {"offsets": [0, 1, 4], **options}
    logits, targets = normal(tuple(shape)), [[3, 0], [-100, 4]]
    if "ignore_index" in options:
        targets[1][0] = 1
    _, grad = sx.cross_entropy_with_grad(logits, targets, axis=axis, **options)
    for place in np.ndindex(*shape):
        slope = difference_at(place, 1e-5, logits, targets, axis=axis, **options)
        assert grad[place] == pytest.approx(slope, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("classes", [70, 1030, 33001])
def test_gradient_of_long_rows_is_what_finite_differences_say(
    classes: int, thresholds: tuple[int | None, int | None, int | None], set_thresholds: Any
) -> None:
    set_thresholds(*thresholds)
    # Spread so far that single classes matter; targets in the first, a middle and the last place.
    logits = normal((3, classes), scale=4.0)
    targets = [0, classes // 2, classes - 1]
    options: dict[str, Any] = {"temperature": 1.3, "reduction": "sum"}
    _, grad = sx.cross_entropy_with_grad(logits, targets, threads=2, **options)
    for row, target in enumerate(targets):
        for column in {0, 1, 64, target, classes // 2, classes - 1, int(logits[row].argmax())}:
            slope = difference_at((row, column), 1e-4, logits, targets, **options)
            assert grad[row, column] == pytest.approx(slope, rel=1e-6, abs=1e-8)


# What holds of every such gradient.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_gradient_of_a_row_sums_to_zero(scale: float, classes: int, dtype: Dtype) -> None:
    logits = normal((4, classes), dtype, scale)
    targets = [0, classes - 1, classes // 2, int(logits[3].astype(np.float64).argmax())]
    _, grad = sx.cross_entropy_with_grad(logits, targets, reduction="sum")
    exact, x = grad.astype(np.float64), logits.astype(np.float64)
    # Each element is within 4 + (x_max - x_i) units, and rounded to its dtype once.
    unit = 2.0**-52 if dtype == np.float64 else 2.0**-23
    gaps = x.max(axis=1, keepdims=True) - x
    allowed = np.abs(exact) * ((4 + gaps) * unit + ROUNDING[dtype])
    # Below the smallest normal number, float16 loses up to 2^-25 an element.
    lost = classes * (2.0**-25 if dtype == np.float16 else 2.0**-126)
    for slopes, errors in zip(exact, allowed, strict=True):
        assert abs(math.fsum(slopes)) <= errors.sum() + lost
        assert (slopes < 0).sum() <= 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_shift_of_a_row_changes_no_bit(dtype: Dtype) -> None:
    # Multiples of 1/4 within +-2 stay exact up to 32 even in the 8 bits of bfloat16.
    logits = (np.random.default_rng(3).integers(-8, 9, size=(5, 1000)) / 4).astype(dtype)
    shifts = np.array([[0], [16], [-16], [29], [-29]])
    shifted = (logits.astype(np.float64) + shifts).astype(dtype)
    assert (shifted.astype(np.float64) - logits.astype(np.float64) == shifts).all()
    for temperature in (1.0, 0.3):
        options: dict[str, Any] = {"reduction": "none", "temperature": temperature}
        loss, grad = sx.cross_entropy_with_grad(logits, [0, 999, 5, 6, 7], **options)
        loss2, grad2 = sx.cross_entropy_with_grad(shifted, [0, 999, 5, 6, 7], **options)
        assert same_bits(loss, loss2)
        assert same_bits(grad, grad2)


def test_inexact_shift_changes_no_more_than_the_rounding_of_the_logits() -> None:
    logits = normal((4, 500))
    _, grad = sx.cross_entropy_with_grad(logits, [0, 1, 2, 3])
    _, shifted = sx.cross_entropy_with_grad(logits + 1000.1, [0, 1, 2, 3])
    np.testing.assert_allclose(shifted, grad, rtol=4 * 1000.1 * 2.0**-53)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grad_output_scales_the_gradient(dtype: Dtype) -> None:
    logits, targets = normal((3, 90), dtype), [0, 5, 89]
    _, one = sx.cross_entropy_with_grad(logits, targets, reduction="none")
    # Powers of two, so that the scaling itself is exact.
    for scale in (1.0, -1.0, 0.5, -64.0):
        expected = (one.astype(np.float64) * scale).astype(dtype)
        for grad_output in (scale, np.float32(scale), [scale] * 3, np.full(3, scale, np.float16)):
            _, grad = sx.cross_entropy_with_grad(
                logits, targets, reduction="none", grad_output=grad_output
            )
            lost = 2.0**-18 if dtype == np.float16 else 0.0  # subnormal numbers
            np.testing.assert_allclose(grad.astype(float), expected.astype(float), 0, lost)
    rows = [2.0, 0.0, -0.25]
    _, grad = sx.cross_entropy_with_grad(logits, targets, reduction="none", grad_output=rows)
    for row, scale in enumerate(rows):
        _, single = sx.cross_entropy_with_grad(
            logits[row], targets[row], reduction="none", grad_output=scale
        )
        assert same_bits(grad[row], single)
    assert not grad[1].any()


def test_grad_output_of_none_is_one() -> None:
    logits = normal((3, 90))
    for reduction in ("none", "mean"):
        options: dict[str, Any] = {"reduction": reduction}
        _, grad = sx.cross_entropy_with_grad(logits, [1, 2, 3], grad_output=None, **options)
        _, one = sx.cross_entropy_with_grad(logits, [1, 2, 3], grad_output=1, **options)
        assert same_bits(grad, one)


def test_grad_output_belongs_to_its_row_in_every_layout(layout: Layout) -> None:
    logits, targets = normal((4, 3, 20)), np.arange(12).reshape(4, 3)
    upstream = normal((4, 3))
    _, one = sx.cross_entropy_with_grad(logits, targets, reduction="none")
    _, grad = sx.cross_entropy_with_grad(
        logits, targets, reduction="none", grad_output=layout(upstream)
    )
    np.testing.assert_allclose(grad, one * upstream[..., np.newaxis], rtol=1e-15)


def test_reductions_differ_by_their_denominator() -> None:
    logits, targets = normal((2, 4, 30)), np.arange(8).reshape(2, 4)
    targets[0, 0] = -100
    _, total = sx.cross_entropy_with_grad(logits, targets, reduction="sum")
    for denominator, options in (
        (7, {"reduction": "mean"}),
        (2, {"reduction": "sequence_mean"}),
        (3, {"reduction": "sequence_mean", "offsets": [0, 5, 5, 8]}),
        (12.5, {"normalizer": 12.5}),
        (1, {"reduction": "none"}),
    ):
        keywords: dict[str, Any] = options
        _, grad = sx.cross_entropy_with_grad(logits, targets, **keywords)
        np.testing.assert_allclose(grad * denominator, total, rtol=1e-15)


# Rows that play no part.


@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_ignored_rows_have_gradient_zero(
    classes: int,
    dtype: Dtype,
    thresholds: tuple[int | None, int | None, int | None],
    set_thresholds: SetThresholds,
) -> None:
    set_thresholds(*thresholds)
    logits = normal((6, classes), dtype)
    # Whatever an ignored row holds, it is not read.
    logits[0], logits[2], logits[3], logits[5] = np.nan, np.inf, -np.inf, 60000.0
    targets = [-100, 0, -100, -100, classes - 1, -100]
    valid = logits[[1, 4]]
    options: dict[str, Any] = {"reduction": "none", "grad_output": -2.0}
    expected = sx.cross_entropy_with_grad(valid, [0, classes - 1], **options)
    for out in (None, np.full_like(logits, 3), logits):
        loss, grad = sx.cross_entropy_with_grad(logits, targets, threads=2, out=out, **options)
        assert loss[[0, 2, 3, 5]].tolist() == [0.0] * 4
        # Zeros, and not negative ones.
        assert grad[[0, 2, 3, 5]].tobytes() == bytes(4 * classes * dtype.itemsize)
        assert same_bits(loss[[1, 4]], expected[0])
        assert same_bits(grad[[1, 4]], expected[1])


def test_ignored_rows_do_not_count() -> None:
    logits, targets = normal((5, 40)), [1, -100, 3, -100, 5]
    loss, grad = sx.cross_entropy_with_grad(logits, targets)
    loss2, grad2 = sx.cross_entropy_with_grad(logits[::2], targets[::2])
    assert loss == loss2
    assert same_bits(grad[::2], grad2)


# In place.


@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_in_place_gives_the_bits_of_out_of_place(
    classes: int,
    dtype: Dtype,
    thresholds: tuple[int | None, int | None, int | None],
    set_thresholds: SetThresholds,
) -> None:
    logits = normal((5, classes), dtype)
    targets = np.array([0, classes - 1, -100, classes // 2, classes // 3])
    loss, grad = sx.cross_entropy_with_grad(logits, targets, temperature=1.1)
    set_thresholds(*thresholds)
    shape = logits.shape
    for start in (0, 1, 5):
        memory = np.zeros(logits.size + 64, dtype)[start:]
        for place in (
            memory[: logits.size].reshape(shape),
            memory[: logits.size].reshape(shape, order="F"),
            memory[: logits.size][::-1].reshape(shape),
            np.zeros((5, 2 * classes), dtype)[:, ::2],
        ):
            place[...] = logits
            loss2, result = sx.cross_entropy_with_grad(
                place, targets, temperature=1.1, out=place, threads=2
            )
            assert result is place
            assert same_bits(np.asarray(loss2), np.asarray(loss))
            assert same_bits(place, grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loss_alone_has_the_bits_of_the_loss_with_its_gradient(dtype: Dtype) -> None:
    for classes in CLASSES:
        logits = normal((3, classes), dtype)
        targets = [0, classes - 1, classes // 2]
        for reduction in ("none", "mean"):
            options: dict[str, Any] = {"reduction": reduction, "temperature": 0.9}
            loss, _ = sx.cross_entropy_with_grad(logits, targets, **options)
            alone = sx.cross_entropy(logits, targets, **options)
            assert same_bits(np.asarray(loss), np.asarray(alone))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_apart_from_the_target_is_the_softmax(dtype: Dtype) -> None:
    logits = normal((3, 300), dtype)
    p = sx.softmax(logits)
    _, grad = sx.cross_entropy_with_grad(logits, [0, 299, 150], reduction="none")
    others = np.ones(logits.shape, bool)
    others[[0, 1, 2], [0, 299, 150]] = False
    # The two sums of exponentials may differ in the last place, one having the target apart.
    np.testing.assert_allclose(
        grad[others].astype(float), p[others].astype(float), rtol=4 * ROUNDING[dtype], atol=2**-24
    )

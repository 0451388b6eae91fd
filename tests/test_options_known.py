"""The options of the losses and of the softmax: rows with known answers.

Every expected value is written down here: what masks, weights, smoothing, probabilities as targets and a
softcap do where there is little left, or nothing. All options together are drawn in `test_options`.
"""

import math
from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import (
    BFLOAT16,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    ROUNDING,
    Array,
    Dtype,
    Options,
    loss_dtype,
    same_bits,
)
from conftest import LAYOUTS

# Rows with known answers.

LN2, LN3 = 0.6931471805599453, 1.0986122886681098
NEAR = {FLOAT16: 1e-3, BFLOAT16: 4e-3, FLOAT32: 3e-7, FLOAT64: 2e-15}
of_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def assert_near(got: Any, expected: Any) -> None:
    """NaN, infinities and zeros where expected, other values as the dtype of `got` has them."""
    assert isinstance(got, np.ndarray | np.generic)
    values, wanted = np.asarray(got).astype(np.float64), np.array(expected, np.float64)
    assert values.shape == wanted.shape
    exact = ~np.isfinite(wanted) | (wanted == 0)
    np.testing.assert_array_equal(values[exact], wanted[exact])
    np.testing.assert_allclose(values[~exact], wanted[~exact], NEAR[np.dtype(got.dtype)])


def assert_loss(logits: Any, targets: Any, loss: Any, grad: Any, **options: Any) -> None:
    """That loss and that gradient; also in place, and when the loss alone is asked for."""
    got, slopes = sx.cross_entropy_with_grad(logits, targets, **options)
    assert_near(got, loss)
    assert_near(slopes, grad)
    assert_near(sx.cross_entropy(logits, targets, **options), loss)
    again = np.array(logits)
    sx.cross_entropy_with_grad(again, targets, out=again, **options)
    assert same_bits(again, slopes)


# Two ways to say that only the first three of four classes take part.
FIRST_THREE: list[Options] = [{"valid_classes": 3}, {"class_mask": [True, True, True, False]}]


@of_every_dtype
@pytest.mark.parametrize("mask", FIRST_THREE, ids=str)
def test_a_masked_target_has_infinite_loss_and_pulls_nothing(mask: Options, dtype: Dtype) -> None:
    logits = np.array([5.0, 5.0, 5.0, 7.0], dtype)
    third = 1 / 3
    for target in (3, [0.0, 0.0, 0.0, 1.0]):
        assert_loss(logits, target, INF, [third, third, third, 0.0], **mask)
        # Half of the loss is that of the target, half of it is smoothing.
        sixth = third / 2
        assert_loss(logits, target, INF, [sixth, sixth, sixth, 0.0], label_smoothing=0.5, **mask)
        # Where nothing is left of the target's term it is not infinite.
        no_pull = [0.0, 0.0, 0.0, 0.0]
        loss, grad = sx.cross_entropy_with_grad(logits, target, label_smoothing=1.0, **mask)
        assert_near(loss, LN3)
        np.testing.assert_allclose(grad.astype(float), no_pull, atol=NEAR[dtype])
        weight = [1.0, 1.0, 1.0, 0.0]
        assert_loss(logits, target, 0.0, no_pull, weight=weight, reduction="sum", **mask)


@of_every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask", [False, [False] * 3, [[False] * 3, [False] * 3]], ids=str)
def test_nothing_is_left_where_every_class_is_masked(mask: Any, layout: str, dtype: Dtype) -> None:
    for value in (1.0, NAN, INF, -INF):
        logits = LAYOUTS[layout](np.full((2, 3), value, dtype))
        zeros, class_mask = np.zeros((2, 3)), np.array(mask)
        assert_near(sx.softmax(logits, class_mask=class_mask), zeros)
        assert_near(sx.log_softmax(logits, class_mask=class_mask), zeros - INF)
        assert_near(sx.logsumexp(logits, class_mask=class_mask), [-INF, -INF])
        several: list[Options] = [{}, {"label_smoothing": 0.5, "z_loss": 1.0, "softcap": 2.0}]
        for targets in ([0, 2], [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]):
            for options in several:
                loss, grad = sx.cross_entropy_with_grad(
                    logits, targets, class_mask=class_mask, reduction="none", **options
                )
                assert_near(loss, [NAN, NAN])
                assert_near(grad, zeros)


@of_every_dtype
def test_a_row_without_a_class_does_not_touch_the_others(dtype: Dtype) -> None:
    mask = np.array([[True, True, False], [False, False, False], [False, True, True]])
    logits = np.zeros((3, 3), dtype)
    logits[~mask] = NAN
    p = [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    assert_near(sx.softmax(logits, class_mask=mask), p)
    assert_near(sx.logsumexp(logits, class_mask=mask), [LN2, -INF, LN2])
    grad = [[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, -0.5]]
    assert_loss(logits, [0, 1, 2], [LN2, NAN, LN2], grad, class_mask=mask, reduction="none")


@of_every_dtype
@pytest.mark.parametrize("harm", [NAN, INF, -INF])
@pytest.mark.parametrize("classes", [4, 77, 1100, 33001])
def test_what_a_masked_class_holds_does_no_harm(classes: int, harm: float, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    logits = random.standard_normal((3, classes)).astype(dtype)
    mask = random.random((3, classes)) < 0.6
    mask[:, [0, 1]] = True
    harmed = np.where(mask, logits, np.array(harm, dtype))
    # Nor does what the target's probability or the weight of such a class is, unless it says to.
    weight = random.random(classes)
    probabilities = np.where(mask, 0.1, 0.0)
    options: Options = {"class_mask": mask, "temperature": 1.5}
    loss: Options = {"weight": weight, "label_smoothing": 0.2, "z_loss": 0.1, **options}
    for softcap in (None, 3.0):
        options["softcap"] = loss["softcap"] = softcap
        for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
            found = [function(x, **options) for x in (logits, harmed)]
            assert same_bits(*found)
        for targets in ([0, 1, 0], probabilities):
            expected, wanted = sx.cross_entropy_with_grad(logits, targets, **loss)
            got, grad = sx.cross_entropy_with_grad(harmed, targets, **loss)
            assert np.isfinite(got)
            assert same_bits(got, expected)
            assert same_bits(grad, wanted)
            assert not grad[~mask].any()


@of_every_dtype
def test_a_weight_of_zero_leaves_nothing_of_an_infinite_surprise(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, -INF], dtype)
    weight = [1.0, 1.0, 0.0]
    # Half of ln 2 is the target's; a sixth of it each class has of the smoothing.
    loss = (1 / 2 + 1 / 6 + 1 / 6) * LN2
    options: Options = {"label_smoothing": 0.5, "reduction": "sum"}
    # p times the weights 1/2 + 2 * 1/6 of all, less each class's own.
    grad = [5 / 12 - 2 / 3, 5 / 12 - 1 / 6, 0.0]
    assert_loss(logits, 0, loss, grad, weight=weight, **options)
    assert_loss(logits, [1.0, 0.0, 0.0], loss, grad, weight=weight, **options)
    assert_loss(logits, [0.5, 0.5, 0.0], LN2, [0.0, 0.0, 0.0])
    assert_loss(logits, [0.5, 0.5, 1.0], LN2, [0.0, 0.0, 0.0], weight=weight)
    assert_loss(logits, 2, 0.0, [0.0, 0.0, 0.0], weight=weight, reduction="sum")
    # Without that weight, or with a smaller share, it is infinite.
    slopes = [0.5 - 1 / 2 - 1 / 6, 0.5 - 1 / 6, -1 / 6]
    assert_loss(logits, 0, INF, slopes, **options)


@of_every_dtype
def test_smoothing_of_an_allowed_class_at_minus_infinity_is_infinite(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, -INF, NAN], dtype)
    options: Options = {"label_smoothing": 0.5, "class_mask": [True, True, True, False]}
    grad = [-1 / 6, 1 / 3, -1 / 6, 0.0]
    assert_loss(logits, 0, INF, grad, **options)
    assert_loss(logits, [1.0, 0.0, 0.0, 0.0], INF, grad, **options)
    # Masked, it has no part in the smoothing.
    options["valid_classes"] = 2
    assert_loss(logits, 0, LN2, [-0.25, 0.25, 0.0, 0.0], **options)


@of_every_dtype
def test_with_all_smoothing_the_target_does_not_matter(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, 0.0, -INF], dtype)
    logits[1] = math.log(2)  # p = 1/4, 1/2, 1/4
    options: Options = {"label_smoothing": 1.0, "valid_classes": 3}
    loss = (2 * math.log(4) + LN2) / 3
    for target in (0, 1, 2, [0.0, 0.0, 1.0, 0.0], [7.0, -1.0, 0.0, 0.0]):
        got, grad = sx.cross_entropy_with_grad(logits, target, **options)
        np.testing.assert_allclose(got, loss, rtol=NEAR[dtype])
        expected = [1 / 4 - 1 / 3, 1 / 2 - 1 / 3, 1 / 4 - 1 / 3, 0.0]
        np.testing.assert_allclose(grad.astype(float), expected, rtol=4 * NEAR[dtype])


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_a_target_that_does_not_count_keeps_the_digits_of_its_slope(dtype: Dtype) -> None:
    # Its slope is that of any other class, 2 z lse p; p = 6e-16 and 1 - (1 - p) are not the same.
    logits = np.array([5.0, -30.0], dtype)
    p = math.exp(-35) / (1 + math.exp(-35))
    _, grad = sx.cross_entropy_with_grad(logits, 1, weight=[1.0, 0.0], z_loss=1.0, reduction="sum")
    np.testing.assert_allclose(grad, [10.0, 10 * p], rtol=40 * NEAR[dtype])
    _, grad = sx.cross_entropy_with_grad(
        logits, 1, label_smoothing=1.0, weight=[1.0, 0.0], reduction="sum"
    )
    np.testing.assert_allclose(grad[1], p / 2, rtol=40 * NEAR[dtype])
    # The other has nearly all of p, and is the difference of two halves.
    np.testing.assert_allclose(grad[0], -p / 2, atol=NEAR[dtype])


@of_every_dtype
def test_a_row_of_sample_weight_zero_is_not_read(dtype: Dtype) -> None:
    logits = np.array([[NAN, INF, 0.0], [0.0, 0.0, -INF], [-INF, -INF, -INF]], dtype)
    grad = [[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    probabilities = [[NAN, 1.0, INF], [1.0, 0.0, 0.0], [0.0, 0.0, NAN]]
    for targets in ([2, 0, 1], probabilities):
        for zero in (0.0, -0.0):
            options: Options = {"sample_weight": [zero, 1.0, zero], "z_loss": 0.0}
            assert_loss(logits, targets, LN2, grad, **options)
            assert_loss(logits, targets, [0.0, LN2, 0.0], grad, reduction="none", **options)
    # 3 times as heavy, it is 3 times as much in a sum, and no more in a mean.
    options = {"sample_weight": [0, 3, 0]}
    assert_loss(logits, [2, 0, 1], LN2, grad, **options)
    assert_loss(logits, [2, 0, 1], 3 * LN2, np.multiply(grad, 3), reduction="sum", **options)


@of_every_dtype
def test_weights_divide_the_mean_and_may_be_negative(dtype: Dtype) -> None:
    logits = np.zeros((2, 2), dtype)
    targets = [0, 1]
    options: Options = {"weight": [-1.0, 3.0]}
    grad = np.array([[0.5, -0.5], [1.5, -1.5]])
    assert_loss(logits, targets, [-LN2, 3 * LN2], grad, reduction="none", **options)
    assert_loss(logits, targets, 2 * LN2, grad, reduction="sum", **options)
    assert_loss(logits, targets, LN2, grad / 2, **options)
    assert_loss(logits, targets, LN2 / 4, grad / 8, normalizer=8, **options)
    options["sample_weight"] = [1.0, -2.0]
    grad[1] *= -2
    assert_loss(logits, targets, [-LN2, -6 * LN2], grad, reduction="none", **options)
    assert_loss(logits, targets, LN2, grad / -7, **options)
    # With probabilities the classes' weights do not divide.
    probabilities = np.eye(2)
    assert_loss(logits, probabilities, 7 * LN2, -grad, **options)


@of_every_dtype
def test_a_denominator_of_zero_divides_as_numbers_do(dtype: Dtype) -> None:
    logits = np.array([[0.0, 0.0], [0.0, 0.0]], dtype)
    logits[1, 1] = 2.0
    signs = [[-INF, INF], [-INF, INF]]
    for on_empty in ("nan", "zero", "raise"):
        options: Options = {"on_empty": on_empty}
        # 1 - 1 = 0, and the loss is not.
        assert_loss(logits, [0, 1], INF, signs, weight=[1, -1], **options)
        weight = {"sample_weight": [1.0, -1.0]}
        assert_loss(logits, [0, 1], INF, signs, **weight, **options)
        probabilities = [[1.0, 0.0], [0.0, 1.0]]
        assert_loss(logits, probabilities, INF, signs, **weight, **options)
        loss, grad = sx.cross_entropy_with_grad(logits, [0, 1], weight=[0, 0], **options)
        assert np.isnan(loss)
        assert np.isnan(grad).all()


@of_every_dtype
def test_a_gradient_divided_by_zero_is_infinite_also_for_the_other_terms(dtype: Dtype) -> None:
    logits = np.zeros((1, 2), dtype)
    options: Options = {"weight": [0.0, 1.0]}
    assert_loss(logits, [0], INF, [[INF, INF]], z_loss=1.0, **options)
    assert_loss(logits, [0], INF, [[INF, -INF]], label_smoothing=0.5, **options)


@of_every_dtype
@pytest.mark.parametrize("targets", [[0, 1], [[0.5, 0.5], [1.0, 0.0]]], ids=["ids", "floats"])
def test_no_weight_at_all_is_what_on_empty_says(targets: Any, dtype: Dtype) -> None:
    logits, zeros = np.full((2, 2), NAN, dtype), np.zeros((2, 2))
    options: Options = {"sample_weight": [0.0, 0.0]}
    assert_loss(logits, targets, NAN, zeros, **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="zero", **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="raise", reduction="sum", **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="raise", normalizer=2, **options)
    for function in (sx.cross_entropy, sx.cross_entropy_with_grad):
        with pytest.raises(ValueError, match="not ignored"):
            function(logits, targets, on_empty="raise", **options)


@of_every_dtype
@pytest.mark.parametrize("classes", [1, 5, 130, 33001])
def test_one_hot_probabilities_are_class_ids(classes: int, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    logits = (4 * random.standard_normal((3, classes))).astype(dtype)
    ids = [0, classes // 2, classes - 1]
    one_hot = np.eye(classes)[ids] if classes < 1000 else np.zeros((3, classes))
    one_hot[[0, 1, 2], ids] = 1.0
    for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01, "temperature": 2.0}):
        keywords: Options = {"reduction": "none", "weight": random.random(classes) + 0.5, **options}
        loss, grad = sx.cross_entropy_with_grad(logits, ids, **keywords)
        same_loss, same_grad = sx.cross_entropy_with_grad(logits, one_hot, **keywords)
        near = 40 * ROUNDING[loss_dtype(dtype)]
        np.testing.assert_allclose(same_loss, loss, rtol=near, atol=near)
        wide, same_wide = grad.astype(float), same_grad.astype(float)
        near += 2 * ROUNDING[dtype]
        np.testing.assert_allclose(same_wide, wide, rtol=near, atol=near * np.abs(wide).max())


@of_every_dtype
def test_a_probability_of_one_is_the_surprise_of_the_class(dtype: Dtype) -> None:
    logits = np.log([0.80, 0.15, 0.05]).astype(dtype)
    loss = sx.cross_entropy(logits, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(loss, 0.22314355131420976, rtol=10 * NEAR[dtype])


@of_every_dtype
def test_probabilities_are_taken_as_given(dtype: Dtype) -> None:
    logits = np.zeros(4, dtype)
    assert_loss(logits, [2.0, 0.0, 0.0, 0.0], 4 * LN2, [-1.5, 0.5, 0.5, 0.5])
    assert_loss(logits, [-1.0, 0.0, 0.0, 0.0], -2 * LN2, [0.75, -0.25, -0.25, -0.25])
    assert_loss(logits, [0.0, 0.0, 0.0, 0.0], 0.0, [0.0, 0.0, 0.0, 0.0])
    assert_loss(logits, [0.0, 0.0, NAN, 0.0], NAN, [NAN] * 4)
    rows = np.zeros((2, 4), dtype)
    targets = [[0.0, NAN, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    grad = [[NAN] * 4, [-0.75, 0.25, 0.25, 0.25]]
    assert_loss(rows, targets, [NAN, 2 * LN2], grad, reduction="none")


@of_every_dtype
@pytest.mark.parametrize("mask", FIRST_THREE, ids=str)
def test_probabilities_of_masked_classes_are_infinitely_surprising(
    mask: Options, dtype: Dtype
) -> None:
    logits = np.array([0.0, 0.0, 0.0, NAN], dtype)
    # The three share what is expected of all four: 1/3 of it each, less their own.
    assert_loss(logits, [0.75, 0.0, 0.0, 0.25], INF, [-5 / 12, 1 / 3, 1 / 3, 0.0], **mask)
    assert_loss(logits, [1.5, 0.0, 0.0, -0.5], -INF, [-7 / 6, 1 / 3, 1 / 3, 0.0], **mask)
    # Nothing of it is left with the weight 0.
    assert_loss(
        logits, [0.75, 0.0, 0.0, 0.25], 0.75 * LN3, [-0.5, 0.25, 0.25, 0.0],
        weight=[1, 1, 1, 0], **mask,
    )  # fmt: skip


@of_every_dtype
def test_a_softcap_bounds_infinite_logits_and_leaves_nan(dtype: Dtype) -> None:
    logits = np.array([[INF, 0.0, -INF], [NAN, 0.0, 0.0], [-INF, -INF, -INF]], dtype)
    total = math.exp(2) + 1 + math.exp(-2)
    p = [math.exp(2) / total, 1 / total, math.exp(-2) / total]
    third = [1 / 3] * 3
    assert_near(sx.softmax(logits, softcap=2.0), [p, [NAN] * 3, third])
    assert_near(sx.logsumexp(logits, softcap=2.0), [math.log(total), NAN, LN3 - 2])
    logs = [[2 - math.log(total), -math.log(total), -2 - math.log(total)], [NAN] * 3, [-LN3] * 3]
    assert_near(sx.log_softmax(logits, softcap=2.0), logs)
    loss, grad = sx.cross_entropy_with_grad(logits, [2, 0, 0], softcap=2.0, reduction="none")
    assert_near(loss, [2 + math.log(total), NAN, LN3])
    # Nothing moves a logit that is infinite, up to what is as good as nothing.
    slopes = [[0.0, p[1], 0.0], [NAN] * 3, [0.0] * 3]
    np.testing.assert_allclose(grad.astype(float), slopes, rtol=NEAR[dtype], atol=1e-33)


@of_every_dtype
def test_softcap_comes_before_temperature(dtype: Dtype) -> None:
    logits = np.array([8.0, 0.0], dtype)
    # 2 tanh(8 / 2) = 1.99866: over T = 4 it is 0.49966, and not 2 tanh(2 / 2) = 1.52.
    capped = 2 * math.tanh(4.0) / 4
    p = 1 / (1 + math.exp(-capped))
    np.testing.assert_allclose(
        sx.softmax(logits, softcap=2.0, temperature=4.0).astype(float), [p, 1 - p], rtol=NEAR[dtype]
    )
    _, grad = sx.cross_entropy_with_grad(logits, 1, softcap=2.0, temperature=4.0)
    slope = p / 4 / math.cosh(4.0) ** 2
    np.testing.assert_allclose(grad.astype(float), [slope, -p / 4], rtol=4 * NEAR[dtype])


# The shapes of a mask.


@of_every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_a_class_mask_of_every_shape(axis: int, dtype: Dtype) -> None:
    random = np.random.default_rng(axis)
    logits = random.standard_normal((4, 6)).astype(dtype)
    of_classes: Array = np.asarray(random.random(logits.shape[axis]) < 0.6)
    along = np.expand_dims(of_classes, 1 - axis)
    of_rows = np.expand_dims(random.random(logits.shape[1 - axis]) < 0.6, axis)
    of_all = random.random(logits.shape) < 0.6
    one: Array = np.array(True)
    masks: list[Array] = [of_classes, along, of_rows, of_all, one, np.asarray(~one)]
    for mask in [*masks, one.reshape(1, 1), one.reshape(1)]:
        whole = np.array(np.broadcast_to(along if mask is of_classes else mask, logits.shape))
        for given_as in (mask, mask.tolist()):
            for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
                found = [function(logits, axis, class_mask=m) for m in (given_as, whole)]
                assert same_bits(*found)
            ids = np.zeros(logits.shape[1 - axis], int)
            options: Options = {"axis": axis, "reduction": "none"}
            loss, grad = sx.cross_entropy_with_grad(logits, ids, class_mask=given_as, **options)
            wanted = sx.cross_entropy_with_grad(logits, ids, class_mask=whole, **options)
            assert same_bits(loss, wanted[0])
            assert same_bits(grad, wanted[1])
            assert not grad[~whole].any()


def test_a_mask_of_one_axis_lies_along_the_classes_also_where_both_would_fit() -> None:
    logits, mask = np.zeros((3, 3)), np.array([True, True, False])
    half, rows = [0.5, 0.5, 0.0], 3
    assert sx.softmax(logits, 0, class_mask=mask).T.tolist() == [half] * rows
    assert sx.softmax(logits, 1, class_mask=mask).tolist() == [half] * rows


def test_a_cap_that_only_doubles_hold_bounds_no_single() -> None:
    logits = np.array([[1.0, -3.0, 2.5]], np.float32)
    plain = sx.cross_entropy_with_grad(logits, [2])
    for cap in (1e39, 1e300):
        for found, wanted in zip(
            sx.cross_entropy_with_grad(logits, [2], softcap=cap), plain, strict=True
        ):
            assert same_bits(found, wanted)
        assert same_bits(sx.softmax(logits, softcap=cap), sx.softmax(logits))

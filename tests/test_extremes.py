"""Infinities, NaN, the largest and the smallest numbers: literal rows with literal answers.

Every expected value is written down here, or is `log n` for n equal logits. The same rows are then
hidden in long ones, at every lane and around every boundary of the kernel, because there the
answers of others go wrong: a NaN that a maximum drops, `-inf - -inf`, a sum that overflows.
"""

import itertools
import math
from collections.abc import Iterator
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
    Array,
    Dtype,
    Thresholds,
    loss_dtype,
)
from extremes import (
    CASES,
    LARGEST,
    LN2,
    LOG_P0,
    LOG_P1,
    MASKS,
    NAN_BITS,
    P0,
    P1,
    WAYS,
    SetThresholds,
    boundaries,
    case_in,
    is_near,
    long_row,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_rows_with_known_answers(name: str, dtype: Dtype) -> None:
    row, target, p, log_p, lse, loss, grad = case_in(name, dtype)
    logits = np.array(row, dtype)
    assert is_near(sx.softmax(logits), p)
    assert is_near(sx.log_softmax(logits), log_p)
    assert is_near(sx.logsumexp(logits), lse)
    assert is_near(sx.cross_entropy(logits, target), loss)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, target)
    assert is_near(got_loss, loss)
    assert is_near(got_grad, grad)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_one_row_does_not_touch_the_others(
    name: str, dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    row, target, *_ = CASES[name]
    others = np.linspace(-2, 3, 4 * len(row)).reshape(4, -1).astype(dtype)
    logits = np.insert(others, 2, np.array(row, dtype), axis=0)
    targets = np.array([0, 0, target, 0, 0])
    kept = [0, 1, 3, 4]
    for axis, batch in ((1, logits), (0, np.ascontiguousarray(logits.T))):
        options: dict[str, Any] = {"axis": axis, "reduction": "none"}
        loss, grad = sx.cross_entropy_with_grad(batch, targets, threads=2, **options)
        good_loss, good_grad = sx.cross_entropy_with_grad(others, [0, 0, 0, 0], reduction="none")
        assert loss[kept].tolist() == good_loss.tolist()
        assert np.moveaxis(grad, axis, 1)[kept].tolist() == good_grad.tolist()
        for function in (sx.softmax, sx.log_softmax):
            results = np.moveaxis(function(batch, axis, threads=2), axis, 1)
            assert results[kept].tolist() == function(others).tolist()
        assert sx.logsumexp(batch, axis)[kept].tolist() == sx.logsumexp(others).tolist()


def test_a_bad_row_shows_in_the_reduced_loss() -> None:
    assert np.isnan(sx.cross_entropy([[0.0, 0.0], [0.0, NAN], [0.0, 0.0]], [0, 0, 0]))
    rows = [[0.0, 0.0], [0.0, -INF], [0.0, 0.0]]
    loss, grad = sx.cross_entropy_with_grad(rows, [0, 1, 0], reduction="sum")
    assert loss == INF
    assert is_near(grad, [[-0.5, 0.5], [1.0, -1.0], [-0.5, 0.5]])
    rows[0] = [NAN, 0.0]
    assert np.isnan(sx.cross_entropy(rows, [0, 1, 0], reduction="sum"))


# NaN at every place.


def outputs(logits: Array, targets: Any, axis: int = -1) -> Iterator[Array]:
    """Every output, the rows first; losses and log-sum-exps with one column."""
    for function in (sx.softmax, sx.log_softmax):
        yield np.moveaxis(function(logits, axis, threads=2), axis, -1)
    yield sx.logsumexp(logits, axis, threads=2)[..., np.newaxis]
    options: dict[str, Any] = {"axis": axis, "reduction": "none", "threads": 2}
    yield sx.cross_entropy(logits, targets, **options)[..., np.newaxis]
    loss, grad = sx.cross_entropy_with_grad(logits, targets, **options)
    yield loss[..., np.newaxis]
    yield np.moveaxis(grad, axis, -1)


def check_nan_rows(
    places: Array, classes: int, dtype: Dtype, beside: float, patterns: list[int]
) -> None:
    """A row with a NaN in one of the places is NaN everywhere; a last row without it is not."""
    rows = len(places)
    for bits in patterns:
        logits = np.full((rows + 1, classes), beside, dtype)
        logits[rows] = 0
        unsigned = logits.view(f"u{dtype.itemsize}")
        unsigned[np.arange(rows), places] = bits
        for targets in (np.append(places, 0), np.full(rows + 1, classes - 1)):
            for output in outputs(logits, targets):
                assert np.isnan(output[:rows]).all()
                assert np.isfinite(output[rows]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_at_every_place_of_short_rows(dtype: Dtype) -> None:
    for classes in range(1, 201):
        check_nan_rows(np.arange(classes), classes, dtype, 0.0, NAN_BITS[dtype])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beside", [0.0, -INF, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_around_the_boundaries_of_long_rows(
    dtype: Dtype, beside: float, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for classes in (1023, 1024, 1025, 1100, 16384, 32767, 32768, 32769):
        check_nan_rows(np.array(boundaries(classes)), classes, dtype, beside, NAN_BITS[dtype][:1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_a_single_row_that_threads_share(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for place in boundaries(70000):
        for others in (0.0, -INF, INF):
            logits = np.full((1, 70000), others, dtype)
            logits[0, place] = NAN
            for output in outputs(logits, [place if place % 2 else 20000]):
                assert np.isnan(output).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_along_another_axis(dtype: Dtype) -> None:
    for classes in (1, 7, 16, 33, 130):
        logits = np.zeros((classes, classes + 1), dtype)
        logits[np.arange(classes), np.arange(classes)] = NAN
        for output in outputs(logits, np.zeros(classes + 1, int), axis=0):
            assert np.isnan(output[:classes]).all()
            assert np.isfinite(output[classes]).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_plus_infinity_at_every_place(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for classes in (1, 2, 16, 17, 65, 200, 1025, 32769):
        places = list(range(classes)) if classes <= 200 else boundaries(classes)
        logits = np.zeros((len(places) + 1, classes), dtype)
        logits[np.arange(len(places)), places] = INF
        for targets in ([*places, 0], [0] * (len(places) + 1)):
            p, log_p, lse, loss, same_loss, grad = outputs(logits, targets)
            assert (lse[:-1] == INF).all()
            for output in (p, log_p, loss, same_loss, grad):
                assert np.isnan(output[:-1]).all()
            for output in (p, log_p, lse, loss, same_loss, grad):
                assert np.isfinite(output[-1]).all()


# -inf in long rows: what is left are zeros, as many as the answer says.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_minus_infinity_in_long_rows(
    name: str, dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    logits, where, count = long_row(name, dtype, 7.0)
    classes, log_count = len(logits), math.log(count)
    assert is_near(sx.softmax(logits, threads=2), np.where(where, 1 / count, 0.0))
    assert is_near(sx.log_softmax(logits, threads=2), np.where(where, -log_count, -INF))
    assert is_near(sx.logsumexp(logits, threads=2), 7 + log_count)
    inside, outside = int(where.argmax()), int(where.argmin())
    loss, grad = sx.cross_entropy_with_grad(logits, inside, threads=2)
    assert is_near(loss, log_count)
    assert is_near(grad, np.where(where, 1 / count, 0.0) - np.eye(1, classes, inside)[0])
    loss, grad = sx.cross_entropy_with_grad(logits, outside, threads=2)
    assert is_near(loss, INF)
    assert is_near(grad, np.where(where, 1 / count, 0.0) - np.eye(1, classes, outside)[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_minus_infinity_everywhere(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for classes in (1, 2, 15, 16, 17, 64, 65, 1024, 1025, 32768, 32769, 70000):
        logits = np.full((2, classes), -INF, dtype)
        p, log_p, lse, loss, same_loss, grad = outputs(logits, [0, classes - 1])
        assert (lse == -INF).all()
        for output in (p, log_p, loss, same_loss, grad):
            assert np.isnan(output).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_minus_infinity_at_every_place_of_short_rows(dtype: Dtype) -> None:
    for classes in range(2, 131):
        logits = np.zeros((classes, classes), dtype)
        np.fill_diagonal(logits, -INF)
        rest = classes - 1
        uniform = (1 - np.eye(classes)) / rest
        p, log_p, lse, loss, _, grad = outputs(logits, np.arange(classes))
        assert is_near(p, uniform)
        assert is_near(log_p, np.where(np.eye(classes), -INF, -math.log(rest)))
        assert is_near(lse[:, 0], np.full(classes, math.log(rest)))
        assert (loss == INF).all()
        assert is_near(grad, uniform - np.eye(classes))


# Huge numbers.


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 10, 63, 64, 65, 1000, 50257])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loss_of_equal_logits_is_the_logarithm_of_their_number(dtype: Dtype, classes: int) -> None:
    for value in (0.0, 1.0, 5e4, -5e4, 1e20, -1e20, 1e30, -1e30, LARGEST[dtype], -LARGEST[dtype]):
        if abs(value) > LARGEST[dtype]:
            continue
        logits = np.full((2, classes), value, dtype)
        expected = loss_dtype(dtype).type(math.log(classes))
        unit = np.spacing(expected) if dtype == FLOAT64 else 0.0
        for reduction in ("mean", "none"):
            options: dict[str, Any] = {"reduction": reduction}
            loss, grad = sx.cross_entropy_with_grad(logits, [0, classes - 1], **options)
            assert np.all(np.abs(loss - expected) <= unit)
        slopes = np.full((2, classes), 1 / classes)
        slopes[0, 0] = slopes[1, -1] = -(classes - 1) / classes
        assert is_near(grad, slopes)
        assert is_near(sx.softmax(logits), np.full((2, classes), 1 / classes))
        assert is_near(sx.log_softmax(logits), np.full((2, classes), -math.log(classes)))
        lse = float(np.array(value, dtype).astype(np.float64)) + math.log(classes)
        assert is_near(sx.logsumexp(logits), [lse, lse])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_numbers_of_both_signs(dtype: Dtype) -> None:
    large = LARGEST[dtype]
    logits = np.array([large, -large, -large, large], dtype)
    # Twice the largest number: only float16 has a loss, in float32, that can hold it.
    gap = 2 * large if dtype == FLOAT16 else INF
    assert is_near(sx.softmax(logits), [0.5, 0.0, 0.0, 0.5])
    assert is_near(sx.log_softmax(logits), [-LN2, -INF, -INF, -LN2])
    assert is_near(sx.logsumexp(logits), large + LN2)
    loss, grad = sx.cross_entropy_with_grad(logits, 3)
    assert is_near(loss, LN2)
    assert is_near(grad, [0.5, 0.0, 0.0, -0.5])
    loss, grad = sx.cross_entropy_with_grad(logits, 1)
    assert is_near(loss, gap + LN2)
    assert is_near(grad, [0.5, -1.0, 0.0, 0.5])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_reference_that_rises_from_the_lowest_to_the_largest(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    large = LARGEST[dtype]
    for classes, place in itertools.product((1500, 20000, 70000), (0, 1, 1024, 1400)):
        steps = [-INF, -large, -1.0, 0.0, large / 2, large]
        logits = np.repeat(np.array(steps, dtype), classes // len(steps) + 1)[:classes]
        top = np.flatnonzero(logits == np.array(large, dtype))
        count, target = len(top), int(top[place % len(top)])
        loss, grad = sx.cross_entropy_with_grad(logits, target, threads=2)
        assert is_near(loss, math.log(count))
        assert np.flatnonzero(grad.astype(np.float64)).tolist() == top.tolist()
        assert is_near(sx.softmax(logits, threads=2)[top], np.full(count, 1 / count))
        assert is_near(sx.logsumexp(logits[::-1], threads=2), large + math.log(count))


def test_subnormal_logits_are_numbers() -> None:
    for dtype, tiny in ((FLOAT16, 6e-8), (BFLOAT16, 1e-40), (FLOAT32, 1e-45), (FLOAT64, 5e-324)):
        logits = np.array([tiny, -tiny, 0.0, tiny], dtype)
        assert is_near(sx.softmax(logits), [0.25] * 4)
        assert is_near(sx.cross_entropy(logits, 0), 2 * LN2)
        assert is_near(sx.logsumexp(logits), 2 * LN2)


# Temperatures.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e3, 1e30])
def test_logits_as_large_as_the_temperature(temperature: float, dtype: Dtype) -> None:
    if not 1e-4 < temperature < 1e4 and dtype == FLOAT16:
        # 2^-10 is a number of float16, 1e-30 is not.
        temperature = 2.0**-10
    # The temperature as the dtype has it, so that the quotient is exactly 1.
    temperature = float(np.array(temperature, dtype).astype(np.float64))
    logits = np.array([0.0, temperature], dtype)
    assert is_near(sx.softmax(logits, temperature=temperature), [P0, P1])
    assert is_near(sx.log_softmax(logits, temperature=temperature), [LOG_P0, LOG_P1])
    assert is_near(sx.logsumexp(logits, temperature=temperature), 1 - LOG_P1)
    loss, grad = sx.cross_entropy_with_grad(logits, 0, temperature=temperature)
    assert is_near(loss, -LOG_P0)
    wanted = np.array([-P1 / temperature, P1 / temperature])
    assert is_near(grad, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-37])
def test_low_temperature_takes_the_largest_alone(temperature: float, dtype: Dtype) -> None:
    logits = np.array([0.0, 1.0, -2.0], dtype)
    scale = 1 / temperature
    assert is_near(sx.softmax(logits, temperature=temperature), [0.0, 1.0, 0.0])
    # Beyond the dtype, the logarithms and slopes overflow.
    log_p = [x if abs(x) < LARGEST[dtype] else x * INF for x in (-scale, 0.0, -3 * scale)]
    assert is_near(sx.log_softmax(logits, temperature=temperature), log_p)
    assert is_near(sx.logsumexp(logits, temperature=temperature), scale)
    loss, grad = sx.cross_entropy_with_grad(logits, 1, temperature=temperature)
    assert is_near(loss, 0.0)
    assert is_near(grad, [0.0, 0.0, 0.0])
    loss, grad = sx.cross_entropy_with_grad(logits, 0, temperature=temperature)
    slope = scale if scale < LARGEST[dtype] else INF
    assert is_near(loss, scale)
    assert is_near(grad, [-slope, slope, 0.0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 5e-324])
def test_temperature_beyond_single_precision_takes_the_largest_alone(
    temperature: float, dtype: Dtype
) -> None:
    logits = np.array([0.0, 1.0, -2.0], dtype)
    assert is_near(sx.softmax(logits, temperature=temperature), [0.0, 1.0, 0.0])
    scale = 1 / temperature if temperature > 1e-308 else INF
    held = scale if scale < LARGEST[loss_dtype(dtype)] else INF
    assert is_near(sx.log_softmax(logits, temperature=temperature)[1], 0.0)
    assert is_near(sx.logsumexp(logits, temperature=temperature), held)
    loss, grad = sx.cross_entropy_with_grad(logits, 1, temperature=temperature)
    assert is_near(loss, 0.0)
    assert is_near(grad, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e6, 1e30, 1e300])
def test_high_temperature_makes_all_equal(temperature: float, dtype: Dtype) -> None:
    logits = np.array([0.0, 1.0, -2.0, 3.0], dtype)
    p = sx.softmax(logits, temperature=temperature)
    np.testing.assert_allclose(p.astype(np.float64), 0.25, rtol=1e-5)
    log_p = sx.log_softmax(logits, temperature=temperature)
    np.testing.assert_allclose(log_p.astype(np.float64), -2 * LN2, rtol=4e-3)
    np.testing.assert_allclose(sx.logsumexp(logits, temperature=temperature), 2 * LN2, rtol=1e-5)
    loss, grad = sx.cross_entropy_with_grad(logits, 2, temperature=temperature)
    np.testing.assert_allclose(loss, 2 * LN2, rtol=1e-5)
    slopes = np.array([0.25, 0.25, -0.75, 0.25]) / temperature
    lost = 6e-8 if dtype == FLOAT16 else 2e-38 if dtype != FLOAT64 else 0.0
    np.testing.assert_allclose(grad.astype(np.float64), slopes, rtol=1e-2, atol=lost)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e3, 1e30])
def test_special_rows_are_the_same_at_every_temperature(temperature: float, dtype: Dtype) -> None:
    rows = np.array([[0.0, NAN], [0.0, INF], [-INF, -INF], [3.0, -INF], [NAN, INF]], dtype)
    lse = 3 / temperature
    assert is_near(sx.softmax(rows, temperature=temperature)[3], [1.0, 0.0])
    assert np.isnan(sx.softmax(rows, temperature=temperature)[[0, 1, 2, 4]]).all()
    assert is_near(sx.logsumexp(rows, temperature=temperature), [NAN, INF, -INF, lse, NAN])
    options: dict[str, Any] = {"temperature": temperature, "reduction": "none"}
    loss, grad = sx.cross_entropy_with_grad(rows, [0, 0, 0, 0, 0], **options)
    assert is_near(loss, [NAN, NAN, NAN, 0.0, NAN])
    assert is_near(grad[3], [0.0, 0.0])
    assert np.isnan(grad[[0, 1, 2, 4]]).all()
    assert sx.cross_entropy(rows[3], 1, temperature=temperature) == INF


# No class, no row.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_class(dtype: Dtype) -> None:
    logits = np.empty((3, 0), dtype)
    assert sx.logsumexp(logits).tolist() == [-INF, -INF, -INF]
    assert sx.logsumexp(logits).dtype == loss_dtype(dtype)
    assert sx.logsumexp(logits[0]) == -INF
    assert sx.softmax(logits).shape == (3, 0)
    assert sx.log_softmax(logits).dtype == dtype
    for function in (sx.cross_entropy, sx.cross_entropy_with_grad):
        for targets in ([0, 0, 0], [-100, -100, -100]):
            with pytest.raises(ValueError, match="logits: expected at least one class"):
                function(logits, targets)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_row(dtype: Dtype) -> None:
    logits = np.empty((0, 5), dtype)
    assert sx.softmax(logits).shape == (0, 5)
    assert sx.log_softmax(logits, out=logits) is logits
    assert sx.logsumexp(logits).shape == (0,)
    assert sx.logsumexp(logits, keepdims=True).shape == (0, 1)
    for reduction, expected in (("mean", NAN), ("sum", 0.0)):
        options: dict[str, Any] = {"reduction": reduction}
        loss, grad = sx.cross_entropy_with_grad(logits, [], **options)
        assert is_near(loss, expected)
        assert grad.shape == (0, 5)
    assert sx.cross_entropy(logits, [], reduction="none").shape == (0,)


def test_neither_class_nor_row() -> None:
    assert sx.logsumexp(np.empty((0, 0))).shape == (0,)
    assert sx.logsumexp([]) == -INF
    assert sx.softmax([]).shape == (0,)
    with pytest.raises(ValueError, match="logits: expected at least one class"):
        sx.cross_entropy(np.empty((0, 0)), [])

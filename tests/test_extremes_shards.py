"""Shards of rows with infinities, NaN, the largest numbers: the literal answers, wherever they are cut.

A shard may be all that is wrong with a row, or hold nothing of it: its maximum is then -inf, NaN, or far
from that of the others, and a merge that scales sums to a common maximum meets `-inf - -inf`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import DTYPES, FLOAT16, INF, NAN, Array, Dtype, Thresholds, loss_dtype
from extremes import (
    CASES,
    LARGEST,
    LN2,
    MASKS,
    NAN_BITS,
    WAYS,
    SetThresholds,
    boundaries,
    case_in,
    is_near,
    long_row,
)


def of_shards(
    logits: Array,
    targets: Any,
    cuts: Sequence[int],
    mask: Array | None = None,
    temperature: float = 1.0,
    **ends: Any,
) -> tuple[Any, Array]:
    """Loss and gradient of shards that end at the cuts; the classes are the last axis."""
    bounds = list(itertools.pairwise([0, *cuts, logits.shape[-1]]))

    def told(start: int, end: int) -> dict[str, Any]:
        own = None if mask is None else mask[..., start:end]
        return {
            "class_offset": start, "class_mask": own, "temperature": temperature, "threads": 2,
        }  # fmt: skip

    merged = sx.merge_partials(
        sx.partial_cross_entropy(logits[..., a:b], targets, **told(a, b)) for a, b in bounds[::-1]
    )
    empty = ends.pop("on_empty", "nan")
    grads = [
        sx.shard_grad(logits[..., a:b], targets, merged, **told(a, b), **ends) for a, b in bounds
    ]
    loss = sx.finish_cross_entropy(merged, on_empty=empty, **ends)
    assert loss.dtype == loss_dtype(logits.dtype) or not logits.size
    return loss, np.concatenate(grads, axis=-1)


def all_cuts(classes: int) -> list[tuple[int, ...]]:
    places = range(1, classes)
    return [cuts for count in range(classes) for cuts in itertools.combinations(places, count)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_rows_with_known_answers_cut_anywhere(name: str, dtype: Dtype) -> None:
    row, target, *_, expected, slopes = case_in(name, dtype)
    for cuts in all_cuts(len(row)):
        loss, grad = of_shards(np.array(row, dtype), target, cuts)
        assert is_near(loss, expected)
        assert is_near(grad, slopes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_one_row_does_not_touch_the_others(name: str, dtype: Dtype) -> None:
    row, target, *_ = CASES[name]
    others = np.linspace(-2, 3, 4 * len(row)).reshape(4, -1).astype(dtype)
    logits = np.insert(others, 2, np.array(row, dtype), axis=0)
    kept = [0, 1, 3, 4]
    for cuts in all_cuts(len(row)):
        loss, grad = of_shards(logits, [0, 0, target, 0, 0], cuts, reduction="none")
        good_loss, good_grad = of_shards(others, [0, 0, 0, 0], cuts, reduction="none")
        assert loss[kept].tolist() == good_loss.tolist()
        assert grad[kept].tolist() == good_grad.tolist()


def check_nan_rows(places: Array, classes: int, dtype: Dtype, beside: float, bits: int) -> None:
    """A row with a NaN in some shard is NaN in all of them; a last row without it is in none."""
    rows = len(places)
    logits = np.full((rows + 1, classes), beside, dtype)
    logits[rows] = 0
    logits.view(f"u{dtype.itemsize}")[np.arange(rows), places] = bits
    for cuts in ([], [classes // 2], [1, classes // 3, classes - 1]):
        if len({0, *cuts, classes}) < len(cuts) + 2:
            continue
        for targets in (np.append(places, 0), np.full(rows + 1, classes - 1)):
            loss, grad = of_shards(logits, targets, cuts, reduction="none")
            assert np.isnan(loss[:rows]).all()
            assert np.isnan(grad[:rows]).all()
            assert np.isfinite(loss[rows])
            assert np.isfinite(grad[rows]).all()


@pytest.mark.parametrize("beside", [0.0, -INF, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_at_every_place(dtype: Dtype, beside: float) -> None:
    for classes in (1, 2, 3, 7, 16, 33, 100):
        for bits in NAN_BITS[dtype]:
            check_nan_rows(np.arange(classes), classes, dtype, beside, bits)
    places = np.array(boundaries(32769))
    check_nan_rows(places, 32769, dtype, beside, NAN_BITS[dtype][0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_shards_of_minus_infinity(
    name: str, dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    # Cut where what is left begins and ends, so that some shards have nothing.
    set_thresholds(*way)
    logits, where, count = long_row(name, dtype, 7.0)
    classes, p = len(logits), np.where(where, 1 / count, 0.0)
    edges = (np.flatnonzero(where[1:] != where[:-1]) + 1).tolist()
    for cuts in (edges, [classes // 2]):
        for target, expected in (
            (int(where.argmax()), math.log(count)),
            (int(where.argmin()), INF),
        ):
            loss, grad = of_shards(logits, target, cuts)
            assert is_near(loss, expected)
            assert is_near(grad, p - np.eye(1, classes, target)[0])


# Huge numbers.


@pytest.mark.parametrize("classes", [2, 3, 7, 64, 1000, 50257])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loss_of_equal_logits_is_the_logarithm_of_their_number(dtype: Dtype, classes: int) -> None:
    expected = loss_dtype(dtype).type(math.log(classes))
    slopes = np.full((2, classes), 1 / classes)
    slopes[0, 0] = slopes[1, -1] = -(classes - 1) / classes
    for value in (0.0, 5e4, -5e4, 1e30, -1e30, LARGEST[dtype], -LARGEST[dtype]):
        if abs(value) > LARGEST[dtype]:
            continue
        logits = np.full((2, classes), value, dtype)
        for cuts in ([1], [classes // 2], sorted({1, classes - 1})):
            loss, grad = of_shards(logits, [0, classes - 1], cuts, reduction="none")
            assert np.all(np.abs(loss - expected) <= 2 * np.spacing(expected))
            assert is_near(grad, slopes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shards_as_far_apart_as_numbers_are(dtype: Dtype) -> None:
    large = LARGEST[dtype]
    logits = np.array([-large, -large, large, large, -INF], dtype)
    # Twice the largest number: only float16 has a loss, in float32, that can hold it.
    gap = 2 * large if dtype == FLOAT16 else INF
    for cuts in all_cuts(5):
        loss, grad = of_shards(logits, 2, cuts)
        assert is_near(loss, LN2)
        assert is_near(grad, [0.0, 0.0, -0.5, 0.5, 0.0])
        loss, grad = of_shards(logits, 0, cuts)
        assert is_near(loss, gap + LN2)
        assert is_near(grad, [-1.0, 0.0, 0.5, 0.5, 0.0])
        loss, grad = of_shards(logits, 4, cuts)
        assert is_near(loss, INF)
        assert is_near(grad, [0.0, 0.0, 0.5, 0.5, -1.0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_are_shifted_exactly_give_the_same_bits(dtype: Dtype) -> None:
    random = np.random.default_rng(1)
    logits = random.integers(-8, 8, (5, 300)).astype(dtype)
    targets = random.integers(300, size=5)
    for cuts in ([], [100], [1, 150, 299]):
        loss, grad = of_shards(logits, targets, cuts, reduction="none")
        for shift in (32.0, -32.0):
            moved = (logits.astype(np.float64) + shift).astype(dtype)
            again, same = of_shards(moved, targets, cuts, reduction="none")
            assert again.tobytes() == loss.tobytes()
            assert same.tobytes() == grad.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_extreme_temperatures(temperature: float, dtype: Dtype) -> None:
    logits = np.array([0.0, 1.0, -2.0], dtype)
    for cuts in all_cuts(3):
        loss, grad = of_shards(logits, 1, cuts, temperature=temperature)
        assert is_near(loss, 0.0 if temperature < 1 else math.log(3))
        if temperature < 1:
            assert is_near(grad, [0.0, 0.0, 0.0])
            assert is_near(of_shards(logits, 0, cuts, temperature=temperature)[0], 1e30)


# No class that is allowed, and no row.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_shard_of_masked_classes_adds_nothing(dtype: Dtype) -> None:
    logits = np.array([[NAN, INF, 0.0, 0.0], [0.0, 0.0, 1.0, -INF]], dtype)
    mask = np.array([[False, False, True, True], [False] * 4])
    for cuts in all_cuts(4):
        for smoothing in (0.0, 0.5):
            loss, grad = of_shards(
                logits, [2, 0], cuts, mask, reduction="none", label_smoothing=smoothing
            )
            assert is_near(loss, [LN2, NAN])
            low = -0.5 * (1 - smoothing)
            assert is_near(grad, [[0.0, 0.0, low, -low], [0.0] * 4])
        loss, grad = of_shards(logits[0], 0, cuts, mask[0])
        assert is_near(loss, INF)
        assert is_near(grad, [0.0, 0.0, 0.5, 0.5])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_row(dtype: Dtype) -> None:
    several: list[tuple[Array, Any]] = [
        (np.empty((0, 4), dtype), []),
        (np.full((2, 4), NAN, dtype), [-100, -100]),
    ]
    for logits, targets in several:
        for cuts in all_cuts(4):
            for ends, expected in (
                ({}, NAN),
                ({"on_empty": "zero"}, 0.0),
                ({"reduction": "sum"}, 0.0),
                ({"reduction": "none"}, np.zeros(len(logits))),
            ):
                options: dict[str, Any] = ends
                loss, grad = of_shards(logits, np.array(targets, np.int64), cuts, **options)
                assert is_near(loss, expected)
                assert is_near(grad, np.zeros(logits.shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_shard_without_classes_is_refused(dtype: Dtype) -> None:
    for rows in (0, 3):
        with pytest.raises(ValueError, match="logits_shard: expected at least one class"):
            sx.partial_cross_entropy(np.empty((rows, 0), dtype), [0] * rows, class_offset=2)

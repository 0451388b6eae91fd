"""What holds of every input, tried on inputs that hypothesis invents.

Shapes, axes, dtypes, layouts and values, infinities and NaN among them, are drawn; long rows, which
would take too long to draw, are made from a drawn seed. The properties are those of the
mathematics, and that every function agrees with its twin in the reference. Examples are the same
in every run.
"""

import contextlib
import io
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import softxent as sx
from common import (
    BFLOAT16,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    ROUNDING,
    Array,
    Dtype,
    same_bits,
)
from conftest import thresholds
from hypothesis import HealthCheck, given, settings
from softxent import reference

bounded = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def precision(dtype: Dtype) -> float:
    """Half a unit in the last place of what is computed in."""
    return ROUNDING[FLOAT64 if dtype == FLOAT64 else FLOAT32]


# Inputs.


@st.composite
def logits(draw: st.DrawFn, *, special: bool = False, limit: float = 1e4) -> Array:
    """Small arrays of any dtype, rank and layout; with `special` also infinities, NaN, any size."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(max_dims=4, max_side=6))
    drawn = FLOAT32 if dtype == BFLOAT16 else dtype
    width: Any = 8 * drawn.itemsize
    numbers = st.floats(width=width) if special else st.floats(-limit, limit, width=width)
    with np.errstate(over="ignore"):
        array = draw(hnp.arrays(drawn, shape, elements=numbers)).astype(dtype)
    return laid_out(array, draw(st.sampled_from(["C", "F", "strided", "reversed"])))


def laid_out(array: Array, layout: str) -> Array:
    """Equal values in other places."""
    if layout == "strided":
        wide = np.zeros([3 * length for length in array.shape], array.dtype)
        view = wide[(slice(1, None, 3),) * array.ndim]
        view[...] = array
        return view
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return np.array(array[backwards], order="C")[backwards]
    return np.array(array, order="F" if layout == "F" else "C")


@st.composite
def long_rows(draw: st.DrawFn) -> Array:
    """A few rows that may be cut in chunks, on various scales, some of them with special values."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 3000) | st.integers(32000, 70000))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.sampled_from([0.01, 1.0, 30.0])) * random.standard_normal(shape)
    if draw(st.booleans()):
        rows.sort(axis=1)
    if draw(st.booleans()):
        rows[random.random(shape) < 0.2] = -np.inf
    return rows.astype(draw(st.sampled_from(DTYPES)))


@st.composite
def batches(draw: st.DrawFn, *, special: bool = False) -> tuple[Array, Array, int]:
    """Logits, class ids with some -100 among them, and the class axis."""
    array = draw(logits(special=special))
    axis = draw(st.integers(-array.ndim, array.ndim - 1))
    rows = array.shape[: axis % array.ndim] + array.shape[axis % array.ndim + 1 :]
    ids = st.integers(0, array.shape[axis] - 1) | st.just(-100)
    kinds = st.sampled_from(["i1", "i2", "i4", "i8", ">i4"])
    return array, draw(hnp.arrays(np.int64, rows, elements=ids)).astype(draw(kinds)), axis


TEMPERATURES = st.sampled_from([1.0, 1.0, 0.5, 3.0]) | st.floats(0.1, 100.0)


def rows_of(array: Array, axis: int) -> Array:
    """As doubles, one row after the other."""
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]).astype(np.float64)


# The functions that take logits alone.


@bounded
@given(logits(), st.data())
def test_softmax_is_a_distribution_in_the_order_of_the_logits(array: Array, data: Any) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    temperature = data.draw(TEMPERATURES)
    p = rows_of(sx.softmax(array, axis, temperature=temperature), axis)
    size = array.shape[axis]
    # Sums of probabilities lose what each of them does.
    largest = np.ptp(rows_of(array, axis), axis=1) / temperature
    lost = 2 * (ROUNDING[array.dtype] + (6 + np.minimum(largest, 90)) * precision(array.dtype))
    assert np.all(np.abs(p.sum(axis=1) - 1) <= lost + size * 2**-24 * (array.dtype == FLOAT16))
    assert np.all((p >= 0) & (p <= 1))
    for row, x in zip(p, rows_of(array, axis), strict=True):
        order = np.argsort(x, kind="stable")
        assert np.all(np.diff(row[order]) >= 0)
        assert np.all((np.diff(row[order]) == 0) | (np.diff(x[order]) > 0))


@bounded
@given(logits(), st.data())
def test_log_softmax_is_the_logarithm_of_softmax(array: Array, data: Any) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    temperature = data.draw(TEMPERATURES)
    log_p = rows_of(sx.log_softmax(array, axis, temperature=temperature), axis)
    p = rows_of(sx.softmax(array, axis, temperature=temperature), axis)
    assert np.all(log_p <= 0)
    # A relative error of the logarithm is an absolute one of its argument's exponent.
    rounding = ROUNDING[array.dtype] + 4 * precision(array.dtype)
    near = np.minimum((1 - log_p) * 2 * rounding, 700)
    lost = 2.0**-24 if array.dtype == FLOAT16 else 2.0**-125
    assert np.all(np.abs(np.exp(log_p) - p) <= np.expm1(near) * np.exp(log_p) + lost)


@bounded
@given(logits(), st.data())
def test_logsumexp_lies_between_the_largest_and_that_plus_log_n(array: Array, data: Any) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    temperature = data.draw(TEMPERATURES)
    lse = rows_of(sx.logsumexp(array, axis, keepdims=True, temperature=temperature), axis)[:, 0]
    top = rows_of(array, axis).max(axis=1) / temperature
    log_n = math.log(array.shape[axis])
    unit = 4 * precision(array.dtype) * np.maximum(np.abs(top), 1)
    assert np.all(lse >= top - unit)
    assert np.all(lse <= top + log_n + unit)


@bounded
@given(logits(), st.data())
def test_logsumexp_of_parts_is_that_of_the_whole(array: Array, data: Any) -> None:
    cut = data.draw(st.integers(0, array.shape[-1]))
    whole = sx.logsumexp(array, dtype=np.float64)
    parts = [sx.logsumexp(part, dtype=np.float64) for part in (array[..., :cut], array[..., cut:])]
    together = sx.logsumexp(np.stack(parts, axis=-1))
    unit = 8 * precision(array.dtype) * np.maximum(np.abs(whole), 1)
    assert np.all(np.abs(together - whole) <= 16 * unit)


# Everything against the reference, special values included.


def agree(got: Any, expected: Any, dtype: Dtype, relative: Any, beside: Any = 0.0) -> None:
    assert got.dtype == dtype
    values = np.asarray(got).astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = np.array(expected).astype(dtype).astype(np.float64)
    assert values.shape == wanted.shape
    finite = np.isfinite(wanted) & np.isfinite(values)
    assert np.array_equal(values[~finite], wanted[~finite], equal_nan=True)
    lost = 2.0**-24 if dtype == FLOAT16 else 2.0**-125 if dtype != FLOAT64 else 2.0**-1021
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = (relative + 2 * ROUNDING[dtype]) * (np.abs(wanted) + beside) + lost
        off = np.abs(values - wanted) > allowed
    assert not off[finite].any()


@settings(bounded, max_examples=400)
@given(batches(special=True), TEMPERATURES, st.data())
def test_every_function_agrees_with_the_reference(
    batch: tuple[Array, Array, int], temperature: float, data: Any
) -> None:
    array, targets, axis = batch
    exact = array.astype(np.float64).tolist()
    dtype = array.dtype
    like_loss = FLOAT64 if dtype == FLOAT64 else FLOAT32
    options: dict[str, Any] = {"temperature": temperature}
    # Probabilities down to the smallest normal number have gaps of 90, or of 710.
    relative = (8 + (1420 if dtype == FLOAT64 else 180)) * precision(dtype)
    for name in ("softmax", "log_softmax"):
        expected = getattr(reference, name)(exact, axis, **options)
        agree(getattr(sx, name)(array, axis, **options), expected, dtype, relative)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.nanmax(np.abs(np.where(np.isfinite(array), array, 0).astype(float))) / temperature
    lse = reference.logsumexp(exact, axis, **options)
    agree(sx.logsumexp(array, axis, **options), lse, like_loss, 8 * precision(dtype), size)

    reduction = data.draw(st.sampled_from(["none", "mean", "sum"]))
    options.update(axis=axis, reduction=reduction)
    if reduction == "mean":
        options["on_empty"] = data.draw(st.sampled_from(["nan", "zero"]))
        options["normalizer"] = data.draw(st.sampled_from([None, None, 3.5]))
    options["ignore_index"] = data.draw(st.sampled_from([-100, [-100, 0], [-100, 1, 2, 77]]))
    upstream = data.draw(st.sampled_from([None, 1, -2.5]))
    loss, grad = reference.cross_entropy_with_grad(
        exact, targets.tolist(), grad_output=upstream, **options
    )
    got_loss, got_grad = sx.cross_entropy_with_grad(array, targets, grad_output=upstream, **options)
    agree(got_loss, loss, like_loss, relative)
    agree(got_grad, grad, dtype, relative)
    assert same_bits(sx.cross_entropy(array, targets, **options), got_loss) or np.isnan(loss).any()


# The loss and its gradient.


@bounded
@given(batches(), TEMPERATURES)
def test_loss_is_minus_the_log_probability_of_the_target(
    batch: tuple[Array, Array, int], temperature: float
) -> None:
    array, targets, axis = batch
    loss = sx.cross_entropy(
        array, targets, axis=axis, temperature=temperature, reduction="none", dtype=np.float64
    )
    log_p = sx.log_softmax(array, axis, temperature=temperature, dtype=np.float64)
    valid = np.asarray(targets != -100)
    ids = np.where(valid, targets, 0).astype(np.int64)
    at = np.take_along_axis(log_p, np.expand_dims(ids, axis), axis).squeeze(axis)
    assert np.all(loss >= 0)
    assert np.all(np.asarray(loss)[~valid] == 0)
    # Both have their own sum of exponentials.
    near = 256 * precision(array.dtype) * np.abs(at) + 2.0**-125
    assert np.all(np.abs(loss + at)[valid] <= near[valid])


@bounded
@given(batches(), TEMPERATURES)
def test_gradient_of_a_row_sums_to_zero_and_falls_at_the_target_alone(
    batch: tuple[Array, Array, int], temperature: float
) -> None:
    array, targets, axis = batch
    _, grad = sx.cross_entropy_with_grad(
        array, targets, axis=axis, temperature=temperature, reduction="none"
    )
    slopes = rows_of(grad, axis)
    rounding = ROUNDING[array.dtype] + 100 * precision(array.dtype)
    lost = slopes.shape[1] * (2.0**-24 if array.dtype == FLOAT16 else 2.0**-120)
    assert np.all(np.abs(slopes.sum(axis=1)) <= rounding * np.abs(slopes).sum(axis=1) + lost)
    for row, target in zip(slopes, targets.ravel().tolist(), strict=True):
        if target == -100:
            assert not row.any()
        else:
            assert row[target] <= 0
            assert np.all(np.delete(row, target) >= 0)


@bounded
@given(batches(special=True), TEMPERATURES)
def test_an_ignored_row_is_as_good_as_no_row(
    batch: tuple[Array, Array, int], temperature: float
) -> None:
    array, targets, axis = batch
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    ids = targets.ravel()
    valid = ids != -100
    options: dict[str, Any] = {"temperature": temperature}
    loss, grad = sx.cross_entropy_with_grad(rows, ids, **options)
    kept_loss, kept_grad = sx.cross_entropy_with_grad(rows[valid], ids[valid], **options)
    np.testing.assert_array_equal(loss, kept_loss)
    # NumPy knows no NaN of bfloat16.
    np.testing.assert_array_equal(grad[valid].astype(float), kept_grad.astype(float))


@bounded
@given(batches(), st.data())
def test_reductions_are_of_the_same_rows(batch: tuple[Array, Array, int], data: Any) -> None:
    array, targets, axis = batch
    losses = sx.cross_entropy(array, targets, axis=axis, reduction="none", dtype=np.float64)
    total, valid = math.fsum(np.ravel(losses)), int((targets != -100).sum())
    inner = st.lists(st.integers(0, targets.size), max_size=4).map(sorted)
    offsets = [0, *data.draw(inner), targets.size]
    for denominator, options in (
        (1, {"reduction": "sum"}),
        (valid, {"reduction": "mean"}),
        (2.5, {"normalizer": 2.5}),
        (len(offsets) - 1, {"reduction": "sequence_mean", "offsets": offsets}),
    ):
        keywords: dict[str, Any] = {"axis": axis, "dtype": np.float64, **options}
        loss = sx.cross_entropy(array, targets, **keywords)
        if denominator:
            assert loss == pytest.approx(total / denominator, rel=4 * ROUNDING[FLOAT64])
        else:
            assert np.isnan(loss)


@bounded
@given(batches(), st.data())
def test_gradient_is_linear_in_what_comes_after(batch: tuple[Array, Array, int], data: Any) -> None:
    array, targets, axis = batch
    upstream = data.draw(hnp.arrays(np.float64, targets.shape, elements=st.floats(-8, 8)))
    options: dict[str, Any] = {"axis": axis, "reduction": "none"}
    _, one = sx.cross_entropy_with_grad(array, targets, **options)
    _, grad = sx.cross_entropy_with_grad(array, targets, grad_output=upstream, **options)
    expected = one.astype(np.float64) * np.expand_dims(upstream, axis)
    lost = 2.0**-20 if array.dtype == FLOAT16 else 2.0**-120
    near = 4 * ROUNDING[array.dtype]
    np.testing.assert_allclose(grad.astype(np.float64), expected, rtol=near, atol=lost)


# Same bits.


def everything(
    array: Array, targets: Array, axis: int, temperature: float, **options: Any
) -> list[Array]:
    """All results, with the class axis last."""
    options.update(axis=axis, temperature=temperature)
    loss, grad = sx.cross_entropy_with_grad(array, targets, reduction="none", **options)
    lse = sx.logsumexp(array, **options)
    p, log_p = sx.softmax(array, **options), sx.log_softmax(array, **options)
    return [
        np.asarray(loss),
        np.asarray(lse),
        *(np.moveaxis(r, axis, -1) for r in (grad, p, log_p)),
    ]


@bounded
@given(batches(), TEMPERATURES, st.data())
def test_layout_and_axis_do_not_change_a_bit(
    batch: tuple[Array, Array, int], temperature: float, data: Any
) -> None:
    array, targets, axis = batch
    plain = np.array(np.moveaxis(array, axis, -1), order="C")
    expected = everything(plain, targets, -1, temperature)
    found = everything(array, targets, axis, temperature)
    assert all(map(same_bits, found, expected))
    # And with any order of the axes that remain.
    order = data.draw(st.permutations(range(targets.ndim)))
    moved = everything(plain.transpose(*order, -1), targets.transpose(order), -1, temperature)
    for result, wanted in zip(moved, expected, strict=True):
        rest = [-1] if wanted.ndim > targets.ndim else []
        assert same_bits(result, wanted.transpose(*order, *rest))


@bounded
@given(batches(), TEMPERATURES, st.sampled_from(["C", "F", "strided", "reversed"]))
def test_out_holds_what_would_have_been_returned(
    batch: tuple[Array, Array, int], temperature: float, layout: str
) -> None:
    array, targets, axis = batch
    options: dict[str, Any] = {"temperature": temperature}
    _, grad = sx.cross_entropy_with_grad(array, targets, axis=axis, **options)
    results = sx.softmax(array, axis, **options), sx.log_softmax(array, axis, **options), grad
    # In an array of its own, and in place.
    for start in (np.zeros_like(array), array):
        outs = [laid_out(np.array(start), layout) for _ in results]
        sources = outs if start is array else [array] * 3
        assert sx.softmax(sources[0], axis, out=outs[0], **options) is outs[0]
        assert sx.log_softmax(sources[1], axis, out=outs[1], **options) is outs[1]
        _, out = sx.cross_entropy_with_grad(sources[2], targets, axis=axis, out=outs[2], **options)
        assert out is outs[2]
        assert all(map(same_bits, outs, results))


@settings(bounded, max_examples=60)
@given(
    long_rows(),
    st.integers(1, 8),
    st.tuples(*[st.sampled_from([None, 0, 1, 5000])] * 3),
    st.data(),
)
def test_threads_and_thresholds_do_not_change_a_bit(
    rows: Array, threads: int, sizes: tuple[int | None, int | None, int | None], data: Any
) -> None:
    ids = st.integers(0, rows.shape[1] - 1)
    targets = np.array([data.draw(ids) for _ in rows])
    expected = everything(rows, targets, -1, 1.0, threads=1)
    with thresholds(*sizes):
        found = everything(rows, targets, -1, 1.0, threads=threads)
    for result, wanted in zip(found, expected, strict=True):
        assert np.asarray(result).tobytes() == np.asarray(wanted).tobytes()


@settings(bounded, max_examples=60)
@given(long_rows(), st.data())
def test_a_row_is_the_same_alone_and_among_others(rows: Array, data: Any) -> None:
    targets = np.array([data.draw(st.integers(0, rows.shape[1] - 1)) for _ in rows])
    together = everything(rows, targets, -1, 1.0)
    for row, target in enumerate(targets):
        alone = everything(rows[row], target, -1, 1.0)
        for result, wanted in zip(alone, together, strict=True):
            np.testing.assert_array_equal(result, wanted[row])


@settings(bounded, max_examples=40)
@given(long_rows(), st.data())
def test_order_of_the_classes_changes_no_more_than_roundings(rows: Array, data: Any) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    order = random.permutation(rows.shape[1])
    targets = random.integers(rows.shape[1], size=len(rows))
    places = np.argsort(order)[targets]
    before, lse, _, p, _ = everything(rows, targets, -1, 1.0)
    after, permuted_lse, _, permuted_p, _ = everything(rows[:, order], places, -1, 1.0)
    near = 100 * precision(rows.dtype)
    np.testing.assert_allclose(after, before, rtol=near)
    np.testing.assert_allclose(permuted_lse, lse, rtol=near, atol=near)
    wanted = p[:, order].astype(np.float64)
    lost = 2.0**-24 if rows.dtype == FLOAT16 else 2.0**-125
    np.testing.assert_allclose(
        permuted_p.astype(np.float64), wanted, rtol=near + 2 * ROUNDING[rows.dtype], atol=lost
    )


@bounded
@given(
    st.integers(-50, 50), hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-50, 50))
)
def test_exact_shift_changes_no_bit(shift: int, integers: Array) -> None:
    for dtype in DTYPES:
        row, moved = integers.astype(dtype), (integers + shift).astype(dtype)
        for target in {0, len(row) - 1}:
            loss, grad = sx.cross_entropy_with_grad(row, target)
            moved_loss, moved_grad = sx.cross_entropy_with_grad(moved, target)
            assert same_bits(loss, moved_loss)
            assert same_bits(grad, moved_grad)
        assert same_bits(sx.softmax(row), sx.softmax(moved))
        assert same_bits(sx.log_softmax(row), sx.log_softmax(moved))


# What is not mathematics.


@bounded
@given(st.integers(1, 10**6))
def test_threads_are_what_was_set(threads: int) -> None:
    default = sx.get_threads()
    try:
        sx.set_threads(threads)
        assert sx.get_threads() == threads
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            facts = sx.show_runtime()
        assert facts["threads"] == threads
        assert f"threads: {threads}\n" in printed.getvalue()
    finally:
        sx.set_threads(None)
    assert sx.get_threads() == default

"""The loss of a linear layer without its logits: what it is, what it reads, what it leaves alone.

Expected values come from the logits written out in doubles, and from the reference. Shapes are on both
sides of where the products are cut: 256 and 2048 classes, 512 and 1024 steps of a sum, 1024 rows.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.strategies as st
import ml_dtypes
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
    drawn,
    lists,
    loss_dtype,
    same_bits,
)
from conftest import LAYOUTS, thresholds
from hypothesis import given, settings
from softxent import reference

NAMES: Any = ("hidden", "linear_weight", "linear_bias")


class Layer(NamedTuple):
    """The operands and the targets of a call."""

    hidden: Array
    linear_weight: Array
    targets: Array
    linear_bias: Array | None = None

    def as_type(self, dtype: Any) -> "Layer":
        bias = None if self.linear_bias is None else self.linear_bias.astype(dtype)
        return Layer(
            self.hidden.astype(dtype), self.linear_weight.astype(dtype), self.targets, bias
        )


def layer_of(rows: int, width: int, classes: int, dtype: Any = np.float32, seed: int = 0) -> Layer:
    """Logits of about 1, a bias, and a class for each row; of three rows or more the second is ignored."""
    random = np.random.default_rng([seed, rows, width, classes])
    scale = max(width, 1) ** -0.5
    layer = Layer(
        random.standard_normal((rows, width)),
        random.standard_normal((classes, width)) * scale,
        random.integers(classes, size=rows),
        random.standard_normal(classes),
    )
    if rows > 2:
        layer.targets[1] = -100
    return layer.as_type(dtype)


def written_out(layer: Layer, **options: Any) -> tuple[Any, Any]:
    """The loss and the three gradients, of logits in doubles."""
    exact = layer.as_type(np.float64)
    logits = exact.hidden @ exact.linear_weight.T
    if exact.linear_bias is not None:
        logits += exact.linear_bias
    loss, grad = sx.cross_entropy_with_grad(logits, layer.targets, **options)
    rows = grad.reshape(-1, grad.shape[-1])
    hidden = exact.hidden.reshape(len(rows), -1)
    return loss, (grad @ exact.linear_weight, rows.T @ hidden, rows.sum(axis=0))


def close(got: Any, expected: Any, dtype: Dtype, terms: int, products: Dtype | None = None) -> None:
    """Of that dtype, and near: relative to the largest element, for others may have cancelled."""
    assert got.dtype == dtype
    values = np.asarray(got).astype(np.float64)
    assert values.shape == np.shape(expected)
    of_products = ROUNDING[products or loss_dtype(dtype)] * (16 + 4 * math.sqrt(terms))
    rounding = of_products + 2 * ROUNDING[dtype]
    size = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=rounding * size + 1e-7 * (dtype == FLOAT16)
    )


def agree_with_logits(layer: Layer, threads: int | None = None, **options: Any) -> None:
    dtype = layer.hidden.dtype
    expected_loss, expected = written_out(layer, **options)
    loss, found = sx.linear_cross_entropy_with_grad(*layer, threads=threads, **options)
    terms = layer.hidden.shape[-1] + len(layer.linear_weight) + layer.targets.size
    close(np.asarray(loss), expected_loss, loss_dtype(dtype), terms)
    for got, wanted, operand in zip(found, expected, (*layer[:2], layer.linear_bias), strict=True):
        if operand is None:
            assert got is None
        else:
            close(got, wanted, dtype, terms)
    options.pop("grad_output", None)
    assert same_bits(sx.linear_cross_entropy(*layer, threads=threads, **options), loss)


# Values.

SHAPES = [
    (1, 1, 1),
    (2, 700, 2300),
    (32, 37, 300),
    (33, 37, 300),
    (3, 5, 7),
    (7, 3, 65),
    (17, 33, 300),
    (70, 600, 257),
    (5, 1025, 2049),
    (1100, 9, 12),
    (600, 20, 2600),
    (2050, 3, 300),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_loss_and_gradients_are_those_of_the_logits(
    shape: tuple[int, int, int], dtype: Dtype, threads: int
) -> None:
    with thresholds(0, None, None):
        agree_with_logits(layer_of(*shape, dtype=dtype), threads)
        agree_with_logits(layer_of(*shape, dtype=dtype)._replace(linear_bias=None), threads)


def test_an_image_or_a_single_row_is_as_good_as_a_table() -> None:
    layer = layer_of(24, 5, 40)
    loss, found = sx.linear_cross_entropy_with_grad(*layer, reduction="none")
    shaped = layer._replace(
        hidden=layer.hidden.reshape(2, 3, 4, 5), targets=layer.targets.reshape(2, 3, 4)
    )
    other, others = sx.linear_cross_entropy_with_grad(*shaped, reduction="none")
    assert same_bits(other.reshape(-1), loss)
    assert others.hidden is not None
    assert same_bits(others.hidden.reshape(24, 5), found.hidden)
    assert same_bits(others.linear_weight, found.linear_weight)
    one = layer._replace(hidden=layer.hidden[0], targets=layer.targets[0])
    loss_of_one, of_one = sx.linear_cross_entropy_with_grad(*one)
    assert loss_of_one == loss[0]
    assert of_one.hidden is not None
    assert of_one.hidden.shape == (5,)


def test_a_known_loss() -> None:
    """The next word after "the cat sat on the": mat, hat, sat, rug."""
    identity, text = np.eye(4), np.array([3.2, 1.0, -0.5, 2.5])
    assert round(float(sx.linear_cross_entropy(text, identity, 0)), 4) == 0.4899
    assert round(float(sx.linear_cross_entropy(np.zeros(4), identity, 0, text)), 4) == 0.4899


def test_no_columns_leave_the_bias() -> None:
    layer = layer_of(4, 0, 9)
    assert layer.linear_bias is not None
    logits = np.broadcast_to(layer.linear_bias, (4, 9))
    loss, found = sx.linear_cross_entropy_with_grad(*layer)
    assert same_bits(loss, sx.cross_entropy(logits, layer.targets))
    assert found.hidden is not None
    assert found.linear_weight is not None
    assert (found.hidden.shape, found.linear_weight.shape) == ((4, 0), (9, 0))
    for dtype in DTYPES:
        flat = layer.as_type(dtype)._replace(linear_bias=None)
        np.testing.assert_allclose(float(sx.linear_cross_entropy(*flat)), math.log(9), rtol=1e-6)


@st.composite
def options_of(draw: st.DrawFn, rows: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Every option of the loss, now and then."""

    def now_and_then(value: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | value)

    def numbers(shape: Any) -> st.SearchStrategy[Any]:
        seeds = st.integers(0, 2**31)
        return seeds.map(lambda seed: np.random.default_rng(seed).integers(0, 5, shape) / 4)

    def mask(shape: Any) -> st.SearchStrategy[Any]:
        seeds = st.integers(0, 2**31)
        return seeds.map(lambda seed: np.random.default_rng(seed).random(shape) < 0.8)

    reduction = draw(st.sampled_from(["none", "sum", "mean"]))
    found = {
        "weight": now_and_then(numbers(classes)),
        "sample_weight": now_and_then(numbers(rows)),
        "label_smoothing": now_and_then(st.sampled_from([0.1, 1.0])),
        "z_loss": now_and_then(st.just(0.01)),
        "temperature": now_and_then(st.sampled_from([0.5, 3.0])),
        "softcap": now_and_then(st.sampled_from([1.0, 30.0])),
        "valid_classes": now_and_then(st.integers(1, classes)),
        "class_mask": now_and_then(mask(classes) | mask((*rows, classes))),
        "normalizer": now_and_then(st.just(3.5)) if reduction == "mean" else None,
        "grad_output": now_and_then(
            st.just(-2.5) | (numbers(rows) if reduction == "none" else st.just(2.0))
        ),
    }
    given = {name: value for name, value in found.items() if value is not None}
    return given | {"reduction": reduction, "on_empty": draw(st.sampled_from(["nan", "zero"]))}


@settings(drawn, max_examples=300)
@given(st.data())
def test_every_option_means_what_it_means_in_the_reference(data: Any) -> None:
    rows = data.draw(st.sampled_from([(1,), (3,), (2, 3), (0,)]))
    width, classes = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    dtype = data.draw(st.sampled_from(DTYPES))
    layer = layer_of(math.prod(rows), width, classes, dtype, data.draw(st.integers(0, 99)))
    targets: Any = np.where(
        np.random.default_rng(1).random(rows) < 0.3, -100, layer.targets.reshape(rows)
    )
    if data.draw(st.booleans()):
        targets = np.random.default_rng(2).random((*rows, classes)).round(2)
    bias = layer.linear_bias if data.draw(st.booleans()) else None
    layer = Layer(layer.hidden.reshape(*rows, width), layer.linear_weight, targets, bias)
    options = data.draw(options_of(rows, classes))
    grads = data.draw(st.sets(st.sampled_from(NAMES)))
    if rows == (0,):  # as lists they have no columns
        loss, found = sx.linear_cross_entropy_with_grad(*layer, grads=grads, **options)
        assert np.array_equal(
            loss,
            sx.cross_entropy(np.zeros((0, classes)), targets, **without_grad(options)),
            equal_nan=True,
        )
        assert all(not np.any(grad) for grad in found if grad is not None)
        return
    expected_loss, expected = reference.linear_cross_entropy_with_grad(
        *map(lists, layer), grads=grads, **{key: lists(value) for key, value in options.items()}
    )
    loss, found = sx.linear_cross_entropy_with_grad(*layer, grads=grads, **options)
    compare(loss, expected_loss, loss_dtype(dtype), 1e-30)
    for got, wanted in zip(found, expected, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            compare(got, wanted, dtype, finite_size(wanted))


@settings(drawn, max_examples=60)
@given(st.data())
def test_the_cuts_between_chunks_leave_no_trace(data: Any) -> None:
    """Rows that count on both sides of a whole number of chunks, whatever is ignored between them."""
    counting = data.draw(st.sampled_from([1, 1023, 1024, 1025, 2048, 2049]))
    ignored = data.draw(st.sampled_from([0, 1, 700]))
    rows, classes = counting + ignored, data.draw(st.integers(1, 30))
    dtype = data.draw(st.sampled_from(DTYPES))
    layer = layer_of(rows, data.draw(st.integers(1, 4)), classes, dtype)
    targets: Any = np.random.default_rng(1).integers(classes, size=rows)
    options = data.draw(options_of((rows,), classes))
    if data.draw(st.booleans()):
        targets = np.random.default_rng(2).random((rows, classes)).round(2)
    elif ignored:
        targets[np.random.default_rng(3).permutation(rows)[:ignored]] = -100
    layer = layer._replace(targets=targets)
    expected_loss, expected = written_out(layer, **options)
    with thresholds(*data.draw(st.sampled_from([(None, None, None), (0, None, None)]))):
        loss, found = sx.linear_cross_entropy_with_grad(*layer, threads=3, **options)
    compare(loss, expected_loss, loss_dtype(dtype), finite_size(expected_loss))
    for got, wanted in zip(found, expected, strict=True):
        compare(got, wanted, dtype, finite_size(wanted))


def finite_size(values: Any) -> float:
    return float(np.abs(np.nan_to_num(values, posinf=0, neginf=0)).max(initial=0))


def without_grad(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "grad_output"}


def compare(got: Any, expected: Any, dtype: Dtype, size: float) -> None:
    assert got.dtype == dtype
    rounding = 200 * ROUNDING[loss_dtype(dtype)] + 2 * ROUNDING[dtype]
    lost = 1e-7 if dtype == FLOAT16 else 0.0
    np.testing.assert_allclose(
        np.asarray(got).astype(np.float64),
        np.array(expected, np.float64),
        rtol=rounding,
        atol=rounding * max(size, 0.1) + lost,
    )


@pytest.mark.parametrize("operand", NAMES)
def test_gradients_are_what_a_small_step_makes_of_the_loss(operand: str) -> None:
    layer = layer_of(6, 4, 11, np.float64)
    layer.targets[layer.targets == 10] = 0
    options: dict[str, Any] = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 3.0}
    options |= {"reduction": "sum", "temperature": 1.5, "valid_classes": 10}
    _, found = sx.linear_cross_entropy_with_grad(*layer, **options)
    grad = getattr(found, operand)
    for place in np.ndindex(grad.shape):
        losses = []
        for step in (1e-5, -1e-5):
            moved = getattr(layer, operand).copy()
            moved[place] += step
            losses.append(sx.linear_cross_entropy(*layer._replace(**{operand: moved}), **options))
        slope = (losses[0] - losses[1]) / 2e-5
        assert abs(slope - grad[place]) < 1e-8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 5, 16, 17, 32, 33])
def test_some_rows_and_their_gradients_are_the_same_alone_as_in_a_batch(
    count: int, dtype: Dtype
) -> None:
    """Few rows are multiplied in another way, but in the same order."""
    layer = layer_of(1500, 590, 2100, dtype)
    options: dict[str, Any] = {"reduction": "none", "class_mask": np.arange(2100) % 7 > 0}
    losses, found = sx.linear_cross_entropy_with_grad(*layer, **options)
    assert found.hidden is not None
    for first in (0, 1010, 1500 - count):
        rows = slice(first, first + count)
        some = layer._replace(hidden=layer.hidden[rows], targets=layer.targets[rows])
        loss, of_some = sx.linear_cross_entropy_with_grad(*some, **options)
        assert same_bits(loss, losses[rows])
        assert same_bits(of_some.hidden, found.hidden[rows])


# The same bits.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1100, 300, 700), (40, 1030, 4200), (3, 530, 4200)], ids=str)
def test_neither_threads_nor_repeats_change_a_bit(
    shape: tuple[int, int, int], dtype: Dtype
) -> None:
    layer = layer_of(*shape, dtype=dtype)
    expected_loss, expected = sx.linear_cross_entropy_with_grad(*layer, threads=1)
    for threads in (1, 2, 3, 4, 7):
        with thresholds(0, None, None):
            loss, found = sx.linear_cross_entropy_with_grad(*layer, threads=threads)
        assert same_bits(loss, expected_loss)
        assert all(map(same_bits, found, expected))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_layout_changes_a_bit(name: str, dtype: Dtype) -> None:
    layer = layer_of(21, 19, 300, dtype)
    expected_loss, expected = sx.linear_cross_entropy_with_grad(*layer)
    laid_out = Layer(*(LAYOUTS[name](array) for array in layer if array is not None))
    before = [array.tobytes() for array in laid_out if array is not None]
    loss, found = sx.linear_cross_entropy_with_grad(*laid_out)
    assert same_bits(loss, expected_loss)
    assert all(map(same_bits, found, expected))
    assert [array.tobytes() for array in laid_out if array is not None] == before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_asked_for_does_not_depend_on_what_else_is(dtype: Dtype) -> None:
    layer = layer_of(30, 12, 400, dtype)
    loss, everything = sx.linear_cross_entropy_with_grad(*layer)
    for grads in ((), NAMES[:1], NAMES[1:2], NAMES[2:], [*NAMES[::2]], {*NAMES[1:]}):
        other, found = sx.linear_cross_entropy_with_grad(*layer, grads=grads)
        assert same_bits(other, loss)
        for name, grad, full in zip(NAMES, found, everything, strict=True):
            assert same_bits(grad, full) if name in grads else grad is None


# What is written where.


def places(layer: Layer, fill: float) -> Any:
    return tuple(
        None if array is None else np.full_like(array, fill)
        for array in (*layer[:2], layer.linear_bias)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_written_into_out_whatever_was_there(dtype: Dtype) -> None:
    layer = layer_of(1030, 12, 300, dtype)
    _, expected = sx.linear_cross_entropy_with_grad(*layer, valid_classes=290)
    out = places(layer, NAN)
    _, found = sx.linear_cross_entropy_with_grad(*layer, valid_classes=290, out=out)
    assert all(grad is place for grad, place in zip(found, out, strict=True))
    assert all(map(same_bits, found, expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_added_to_what_is_in_out(dtype: Dtype) -> None:
    layer = layer_of(1030, 12, 300, dtype)
    out = places(layer, 0.5)
    _, found = sx.linear_cross_entropy_with_grad(
        *layer, valid_classes=290, out=out, accumulate=True, reduction="sum"
    )
    _, expected = written_out(layer, valid_classes=290, reduction="sum")
    for grad, wanted in zip(found, expected, strict=True):
        close(grad, wanted + 0.5, dtype, 1300)
    assert found.hidden is not None
    assert (found.hidden[1] == 0.5).all()  # ignored
    assert found.linear_weight is not None
    assert (found.linear_weight[290:] == 0.5).all()


def test_out_may_lie_backwards() -> None:
    layer = layer_of(20, 6, 40)
    _, expected = sx.linear_cross_entropy_with_grad(*layer)
    out: Any = tuple(place[::-1] for place in places(layer, NAN))
    _, found = sx.linear_cross_entropy_with_grad(*layer, out=out)
    assert all(map(same_bits, found, expected))


def test_micro_batches_add_up_to_the_batch() -> None:
    layer = layer_of(96, 12, 300, np.float64)
    tokens = float((layer.targets != -100).sum())
    _, expected = sx.linear_cross_entropy_with_grad(*layer)
    total: Any = (None, np.zeros((300, 12)), np.zeros(300))
    for part in range(0, 96, 32):
        rows = slice(part, part + 32)
        micro = layer._replace(hidden=layer.hidden[rows], targets=layer.targets[rows])
        sx.linear_cross_entropy_with_grad(
            *micro, normalizer=tokens, grads=NAMES[1:], out=total, accumulate=True
        )
    for got, wanted in zip(total[1:], expected[1:], strict=True):
        assert wanted is not None
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("accumulate", [False, True])
def test_out_may_have_gaps(dtype: Dtype, accumulate: bool) -> None:
    layer = layer_of(20, 6, 40, dtype)
    options: dict[str, Any] = {"accumulate": accumulate}
    dense = places(layer, 0.5)
    sx.linear_cross_entropy_with_grad(*layer, out=dense, **options)
    for step in (2, -1):
        wide = [np.full([2 * n for n in place.shape], 0.5, dtype) for place in dense]
        views: Any = tuple(array[(slice(None, None, step),) * array.ndim] for array in wide)
        views = tuple(
            view[tuple(map(slice, place.shape))] for view, place in zip(views, dense, strict=True)
        )
        before = [array.copy() for array in wide]
        sx.linear_cross_entropy_with_grad(*layer, out=views, **options)
        assert all(map(same_bits, views, dense))
        for view in views:
            view[...] = 0.5
        assert all(map(same_bits, wide, before))


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_a_sum_over_many_chunks_is_rounded_to_16_bits_once(dtype: Dtype) -> None:
    """Terms of which each alone would vanish beside the sum."""
    rows = 5000
    hidden = np.ones((rows, 1), dtype)
    layer = Layer(hidden, np.zeros((2, 1), dtype), np.zeros(rows, int), np.zeros(2, dtype))
    _, found = sx.linear_cross_entropy_with_grad(*layer, reduction="sum")
    expected = np.array([-rows / 2, rows / 2]).astype(dtype)
    assert found.linear_weight is not None
    assert same_bits(found.linear_weight[:, 0], expected)
    assert same_bits(found.linear_bias, expected)


def test_operands_may_be_of_several_dtypes_and_every_gradient_is_of_its_own() -> None:
    layer = layer_of(9, 8, 70, np.float64)
    for kinds in [
        (FLOAT16, FLOAT32, BFLOAT16),
        (FLOAT32, FLOAT64, FLOAT32),
        (BFLOAT16, FLOAT16, FLOAT64),
    ]:
        hidden, weight, bias = (
            np.asarray(array).astype(kind)
            for array, kind in zip((*layer[:2], layer.linear_bias), kinds, strict=True)
        )
        mixed = Layer(hidden, weight, layer.targets, bias)
        expected_loss, expected = written_out(mixed)
        loss, found = sx.linear_cross_entropy_with_grad(*mixed)
        products = FLOAT64 if FLOAT64 in kinds[:2] else FLOAT32
        assert loss.dtype == products
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
        for grad, wanted, kind in zip(found, expected, kinds, strict=True):
            close(grad, wanted, kind, 100, products)


def test_integers_are_doubles_and_lists_are_taken() -> None:
    loss, found = sx.linear_cross_entropy_with_grad([[1, 2]], [[3, 4], [5, 6]], [0], [0, 1])
    assert loss.dtype == FLOAT64
    assert all(grad is not None and grad.dtype == FLOAT64 for grad in found)
    assert loss == sx.cross_entropy([[11.0, 18.0]], [0])
    narrow = sx.linear_cross_entropy([[1, 2]], [[3, 4], [5, 6]], [0], dtype="float32")
    assert narrow.dtype == FLOAT32


# What is not read.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_do_not_count_are_not_read(dtype: Dtype) -> None:
    layer = layer_of(40, 12, 300, dtype)
    counts = np.random.default_rng(0).random(40) < 0.5
    weights = np.where(np.arange(40) % 3 == 0, 0.0, 2.0)
    ignored = layer._replace(targets=np.where(counts, layer.targets, -100))
    kept = (ignored.targets != -100) & (weights != 0)
    loss, found = sx.linear_cross_entropy_with_grad(*ignored, sample_weight=weights)
    spoilt = ignored._replace(hidden=np.where(kept[:, np.newaxis], layer.hidden, dtype.type(NAN)))
    other, others = sx.linear_cross_entropy_with_grad(*spoilt, sample_weight=weights)
    assert same_bits(loss, other)
    assert all(map(same_bits, found, others))
    assert found.hidden is not None
    assert not found.hidden[~kept].any()
    dropped = ignored._replace(hidden=ignored.hidden[kept], targets=ignored.targets[kept])
    alone, of_kept = sx.linear_cross_entropy_with_grad(*dropped, sample_weight=weights[kept])
    assert same_bits(loss, alone)
    assert same_bits(found.linear_weight, of_kept.linear_weight)
    assert same_bits(found.hidden[kept], of_kept.hidden)


@pytest.mark.parametrize("option", ["valid_classes", "class_mask"])
def test_masked_classes_may_hold_anything(option: str) -> None:
    layer = layer_of(20, 12, 300)
    assert layer.linear_bias is not None
    real = np.arange(300) < 280
    value: Any = 280 if option == "valid_classes" else real
    layer.targets[layer.targets >= 280] = 5
    options: dict[str, Any] = {option: value, "label_smoothing": 0.1}
    loss, found = sx.linear_cross_entropy_with_grad(*layer, **options)
    spoilt = layer._replace(
        linear_weight=np.where(real[:, np.newaxis], layer.linear_weight, np.float32(NAN)),
        linear_bias=np.where(real, layer.linear_bias, np.float32(INF)),
    )
    other, others = sx.linear_cross_entropy_with_grad(*spoilt, **options)
    assert same_bits(loss, other)
    assert all(map(same_bits, found, others))
    assert found.linear_weight is not None
    assert not found.linear_weight[280:].any()


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_class_may_hold_anything_for_the_rows_that_mask_it(rows: int, dtype: Dtype) -> None:
    layer = layer_of(rows, 300, 400, dtype)
    layer.targets[layer.targets >= 390] = 5
    mask = np.ones((rows, 400), bool)
    mask[1:, 390:] = False  # the first row alone takes them in
    loss, found = sx.linear_cross_entropy_with_grad(*layer, class_mask=mask, reduction="none")
    weight = layer.linear_weight.copy()
    weight[390:, 7], weight[391:, 290] = NAN, INF
    spoilt = layer._replace(linear_weight=weight)
    other, others = sx.linear_cross_entropy_with_grad(*spoilt, class_mask=mask, reduction="none")
    assert np.isnan(other[0])
    assert same_bits(other[1:], loss[1:])
    assert found.hidden is not None
    assert others.hidden is not None
    assert same_bits(others.hidden[1:], found.hidden[1:])


@pytest.mark.parametrize("option", ["valid_classes", "class_mask"])
def test_a_target_that_is_masked_has_infinite_loss_and_finite_gradients(option: str) -> None:
    layer = layer_of(4, 12, 300)
    layer.targets[3] = 299
    value: Any = 280 if option == "valid_classes" else np.arange(300) < 280
    options: dict[str, Any] = {option: value, "reduction": "none"}
    loss, found = sx.linear_cross_entropy_with_grad(*layer, **options)
    expected_loss, expected = written_out(layer, **options)
    assert loss[3] == INF
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for grad, wanted in zip(found, expected, strict=True):
        close(grad, wanted, FLOAT32, 300)
    probabilities = np.full((4, 300), 1 / 300)
    of_all = sx.linear_cross_entropy(*layer[:2], probabilities, **options)
    assert (of_all == INF).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_a_row_that_counts_gradients_are_zero_or_left_alone(dtype: Dtype) -> None:
    layer = layer_of(5, 3, 20, dtype)._replace(targets=np.full(5, -100))
    loss, found = sx.linear_cross_entropy_with_grad(*layer, out=places(layer, NAN))
    assert np.isnan(loss)
    assert all(grad is not None and not grad.any() for grad in found)
    left = places(layer, 0.5)
    sx.linear_cross_entropy_with_grad(*layer, out=left, accumulate=True, on_empty="zero")
    assert all((place == 0.5).all() for place in left)
    with pytest.raises(ValueError, match="not ignored"):
        sx.linear_cross_entropy_with_grad(*layer, out=left, on_empty="raise")
    assert all((place == 0.5).all() for place in left)


def test_a_nan_stays_in_its_row_of_losses_and_of_the_gradient_of_hidden() -> None:
    layer = layer_of(6, 5, 50)
    expected_loss, expected = sx.linear_cross_entropy_with_grad(*layer, reduction="none")
    layer.hidden[3, 2] = NAN
    loss, found = sx.linear_cross_entropy_with_grad(*layer, reduction="none")
    others = np.arange(6) != 3
    assert found.hidden is not None
    assert expected.hidden is not None
    assert np.isnan(loss[3])
    assert np.isnan(found.hidden[3]).all()
    assert same_bits(loss[others], expected_loss[others])
    assert same_bits(found.hidden[others], expected.hidden[others])


# How good it is.


def test_a_confident_row_keeps_its_digits() -> None:
    hidden, weight = np.array([[40.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 12.0]])
    for dtype in (FLOAT32, FLOAT64):
        loss = sx.linear_cross_entropy(hidden.astype(dtype), weight.astype(dtype), [0])
        assert abs(float(loss) / math.log1p(math.exp(-28)) - 1) < 1e-6


def test_gradients_are_more_exact_than_those_of_numpys_products() -> None:
    """A chain of additions that holds the target's share rounds all others as if they were as large."""
    layer = layer_of(700, 128, 3000)._replace(linear_bias=None)
    _, exact = written_out(layer, reduction="sum")
    logits = layer.hidden @ layer.linear_weight.T
    _, grad = sx.cross_entropy_with_grad(logits, layer.targets, reduction="sum")
    peers = (grad @ layer.linear_weight, grad.T @ layer.hidden)
    _, found = sx.linear_cross_entropy_with_grad(*layer, reduction="sum")

    def error(grad: Any, exact: Array) -> float:
        return float(np.sqrt(np.mean(np.square(grad.astype(np.float64) - exact))))

    for ours, theirs, wanted in zip(found[:2], peers, exact[:2], strict=True):
        assert error(ours, wanted) < 0.5 * error(theirs, wanted)


# Bad input that only this function can get.

L = layer_of(4, 3, 6)
CALLS: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "linear_weight: expected shape (V, 3) to match hidden (4, 3), got (6, 2)": (
        ValueError,
        lambda: sx.linear_cross_entropy(L.hidden, L.linear_weight[:, :2], L.targets),
    ),
    "linear_weight: expected shape (V, 3) to match hidden (4, 3), got (6,)": (
        ValueError,
        lambda: sx.linear_cross_entropy(L.hidden, L.linear_weight[:, 0], L.targets),
    ),
    "linear_weight: expected at least one class, got (0, 3)": (
        ValueError,
        lambda: sx.linear_cross_entropy(L.hidden, L.linear_weight[:0], L.targets),
    ),
    "linear_bias: expected shape (6,) to match linear_weight (6, 3), got (5,)": (
        ValueError,
        lambda: sx.linear_cross_entropy(*L[:3], np.zeros(5)),
    ),
    "hidden: expected at least one dimension, got a 0-d array": (
        ValueError,
        lambda: sx.linear_cross_entropy(1.0, L.linear_weight, 0),
    ),
    "targets[3] = 6 is outside [0, 6)": (
        IndexError,
        lambda: sx.linear_cross_entropy(*L[:2], [0, 1, 2, 6]),
    ),
    "targets: expected shape (4,) to match the logits (4, 6), got (5,)": (
        ValueError,
        lambda: sx.linear_cross_entropy(*L[:2], [0] * 5),
    ),
    'grads: expected names among ["hidden", "linear_weight", "linear_bias"], got \'weight\'': (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(*L, grads=["weight"]),  # type: ignore[list-item]
    ),
    'grads: expected names among ["hidden", "linear_weight", "linear_bias"], got str': (
        TypeError,
        lambda: sx.linear_cross_entropy_with_grad(*L, grads="hidden"),  # type: ignore[arg-type]
    ),
    "out[1]: expected None for a gradient that is not wanted, got an array": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(*L, grads=NAMES[:1], out=places(L, 0)),
    ),
    "out[2]: expected an array to add to, for each gradient, got None": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(
            *L, out=(*places(L, 0)[:2], None), accumulate=True
        ),
    ),
    "out[0]: expected no memory in common with an input, got some": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(*L, out=(L.hidden, None, None)),
    ),
    "out: expected arrays with no memory in common, got some": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(
            *L, out=((room := np.zeros((6, 3), np.float32))[:4], room, None)
        ),
    ),
    "out[1]: expected shape (6, 3) like linear_weight, got (4, 3)": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(
            *L, out=(None, np.zeros((4, 3), np.float32), None)
        ),
    ),
    "out: expected three arrays or None (hidden, linear_weight, linear_bias), got 2 of them": (
        ValueError,
        lambda: sx.linear_cross_entropy_with_grad(*L, out=(None, None)),  # type: ignore[arg-type]
    ),
    "accumulate: expected a bool, got int": (
        TypeError,
        lambda: sx.linear_cross_entropy_with_grad(*L, accumulate=1),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("message", CALLS)
def test_a_message_says_what_came_and_what_was_wanted(message: str) -> None:
    error, call = CALLS[message]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_bfloat16_is_the_dtype_of_ml_dtypes() -> None:
    _, found = sx.linear_cross_entropy_with_grad(*layer_of(3, 4, 5, ml_dtypes.bfloat16))
    assert all(grad is not None and grad.dtype == ml_dtypes.bfloat16 for grad in found)

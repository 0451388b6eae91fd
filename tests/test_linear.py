"""The loss of a linear layer without its logits, and its gradients: their values.

Expected values come from the logits written out in doubles, and from the reference.
"""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import softxent as sx
from common import (
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    ROUNDING,
    Array,
    Dtype,
    drawn,
    lists,
    loss_dtype,
    same_bits,
)
from conftest import thresholds
from hypothesis import given, settings
from linear_layers import NAMES, Layer, close, layer_of, written_out
from softxent import reference


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
    counting = data.draw(st.sampled_from([1, 320, 321, 640, 1025, 2049]))
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

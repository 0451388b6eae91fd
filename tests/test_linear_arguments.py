"""The loss of a linear layer: what is written where, operands of every dtype, and bad input."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from common import BFLOAT16, DTYPES, FLOAT16, FLOAT32, FLOAT64, NAN, Dtype, same_bits
from linear_layers import NAMES, Layer, close, layer_of, places, written_out

# What is written where.


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


def test_bfloat16_is_the_dtype_of_ml_dtypes() -> None:
    _, found = sx.linear_cross_entropy_with_grad(*layer_of(3, 4, 5, ml_dtypes.bfloat16))
    assert all(grad is not None and grad.dtype == ml_dtypes.bfloat16 for grad in found)


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


def test_more_classes_than_memory_has_room_for_are_an_error() -> None:
    """Without a hidden state a weight of that many classes is no memory at all."""
    for classes in (2**48, 2**62):
        weight = np.zeros((classes, 0), np.int8)
        with pytest.raises(MemoryError):
            sx.linear_cross_entropy(np.zeros((1, 0), np.int8), weight, [0])

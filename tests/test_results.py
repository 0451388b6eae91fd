"""What goes in and what comes out: layouts, dtypes and shapes of results, and where they are written.

The values are those of the reference whatever the layout; how exact they are is no question here.
"""

import math
from typing import Any

import numpy as np
import pytest
import softxent as sx
from against_reference import (
    FLOATS,
    INTEGERS,
    SHAPES,
    TEXT,
    Layout,
    agree,
    agree_with_reference,
    like_logits,
    like_loss,
    logits_of,
    targets_of,
)
from common import (
    FLOAT16,
    FLOAT32,
    FLOAT64,
    Array,
    Dtype,
    lists,
)
from softxent import reference

# Layouts.


@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int16), np.dtype(np.uint64)], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((6, 37), 1), ((37, 6), 0), ((2, 35, 3), 1)])
def test_values_over_layouts(
    shape: tuple[int, ...], axis: int, dtype: Dtype, layout: Layout
) -> None:
    logits = logits_of(shape, dtype)
    targets = targets_of(logits, axis)
    upstream = layout(np.linspace(-1, 1, targets.size).reshape(targets.shape))
    agree_with_reference(
        layout(logits), layout(targets), logits, targets.tolist(), axis=axis, temperature=1.5
    )
    _, grad = sx.cross_entropy_with_grad(
        layout(logits), layout(targets), axis=axis, reduction="none", grad_output=upstream
    )
    _, expected = reference.cross_entropy_with_grad(
        lists(logits),
        targets.tolist(),
        axis=axis,
        reduction="none",
        grad_output=upstream.tolist(),
    )
    agree(grad, expected, like_logits(logits), like_loss(logits))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_of_broadcast_logits(dtype: Dtype) -> None:
    row = logits_of((40,), dtype)
    same_rows = np.broadcast_to(row, (3, 40))
    agree_with_reference(same_rows, [1, 0, 39], np.array(same_rows), [1, 0, 39])
    equal_logits = np.broadcast_to(row[:3, np.newaxis], (3, 40))
    agree_with_reference(equal_logits, [1, 0, 39], np.array(equal_logits), [1, 0, 39])
    one_number = np.broadcast_to(row[:1], (3, 40))
    agree_with_reference(one_number, [1, 0, 39], np.array(one_number), [1, 0, 39])


def test_lists_are_taken_as_numpy_takes_them() -> None:
    for logits in ([TEXT, TEXT], [[1, 2, 3, 4], [5, 5, 5, 5]], (tuple(TEXT), [0, 1, 2.5, 3])):
        agree_with_reference(logits, [0, 3], np.array(logits), [0, 3])
        agree_with_reference(logits, (0, 3), np.array(logits), [0, 3])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_are_computed_as_doubles(dtype: Dtype) -> None:
    limits = np.iinfo(dtype)
    logits = np.array([[limits.max, limits.max - 1, limits.max // 2, limits.min]], dtype)
    exact = logits.astype(np.float64)
    assert np.array_equal(sx.softmax(logits), sx.softmax(exact))
    assert sx.logsumexp(logits) == sx.logsumexp(exact)
    loss, grad = sx.cross_entropy_with_grad(logits, [1])
    agree(loss, sx.cross_entropy(exact, [1]), FLOAT64)
    agree(grad, sx.cross_entropy_with_grad(exact, [1])[1], FLOAT64)


def test_subclass_of_ndarray_is_an_array() -> None:
    class Named(np.ndarray[Any, Any]):
        pass

    logits = np.array([TEXT]).view(Named)
    assert sx.softmax(logits).round(4).tolist() == [[0.6127, 0.0679, 0.0151, 0.3043]]


def test_dlpack_exporters_are_read() -> None:
    class Exporter:
        """What a tensor of another library looks like from here."""

        def __init__(self, array: Array) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    for dtype in (FLOAT16, FLOAT32, FLOAT64):
        logits, targets = logits_of((4, 30), dtype), np.array([1, 29, -100, 0])
        agree_with_reference(Exporter(logits), Exporter(targets), logits, targets.tolist())


# Dtypes and shapes of results.


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_scalars_are_numpy_scalars(dtype: Dtype) -> None:
    logits = np.ones((2, 3), dtype)
    wanted = like_loss(logits).type
    assert type(sx.logsumexp(logits[0])) is wanted
    for reduction in ("mean", "sum"):
        assert type(sx.cross_entropy(logits, [0, 1], reduction=reduction)) is wanted
        loss, _ = sx.cross_entropy_with_grad(logits, [0, 1], reduction=reduction)
        assert type(loss) is wanted
    assert type(sx.cross_entropy(logits[0], 0, reduction="none")) is wanted


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5), (0, 5), (5, 0), (2, 0, 3), (1, 1)])
def test_shapes_of_results(shape: tuple[int, ...]) -> None:
    logits = np.ones(shape, np.float32)
    for axis in range(-len(shape), len(shape)):
        rows = tuple(np.delete(shape, axis))
        kept = tuple(np.where(np.arange(len(shape)) == axis % len(shape), 1, shape))
        assert sx.softmax(logits, axis).shape == shape
        assert sx.log_softmax(logits, axis).shape == shape
        assert np.shape(sx.logsumexp(logits, axis)) == rows
        assert sx.logsumexp(logits, axis, keepdims=True).shape == kept
        if shape[axis] == 0:
            continue
        loss, grad = sx.cross_entropy_with_grad(
            logits, np.zeros(rows, int), axis=axis, reduction="none"
        )
        assert np.shape(loss) == rows
        assert grad.shape == shape


def test_keepdims_keeps_the_values() -> None:
    logits = logits_of((3, 4, 5), FLOAT64)
    for axis in range(3):
        kept = sx.logsumexp(logits, axis, keepdims=True)
        assert np.array_equal(np.squeeze(kept, axis), sx.logsumexp(logits, axis))


@pytest.mark.parametrize("wanted", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int32)], ids=str)
def test_dtype_is_that_of_the_result_and_not_of_the_computation(
    dtype: Dtype, wanted: Dtype
) -> None:
    logits, targets = logits_of((3, 50), dtype), [1, 2, -100]
    precision = like_loss(logits)
    for name in ("softmax", "log_softmax"):
        expected = getattr(reference, name)(lists(logits))
        for given in (wanted, wanted.type):
            agree(getattr(sx, name)(logits, dtype=given), expected, wanted, precision)
        out = np.empty(logits.shape, wanted)
        assert getattr(sx, name)(logits, dtype=wanted, out=out) is out
        agree(out, expected, wanted, precision)
    agree(sx.logsumexp(logits, dtype=wanted), reference.logsumexp(lists(logits)), wanted, precision)
    loss, grad = reference.cross_entropy_with_grad(lists(logits), targets)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, targets, dtype=wanted)
    agree(got_loss, loss, wanted, precision)
    agree(got_grad, grad, like_logits(logits), precision)
    got_loss = sx.cross_entropy(logits, targets, dtype=wanted)
    agree(got_loss, loss, wanted, precision)
    assert type(got_loss) is wanted.type
    losses = sx.cross_entropy(logits, targets, dtype=wanted, reduction="none")
    expected = reference.cross_entropy(lists(logits), targets, reduction="none")
    agree(losses, expected, wanted, precision)


def test_results_are_in_native_byte_order() -> None:
    logits = logits_of((2, 30), FLOAT32)
    other = logits.astype(logits.dtype.newbyteorder())
    loss, grad = sx.cross_entropy_with_grad(other, [0, 1])
    for result in (sx.softmax(other), sx.log_softmax(other), sx.logsumexp(other), loss, grad):
        assert result.dtype.isnative


# Where the result goes.


def written(logits: Array, out: Array, axis: int) -> list[Array]:
    """The results of the three functions that write, in `out` one after the other."""
    targets = targets_of(logits, axis)
    results = [sx.softmax(logits, axis, out=out)]
    assert results[0] is out
    results = [out.copy()]
    assert sx.log_softmax(logits, axis, out=out) is out
    results.append(out.copy())
    assert sx.cross_entropy_with_grad(logits, targets, axis=axis, out=out)[1] is out
    return [*results, out.copy()]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((6, 37), 1), ((37, 6), 0), ((2, 35, 3), 1)])
@pytest.mark.parametrize("way", ["C", "F", "strided", "reversed", "misaligned"])
def test_out_of_any_layout_is_filled(
    way: str, shape: tuple[int, ...], axis: int, dtype: Dtype
) -> None:
    logits = logits_of(shape, dtype)
    size = math.prod(shape)
    # What lies between and around the elements of `out` must stay.
    memory = np.full((2 * size + 2) * dtype.itemsize + 1, 0x55, np.uint8)
    inside = memory[1 if way == "misaligned" else 0 :][: (2 * size + 2) * dtype.itemsize].view(
        dtype
    )
    out = {
        "C": lambda: inside[1 : size + 1].reshape(shape),
        "F": lambda: inside[1 : size + 1].reshape(shape, order="F"),
        "strided": lambda: inside[1 : 2 * size + 1 : 2].reshape(shape),
        "reversed": lambda: inside[size:0:-1].reshape(shape),
        "misaligned": lambda: inside[1 : size + 1].reshape(shape),
    }[way]()
    assert np.shares_memory(out, memory)
    untouched = memory.copy()
    for name, got in zip(("softmax", "log_softmax"), written(logits, out, axis)[:2], strict=True):
        expected = getattr(reference, name)(lists(logits), axis)
        agree(got, expected, dtype, like_loss(logits))
    grad = written(logits, out, axis)[2]
    targets = targets_of(logits, axis).tolist()
    _, expected = reference.cross_entropy_with_grad(lists(logits), targets, axis=axis)
    agree(grad, expected, dtype, like_loss(logits))
    out[...] = np.full(shape, 0x55, np.uint8).repeat(dtype.itemsize).view(dtype).reshape(shape)
    assert np.array_equal(memory, untouched)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "cross_entropy_with_grad"])
def test_out_may_be_the_logits_themselves(name: str, dtype: Dtype) -> None:
    for shape, axis in SHAPES:
        logits = logits_of(shape, dtype)
        exact = lists(logits)
        if name == "cross_entropy_with_grad":
            targets = targets_of(logits, axis)
            loss, result = sx.cross_entropy_with_grad(logits, targets, axis=axis, out=logits)
            expected_loss, expected = reference.cross_entropy_with_grad(
                exact, targets.tolist(), axis=axis
            )
            agree(loss, expected_loss, like_loss(logits))
        else:
            result = getattr(sx, name)(logits, axis, out=logits)
            expected = getattr(reference, name)(exact, axis)
        assert result is logits
        agree(result, expected, dtype, like_loss(logits))


def test_out_may_lie_between_the_logits() -> None:
    both = np.zeros((4, 60), np.float32)
    both[:, ::2] = logits_of((4, 30), FLOAT32)
    expected = reference.softmax(lists(both[:, ::2]))
    agree(sx.softmax(both[:, ::2], out=both[:, 1::2]), expected, FLOAT32)


def test_integer_logits_have_a_result_of_doubles() -> None:
    logits = np.array([[1, 2, 3]])
    out = np.empty((1, 3))
    assert sx.softmax(logits, out=out) is out
    agree(out, reference.softmax([[1, 2, 3]]), FLOAT64)


def test_inputs_are_left_as_they_were() -> None:
    for shape, axis in SHAPES:
        logits = logits_of(shape, FLOAT32)
        targets = targets_of(logits, axis)
        before = logits.copy(), targets.copy()
        sx.softmax(logits, axis)
        sx.log_softmax(logits, axis)
        sx.logsumexp(logits, axis)
        sx.cross_entropy_with_grad(logits, targets, axis=axis)
        assert np.array_equal(logits, before[0])
        assert np.array_equal(targets, before[1])

"""The loss of a linear layer: what changes no bit, and what is not read."""

from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import BFLOAT16, DTYPES, FLOAT16, FLOAT32, INF, NAN, Dtype, same_bits
from conftest import LAYOUTS, thresholds
from linear_layers import NAMES, Layer, close, layer_of, places, written_out


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


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_a_gradient_of_16_bits_from_doubles_is_rounded_once_wherever_it_goes(dtype: Dtype) -> None:
    layer = layer_of(64, 512, 50, dtype)
    layer = layer._replace(linear_weight=layer.linear_weight.astype(np.float64))
    _, expected = sx.linear_cross_entropy_with_grad(*layer)
    wide = np.zeros((64, 1024), dtype)
    _, found = sx.linear_cross_entropy_with_grad(*layer, out=(wide[:, ::2], None, None))
    assert same_bits(found.hidden, expected.hidden)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_asked_for_does_not_depend_on_what_else_is(dtype: Dtype) -> None:
    layer = layer_of(30, 12, 400, dtype)
    loss, everything = sx.linear_cross_entropy_with_grad(*layer)
    for grads in ((), NAMES[:1], NAMES[1:2], NAMES[2:], [*NAMES[::2]], {*NAMES[1:]}):
        other, found = sx.linear_cross_entropy_with_grad(*layer, grads=grads)
        assert same_bits(other, loss)
        for name, grad, full in zip(NAMES, found, everything, strict=True):
            assert same_bits(grad, full) if name in grads else grad is None


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

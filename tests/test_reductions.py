"""How the losses of rows become one number, and which rows there are: reductions, ignored rows, class ids.

Rows of equal logits have known losses, so that it is the counting that is tested.
"""

import math
from typing import Any

import numpy as np
import pytest
import softxent as sx
from against_reference import FLOATS, INTEGERS, TEXT, Layout, agree, like_loss, logits_of
from common import (
    FLOAT32,
    FLOAT64,
    Dtype,
    lists,
)
from softxent import reference
from softxent.functions.choices import OnEmpty

# A row of two equal logits costs ln 2, one of four costs 2 ln 2, with -inf as padding.
LN2 = 0.6931471805599453
ONE_BIT, TWO_BITS = [0.0, 0.0, -math.inf, -math.inf], [5.0, 5.0, 5.0, 5.0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({}, 4 / 3),
        ({"reduction": "sum"}, 4),
        ({"reduction": "none"}, [1, 2, 0, 1]),
        ({"normalizer": 8}, 1 / 2),
        ({"normalizer": np.float32(8)}, 1 / 2),
        ({"reduction": "sequence_mean", "offsets": [0, 1, 4]}, 2),
        ({"reduction": "sequence_mean", "offsets": np.array([0, 1, 1, 1, 4], np.uint8)}, 1),
        ({"reduction": "sequence_mean", "offsets": np.array([0, 9, 4, 9])[::2]}, 4),
    ],
    ids=str,
)
def test_reductions_of_known_rows(options: dict[str, Any], bits: Any, dtype: Dtype) -> None:
    logits = np.array([ONE_BIT, TWO_BITS, TWO_BITS, ONE_BIT], dtype)
    targets = [1, 3, -100, 0]
    loss, _ = sx.cross_entropy_with_grad(logits, targets, **options)
    agree(loss, np.array(bits) * LN2, like_loss(logits))
    assert np.array_equal(sx.cross_entropy(logits, targets, **options), loss)


def test_sequence_mean_without_offsets_divides_by_the_first_axis() -> None:
    logits = np.array([[ONE_BIT, ONE_BIT, TWO_BITS], [TWO_BITS, TWO_BITS, TWO_BITS]])
    targets = [[0, 1, 2], [3, -100, -100]]
    loss, grad = sx.cross_entropy_with_grad(logits, targets, reduction="sequence_mean")
    assert loss == pytest.approx((1 + 1 + 2 + 2) / 2 * LN2)
    assert grad[0, 0].tolist() == [-0.25, 0.25, 0.0, 0.0]
    # An ignored position adds nothing, a sequence of nothing but those still counts.
    targets[1][0] = -100
    loss = sx.cross_entropy(logits, targets, reduction="sequence_mean")
    assert loss == pytest.approx((1 + 1 + 2) / 2 * LN2)


def test_sequence_mean_of_ignored_positions_is_zero() -> None:
    logits = np.zeros((2, 3, 4))
    loss = sx.cross_entropy(logits, np.full((2, 3), -100), reduction="sequence_mean")
    assert loss == 0.0
    loss = sx.cross_entropy(logits[:, :0], np.empty((2, 0), int), reduction="sequence_mean")
    assert loss == 0.0


EMPTY: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [
    ((2, 3), [-100, -100], {}),
    ((2, 3), [1, 2], {"ignore_index": {1, 2}}),
    ((0, 3), [], {}),
    ((0, 3), [], {"reduction": "sequence_mean", "offsets": [0]}),
    ((0, 4, 3), np.empty((0, 4), np.int8), {"reduction": "sequence_mean"}),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("shape", "targets", "options"), EMPTY)
def test_mean_of_nothing_is_what_on_empty_says(
    shape: tuple[int, ...], targets: Any, options: dict[str, Any], dtype: Dtype
) -> None:
    logits = np.ones(shape, dtype)
    for on_empty in (None, "nan", "zero"):
        given = options if on_empty is None else {**options, "on_empty": on_empty}
        loss, grad = sx.cross_entropy_with_grad(logits, targets, grad_output=3.0, **given)
        agree(loss, 0.0 if on_empty == "zero" else math.nan, like_loss(logits))
        agree(grad, np.zeros(shape), dtype)
        agree(sx.cross_entropy(logits, targets, **given), loss, like_loss(logits))
    out = np.full(shape, 7, dtype)
    with pytest.raises(ValueError, match="targets"):
        sx.cross_entropy(logits, targets, on_empty="raise", **options)
    with pytest.raises(ValueError, match="targets"):
        sx.cross_entropy_with_grad(logits, targets, on_empty="raise", out=out, **options)
    agree(out, np.full(shape, 7.0), dtype)


@pytest.mark.parametrize("on_empty", ["nan", "zero", "raise"])
@pytest.mark.parametrize("options", [{"reduction": "sum"}, {"normalizer": 5.0}])
def test_sum_of_nothing_is_zero(options: dict[str, Any], on_empty: OnEmpty) -> None:
    for shape in ((3, 4), (0, 4)):
        targets = np.full(shape[:1], -100)
        loss, grad = sx.cross_entropy_with_grad(
            np.ones(shape), targets, **options, on_empty=on_empty
        )
        assert loss == 0.0
        assert not grad.any()


@pytest.mark.parametrize(
    ("ignore_index", "valid"),
    [
        (-100, [True, True, True]),
        (2, [False, True, True]),
        (np.int16(2), [False, True, True]),
        (np.array(2), [False, True, True]),
        ([2, 0], [False, True, False]),
        ({2, 0, 10**30, -(10**30)}, [False, True, False]),
        (np.array([2, 0], np.uint64), [False, True, False]),
        (range(3), [False, False, False]),
        ({2: "pad", 1: "bos"}.keys(), [False, False, True]),
        ([], [True, True, True]),
        (None, [True, True, True]),
    ],
    ids=str,
)
def test_ignore_index_is_one_or_several_or_none(ignore_index: Any, valid: list[bool]) -> None:
    logits = np.zeros((3, 4))
    loss, grad = sx.cross_entropy_with_grad(
        logits, [2, 1, 0], ignore_index=ignore_index, reduction="none"
    )
    assert (loss != 0).tolist() == valid
    assert grad.any(axis=-1).tolist() == valid


def test_ids_outside_the_classes_can_be_ignored() -> None:
    targets = np.array([50257, 2**64 - 1, 3], np.uint64)
    loss = sx.cross_entropy(
        np.zeros((3, 4)), targets, ignore_index=[50257, 2**64 - 1], reduction="none"
    )
    assert loss.tolist() == [0.0, 0.0, 2 * LN2]
    with pytest.raises(
        IndexError, match=r"targets\[1\] = 18446744073709551615 is outside \[0, 4\)"
    ):
        sx.cross_entropy(np.zeros((3, 4)), targets, ignore_index=[50257, -1])


# The class ids.


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_class_ids_of_every_integer_dtype(dtype: Dtype, layout: Layout) -> None:
    logits = logits_of((5, 3, 120), FLOAT32)
    ids = (np.arange(15).reshape(5, 3) * 8) % 120
    ids[2, 1] = 119
    targets = layout(ids.astype(dtype))
    expected = reference.cross_entropy(lists(logits), ids.tolist(), reduction="none")
    agree(sx.cross_entropy(logits, targets, reduction="none"), expected, FLOAT32)
    _, grad = sx.cross_entropy_with_grad(logits, targets)
    assert (grad.argmin(axis=-1) == ids).all()


@pytest.mark.parametrize("ignored", [-1, -100])
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_ids_of_every_signed_dtype_can_be_ignored(dtype: str, ignored: int) -> None:
    targets = np.array([ignored, 1, ignored], dtype)
    loss = sx.cross_entropy(np.zeros((3, 4)), targets, ignore_index=ignored, reduction="none")
    assert loss.tolist() == [0.0, 2 * LN2, 0.0]


def test_one_row_takes_a_number_as_its_target() -> None:
    logits = np.array(TEXT, np.float32)
    for target in (3, np.int8(3), np.array(3, np.uint64)):
        loss = sx.cross_entropy(logits, target)
        assert type(loss) is np.float32
        agree(loss, reference.cross_entropy(lists(logits), 3), FLOAT32)


def test_one_class_id_for_all_rows_can_be_broadcast() -> None:
    targets = np.broadcast_to(np.int32(2), (4,))
    logits = logits_of((4, 9), FLOAT64)
    agree(sx.cross_entropy(logits, targets), sx.cross_entropy(logits, [2] * 4), FLOAT64)

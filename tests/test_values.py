"""Every function gives the values of the reference: over options, dtypes, axes and layouts.

The expected values come from `softxent.reference`, in double precision from the very same logits;
the worked numbers and the shapes are literals. Tolerances are wide enough for any sound
computation in the precision of the dtype: how many digits are right is `test_accuracy`'s
question, what happens at infinities and NaN is `test_extremes`'.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from common import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    Array,
    Dtype,
    lists,
)
from softxent import reference
from softxent.functions.choices import OnEmpty

Layout: TypeAlias = Callable[[Array], Array]

FLOATS = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
# The relative error, some 150 roundings, and what may be lost below the smallest normal number.
TOLERANCES = {
    FLOAT16: (1e-3, 6e-8),
    BFLOAT16: (4e-3, 2e-38),
    FLOAT32: (2e-5, 2e-38),
    FLOAT64: (4e-14, 3e-308),
}

# Shapes and class axes: one class; one row; two steps and a tail; a row for each column;
# image-like; more rows than are gathered at a time; sequences; rank 5.
SHAPES: list[tuple[tuple[int, ...], int]] = [
    ((1,), 0),
    ((130,), -1),
    ((5, 37), -1),
    ((5, 37), 0),
    ((7, 1), 1),
    ((2, 21, 3), 1),
    ((9, 2, 19), 0),
    ((2, 3, 35), -1),
    ((2, 1, 3, 2, 11), -2),
]


def logits_of(shape: tuple[int, ...], dtype: Dtype) -> Array:
    """Logits around 0 that leave some probabilities at 1e-6, or small integers."""
    random = np.random.default_rng(0)
    if dtype.kind in "iu":
        return random.integers(3, 12, size=shape).astype(dtype)
    return (4 * random.standard_normal(shape)).astype(dtype)


def targets_of(logits: Array, axis: int) -> Array:
    """A class id for every row; of three rows or more the second is ignored."""
    targets = np.random.default_rng(0).integers(
        logits.shape[axis], size=[n for i, n in enumerate(logits.shape) if i != axis % logits.ndim]
    )
    if targets.size > 2:
        targets.flat[1] = -100
    return np.asarray(targets)


def like_logits(logits: Array) -> Dtype:
    """The dtype of probabilities and gradients."""
    return FLOAT64 if logits.dtype.kind in "iu" else logits.dtype


def like_loss(logits: Array) -> Dtype:
    """The dtype of losses and of the log-sum-exp."""
    return FLOAT64 if like_logits(logits) == FLOAT64 else FLOAT32


def agree(
    got: Any, expected: Any, dtype: Dtype, precision: Dtype = FLOAT64, beside: float = 0.0
) -> None:
    """`got` has the dtype and the expected values; `beside` what large numbers its terms may be."""
    assert got.dtype == dtype
    relative, absolute = max(TOLERANCES[dtype], TOLERANCES[precision])
    expected = np.array(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(
        got.astype(np.float64), expected, rtol=relative, atol=absolute + relative * beside
    )


KNOWN: dict[Any, Any] = {}


def from_reference(name: str, values: Array, *ids: Any, **options: Any) -> Any:
    """What the reference says; remembered, since the same is asked of several ways of working."""
    key = (name, values.dtype, values.shape, values.tobytes(), repr((ids, options)))
    if key not in KNOWN:
        KNOWN[key] = getattr(reference, name)(lists(values), *ids, **options)
    return KNOWN[key]


def agree_with_reference(
    logits: Any,
    targets: Any,
    values: Array,
    ids: Any,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    **options: Any,
) -> None:
    """All functions on `logits` and `targets` against the reference on `values` and `ids`."""
    like, loss_like = like_logits(values), like_loss(values)
    for_rows: dict[str, Any] = {"axis": axis, "temperature": temperature}
    for name in ("softmax", "log_softmax"):
        got = getattr(sx, name)(logits, **for_rows)
        agree(got, from_reference(name, values, **for_rows), like, loss_like)
    largest = float(np.abs(values.astype(np.float64)).max(initial=0.0)) / temperature
    lse = from_reference("logsumexp", values, **for_rows)
    agree(sx.logsumexp(logits, **for_rows), lse, loss_like, beside=largest)

    loss, grad = from_reference("cross_entropy_with_grad", values, ids, **for_rows, **options)
    got_loss, got_grad = sx.cross_entropy_with_grad(logits, targets, **for_rows, **options)
    agree(got_loss, loss, loss_like)
    agree(got_grad, grad, like, loss_like)
    options.pop("grad_output", None)
    agree(sx.cross_entropy(logits, targets, **for_rows, **options), loss, loss_like)


# The worked numbers.

TEXT = [3.2, 1.0, -0.5, 2.5]  # the next word: mat, hat, sat, rug


def test_softmax_gives_the_worked_probabilities() -> None:
    p = sx.softmax([12.4, -3.2, 0.1])
    assert [f"{p[0]:.6f}", f"{p[1]:.2e}", f"{p[2]:.2e}"] == ["0.999995", "1.68e-07", "4.55e-06"]
    assert sx.softmax(TEXT).round(4).tolist() == [0.6127, 0.0679, 0.0151, 0.3043]
    logits = np.array([TEXT], np.float32)
    assert [f"{percent:.0f}" for percent in 100 * sx.softmax(logits)[0]] == ["61", "7", "2", "30"]


def test_exponentials_and_their_sum_are_the_worked_ones() -> None:
    total = math.exp(sx.logsumexp(TEXT))
    assert round(total, 2) == 40.04
    assert (sx.softmax(TEXT) * total).round(2).tolist() == [24.53, 2.72, 0.61, 12.18]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_loss_and_gradient_are_the_worked_ones(dtype: Dtype) -> None:
    near = 5e-5 if dtype.itemsize >= 4 else 4e-3
    loss, grad = sx.cross_entropy_with_grad(np.array(TEXT, dtype), 0)
    assert loss == pytest.approx(0.4899, abs=near)
    assert lists(grad) == pytest.approx([-0.3873, 0.0679, 0.0151, 0.3043], abs=near)
    assert sx.cross_entropy(np.array(TEXT, dtype), 0) == loss
    logs = lists(sx.log_softmax(np.array(TEXT, dtype)))
    assert logs == pytest.approx([-0.4899, -2.6899, -4.1899, -1.1899], abs=4 * near)


@pytest.mark.parametrize(
    ("p", "loss"), [(0.80, 0.223), (0.60, 0.511), (0.01, 4.605), (0.001, 6.908)]
)
def test_loss_is_minus_log_of_the_probability(p: float, loss: float) -> None:
    assert round(sx.cross_entropy([math.log(p), math.log(1 - p)], 0), 3) == loss


def test_only_the_target_counts() -> None:
    loss = sx.cross_entropy([math.log(0.80), math.log(0.15), math.log(0.05)], 0)
    assert loss == pytest.approx(0.22314355131420976, rel=1e-14)


def test_dataset_loss_is_the_average_over_sequences_of_the_sum_over_tokens() -> None:
    # Two equal logits cost ln 2; a sequence of three tokens and one of one.
    logits = np.zeros((4, 2))
    loss = sx.cross_entropy(logits, [0, 1, 1, 0], reduction="sequence_mean", offsets=[0, 3, 4])
    assert loss == pytest.approx(2 * 0.6931471805599453, rel=1e-15)


def test_temperature_divides_the_logits() -> None:
    for temperature in (0.5, 2.0):
        p = sx.softmax(TEXT, temperature=temperature)
        np.testing.assert_allclose(p, sx.softmax(np.array(TEXT) / temperature), rtol=1e-15)
    assert sx.softmax(TEXT, temperature=0.5)[0] > 0.6127 > sx.softmax(TEXT, temperature=2.0)[0]


# Against the reference.


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_values_over_dtypes_ranks_and_axes(
    shape: tuple[int, ...], axis: int, dtype: Dtype, reduction: str
) -> None:
    logits = logits_of(shape, dtype)
    targets = targets_of(logits, axis)
    agree_with_reference(logits, targets, logits, targets.tolist(), axis=axis, reduction=reduction)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [0.25, 0.7, 3, 100.0])
def test_values_over_temperatures(temperature: float, dtype: Dtype) -> None:
    logits = logits_of((3, 150), dtype)
    targets = [0, 149, 77]
    agree_with_reference(logits, targets, logits, targets, temperature=temperature)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("thresholds", [(None, None, None), (0, 0, 1)])
def test_values_over_lengths(
    dtype: Dtype,
    thresholds: tuple[int | None, int | None, int | None],
    set_thresholds: Callable[[int | None, int | None, int | None], None],
) -> None:
    # Around a vector, a step, a block and a chunk.
    set_thresholds(*thresholds)
    for classes in (2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 1023, 1024, 1025, 1100, 4100, 32769):
        logits = logits_of((1, classes), dtype)
        targets = [classes // 2]
        agree_with_reference(logits, targets, logits, targets, reduction="sum")


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"reduction": "mean", "normalizer": 7},
    {"reduction": "mean", "normalizer": 0.125, "grad_output": -3.0},
    {"reduction": "none", "grad_output": 2},
    {"reduction": "none", "grad_output": [[1.0, -2.0, 0.0], [0.5, 1e-3, 1e3]]},
    {"reduction": "sequence_mean"},
    {"reduction": "sequence_mean", "grad_output": 0.5, "temperature": 2.5},
    {"reduction": "sequence_mean", "offsets": [0, 6]},
    {"reduction": "sequence_mean", "offsets": [0, 0, 1, 1, 4, 6, 6]},
    {"ignore_index": None},
    {"ignore_index": 4},
    {"ignore_index": [4, 11, 12345], "reduction": "sum"},
    {"ignore_index": (), "reduction": "none"},
    {"on_empty": "raise"},
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values_over_options(options: dict[str, Any], dtype: Dtype) -> None:
    logits = logits_of((2, 3, 12), dtype)
    targets = [[4, 0, 11], [7, 4, 2]]
    agree_with_reference(logits, targets, logits, targets, **options)
    # The same batch with its classes along axis 1.
    columns = np.ascontiguousarray(np.moveaxis(logits, -1, 1))
    if options != {"reduction": "sequence_mean"}:
        agree_with_reference(columns, targets, columns, targets, axis=1, **options)


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


@pytest.mark.parametrize("stream", [None, 0])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_values_over_ways_of_working(
    stream: int | None,
    threads: int,
    set_thresholds: Callable[[int | None, int | None, int | None], None],
) -> None:
    # Rows to threads, and chunks of rows to threads.
    set_thresholds(0, stream, 1)
    for shape in ((50, 70), (2, 33000)):
        logits = logits_of(shape, FLOAT32)
        targets = np.arange(shape[0]) * 7 % shape[1]
        options: dict[str, Any] = {"reduction": "sum", "threads": threads}
        loss, grad = sx.cross_entropy_with_grad(logits, targets, **options)
        expected, slopes = from_reference(
            "cross_entropy_with_grad", logits, targets.tolist(), reduction="sum"
        )
        agree(loss, expected, FLOAT32)
        agree(grad, slopes, FLOAT32)
        p = sx.softmax(logits, threads=threads)
        agree(p, from_reference("softmax", logits), FLOAT32)

"""Every function gives the values of the reference: over options, dtypes, axes and layouts.

The expected values come from `softxent.reference`, in double precision from the very same logits;
the worked numbers and the shapes are literals. Tolerances are wide enough for any sound
computation in the precision of the dtype: how many digits are right is `test_accuracy`'s
question, what happens at infinities and NaN is `test_extremes`'.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import softxent as sx
from against_reference import (
    FLOATS,
    INTEGERS,
    SHAPES,
    TEXT,
    agree,
    agree_with_reference,
    from_reference,
    logits_of,
    targets_of,
)
from common import (
    BFLOAT16,
    FLOAT32,
    Dtype,
    lists,
)

# The worked numbers.


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
        # Of few bits, so that all dtypes have the same values and the reference is asked once.
        logits = np.round(logits_of((1, classes), BFLOAT16).astype(np.float64), 3)
        logits = logits.astype(BFLOAT16).astype(dtype)
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

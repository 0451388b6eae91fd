"""The same values and gradients from torch, on the same inputs, over dtypes, layouts and reductions.

What torch has no option for is in test_torch_options.py, divergences and shards are in files of their own.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import (
    DTYPES,
    LARGEST,
    REDUCTIONS,
    Array,
    assert_close,
    random_logits,
    random_targets,
    statistic,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch_comparison import check, double, functional, torch

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other class": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran": np.asfortranarray,
}

# Without a loss: softmax, log_softmax, logsumexp.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5,), -1), ((3, 1), -1), ((3, 1000), 1), ((1000, 3), 0), ((2, 50257), -1), ((2, 9, 4), 1)],
)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_without_a_loss(dtype: str, shape: tuple[int, ...], axis: int, temperature: float) -> None:
    logits = (random_logits(shape) * np.float32(temperature)).astype(DTYPES[dtype])
    x = double(logits) / temperature
    softmax = sx.softmax(logits, axis, temperature=temperature)
    log_softmax = sx.log_softmax(logits, axis, temperature=temperature)
    lse = sx.logsumexp(logits, axis, temperature=temperature)
    assert (softmax.dtype, log_softmax.dtype) == (logits.dtype, logits.dtype)
    assert lse.dtype == statistic(logits)
    assert_close(softmax, torch.softmax(x, axis))
    assert_close(log_softmax, torch.log_softmax(x, axis))
    lse_unit = LARGEST * np.finfo(lse.dtype).eps
    assert_close(lse, torch.logsumexp(x, axis), absolute=lse_unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(dtype: str, layout: str) -> None:
    logits = LAYOUTS[layout](random_logits((6, 1001), dtype))
    targets = random_targets((6,), 1001)
    assert_close(sx.softmax(logits), torch.softmax(double(logits), -1))
    check(logits, targets, lambda x: functional.cross_entropy(x, torch.from_numpy(targets)))


# The loss and its gradient.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("classes", [1, 2, 17, 1000])
def test_reductions(dtype: str, reduction: str, classes: int) -> None:
    targets = random_targets((12,), classes)
    check(
        random_logits((12, classes), dtype),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets), reduction=reduction),
        reduction=reduction,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_vocabulary(dtype: str) -> None:
    targets = random_targets((4,), 50257)
    check(
        random_logits((4, 50257), dtype),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignore_index", [-100, 3, -1, 1000])
def test_ignored_rows(dtype: str, reduction: str, ignore_index: int) -> None:
    targets = random_targets((12,), 8)
    targets[[0, 5, 6, 11]] = ignore_index
    check(
        random_logits((12, 8), dtype),
        targets,
        lambda x: functional.cross_entropy(
            x, torch.from_numpy(targets), ignore_index=ignore_index, reduction=reduction
        ),
        ignore_index=ignore_index,
        reduction=reduction,
    )


def test_several_ignored_ids() -> None:
    targets = np.array([0, 1, -1, 3, 4, -7])
    one_id = np.where(np.isin(targets, [-1, 3, -7]), -100, targets)
    check(
        random_logits((6, 5)),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(one_id)),
        ignore_index=[-1, 3, -7],
    )


@pytest.mark.parametrize(("reduction", "loss"), [("mean", np.nan), ("sum", 0.0)])
def test_everything_ignored(reduction: Any, loss: float) -> None:
    logits, targets = random_logits((3, 5)), np.full(3, -100)
    expected = functional.cross_entropy(
        double(logits), torch.from_numpy(targets), reduction=reduction
    )
    ours, grad = sx.cross_entropy_with_grad(logits, targets, reduction=reduction)
    np.testing.assert_array_equal([ours, expected.item()], [loss, loss])
    np.testing.assert_array_equal(grad, np.zeros_like(logits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 11, 5), (2, 7, 3, 2), (3, 257, 1)])
def test_class_axis_1(dtype: str, reduction: str, shape: tuple[int, ...]) -> None:
    targets = random_targets((shape[0], *shape[2:]), shape[1])
    targets.flat[2] = -100
    check(
        random_logits(shape, dtype),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets), reduction=reduction),
        axis=1,
        reduction=reduction,
    )


@pytest.mark.parametrize(
    "id_dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_any_integer_ids(id_dtype: str, as_tensor: bool) -> None:
    targets = random_targets((9,), 100)
    narrow = targets.astype(id_dtype)
    check(
        random_logits((9, 100)),
        torch.from_numpy(narrow) if as_tensor else narrow,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_temperature(dtype: str, reduction: str, temperature: float) -> None:
    targets = random_targets((5,), 300)
    check(
        (random_logits((5, 300)) * np.float32(temperature)).astype(DTYPES[dtype]),
        targets,
        lambda x: functional.cross_entropy(
            x / temperature, torch.from_numpy(targets), reduction=reduction
        ),
        temperature=temperature,
        reduction=reduction,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("reduction", "grad_output"),
    [
        ("mean", 0.25),
        ("sum", -3.0),
        ("sum", 0.0),
        ("none", 2.0),
        ("none", np.array([1.0, -0.5, 0.0, 8.0, 0.125])),
    ],
)
def test_grad_output(dtype: str, reduction: str, grad_output: Any) -> None:
    targets = random_targets((5,), 40)
    check(
        random_logits((5, 40), dtype),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets), reduction=reduction),
        reduction=reduction,
        grad_output=grad_output,
    )


def test_normalizer_replaces_the_count_of_rows() -> None:
    targets = np.array([0, -100, 2, 1])
    check(
        random_logits((4, 3)),
        targets,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets), reduction="sum") / 7.5,
        normalizer=7.5,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequence_mean_of_equally_long_sequences(dtype: str) -> None:
    targets = random_targets((4, 6), 50)
    targets[0, 4:] = targets[2] = -100

    def torch_loss(x: Any) -> Any:
        sums = [
            functional.cross_entropy(sequence, ids, reduction="sum")
            for sequence, ids in zip(x, torch.from_numpy(targets), strict=True)
        ]
        return torch.stack(sums).mean()

    check(random_logits((4, 6, 50), dtype), targets, torch_loss, reduction="sequence_mean")


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequence_mean_of_packed_sequences(dtype: str) -> None:
    offsets = np.array([0, 3, 3, 10])  # the second sequence is empty, and counts
    targets = random_targets((10,), 50)
    targets[4] = -100

    def torch_loss(x: Any) -> Any:
        ids = torch.from_numpy(targets)
        total = sum(
            functional.cross_entropy(x[a:b], ids[a:b], reduction="sum")
            for a, b in itertools.pairwise(offsets)
        )
        return total / 3

    check(
        random_logits((10, 50), dtype),
        targets,
        torch_loss,
        reduction="sequence_mean",
        offsets=offsets,
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[Array, Array, dict[str, Any]]:
    """Logits, some of them -inf but none of the first column's, ids, and options."""
    rows, classes = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    elements = st.floats(-LARGEST, LARGEST, width=16) | st.just(-np.inf)
    logits = draw(arrays.arrays(np.float64, (rows, classes), elements=elements))
    logits[:, 0] = np.where(np.isinf(logits[:, 0]), 0.0, logits[:, 0])
    ids = st.integers(0, classes - 1) | st.just(-100)
    targets = draw(arrays.arrays(np.int64, rows, elements=ids))
    options = {
        "reduction": draw(st.sampled_from(REDUCTIONS)),
        "grad_output": draw(st.none() | st.floats(-4, 4)),
    }
    return logits.astype(DTYPES[draw(st.sampled_from(list(DTYPES)))]), targets, options


@settings(deadline=None)
@given(batches())
def test_any_batch(batch: tuple[Array, Array, dict[str, Any]]) -> None:
    logits, targets, options = batch
    if options["reduction"] == "mean" and (targets == -100).all():
        return  # test_everything_ignored: torch's gradient is NaN there
    check(
        logits,
        targets,
        lambda x: functional.cross_entropy(
            x, torch.from_numpy(targets), reduction=options["reduction"]
        ),
        **options,
    )

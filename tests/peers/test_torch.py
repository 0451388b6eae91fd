"""The same values and gradients from torch, on the same inputs, over options and dtypes.

Torch computes in float64 here, whatever the dtype of the logits: so it is right far beyond the
precision that is checked, and what is left between the two is the rounding of our own result.
"""

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

pytest.importorskip("torch", reason="torch is not installed: `make test-peers` brings it")
torch: Any = importlib.import_module("torch")
functional = torch.nn.functional

Array = npt.NDArray[Any]

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
LARGEST = 14.0
# A result in 16 bits is off by half a unit in its last place. The others are by 4 units, by one
# more for each nat between a logit and the largest of its row, and by half the logits' magnitude in
# units where they were divided by a temperature.
UNITS = 4 + 2 * LARGEST + LARGEST
RELATIVE = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-23, "float64": 2**-52}
RELATIVE |= {"float32": UNITS * 2**-23, "float64": UNITS * 2**-52}
SUBNORMAL = {"float16": 2**-24, "bfloat16": 2**-126, "float32": 2**-126, "float64": 2**-1022}
TORCH_ERROR = 2**-49  # of its float64 results: it takes p - 1, and log 1 + small

REDUCTIONS = ("mean", "sum", "none")
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other class": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran": np.asfortranarray,
}


def random_logits(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    logits = np.random.default_rng(0).normal(scale=4, size=shape)
    return np.clip(logits, -LARGEST, LARGEST).astype(DTYPES[dtype])


def random_targets(shape: tuple[int, ...], classes: int) -> Array:
    return np.random.default_rng(1).integers(0, classes, size=shape)


def double(a: Any) -> Any:
    """A float64 tensor with the values of an array."""
    return torch.from_numpy(np.array(a, dtype=np.float64, order="C"))


def tensor(a: Array) -> Any:
    """A tensor of the same dtype on the same memory."""
    if a.dtype == ml_dtypes.bfloat16:  # from_numpy does not know it
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def assert_close(actual: Any, expected: Any, *, absolute: float = 0.0) -> None:
    """Equal within the rounding of the dtype of ``actual``, and of torch."""
    expected = expected.detach().numpy()
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    dtype = actual.dtype.name
    np.testing.assert_allclose(
        np.asarray(actual, np.float64),
        expected,
        rtol=1.01 * RELATIVE[dtype],
        atol=SUBNORMAL[dtype] + TORCH_ERROR * largest + absolute,
    )


def statistic(logits: Array) -> np.dtype[Any]:
    """The dtype of losses and log-sum-exps."""
    return np.dtype(np.float64 if logits.dtype == np.float64 else np.float32)


def check(
    logits: Array,
    targets: Any,
    torch_loss: Any,
    *,
    grad_output: Any = None,
    terms: float = 0.0,
    **options: Any,
) -> None:
    """Our loss and gradient are those of ``torch_loss``, a function of float64 logits.

    Where a slope is the difference of terms, ``terms`` is how large those are.
    """
    leaf = double(logits).requires_grad_()
    expected = torch_loss(leaf)
    upstream = None if grad_output is None else double(grad_output).expand(expected.shape)
    if upstream is None and expected.ndim:
        upstream = torch.ones_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad_outputs=upstream)

    before = logits.copy()
    loss = sx.cross_entropy(logits, targets, **options)
    again, grad = sx.cross_entropy_with_grad(logits, targets, grad_output=grad_output, **options)
    assert (loss.dtype, grad.dtype) == (statistic(logits), logits.dtype)
    absolute = RELATIVE[statistic(logits).name] * terms
    assert_close(loss, expected, absolute=absolute)
    assert_close(grad, expected_grad, absolute=absolute)
    np.testing.assert_array_equal(loss, again)
    np.testing.assert_array_equal(logits, before)


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


# The options of the loss.


def random_weights(count: int) -> Array:
    return np.random.default_rng(2).integers(1, 9, size=count) / 4


def random_probabilities(shape: tuple[int, ...], axis: int = -1) -> Array:
    """Some of them 0, and not quite normalised."""
    random = np.random.default_rng(3)
    targets = random.standard_exponential(shape) * (random.random(shape) < 0.7)
    return np.asarray(targets / (1 + targets.sum(axis=axis, keepdims=True)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_weight_smoothing_and_ignored_rows(
    dtype: str, reduction: str, label_smoothing: float, weighted: bool, ignore_index: int
) -> None:
    targets = random_targets((12,), 40)
    targets[[0, 5, 11]] = ignore_index
    weight = random_weights(40) if weighted else None
    check(
        random_logits((12, 40), dtype),
        targets,
        lambda x: functional.cross_entropy(
            x,
            torch.from_numpy(targets),
            weight=None if weight is None else double(weight),
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            reduction=reduction,
        ),
        weight=weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=reduction,
        terms=1.0,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(12, 40), (4, 11, 5), (2, 7, 3, 2)])
def test_probabilities_as_targets(
    dtype: str, reduction: str, label_smoothing: float, weighted: bool, shape: tuple[int, ...]
) -> None:
    targets = random_probabilities(shape, axis=1)
    weight = random_weights(shape[1]) if weighted else None

    def torch_loss(x: Any) -> Any:
        return functional.cross_entropy(
            x,
            double(targets),
            weight=None if weight is None else double(weight),
            label_smoothing=label_smoothing,
            reduction=reduction,
        )

    options: dict[str, Any] = {"weight": weight, "label_smoothing": label_smoothing}
    check(
        random_logits(shape, dtype),
        targets,
        torch_loss,
        axis=1,
        reduction=reduction,
        terms=2.0,
        **options,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_probabilities_of_every_dtype_as_tensors(reduction: str) -> None:
    targets = random_probabilities((6, 30))
    for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        narrow = torch.from_numpy(targets).to(kind)
        check(
            random_logits((6, 30)),
            narrow,
            lambda x, narrow=narrow: functional.cross_entropy(
                x, narrow.double(), reduction=reduction
            ),
            reduction=reduction,
            terms=1.0,
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_masked_class_is_a_logit_of_minus_infinity(reduction: str) -> None:
    targets = random_targets((8,), 20)
    mask = np.random.default_rng(4).random((8, 24)) < 0.7
    mask[range(8), targets] = True
    allowed = torch.from_numpy(mask & (np.arange(24) < 20))
    logits = random_logits((8, 24))
    check(
        logits,
        targets,
        lambda x: functional.cross_entropy(
            x.masked_fill(~allowed, -torch.inf), torch.from_numpy(targets), reduction=reduction
        ),
        class_mask=mask,
        valid_classes=20,
        reduction=reduction,
    )
    x = double(logits).masked_fill(~allowed, -torch.inf)
    options: dict[str, Any] = {"class_mask": mask, "valid_classes": 20}
    assert_close(sx.softmax(logits, **options), torch.softmax(x, -1))
    assert_close(sx.log_softmax(logits, **options), torch.log_softmax(x, -1))
    assert_close(sx.logsumexp(logits, **options), torch.logsumexp(x, -1), absolute=1e-5)


# What torch has no option for, written out: rows of softcap, temperature, smoothing and z-loss, in
# the formulas that Liger publishes for its fused cross-entropy.


def liger_rows(x: Any, targets: Any, weight: Any, options: dict[str, Any]) -> Any:
    """The loss of each row, with autograd to differentiate it."""
    softcap, e = options["softcap"], options["label_smoothing"]
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    x = x / options["temperature"]
    lse = torch.logsumexp(x, -1)
    log_p = x - lse[:, None]
    ids = torch.from_numpy(np.where(targets == -100, 0, targets))
    nll = -log_p.gather(-1, ids[:, None])[:, 0] * weight[ids]
    smooth = -(log_p * weight).sum(-1) / x.shape[-1]
    rows = (1 - e) * nll + e * smooth + options["z_loss"] * lse**2
    return torch.where(torch.from_numpy(targets == -100), 0.0, rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("softcap", [None, 2.0, 30.0])
@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_softcap_and_z_loss_written_out(
    dtype: str, reduction: str, softcap: float | None, z_loss: float, label_smoothing: float
) -> None:
    targets = random_targets((7,), 50)
    targets[3] = -100
    weight, scale = random_weights(50), np.array([1.0, 2.0, 0.5, 1.0, 0.0, 4.0, 1.5])
    options: dict[str, Any] = {
        "softcap": softcap,
        "z_loss": z_loss,
        "label_smoothing": label_smoothing,
        "temperature": 1.25,
    }

    def torch_loss(x: Any) -> Any:
        rows = liger_rows(x, targets, double(weight), options) * double(scale)
        if reduction == "none":
            return rows
        weights = scale[targets != -100] * weight[targets[targets != -100]]
        return rows.sum() / (weights.sum() if reduction == "mean" else 1)

    check(
        random_logits((7, 50), dtype),
        targets,
        torch_loss,
        weight=weight,
        sample_weight=scale,
        reduction=reduction,
        terms=16.0,
        **options,
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


# Torch tensors passed straight in.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::2],
        lambda a: a[:, 1::3],
        lambda a: a[0],
        lambda a: a[:0],
        lambda a: a[:1].expand(4, -1) if isinstance(a, torch.Tensor) else a[[0, 0, 0, 0]],
    ],
    ids=["whole", "every other row", "every third class", "one row", "no row", "expanded"],
)
def test_a_tensor_gives_the_bits_of_its_array(dtype: str, view: Any) -> None:
    logits = random_logits((6, 99), dtype)
    array, same = view(logits), view(tensor(logits))
    targets = random_targets(array.shape[:-1], array.shape[-1])
    for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
        expected, actual = function(array), function(same)
        assert type(actual) is type(expected)
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    expected_loss, expected_grad = sx.cross_entropy_with_grad(array, targets)
    loss, grad = sx.cross_entropy_with_grad(same, torch.from_numpy(targets))
    np.testing.assert_array_equal(loss, expected_loss)
    np.testing.assert_array_equal(grad, expected_grad)
    assert grad.dtype == array.dtype


def test_a_transposed_tensor() -> None:
    logits = random_logits((7, 30))
    np.testing.assert_array_equal(sx.softmax(torch.from_numpy(logits).T, 0), sx.softmax(logits).T)


def test_integer_tensors_become_float64() -> None:
    logits = torch.tensor([[3, 1, 2]])
    assert_close(sx.softmax(logits), torch.softmax(logits.double(), -1))


def test_a_tensor_is_read_where_it_lies() -> None:
    # Of a copy `out` would be no part.
    memory = random_logits((6, 50))
    with pytest.raises(ValueError, match="out"):
        sx.softmax(torch.from_numpy(memory[:4]), out=memory[1:5])


def test_a_tensor_is_overwritten_by_its_gradient() -> None:
    logits, targets = torch.from_numpy(random_logits((4, 50))), random_targets((4,), 50)
    _, expected = sx.cross_entropy_with_grad(logits, targets)
    sx.cross_entropy_with_grad(logits, targets, out=logits.numpy())
    np.testing.assert_array_equal(logits.numpy(), expected)


@pytest.mark.parametrize("leaf", [True, False])
def test_a_tensor_that_requires_grad_is_refused(leaf: bool) -> None:
    # Its graph would end here, silently.
    logits = torch.zeros(2, 3, requires_grad=True)
    if not leaf:
        logits = logits * 2
    with pytest.raises(TypeError, match=r"logits.*\.detach\(\)"):
        sx.softmax(logits)
    with pytest.raises(TypeError, match=r"logits.*\.detach\(\)"):
        sx.cross_entropy_with_grad(logits, [0, 1])
    np.testing.assert_array_equal(sx.softmax(logits.detach()), np.full((2, 3), np.float32(1 / 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3, dtype=torch.complex64),
        lambda: torch.eye(3, dtype=torch.bool),
        lambda: torch.empty(3, 3, device="meta"),
    ],
    ids=["sparse", "complex", "bool", "meta"],
)
def test_other_tensors_are_refused(make: Any) -> None:
    with pytest.raises(TypeError, match="logits"):
        sx.logsumexp(make())


@pytest.mark.parametrize("ids", [torch.tensor([True, False]), torch.tensor([0.0, 1.0])])
def test_tensors_that_are_no_ids_are_refused(ids: Any) -> None:
    with pytest.raises(TypeError, match="targets"):
        sx.cross_entropy(torch.zeros(2, 3), ids)

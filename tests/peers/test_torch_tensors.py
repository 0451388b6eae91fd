"""Torch tensors passed straight in: read where they lie, with the bits of their arrays, or refused.

Compares no values with torch's own: those are for the other files.
"""

from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import DTYPES, assert_close, random_logits, random_targets
from torch_comparison import tensor, torch


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_weights_are_numbers_of_their_dtype(dtype: str) -> None:
    """NumPy has no bfloat16: the bits of such weights were once taken for integers."""
    logits, targets = random_logits((6, 9)), random_targets((6,), 9)
    for name, length in (("weight", 9), ("sample_weight", 6)):
        weights = (np.arange(length) / 4 + 0.5).astype(DTYPES[dtype])
        as_array: dict[str, Any] = {name: weights}
        as_tensor: dict[str, Any] = {name: tensor(weights)}
        loss = sx.cross_entropy(logits, targets, **as_tensor)
        assert loss == sx.cross_entropy(logits, targets, **as_array)
    upstream = np.array(0.5, DTYPES[dtype])
    _, halves = sx.cross_entropy_with_grad(logits, targets, grad_output=tensor(upstream))
    _, grad = sx.cross_entropy_with_grad(logits, targets)
    np.testing.assert_array_equal(halves, grad / 2)


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

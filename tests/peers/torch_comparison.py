"""Our losses and gradients beside those of a function of torch tensors, which autograd differentiates.

Whoever imports this is skipped where torch is not installed.
"""

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from comparison import Array, assert_close, rounding_of, statistic

pytest.importorskip("torch", reason="torch is not installed: `make test-peers` brings it")
torch: Any = importlib.import_module("torch")
functional = torch.nn.functional

TorchLoss: TypeAlias = Callable[[Any], Any]


def double(a: Any) -> Any:
    """A float64 tensor with the values of an array."""
    return torch.from_numpy(np.array(a, dtype=np.float64, order="C"))


def tensor(a: Array) -> Any:
    """A tensor of the same dtype on the same memory."""
    if a.dtype == ml_dtypes.bfloat16:  # from_numpy does not know it
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def value_and_grad(torch_loss: TorchLoss, logits: Array, grad_output: Any) -> tuple[Array, Array]:
    """What a function of float64 logits returns, and its gradient for them."""
    leaf = double(logits).requires_grad_()
    loss = torch_loss(leaf)
    upstream = None if grad_output is None else double(grad_output).expand(loss.shape)
    if upstream is None and loss.ndim:
        upstream = torch.ones_like(loss)
    (grad,) = torch.autograd.grad(loss, leaf, grad_outputs=upstream)
    return loss.detach().numpy(), grad.numpy()


def check_calls(
    logits: Array,
    torch_loss: TorchLoss,
    loss_alone: Callable[[], Any],
    with_grad: Callable[[], tuple[Any, Array]],
    *,
    grad_output: Any = None,
    terms: float = 0.0,
) -> None:
    """Loss and gradient are those of ``torch_loss``, and neither call writes to the logits.

    Where a slope is the difference of terms, ``terms`` is how large those are.
    """
    expected, expected_grad = value_and_grad(torch_loss, logits, grad_output)
    before = logits.copy()
    loss = loss_alone()
    again, grad = with_grad()
    assert (loss.dtype, grad.dtype) == (statistic(logits), logits.dtype)
    absolute = rounding_of(logits, terms)
    assert_close(loss, expected, absolute=absolute)
    assert_close(grad, expected_grad, absolute=absolute)
    np.testing.assert_array_equal(loss, again)
    assert logits.tobytes() == before.tobytes()


def check(
    logits: Array,
    targets: Any,
    torch_loss: TorchLoss,
    *,
    grad_output: Any = None,
    terms: float = 0.0,
    **options: Any,
) -> None:
    """`cross_entropy` and its gradient are those of ``torch_loss``."""
    check_calls(
        logits,
        torch_loss,
        lambda: sx.cross_entropy(logits, targets, **options),
        lambda: sx.cross_entropy_with_grad(logits, targets, grad_output=grad_output, **options),
        grad_output=grad_output,
        terms=terms,
    )

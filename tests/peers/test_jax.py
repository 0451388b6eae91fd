"""The same values and gradients from JAX and optax, and JAX arrays passed straight in.

JAX computes in float64 here.
"""

import importlib
from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import DTYPES, assert_close, random_logits, random_targets

pytest.importorskip("jax", reason="JAX is not installed: `make test-peers` brings it")
jax: Any = importlib.import_module("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

SHAPES = ((1, 1), (5, 7), (3, 1000), (2, 50257))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_loss(dtype: str, shape: tuple[int, int]) -> None:
    logits = random_logits(shape, dtype)
    x = jnp.asarray(logits, jnp.float64)
    assert_close(sx.softmax(logits), jax.nn.softmax(x))
    assert_close(sx.log_softmax(logits), jax.nn.log_softmax(x))
    assert_close(sx.logsumexp(logits), jax.nn.logsumexp(x, axis=-1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_loss_and_gradient_of_optax(dtype: str, shape: tuple[int, int], reduction: Any) -> None:
    pytest.importorskip("optax", reason="optax is not installed: `make test-peers` brings it")
    row_losses = importlib.import_module("optax").softmax_cross_entropy_with_integer_labels
    logits, targets = random_logits(shape, dtype), random_targets(shape[:1], shape[1])
    reduce: Any = {"none": lambda rows: rows, "sum": jnp.sum, "mean": jnp.mean}[reduction]
    expected, backward = jax.vjp(
        lambda x: reduce(row_losses(x, targets)), jnp.asarray(logits, jnp.float64)
    )
    (expected_grad,) = backward(jnp.ones_like(expected))
    loss, grad = sx.cross_entropy_with_grad(logits, targets, reduction=reduction)
    assert_close(loss, expected)
    assert_close(grad, expected_grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_gives_the_bits_of_its_numpy_twin(dtype: str) -> None:
    logits, targets = random_logits((6, 99), dtype), random_targets((6,), 99)
    same = jnp.asarray(logits)
    assert same.dtype == logits.dtype
    for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
        expected, actual = function(logits), function(same)
        assert type(actual) is np.ndarray
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    expected_loss, expected_grad = sx.cross_entropy_with_grad(logits, targets)
    loss, grad = sx.cross_entropy_with_grad(same, jnp.asarray(targets))
    np.testing.assert_array_equal(loss, expected_loss)
    np.testing.assert_array_equal(grad, expected_grad)
    np.testing.assert_array_equal(np.asarray(same), logits)


def test_an_array_is_immutable_also_as_out() -> None:
    logits = jnp.zeros((2, 3), jnp.float32)
    with pytest.raises(ValueError, match="out"):
        sx.softmax(logits, out=np.asarray(logits))
    with pytest.raises(TypeError, match="out"):
        sx.softmax(logits, out=logits)


def test_a_traced_array_is_refused() -> None:
    # Inside jit there are no values yet.
    with pytest.raises(TypeError, match="logits"):
        jax.jit(sx.softmax)(jnp.zeros((2, 3)))

"""The same values and gradients from JAX and optax, and JAX arrays passed straight in.

JAX computes in float64 here, for the reason that torch does in test_torch.py.
"""

import importlib
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx

pytest.importorskip("jax", reason="JAX is not installed: `make test-peers` brings it")
jax: Any = importlib.import_module("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

Array = npt.NDArray[Any]

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
# Half a unit in the last place in 16 bits, else 4 and one for each nat below the row's largest.
LARGEST = 14.0
UNITS = 4 + 2 * LARGEST
TOLERANCE = {  # relative, absolute
    "float16": (1.01 * 2**-11, 2**-24),
    "bfloat16": (1.01 * 2**-8, 0.0),
    "float32": (UNITS * 2**-23, 0.0),
    "float64": (UNITS * 2**-52, 2**-49),  # JAX takes p - 1
}
SHAPES = ((1, 1), (5, 7), (3, 1000), (2, 50257))


def random_logits(shape: tuple[int, ...], dtype: str) -> Array:
    logits = np.random.default_rng(0).normal(scale=4, size=shape)
    return np.clip(logits, -LARGEST, LARGEST).astype(DTYPES[dtype])


def random_targets(rows: int, classes: int) -> Array:
    return np.random.default_rng(1).integers(0, classes, size=rows)


def assert_close(actual: Any, expected: Any) -> None:
    """Equal within the rounding of the dtype of ``actual``."""
    expected = np.asarray(expected)
    assert expected.dtype == np.float64
    relative, absolute = TOLERANCE[actual.dtype.name]
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), expected, rtol=relative, atol=absolute
    )


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
    logits, targets = random_logits(shape, dtype), random_targets(*shape)
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
    logits, targets = random_logits((6, 99), dtype), random_targets(6, 99)
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

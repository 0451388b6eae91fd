"""The same losses and gradients from optax, over masks and probabilities.

Optax computes in float64 here, for the reason that torch does in test_torch.py. Its losses are those
of rows; the reductions are written out.
"""

import importlib
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx

pytest.importorskip("jax", reason="JAX is not installed: `make test-peers` brings it")
pytest.importorskip("optax", reason="optax is not installed: `make test-peers` brings it")
jax: Any = importlib.import_module("jax")
optax: Any = importlib.import_module("optax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

Array = npt.NDArray[Any]

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
# Half a unit in the last place in 16 bits, else 4 and one for each nat below the row's largest; and
# as much of the terms of a slope, which are at most 1, for they may cancel.
LARGEST = 14.0
UNITS = 4 + 2 * LARGEST
TOLERANCE = {
    "float16": (1.01 * 2**-11, 2**-24 + UNITS * 2**-23),
    "bfloat16": (1.01 * 2**-8, UNITS * 2**-23),
    "float32": (UNITS * 2**-23, UNITS * 2**-23),
    "float64": (UNITS * 2**-52, UNITS * 2**-52),
}
SHAPES = ((1, 1), (5, 7), (3, 1000))
REDUCE: dict[str, Any] = {"none": lambda rows: rows, "sum": jnp.sum, "mean": jnp.mean}

of_every_kind = pytest.mark.parametrize(
    ("dtype", "shape", "reduction"),
    [(dtype, shape, kind) for dtype in DTYPES for shape in SHAPES for kind in REDUCE],
)


def random_logits(shape: tuple[int, int], dtype: str) -> Array:
    logits = np.random.default_rng(0).normal(scale=4, size=shape)
    return np.clip(logits, -LARGEST, LARGEST).astype(DTYPES[dtype])


def random_targets(rows: int, classes: int) -> Array:
    return np.random.default_rng(1).integers(0, classes, size=rows)


def random_mask(shape: tuple[int, int], targets: Array) -> Array:
    """Without the targets."""
    mask = np.random.default_rng(2).random(shape) < 0.7
    mask[range(len(mask)), targets] = True
    return mask


def assert_close(actual: Any, expected: Any) -> None:
    """Equal within the rounding of the dtype of ``actual``, and of a loss of some nats."""
    relative, absolute = TOLERANCE[actual.dtype.name]
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected), rtol=relative, atol=absolute
    )


def check(logits: Array, targets: Array, row_losses: Any, reduction: Any, **options: Any) -> None:
    """Our loss and gradient are those of ``row_losses``, a function of float64 logits."""
    expected, backward = jax.vjp(
        lambda x: REDUCE[reduction](row_losses(x)), jnp.asarray(logits, jnp.float64)
    )
    (expected_grad,) = backward(jnp.ones_like(expected))
    loss, grad = sx.cross_entropy_with_grad(logits, targets, reduction=reduction, **options)
    assert_close(loss, expected)
    assert_close(grad, expected_grad)


@of_every_kind
def test_where_is_a_class_mask(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    targets = random_targets(*shape)
    mask = random_mask(shape, targets)
    of_ids = optax.softmax_cross_entropy_with_integer_labels
    logits = random_logits(shape, dtype)
    # What a masked class holds does no harm, here and there.
    check(logits, targets, lambda x: of_ids(x, targets, where=mask), reduction, class_mask=mask)
    logits[~mask] = np.nan
    expected = of_ids(jnp.asarray(np.where(mask, logits, 0), jnp.float64), targets, where=mask)
    assert_close(sx.cross_entropy(logits, targets, class_mask=mask, reduction="none"), expected)


@of_every_kind
def test_probabilities_as_labels(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    labels = np.random.default_rng(3).dirichlet(np.ones(shape[1]), shape[0])
    of_labels = optax.softmax_cross_entropy
    check(random_logits(shape, dtype), labels, lambda x: of_labels(x, labels), reduction)


@of_every_kind
def test_probabilities_where_a_mask_is(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    mask = random_mask(shape, random_targets(*shape))
    labels = np.random.default_rng(3).random(shape) * mask
    labels /= labels.sum(axis=1, keepdims=True)
    check(
        random_logits(shape, dtype),
        labels,
        lambda x: optax.softmax_cross_entropy(x, labels, where=mask),
        reduction,
        class_mask=mask,
    )


@of_every_kind
def test_smoothed_labels_are_label_smoothing(
    dtype: str, shape: tuple[int, int], reduction: str
) -> None:
    targets = random_targets(*shape)
    labels = optax.smooth_labels(jax.nn.one_hot(targets, shape[1], dtype=jnp.float64), 0.1)
    check(
        random_logits(shape, dtype),
        targets,
        lambda x: optax.softmax_cross_entropy(x, labels),
        reduction,
        label_smoothing=0.1,
    )

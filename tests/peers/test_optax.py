"""The same losses and gradients from optax, over masks and probabilities.

Its losses are those of rows; the reductions are written out.
"""

import importlib
from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import DTYPES, Array, assert_close, random_logits, random_targets, rounding_of

pytest.importorskip("jax", reason="JAX is not installed: `make test-peers` brings it")
pytest.importorskip("optax", reason="optax is not installed: `make test-peers` brings it")
jax: Any = importlib.import_module("jax")
optax: Any = importlib.import_module("optax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

SHAPES = ((1, 1), (5, 7), (3, 1000))
REDUCE: dict[str, Any] = {"none": lambda rows: rows, "sum": jnp.sum, "mean": jnp.mean}

of_every_kind = pytest.mark.parametrize(
    ("dtype", "shape", "reduction"),
    [(dtype, shape, kind) for dtype in DTYPES for shape in SHAPES for kind in REDUCE],
)


def random_mask(shape: tuple[int, int], targets: Array) -> Array:
    """Without the targets."""
    mask = np.random.default_rng(2).random(shape) < 0.7
    mask[range(len(mask)), targets] = True
    return mask


def check(logits: Array, targets: Array, row_losses: Any, reduction: Any, **options: Any) -> None:
    """Our loss and gradient are those of ``row_losses``, a function of float64 logits."""
    expected, backward = jax.vjp(
        lambda x: REDUCE[reduction](row_losses(x)), jnp.asarray(logits, jnp.float64)
    )
    (expected_grad,) = backward(jnp.ones_like(expected))
    loss, grad = sx.cross_entropy_with_grad(logits, targets, reduction=reduction, **options)
    # The terms of a slope are at most 1, and may cancel; a loss is of some nats.
    absolute = rounding_of(logits, 1.0)
    assert_close(loss, expected, absolute=absolute)
    assert_close(grad, expected_grad, absolute=absolute)


@of_every_kind
def test_where_is_a_class_mask(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    targets = random_targets(shape[:1], shape[1])
    mask = random_mask(shape, targets)
    of_ids = optax.softmax_cross_entropy_with_integer_labels
    logits = random_logits(shape, dtype)
    # What a masked class holds does no harm, here and there.
    check(logits, targets, lambda x: of_ids(x, targets, where=mask), reduction, class_mask=mask)
    logits[~mask] = np.nan
    expected = of_ids(jnp.asarray(np.where(mask, logits, 0), jnp.float64), targets, where=mask)
    rows = sx.cross_entropy(logits, targets, class_mask=mask, reduction="none")
    assert_close(rows, expected, absolute=rounding_of(logits, 1.0))


@of_every_kind
def test_probabilities_as_labels(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    labels = np.random.default_rng(3).dirichlet(np.ones(shape[1]), shape[0])
    of_labels = optax.softmax_cross_entropy
    check(random_logits(shape, dtype), labels, lambda x: of_labels(x, labels), reduction)


@of_every_kind
def test_probabilities_where_a_mask_is(dtype: str, shape: tuple[int, int], reduction: str) -> None:
    mask = random_mask(shape, random_targets(shape[:1], shape[1]))
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
    targets = random_targets(shape[:1], shape[1])
    labels = optax.smooth_labels(jax.nn.one_hot(targets, shape[1], dtype=jnp.float64), 0.1)
    check(
        random_logits(shape, dtype),
        targets,
        lambda x: optax.softmax_cross_entropy(x, labels),
        reduction,
        label_smoothing=0.1,
    )

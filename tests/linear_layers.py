"""Linear layers for tests, and their losses by way of the logits, written out in doubles.

Shapes of the tests are on both sides of where the products are cut: 256 and 2048 classes, 512 and 1024 steps
of a sum, 320 rows.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import softxent as sx
from common import FLOAT16, ROUNDING, Array, Dtype, loss_dtype

NAMES: Any = ("hidden", "linear_weight", "linear_bias")


class Layer(NamedTuple):
    """The operands and the targets of a call."""

    hidden: Array
    linear_weight: Array
    targets: Array
    linear_bias: Array | None = None

    def as_type(self, dtype: Any) -> "Layer":
        bias = None if self.linear_bias is None else self.linear_bias.astype(dtype)
        return Layer(
            self.hidden.astype(dtype), self.linear_weight.astype(dtype), self.targets, bias
        )


def layer_of(rows: int, width: int, classes: int, dtype: Any = np.float32, seed: int = 0) -> Layer:
    """Logits of about 1, a bias, and a class for each row; of three rows or more the second is ignored."""
    random = np.random.default_rng([seed, rows, width, classes])
    scale = max(width, 1) ** -0.5
    layer = Layer(
        random.standard_normal((rows, width)),
        random.standard_normal((classes, width)) * scale,
        random.integers(classes, size=rows),
        random.standard_normal(classes),
    )
    if rows > 2:
        layer.targets[1] = -100
    return layer.as_type(dtype)


def written_out(layer: Layer, **options: Any) -> tuple[Any, Any]:
    """The loss and the three gradients, of logits in doubles."""
    exact = layer.as_type(np.float64)
    logits = exact.hidden @ exact.linear_weight.T
    if exact.linear_bias is not None:
        logits += exact.linear_bias
    loss, grad = sx.cross_entropy_with_grad(logits, layer.targets, **options)
    rows = grad.reshape(-1, grad.shape[-1])
    hidden = exact.hidden.reshape(len(rows), -1)
    return loss, (grad @ exact.linear_weight, rows.T @ hidden, rows.sum(axis=0))


def close(got: Any, expected: Any, dtype: Dtype, terms: int, products: Dtype | None = None) -> None:
    """Of that dtype, and near: relative to the largest element, for others may have cancelled."""
    assert got.dtype == dtype
    values = np.asarray(got).astype(np.float64)
    assert values.shape == np.shape(expected)
    of_products = ROUNDING[products or loss_dtype(dtype)] * (16 + 4 * math.sqrt(terms))
    rounding = of_products + 2 * ROUNDING[dtype]
    size = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=rounding * size + 1e-7 * (dtype == FLOAT16)
    )


def places(layer: Layer, fill: float) -> Any:
    return tuple(
        None if array is None else np.full_like(array, fill)
        for array in (*layer[:2], layer.linear_bias)
    )

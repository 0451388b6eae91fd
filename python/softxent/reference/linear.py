"""The cross-entropy of a linear layer, and its gradients with respect to what the layer multiplies.

The logits are written out, which is what nobody wants to do with large ones; then, with the rows
h of the hidden states, the rows w and the numbers b of the layer, and g the gradient of the logits,

    x_nc = h_n . w_c + b_c
    d loss / d h_n = sum_c g_nc w_c      d loss / d w_c = sum_n g_nc h_n      d loss / d b_c = sum_n g_nc

The one idea: where g is 0 nothing is added, whatever stands there. So a row that is ignored, or a
class that is masked, may hold NaN.
"""

from collections.abc import Iterable

from softxent.reference.lists import Nested, Table, cut, cut_flat, nest, read, real
from softxent.reference.loss import cross_entropy_with_grad
from softxent.reference.sums import share, total
from softxent.reference.targets import IgnoreIndex

GRADS = ("hidden", "linear_weight", "linear_bias")


def linear_cross_entropy(
    hidden: Nested,
    linear_weight: Nested,
    targets: Nested,
    linear_bias: Nested = None,
    *,
    weight: Nested = None,
    sample_weight: Nested = None,
    ignore_index: IgnoreIndex = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
) -> Nested:
    """The loss of the logits of a layer: see `linear_cross_entropy_with_grad`."""
    return linear_cross_entropy_with_grad(
        hidden,
        linear_weight,
        targets,
        linear_bias,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
        softcap=softcap,
        valid_classes=valid_classes,
        class_mask=class_mask,
        reduction=reduction,
        offsets=offsets,
        normalizer=normalizer,
        on_empty=on_empty,
        grads=(),
    )[0]


def linear_cross_entropy_with_grad(
    hidden: Nested,
    linear_weight: Nested,
    targets: Nested,
    linear_bias: Nested = None,
    *,
    weight: Nested = None,
    sample_weight: Nested = None,
    ignore_index: IgnoreIndex = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
    grad_output: Nested = None,
    grads: Iterable[str] = GRADS,
) -> tuple[Nested, tuple[Nested, Nested, Nested]]:
    """The loss of the logits of a layer, and its gradients.

    `hidden` is (..., D), `linear_weight` (V, D), `linear_bias` (V,) or None; all else is as for
    `cross_entropy_with_grad` with logits of shape (..., V). The gradients are those that `grads`
    names, None in place of the others and of that of a bias that is not there.
    """
    wanted = set(grads)
    if not wanted <= set(GRADS):
        raise ValueError(f"grads: expected names among {GRADS}, got {sorted(wanted)}")
    rows, layer = cut("hidden", hidden, -1), cut("linear_weight", linear_weight, -1)
    bias = read_layer(rows, layer, linear_bias)
    shape = (*rows.rows_shape, len(layer.rows))
    logits = [
        [total([*map(float.__mul__, h, w), b]) for w, b in zip(layer.rows, bias, strict=True)]
        for h in rows.rows
    ]
    loss, nested = cross_entropy_with_grad(
        nest([x for row in logits for x in row], shape),
        targets,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
        softcap=softcap,
        valid_classes=valid_classes,
        class_mask=class_mask,
        reduction=reduction,
        offsets=offsets,
        normalizer=normalizer,
        on_empty=on_empty,
        grad_output=grad_output,
    )
    g = cut_flat(read("grad", nested, real)[1], shape, len(shape) - 1)
    columns = [list(column) for column in zip(*g, strict=True)] or [[]] * len(layer.rows)
    return loss, (
        rows.join(products(g, layer)) if "hidden" in wanted else None,
        layer.join(products(columns, rows)) if "linear_weight" in wanted else None,
        [total(column) for column in columns]
        if "linear_bias" in wanted and linear_bias is not None
        else None,
    )


def read_layer(rows: Table, layer: Table, linear_bias: Nested) -> list[float]:
    """The numbers of the bias, 0 where there is none, after a look at the shapes."""
    if len(layer.shape) != 2 or layer.classes != rows.classes:
        wanted = f"shape (V, {rows.classes}) to match hidden {rows.shape}"
        raise ValueError(f"linear_weight: expected {wanted}, got {layer.shape}")
    if not layer.rows:
        raise ValueError(f"linear_weight: expected at least one class, got shape {layer.shape}")
    if linear_bias is None:
        return [0.0] * len(layer.rows)
    shape, bias = read("linear_bias", linear_bias, real)
    if shape != (len(layer.rows),):
        wanted = f"shape {(len(layer.rows),)} to match linear_weight {layer.shape}"
        raise ValueError(f"linear_bias: expected {wanted}, got {shape}")
    return bias


def products(coefficients: list[list[float]], table: Table) -> list[list[float]]:
    """For each row of coefficients the sum of the table's rows, each times its coefficient."""
    columns = list(zip(*table.rows, strict=True)) or [()] * table.classes
    return [
        [total(list(map(share, of_one, column))) for column in columns] for of_one in coefficients
    ]

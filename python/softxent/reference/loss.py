"""Cross-entropy, its gradient, and the diagonal of its Hessian.

One row of logits gives its softmax (`row.py`), the rows' losses are put together in `reduction.py`;
here is what comes in between, a row's loss.

The one idea: all targets and options are coefficients. With `nll_c = -log p_c = lse - s_c`, class
weights w, smoothing e over the K classes that take part, z-loss z and target probabilities t,

    loss = (1 - e) sum_c t_c w_c nll_c  +  e/K sum_c w_c nll_c  +  z lse^2
         = sum_c a_c nll_c + z lse^2      where a_c = (1 - e) t_c w_c + e/K w_c

    d loss / d s_i = sum_c a_c (p_i - [i == c]) + 2 z lse p_i
                   = p_i sum_(c != i) a_c - (1 - p_i) a_i + 2 z lse p_i

A class id y is t_y = 1. The last line is how it is computed: where one class has nearly all of p,
`1 - p_i` has its digits, and the difference of two sums of all would not.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

from softxent.reference.lists import Nested, Table, cut_for_loss, fraction, real
from softxent.reference.reduction import Reduction
from softxent.reference.row import Row, Transformation
from softxent.reference.sums import Sum, divide, share, total
from softxent.reference.targets import IgnoreIndex, Target, read_classes, read_targets

AnyTarget = TypeVar("AnyTarget")


def cross_entropy(
    logits: Nested,
    targets: Nested,
    *,
    axis: int = -1,
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
    """The surprise `-log p_y` of the rows, in nats, reduced: see `cross_entropy_with_grad`."""
    return cross_entropy_with_grad(
        logits,
        targets,
        axis=axis,
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
    )[0]


def cross_entropy_with_grad(
    logits: Nested,
    targets: Nested,
    *,
    axis: int = -1,
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
) -> tuple[Nested, Nested]:
    """The cross-entropy loss and its gradient with respect to the logits.

    `targets` holds class ids, in the shape of `logits` less `axis`, or probabilities, in the shape
    of `logits`; those are taken as given. A row whose class id is (one of) `ignore_index`, or whose
    `sample_weight` is 0, is not valid: it is not read, its loss is 0 and its gradient exactly 0.
    `weight` has a number w for each class, `sample_weight` a number u for each row; the row's loss
    is u times that at the head of this file. `softmax` says what happens to the logits before. A
    masked target has infinite loss, unless its coefficient is 0; a row with no class to take part
    has loss NaN and gradient 0.
    `reduction` "mean" divides the sum of the rows by the sum over the valid ones of u * w_y, or with
    probabilities of u; a sum of 0 divides as IEEE says. See `Reduction` for the others, and for
    `offsets`, `normalizer` and `on_empty`. `grad_output` is the gradient of what comes after with
    respect to the loss returned: a number, or with "none" also one number per row. An `offsets` or
    `normalizer` that the reduction has no use for is a ValueError.
    """
    table = cut_for_loss("logits", logits, axis)
    rows = Transformation(temperature, softcap, valid_classes, class_mask).rows(table)
    row_loss = RowLoss(read_weight(weight, table), Terms(label_smoothing, z_loss))
    scales = read_sample_weight(sample_weight, table)
    valid = valid_only(read_targets(targets, table, ignore_index), scales)
    reduced = Reduction(reduction, offsets, normalizer, on_empty)
    shape = table.rows_shape
    masses = [
        None if target is None else scale * row_loss.mass(target)
        for target, scale in zip(valid, scales, strict=True)
    ]
    denominator = reduced.denominator(shape, masses)
    upstream = reduced.upstream(grad_output, shape)

    losses: list[float] = []
    grads: list[list[float]] = []
    for row, target, scale, factor in zip(rows, valid, scales, upstream, strict=True):
        if target is None or denominator is None:
            losses.append(0.0)
            grads.append([0.0] * table.classes)
        else:
            losses.append(scale * row_loss.loss(row, target))
            grads.append(
                row.chained(row_loss.slopes(row, target), divide(factor * scale, denominator))
            )
    return reduced.loss(losses, shape, denominator), table.join(grads)


def softmax_grad_hess(
    logits: Nested,
    targets: Nested,
    *,
    axis: int = -1,
    weight: Nested = None,
    sample_weight: Nested = None,
    ignore_index: IgnoreIndex = -100,
) -> tuple[Nested, Nested]:
    """The gradient of each row's loss and the diagonal of its Hessian, as boosted trees ask for them.

    `grad_i = u w_y (p_i - [i == y])` and `hess_i = u w_y p_i (1 - p_i)`, with nothing reduced, for
    class ids. Both are 0 in a row that is not valid.
    """
    table = cut_for_loss("logits", logits, axis)
    rows = Transformation().rows(table)
    weights = read_weight(weight, table)
    scales = read_sample_weight(sample_weight, table)
    valid = valid_only(read_classes(targets, table, ignore_index), scales)
    grads: list[list[float]] = []
    hessians: list[list[float]] = []
    for row, y, scale in zip(rows, valid, scales, strict=True):
        if y is None:
            grads.append([0.0] * table.classes)
            hessians.append([0.0] * table.classes)
        else:
            factor = scale * weights[y]
            of_y = Sum([float(i == y) for i in range(table.classes)])
            grads.append([factor * slope for slope in slopes(row.total, of_y, pull=0.0)])
            pairs = zip(row.p, row.not_p, strict=True)
            hessians.append([factor * p * not_p for p, not_p in pairs])
    return table.join(grads), table.join(hessians)


# One row.


@dataclass(frozen=True)
class Terms:
    """How much the terms of a row's loss count: that of its target, that of all classes, the z-loss."""

    label_smoothing: float
    z_loss: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        fraction("label_smoothing", self.label_smoothing)
        if not 0 <= real("z_loss", self.z_loss) < math.inf:
            raise ValueError(f"z_loss: expected a finite number from 0, got {self.z_loss!r}")

    def loss(self, of_target: float, mean_of_all: float, lse: float) -> float:
        """The terms together."""
        e, z = self.label_smoothing, self.z_loss
        return total([share(1 - e, of_target), share(e, mean_of_all), share(z, lse * lse)])

    def of_target(self, weight: float) -> float:
        """`(1 - e) t w`, the coefficient of a target with weight t w."""
        return share(1 - self.label_smoothing, weight)

    def of_all(self, weight: float, classes: int) -> float:
        """`e/K w`, the coefficient of a class, or of several together, among K."""
        return share(self.label_smoothing / classes, weight)

    def pull(self, lse: float) -> float:
        """The derivative of the z-loss with respect to lse."""
        return share(2 * self.z_loss, lse)


@dataclass(frozen=True)
class RowLoss:
    """The loss of a row, but for its sample weight."""

    weight: list[float]
    terms: Terms

    def mass(self, target: Target) -> float:
        """What the row weighs in a mean."""
        return total([self.weight[c] for c in target.probabilities]) if target.is_class else 1.0

    def loss(self, row: Row, target: Target) -> float:
        """The loss itself."""
        if target.has_nan or not row.has_softmax:
            return math.nan
        nll = [-log_p for log_p in row.log_p]
        of_target = total([share(t, nll[c]) for c, t in self._weighted(target)])
        of_all = total([share(self.weight[c], nll[c]) for c in row.classes])
        return self.terms.loss(of_target, of_all / sum(row.allowed), row.lse)

    def slopes(self, row: Row, target: Target) -> list[float]:
        """The derivatives of the loss with respect to s, the logits as they are exponentiated."""
        if target.has_nan or not row.has_softmax:
            return [math.nan] * len(row.logits)
        of_all = [self.terms.of_all(w, sum(row.allowed)) for w in self.weight]
        coefficients = row.where_allowed(of_all, otherwise=0.0)
        for c, t in self._weighted(target):  # a masked one too, for it weighs on the others
            coefficients[c] += self.terms.of_target(t)
        return slopes(row.total, Sum(coefficients), self.terms.pull(row.lse))

    def _weighted(self, target: Target) -> list[tuple[int, float]]:
        return [(c, share(t, self.weight[c])) for c, t in target.probabilities.items()]


def slopes(exps: Sum, coefficients: Sum, pull: float) -> list[float]:
    """`p_i sum_(c != i) a_c - (1 - p_i) a_i + pull p_i`, where p_i is exp_i over their sum."""
    found = []
    for i, (e, a) in enumerate(zip(exps.terms, coefficients.terms, strict=True)):
        p, not_p = divide(e, exps.value), divide(exps.without(i), exps.value)
        found.append(total([p * coefficients.without(i), -not_p * a, p * pull]))
    return found


# All rows.


def read_weight(weight: Nested, table: Table) -> list[float]:
    """w of each class, 1 where none is given."""
    return [1.0] * table.classes if weight is None else table.one_per_class("weight", weight)


def read_sample_weight(sample_weight: Nested, table: Table) -> list[float]:
    """u of each row, 1 where none is given."""
    if sample_weight is None:
        return [1.0] * len(table.rows)
    return table.one_per_row("sample_weight", sample_weight, real)


def valid_only(targets: list[AnyTarget | None], scales: list[float]) -> list[AnyTarget | None]:
    """The targets again, None also for a row of sample weight 0."""
    return [None if u == 0 else target for target, u in zip(targets, scales, strict=True)]

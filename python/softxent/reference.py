"""Softmax, log-sum-exp and cross-entropy in the standard library alone: the specification.

Written to be read, and to be what every other implementation is tested against. The functions have
the names and keywords of the public ones; they take and give nested lists of numbers. It does not
know arrays, dtypes, threads or speed: an answer is always in double precision, so there is no
`out`, `dtype` or `threads`, and `show_runtime`, `set_threads` and `get_threads`, which are not
mathematics, have no twin here.

The one idea: the largest logit leaves the sum before anything is rounded. With the gaps
`d_i = (x_i - max x) / T <= 0`, and `rest` the sum of all exp(d_i) but the maximum's own 1,

    p_i = exp(d_i) / (1 + rest)        lse = max x / T + log1p(rest)
    nll = log1p(rest) - d_y            d nll / d x_y = -(sum of the other exps) / (1 + rest) / T

Neither `lse - x_y` nor `p_y - 1` is ever formed: they lose the digits of a confident row.

>>> from softxent import reference
>>> [round(p, 4) for p in reference.softmax([3.2, 1.0, -0.5, 2.5])]
[0.6127, 0.0679, 0.0151, 0.3043]
>>> round(reference.cross_entropy([3.2, 1.0, -0.5, 2.5], 0), 4)
0.4899
"""

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias, TypeVar

__all__ = ["cross_entropy", "cross_entropy_with_grad", "log_softmax", "logsumexp", "softmax"]

Nested: TypeAlias = Any  # a number or nested lists of numbers; how deep, only the call knows
Shape: TypeAlias = tuple[int, ...]
Leaf = TypeVar("Leaf")

REDUCTIONS = ("mean", "sum", "none", "sequence_mean")
ON_EMPTY = ("nan", "zero", "raise")


class AxisError(ValueError, IndexError):
    """An axis that the logits do not have: both kinds of error at once, as in NumPy."""


# The functions.


def softmax(logits: Nested, axis: int = -1, *, temperature: float = 1.0) -> Nested:
    """The probabilities `exp(x_i / T) / sum_a exp(x_a / T)` along `axis`, shaped as `logits`."""
    table = _cut(logits, axis)
    return table.join([[e / row.total for e in row.exps] for row in table.summaries(temperature)])


def log_softmax(logits: Nested, axis: int = -1, *, temperature: float = 1.0) -> Nested:
    """The logarithms of `softmax`, finite also where the probability itself underflows to 0."""
    table = _cut(logits, axis)
    rows = table.summaries(temperature)
    return table.join([[gap - row.log_total for gap in row.gaps] for row in rows])


def logsumexp(
    logits: Nested, axis: int = -1, *, keepdims: bool = False, temperature: float = 1.0
) -> Nested:
    """`log sum_a exp(x_a / T)` along `axis`, which is dropped or, with `keepdims`, has length 1."""
    table = _cut(logits, axis)
    values = [row.lse for row in table.summaries(temperature)]
    return _nest(values, table.shape_with(1) if keepdims else table.shape_with())


def cross_entropy(
    logits: Nested,
    targets: Nested,
    *,
    axis: int = -1,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
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
        ignore_index=ignore_index,
        temperature=temperature,
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
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
    grad_output: Nested = None,
) -> tuple[Nested, Nested]:
    """The cross-entropy loss and its gradient with respect to the logits.

    `targets` holds class ids, in the shape of `logits` less `axis`. A row whose target is (one of)
    `ignore_index` is not valid: it is not read, its loss is 0 and its gradient exactly 0.
    `reduction` is "none", the loss of each row; "sum"; "mean", the sum over the number of valid
    rows or over `normalizer`; or "sequence_mean", the sum over the number of sequences: B for
    logits of three axes (B, T, V), or S for rows that `offsets`, of length S + 1, cuts apart.
    A mean over nothing (no valid row and no `normalizer`; no sequence) gives `on_empty`: "nan",
    "zero" or "raise". `grad_output` is the gradient of what comes after with respect to the loss
    returned: a number, or with "none" also one number per row. An `offsets` or `normalizer` that
    the reduction has no use for is a ValueError.
    """
    table = _cut(logits, axis)
    if table.classes == 0:
        raise ValueError(f"logits: expected at least one class, got shape {table.shape}")
    ids = _class_ids(targets, table, ignore_index)
    _check_positive("temperature", temperature)
    denominator = _denominator(reduction, table, ids, offsets, normalizer)
    if on_empty not in ON_EMPTY:
        raise ValueError(f"on_empty: expected one of {ON_EMPTY}, got {on_empty!r}")
    if denominator is None and on_empty == "raise":
        raise ValueError(f"targets: expected something to take the {reduction} of, got nothing")
    upstream = _upstream(grad_output, table, reduction)

    losses: list[float] = []
    grads: list[list[float]] = []
    for logits_row, target, factor in zip(table.rows, ids, upstream, strict=True):
        if target is None or denominator is None:
            losses.append(0.0)
            grads.append([0.0] * table.classes)
        else:
            row = _summarize(logits_row, temperature)
            scale = factor / denominator / temperature
            losses.append(_row_loss(row, target))
            grads.append([scale * slope for slope in _row_gradient(row, target)])

    grad = table.join(grads)
    if reduction == "none":
        return _nest(losses, table.shape_with()), grad
    if denominator is None:
        return (math.nan if on_empty == "nan" else 0.0), grad
    return _total(losses) / denominator, grad


# One row: its summary, its loss, its gradient.


@dataclass(frozen=True)
class _Summary:
    """All that a loss needs to know of one row of logits x at temperature T."""

    gaps: list[float]  # d_i = (x_i - max x) / T
    exps: list[float]  # exp(d_i)
    total: float  # sum of the exps
    log_total: float  # its logarithm
    lse: float  # log sum exp(x_i / T)


def _summarize(row: list[float], temperature: float) -> _Summary:
    top = math.nan if any(map(math.isnan, row)) else max(row, default=-math.inf)
    if not math.isfinite(top):
        # A NaN, a +inf, only -inf, or no class at all: this is the lse, and no gap has a value.
        nans = [math.nan] * len(row)
        return _Summary(nans, nans, math.nan, math.nan, lse=top)
    gaps = [(x - top) / temperature for x in row]
    exps = [math.exp(gap) for gap in gaps]
    log_total = math.log1p(_total_without(exps, row.index(top)))
    return _Summary(gaps, exps, _total(exps), log_total, lse=top / temperature + log_total)


def _row_loss(row: _Summary, target: int) -> float:
    """`nll = lse - x_y / T`, as a sum of two numbers >= 0."""
    return row.log_total - row.gaps[target]


def _row_gradient(row: _Summary, target: int) -> list[float]:
    """`p_i - [i == y]`, the derivatives of the loss with respect to x_i / T."""
    slopes = [e / row.total for e in row.exps]
    slopes[target] = -_total_without(row.exps, target) / row.total
    return slopes


def _total_without(values: list[float], index: int) -> float:
    return _total(values[:index] + values[index + 1 :])


def _total(values: list[float]) -> float:
    """The exact sum, rounded once; where there is none, what IEEE addition gives."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # fsum refuses a sum beyond the doubles, and inf - inf
        return sum(values)


# The batch: class ids, denominator, upstream gradient.


def _class_ids(
    targets: Nested, table: "_Table", ignore_index: int | Iterable[int] | None
) -> list[int | None]:
    """The target of each row, in [0, V), or None for an ignored row."""
    if ignore_index is None:
        ignore_index = ()
    several = ignore_index if isinstance(ignore_index, Iterable) else (ignore_index,)
    ignored = {_integer("ignore_index", index) for index in several}
    shape, ids = _read("targets", targets, _integer)
    if shape != table.shape_with():
        wanted = f"shape {table.shape_with()} to match logits {table.shape}"
        raise ValueError(f"targets: expected {wanted}, got {shape}")
    for place, target in zip(product(*map(range, shape)), ids, strict=True):
        if target not in ignored and not 0 <= target < table.classes:
            where = f"targets{list(place) or ''}"
            raise IndexError(f"{where} = {target} is outside [0, {table.classes})")
    return [None if target in ignored else target for target in ids]


def _denominator(
    reduction: str,
    table: "_Table",
    ids: list[int | None],
    offsets: Nested,
    normalizer: float | None,
) -> float | None:
    """What the sum of the rows is divided by, None for a mean over nothing."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}")
    if normalizer is not None and reduction != "mean":
        raise ValueError(f"normalizer: expected None with {reduction!r}, got {normalizer!r}")
    if offsets is not None and reduction != "sequence_mean":
        raise ValueError(f"offsets: expected None with {reduction!r}, got {offsets!r}")
    if normalizer is not None:
        return _check_positive("normalizer", normalizer)
    if reduction == "mean":
        return sum(target is not None for target in ids) or None
    if reduction == "sequence_mean":
        return _sequences(table, offsets) or None
    return 1.0


def _sequences(table: "_Table", offsets: Nested) -> int:
    """How many sequences there are; where they are cut makes no difference to the sum of rows."""
    if offsets is None:
        if len(table.shape) != 3:
            wanted = "three axes, or offsets, for 'sequence_mean'"
            raise ValueError(f"logits: expected {wanted}, got shape {table.shape}")
        return table.shape_with()[0]
    shape, cuts = _read("offsets", offsets, _integer)
    if len(shape) != 1 or not cuts:
        raise ValueError(f"offsets: expected shape (S + 1,), got {shape}")
    if cuts[0] != 0 or cuts[-1] != len(table.rows) or cuts != sorted(cuts):
        raise ValueError(f"offsets: expected to rise from 0 to {len(table.rows)}, got {cuts}")
    return len(cuts) - 1


def _upstream(grad_output: Nested, table: "_Table", reduction: str) -> list[float]:
    """The gradient of what comes after with respect to each row's part of the loss."""
    shape, factors = _read("grad_output", 1.0 if grad_output is None else grad_output, _real)
    if shape == ():
        return factors * len(table.rows)
    if reduction != "none" or shape != table.shape_with():
        wanted = f"a number or, with 'none', shape {table.shape_with()}"
        raise ValueError(f"grad_output: expected {wanted}, got shape {shape}")
    return factors


# Nested lists: read, cut into rows, joined and nested again.


@dataclass(frozen=True)
class _Table:
    """Logits as rows along one axis, in the order of the other axes, whatever the rank."""

    shape: Shape
    axis: int
    rows: list[list[float]]

    @property
    def classes(self) -> int:
        return self.shape[self.axis]

    def shape_with(self, *length: int) -> Shape:
        """The shape with another length of the row axis, or, given none, without that axis."""
        return self.shape[: self.axis] + length + self.shape[self.axis + 1 :]

    def summaries(self, temperature: float) -> list[_Summary]:
        _check_positive("temperature", temperature)
        return [_summarize(row, temperature) for row in self.rows]

    def join(self, rows: list[list[float]]) -> Nested:
        """Other rows, nested as the logits were: `_cut` run backwards."""
        outer, inner = math.prod(self.shape[: self.axis]), math.prod(self.shape[self.axis + 1 :])
        places = product(range(outer), range(self.classes), range(inner))
        return _nest([rows[o * inner + k][i] for o, i, k in places], self.shape)


def _cut(logits: Nested, axis: int) -> _Table:
    shape, flat = _read("logits", logits, _real)
    rank, axis = len(shape), operator.index(axis)
    if rank == 0:
        raise ValueError("logits: expected at least one axis, got a number")
    if not -rank <= axis < rank:
        raise AxisError(f"axis: expected {-rank} to {rank - 1} for logits {shape}, got {axis}")
    axis %= rank
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    places = product(range(outer), range(inner))
    rows = [[flat[(o * size + i) * inner + k] for i in range(size)] for o, k in places]
    return _Table(shape, axis, rows)


def _read(
    name: str, nested: Nested, leaf: Callable[[str, Nested], Leaf]
) -> tuple[Shape, list[Leaf]]:
    """The shape of nested lists, and their numbers in order, each checked by `leaf`."""
    if not isinstance(nested, list | tuple):
        return (), [leaf(name, nested)]
    parts = [_read(name, part, leaf) for part in nested]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        raise ValueError(f"{name}: expected one shape side by side, got {sorted(shapes)}")
    inner = shapes.pop() if shapes else ()
    return (len(parts), *inner), [number for _, numbers in parts for number in numbers]


def _nest(flat: list[float], shape: Shape) -> Nested:
    if not shape:
        return flat[0]
    step = math.prod(shape[1:])
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _real(name: str, value: Nested) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected numbers or lists of them, got {type(value).__name__}")
    return float(value)


def _integer(name: str, value: Nested) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected integers, got {type(value).__name__}")
    return operator.index(value)


def _check_positive(name: str, value: float) -> float:
    if not 0 < _real(name, value) < math.inf:
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")
    return value

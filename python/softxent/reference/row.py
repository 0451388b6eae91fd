"""One row of logits: how they are transformed, which of them take part, and their softmax.

Targets, losses and batches are not known here.

The one idea: the largest logit leaves the sum before anything is rounded. With s the logits after
softcap c and temperature T, the gaps `d_i = s_i - max s <= 0` over the classes that take part, and
`rest` the sum of all exp(d_i) but the maximum's own 1,

    s_i = c * tanh(x_i / c) / T        d s_i / d x_i = (1 - tanh(x_i / c)^2) / T
    p_i = exp(d_i) / (1 + rest)        log p_i = d_i - log1p(rest)
    lse = max s + log1p(rest)          1 - p_i = (sum of the other exps) / (1 + rest)

A class that is masked is not read: its d is -inf, its p is 0 and so is every derivative.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from softxent.reference.lists import Nested, Table, boolean, integer, positive
from softxent.reference.sums import Sum, divide

# Options.


@dataclass(frozen=True)
class Scaling:
    """The curve from a logit x to the s that is exponentiated: softcap, then temperature."""

    temperature: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        """Check that both can be divided by."""
        positive("temperature", self.temperature)
        if self.softcap is not None:
            positive("softcap", self.softcap)

    def capped(self, x: float) -> float:
        """The logit after the softcap, which takes an infinite one to plus or minus c."""
        return x if self.softcap is None else self.softcap * math.tanh(x / self.softcap)

    def value(self, x: float) -> float:
        """s, as it is exponentiated."""
        return self.capped(x) / self.temperature

    def gap(self, x: float, top: float) -> float:
        """`value(x) - value(top)` for x <= top, by the one subtraction of two logits."""
        if self.softcap is None or x == top:
            return 0.0 if x == top else (x - top) / self.temperature
        c = self.softcap
        if x < 0 <= top:
            difference = math.tanh(x / c) - math.tanh(top / c)
        else:
            # With the same sign the two may be all but equal. For a <= b of the same sign, n and f
            # the nearer and the farther to 0 of |a| and |b|, and tanh(n) = (1 - e^-2n) / (1 + e^-2n),
            #     tanh(a) - tanh(b) = 2 e^-2n (e^-2(f - n) - 1) / ((1 + e^-2n) (1 + e^-2f))
            near, far = (math.exp(-2 * y) for y in sorted((abs(x / c), abs(top / c))))
            difference = 2 * near * math.expm1(-2 * (top - x) / c) / ((1 + near) * (1 + far))
        return c * difference / self.temperature

    def slope(self, x: float) -> float:
        """The derivative of `value`; `1 - tanh^2` is written as `4 e / (1 + e)^2`, e = exp(-2|x / c|)."""
        if self.softcap is None:
            return 1 / self.temperature
        e = math.exp(-2 * abs(x / self.softcap))
        return 4 * e / (1 + e) ** 2 / self.temperature


@dataclass(frozen=True)
class Transformation:
    """What happens to logits before their exponentials: the scaling, then the masks."""

    temperature: float = 1.0
    softcap: float | None = None
    valid_classes: int | None = None
    class_mask: Nested = None

    def __post_init__(self) -> None:
        """Check what needs no logits."""
        _ = self.scaling

    @cached_property
    def scaling(self) -> Scaling:
        """The part of it that is the same for each logit."""
        return Scaling(self.temperature, self.softcap)

    def rows(self, table: Table) -> list["Row"]:
        """The rows of a table of logits."""
        masks = self._masks(table)
        return [Row(x, mask, self.scaling) for x, mask in zip(table.rows, masks, strict=True)]

    def _masks(self, table: Table) -> list[list[bool]]:
        valid = table.classes
        if self.valid_classes is not None:
            valid = integer("valid_classes", self.valid_classes)
            if not 1 <= valid <= table.classes:
                raise ValueError(f"valid_classes: expected 1 to {table.classes}, got {valid}")
        masks = [[True] * table.classes] * len(table.rows)
        if self.class_mask is not None:
            masks = table.one_per_place("class_mask", self.class_mask, boolean)
        return [[keep and i < valid for i, keep in enumerate(mask)] for mask in masks]


# Rows.


@dataclass(frozen=True)
class Row:
    """A row of logits. What is computed from it is computed when asked for: a row may go unread."""

    logits: list[float]
    allowed: list[bool]  # which classes take part
    scaling: Scaling

    @property
    def classes(self) -> Iterator[int]:
        """The classes that take part."""
        return (i for i, allowed in enumerate(self.allowed) if allowed)

    @cached_property
    def top(self) -> float:
        """The largest logit; NaN if there is one."""
        logits = [self.logits[i] for i in self.classes]
        return math.nan if any(map(math.isnan, logits)) else max(logits, default=-math.inf)

    @property
    def has_softmax(self) -> bool:
        """Not so with a NaN, with a +inf, with nothing but -inf, or with no class at all."""
        return math.isfinite(self.scaling.capped(self.top)) and any(self.allowed)

    @cached_property
    def gaps(self) -> list[float]:
        """`d_i = s_i - max s`; -inf where masked, NaN without a softmax."""
        if not self.has_softmax:
            return self.where_allowed([math.nan] * len(self.logits), otherwise=-math.inf)
        masked = -math.inf
        pairs = zip(self.logits, self.allowed, strict=True)
        return [self.scaling.gap(x, self.top) if allowed else masked for x, allowed in pairs]

    @cached_property
    def exps(self) -> list[float]:
        """`exp(d_i)`; 0 where masked."""
        return [math.exp(gap) for gap in self.gaps]

    @cached_property
    def total(self) -> Sum:
        """The sum of the exponentials: 1 + rest."""
        return Sum(self.exps)

    @cached_property
    def rest(self) -> float:
        """The sum of the exponentials without that of the largest logit, which is 1."""
        return self.total.without(self.gaps.index(0.0)) if self.has_softmax else math.nan

    @property
    def lse(self) -> float:
        """`log sum_a exp(s_a)`: also where there is no softmax it is NaN, +inf or -inf."""
        top = self.scaling.value(self.top) if any(self.allowed) else -math.inf
        return top + math.log1p(self.rest) if self.has_softmax else top

    @property
    def p(self) -> list[float]:
        """The probabilities."""
        return self.where_allowed([divide(e, self.total.value) for e in self.exps], otherwise=0.0)

    @property
    def not_p(self) -> list[float]:
        """`1 - p_i`: the share of the others."""
        total = self.total
        return [divide(total.without(i), total.value) for i in range(len(self.exps))]

    @property
    def log_p(self) -> list[float]:
        """Their logarithms."""
        log_total = math.log1p(self.rest)
        return self.where_allowed([gap - log_total for gap in self.gaps], otherwise=-math.inf)

    def where_allowed(self, values: list[float], otherwise: float) -> list[float]:
        """The values of the classes that take part, and another for the rest."""
        pairs = zip(values, self.allowed, strict=True)
        return [value if allowed else otherwise for value, allowed in pairs]

    def chained(self, slopes: list[float], scale: float) -> list[float]:
        """Derivatives with respect to s, as those with respect to the logits, times `scale`."""
        chain = map(self.scaling.slope, self.logits)
        return self.where_allowed(
            [scale * slope * step for slope, step in zip(slopes, chain, strict=True)], otherwise=0.0
        )

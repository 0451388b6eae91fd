"""How well logits predict classes: per row, and in totals that are exact over any number of batches.

A loss with options is not known here: the rows are surprised by `nll = -log p_y` and no more.

The one idea: a total is a handful of sums, and they are kept as fractions. So batches can come in
any order, on any number of machines, and the totals have the same bits. With u the sample weights
of the n valid rows, and W their sum,

    loss = sum u nll / W                         accuracy = sum u [predicted == y] / W
    loss_standard_error^2 = n / (n - 1) sum u^2 (nll - loss)^2 / W^2

where the squares are those of `sum u^2 nll^2 - 2 loss sum u^2 nll + loss^2 sum u^2`: among fractions
nothing cancels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from softxent.reference.lists import Nested, cut_for_loss, nest, one_or_several
from softxent.reference.loss import read_sample_weight
from softxent.reference.row import Row, Transformation
from softxent.reference.sums import divide, share, total
from softxent.reference.targets import IgnoreIndex, read_classes, read_ignored

# What is returned.


@dataclass(frozen=True)
class Totals:
    """Over all rows that an evaluator has seen. Where no row is valid the means are NaN."""

    rows: int  # all of them,
    ignored: int  # and how many of those are not valid: ignored, or of sample weight 0
    weight: float  # W
    loss: float  # in nats
    loss_standard_error: float  # NaN for fewer than two valid rows, or if the loss is not finite
    perplexity: float  # exp(loss)
    perplexity_standard_error: float  # perplexity * loss_standard_error
    bits_per_token: float  # loss / ln 2
    accuracy: float
    top_k_accuracy: dict[int, float]  # sum u [rank < k] / W for each k


@dataclass(frozen=True)
class Evaluation(Totals):
    """The totals of some rows, and of each row, in nested lists of the rows' shape:"""

    nll: Nested  # 0 for an ignored row
    lse: Nested  # NaN for an ignored row
    entropy: Nested  # in nats; NaN for an ignored row
    predicted: Nested  # the class of the largest logit, the first of several; -1 for no class
    confidence: Nested  # its probability; NaN for no class
    correct: Nested  # whether it is the target
    rank: Nested  # how many classes have a larger logit than the target; -1 for no rank


# The functions.


def evaluate(
    logits: Nested,
    targets: Nested,
    *,
    axis: int = -1,
    sample_weight: Nested = None,
    ignore_index: IgnoreIndex = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    top_k: int | Iterable[int] = (),
) -> Evaluation:
    """Surprise, log-sum-exp, entropy, prediction and rank of each row, and the totals of all rows.

    `targets` holds class ids. What is predicted, and who is before the target in rank, is decided
    by the logits after softcap and masks. A row whose nll is NaN has prediction and rank -1; a
    masked target has nll +inf, and all classes above -inf before it.
    """
    evaluator = Evaluator(
        axis=axis,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
        valid_classes=valid_classes,
        class_mask=class_mask,
        top_k=top_k,
    )
    return evaluator.update(logits, targets, sample_weight=sample_weight)


class Evaluator:
    """`evaluate` batch by batch: `update` with each, and `result` is as of one batch with all rows."""

    def __init__(
        self,
        *,
        axis: int = -1,
        ignore_index: IgnoreIndex = -100,
        temperature: float = 1.0,
        softcap: float | None = None,
        valid_classes: int | None = None,
        class_mask: Nested = None,
        top_k: int | Iterable[int] = (),
    ) -> None:
        """Options as those of `evaluate`; a mask has to fit each batch."""
        self.axis = axis
        self.ignored = read_ignored(ignore_index)
        self.transformation = Transformation(temperature, softcap, valid_classes, class_mask)
        self.top_k = sorted(one_or_several("top_k", top_k))
        if self.top_k and self.top_k[0] < 1:
            raise ValueError(f"top_k: expected numbers from 1, got {self.top_k[0]}")
        self.tally = Tally.of([], self.top_k)

    def update(
        self, logits: Nested, targets: Nested, *, sample_weight: Nested = None
    ) -> Evaluation:
        """Take a batch into the totals, and return the evaluation of that batch alone."""
        table = cut_for_loss("logits", logits, self.axis)
        rows = self.transformation.rows(table)
        ids = read_classes(targets, table, self.ignored)
        scales = read_sample_weight(sample_weight, table)
        measured = [
            RowMeasures(None) if y is None or u == 0 else RowMeasures.of(row, y, u)
            for row, y, u in zip(rows, ids, scales, strict=True)
        ]
        tally = Tally.of(measured, self.top_k)
        self.tally = self.tally.plus(tally)
        columns = {
            name: nest([getattr(row, name) for row in measured], table.rows_shape)
            for name in ("nll", "lse", "entropy", "predicted", "confidence", "correct", "rank")
        }
        return Evaluation(**vars(tally.totals()), **columns)

    def merge(self, other: "Evaluator") -> "Evaluator":
        """Take in all that another evaluator has seen."""
        if other.top_k != self.top_k:
            raise ValueError(f"other: expected top_k {self.top_k}, got {other.top_k}")
        self.tally = self.tally.plus(other.tally)
        return self

    def result(self) -> Totals:
        """The totals of all batches so far."""
        return self.tally.totals()


# One row.


@dataclass(frozen=True)
class RowMeasures:
    """What is measured of one row; with no more said, of an ignored one."""

    target: int | None
    weight: float = 0.0
    nll: float = 0.0
    lse: float = math.nan
    entropy: float = math.nan
    predicted: int = -1
    confidence: float = math.nan
    rank: int = -1

    @property
    def correct(self) -> bool:
        """Whether what was predicted came."""
        return self.predicted == self.target

    @classmethod
    def of(cls, row: Row, y: int, weight: float) -> "RowMeasures":
        """Measure a valid row with target y."""
        if not row.has_softmax:
            return cls(y, weight, nll=math.nan, lse=row.lse)
        capped = row.where_allowed([row.scaling.capped(x) for x in row.logits], -math.inf)
        # - sum p log p = log1p(rest) - sum p d: two terms >= 0.
        terms = [
            share(e, -gap) / row.total.value for e, gap in zip(row.exps, row.gaps, strict=True)
        ]
        return cls(
            y,
            weight,
            nll=-row.log_p[y],
            lse=row.lse,
            entropy=total([math.log1p(row.rest), *terms]),
            predicted=capped.index(max(capped)),
            confidence=1 / row.total.value,
            rank=sum(x > capped[y] for x in capped),
        )


# Totals.


@dataclass(frozen=True)
class Exact:
    """A sum of products without any rounding; infinities and NaN are added up by themselves."""

    finite: Fraction = Fraction(0)
    other: float = 0.0

    @classmethod
    def of(cls, products: Iterable[tuple[float, ...]]) -> "Exact":
        """The sum of the products of some factors."""
        finite, other = Fraction(0), 0.0
        for factors in products:
            if all(map(math.isfinite, factors)):
                finite += math.prod(map(Fraction, factors))
            else:
                other += math.prod(factors)
        return cls(finite, other)

    def plus(self, more: "Exact") -> "Exact":
        """Both sums together."""
        return Exact(self.finite + more.finite, self.other + more.other)

    def __float__(self) -> float:
        """The sum, rounded once."""
        return nearest(self.finite) if self.other == 0 else self.other

    def over(self, denominator: "Exact") -> float:
        """The quotient, rounded once; by 0 as IEEE says."""
        if self.other == denominator.other == 0 and denominator.finite:
            return nearest(self.finite / denominator.finite)
        return divide(float(self), float(denominator))


@dataclass(frozen=True)
class Tally:
    """The sums that the totals are made of."""

    rows: int
    ignored: int
    weight: Exact  # sum u
    loss: Exact  # sum u nll
    squares: tuple[Exact, Exact, Exact]  # sum u^2, sum u^2 nll, sum u^2 nll^2
    correct: Exact  # sum u [predicted == y]
    hits: dict[int, Exact]  # sum u [rank < k] for each k

    @classmethod
    def of(cls, rows: list[RowMeasures], top_k: list[int]) -> "Tally":
        """The sums of some rows."""
        valid = [row for row in rows if row.target is not None]
        pairs = [(row.weight, row.nll) for row in valid]
        return cls(
            rows=len(rows),
            ignored=len(rows) - len(valid),
            weight=Exact.of((u,) for u, _ in pairs),
            loss=Exact.of(pairs),
            squares=(
                Exact.of((u, u) for u, _ in pairs),
                Exact.of((u, u, nll) for u, nll in pairs),
                Exact.of((u, u, nll, nll) for u, nll in pairs),
            ),
            correct=Exact.of((row.weight,) for row in valid if row.correct),
            hits={k: Exact.of((r.weight,) for r in valid if 0 <= r.rank < k) for k in top_k},
        )

    def plus(self, more: "Tally") -> "Tally":
        """The sums of the rows of both."""
        first, second, third = map(Exact.plus, self.squares, more.squares)
        return Tally(
            rows=self.rows + more.rows,
            ignored=self.ignored + more.ignored,
            weight=self.weight.plus(more.weight),
            loss=self.loss.plus(more.loss),
            squares=(first, second, third),
            correct=self.correct.plus(more.correct),
            hits={k: hits.plus(more.hits[k]) for k, hits in self.hits.items()},
        )

    def totals(self) -> Totals:
        """What the sums say."""
        loss, error = self.loss.over(self.weight), self._standard_error()
        try:
            perplexity = math.exp(loss)
        except OverflowError:
            perplexity = math.inf
        return Totals(
            rows=self.rows,
            ignored=self.ignored,
            weight=float(self.weight),
            loss=loss,
            loss_standard_error=error,
            perplexity=perplexity,
            perplexity_standard_error=perplexity * error,
            bits_per_token=loss / math.log(2),
            accuracy=self.correct.over(self.weight),
            top_k_accuracy={k: hits.over(self.weight) for k, hits in self.hits.items()},
        )

    def _standard_error(self) -> float:
        n = self.rows - self.ignored
        sums = (self.weight, self.loss, *self.squares)
        if n < 2 or not self.weight.finite or any(x.other != 0 for x in sums):
            return math.nan
        weight, loss = self.weight.finite, self.loss.finite / self.weight.finite
        u2, u2_nll, u2_nll2 = (x.finite for x in self.squares)
        deviations = u2_nll2 - 2 * loss * u2_nll + loss**2 * u2
        return square_root(Fraction(n, n - 1) * deviations / weight**2)


def nearest(number: Fraction) -> float:
    """The double nearest to a fraction."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def square_root(number: Fraction) -> float:
    """The root of a fraction >= 0, which need not be a double itself."""
    # As the root of an integer of 128 bits or more, 4^shift times as large.
    shift = max(0, 64 + (number.denominator.bit_length() - number.numerator.bit_length()) // 2 + 1)
    return nearest(Fraction(math.isqrt(math.floor(number * 4**shift)), 2**shift))

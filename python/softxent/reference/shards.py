"""The same cross-entropy when the classes are split in shards, each in other hands.

How the shards' answers travel is not known here, and no hand ever holds a whole row.

The one idea: a shard says of each row what can be put together, relative to its own largest logit,
and to one shard all of another's classes are one more class. With m_k the largest logit s of shard
k, E_k the sum of its exp(s - m_k), and m the largest m_k,

    sum_a exp(s_a) = exp(m) * sum_k E_k exp(m_k - m)
    nll = log1p(rest) - (s_y - m_k) - (m_k - m)        where shard k holds y

with `rest` as for a whole row: all but the largest logit's own 1.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from softxent.reference.lists import (
    Nested,
    Shape,
    Table,
    cut_for_loss,
    integer,
    places,
    read,
    real,
)
from softxent.reference.loss import Terms, read_weight, slopes, valid_only
from softxent.reference.reduction import Reduction
from softxent.reference.row import Row, Scaling, Transformation
from softxent.reference.sums import Sum, divide, share, total
from softxent.reference.targets import IgnoreIndex, read_ignored

# What travels.


@dataclass(frozen=True)
class RowPiece:
    """What a shard knows of one row; with no more said, of a row that is ignored."""

    target: int | None = None  # the class id among all classes
    classes: int = 0  # how many take part
    top: float = (
        -math.inf
    )  # their largest logit, before softcap and temperature; NaN if there is one
    total: float = 0.0  # the sum of their exponentials, relative to the top
    rest: float = 0.0  # the same without the top's own 1
    weight: float = 0.0  # the sum of their weights
    weighted_gaps: float = 0.0  # sum w_c (s_c - max s)
    held: int | None = None  # the target's place in the shard; None where it is in another
    target_gap: float = math.nan  # s_y - max s, where it is held
    target_weight: float = 0.0


@dataclass(frozen=True)
class Piece:
    """What the shard of the classes `offset` to `end` knows of all rows, which have a shape."""

    offset: int
    end: int
    scaling: Scaling
    shape: Shape
    rows: list[RowPiece]


def partial_cross_entropy(
    logits_shard: Nested,
    targets: Nested,
    *,
    class_offset: int,
    axis: int = -1,
    weight: Nested = None,
    ignore_index: IgnoreIndex = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
) -> list[Piece]:
    """What the shard of the classes from `class_offset` on adds to the cross-entropy of all.

    `targets` are class ids among all classes; `weight`, `valid_classes` and `class_mask` are those
    of the shard.
    """
    table = cut_for_loss("logits_shard", logits_shard, axis)
    transformation = Transformation(temperature, softcap, valid_classes, class_mask)
    rows = transformation.rows(table)
    weights = read_weight(weight, table)
    offset = _read_offset(class_offset)
    ids = _read_any_class(targets, table, ignore_index)
    pieces = [
        RowPiece() if y is None else _row_piece(row, y, y - offset, weights)
        for row, y in zip(rows, ids, strict=True)
    ]
    end = offset + table.classes
    return [Piece(offset, end, transformation.scaling, table.rows_shape, pieces)]


def merge_partials(parts: Iterable[list[Piece]]) -> list[Piece]:
    """The pieces of several shards side by side, in the order of the classes, whatever theirs was."""
    pieces = sorted((piece for part in parts for piece in part), key=lambda piece: piece.offset)
    if not pieces:
        raise ValueError("parts: expected at least one, got none")
    for one, other in pairwise(pieces):
        if other.offset < one.end:
            both = f"{one.offset} to {one.end} and {other.offset} to {other.end}"
            raise ValueError(f"parts: expected each class once, got classes {both}")
        if other.shape != one.shape:
            raise ValueError(f"parts: expected the same rows, got {one.shape} and {other.shape}")
        if other.scaling != one.scaling:
            both = f"{one.scaling} and {other.scaling}"
            raise ValueError(f"parts: expected the same temperature and softcap, got {both}")
        for place, a, b in zip(places(one.shape), one.rows, other.rows, strict=True):
            if a.target != b.target:
                both = f"{a.target} and {b.target} at {place}"
                raise ValueError(f"parts: expected the same targets, got {both}")
    return pieces


def finish_cross_entropy(
    merged: list[Piece],
    *,
    sample_weight: Nested = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
) -> Nested:
    """The loss, as of `cross_entropy` of all classes of the pieces."""
    terms = Terms(label_smoothing, z_loss)
    reduced = Reduction(reduction, offsets, normalizer, on_empty)
    rows, scales = _whole_rows(merged), _read_scales(sample_weight, merged)
    denominator = reduced.denominator(merged[0].shape, _masses(rows, scales))
    losses = [
        0.0 if row is None or u == 0 else u * row.loss(terms)
        for row, u in zip(rows, scales, strict=True)
    ]
    return reduced.loss(losses, merged[0].shape, denominator)


def shard_grad(
    logits_shard: Nested,
    targets: Nested,
    merged: list[Piece],
    *,
    class_offset: int,
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
    grad_output: Nested = None,
) -> Nested:
    """The gradient of that loss with respect to the logits of one shard, shaped as those.

    What the shard was asked with in `partial_cross_entropy` is given once more, with all pieces.
    """
    table = cut_for_loss("logits_shard", logits_shard, axis)
    transformation = Transformation(temperature, softcap, valid_classes, class_mask)
    weights = read_weight(weight, table)
    terms = Terms(label_smoothing, z_loss)
    ids = _read_any_class(targets, table, ignore_index)
    mine = _find_piece(merged, _read_offset(class_offset), table, ids, transformation.scaling)
    reduced = Reduction(reduction, offsets, normalizer, on_empty="nan")
    rows, scales = _whole_rows(merged), _read_scales(sample_weight, merged)
    denominator = reduced.denominator(table.rows_shape, _masses(rows, scales))
    upstream = reduced.upstream(grad_output, table.rows_shape)

    grads: list[list[float]] = []
    shard_rows = transformation.rows(table)
    for row, whole, u, factor in zip(shard_rows, rows, scales, upstream, strict=True):
        if whole is None or u == 0 or denominator is None:
            grads.append([0.0] * table.classes)
        else:
            found = whole.slopes(row, mine, weights, terms)
            grads.append(row.chained(found, divide(factor * u, denominator)))
    return table.join(grads)


# One row.


def _row_piece(row: Row, y: int, index: int, weights: list[float]) -> RowPiece:
    """What a row of a shard says; `index` is where its target would be among the shard's classes."""
    held = 0 <= index < len(row.logits)
    # Relative to a top of -inf all classes that take part are at -inf still, and their sum is 0.
    empty = row.top == -math.inf and not row.has_softmax
    gaps = [-math.inf] * len(row.logits) if empty else row.gaps
    return RowPiece(
        target=y,
        classes=sum(row.allowed),
        top=row.top,
        total=0.0 if empty else row.total.value,
        rest=0.0 if empty else row.rest,
        weight=total([weights[c] for c in row.classes]),
        weighted_gaps=total([share(weights[c], gaps[c]) for c in row.classes]),
        held=index if held else None,
        target_gap=gaps[index] if held else math.nan,
        target_weight=weights[index] if held else 0.0,
    )


@dataclass(frozen=True)
class WholeRow:
    """What the pieces of a row are together."""

    pieces: list[RowPiece]
    scaling: Scaling

    @property
    def classes(self) -> int:
        """How many take part: K."""
        return sum(piece.classes for piece in self.pieces)

    @cached_property
    def top(self) -> float:
        """The largest logit; NaN if there is one."""
        tops = [piece.top for piece in self.pieces]
        return math.nan if any(map(math.isnan, tops)) else max(tops)

    @property
    def has_softmax(self) -> bool:
        """As for a whole row."""
        return math.isfinite(self.scaling.capped(self.top)) and self.classes > 0

    @cached_property
    def shifts(self) -> list[float]:
        """`m_k - m` of each piece."""
        return [self.scaling.gap(piece.top, self.top) for piece in self.pieces]

    @cached_property
    def masses(self) -> list[float]:
        """The sum of the exponentials of each piece, relative to the largest logit of all."""
        pairs = zip(self.pieces, self.shifts, strict=True)
        return [piece.total * math.exp(shift) for piece, shift in pairs]

    @cached_property
    def log_total(self) -> float:
        """`log1p(rest)`: the largest logit's own 1 is taken out of the piece that has it."""
        tops = [piece.top if piece.classes else math.nan for piece in self.pieces]
        k = tops.index(self.top)
        others = self.masses[:k] + self.masses[k + 1 :]
        return math.log1p(total([self.pieces[k].rest, *others]))

    @property
    def lse(self) -> float:
        """The log-sum-exp of all classes."""
        return self.scaling.value(self.top) + self.log_total

    @property
    def target_weight(self) -> float:
        """w_y."""
        return next(piece.target_weight for piece in self.pieces if piece.held is not None)

    def loss(self, terms: Terms) -> float:
        """The loss, but for the sample weight."""
        if not self.has_softmax:
            return math.nan
        of_target = math.nan
        of_all: list[float] = []
        for piece, shift in zip(self.pieces, self.shifts, strict=True):
            # sum w_c nll_c, where nll_c = log_total - shift - (s_c - m_k)
            of_all += [share(piece.weight, self.log_total - shift), -piece.weighted_gaps]
            if piece.held is not None:
                nll = self.log_total - (piece.target_gap + shift)
                of_target = share(piece.target_weight, nll)
        return terms.loss(of_target, total(of_all) / self.classes, self.lse)

    def slopes(self, row: Row, mine: int, weights: list[float], terms: Terms) -> list[float]:
        """The derivatives with respect to s of one shard; every other piece is one more class."""
        if not self.has_softmax:
            return [math.nan] * len(row.logits)
        pairs = zip(row.logits, row.allowed, strict=True)
        exps = [math.exp(self.scaling.gap(x, self.top)) if ok else 0.0 for x, ok in pairs]
        of_all = [terms.of_all(w, self.classes) for w in weights]
        coefficients = row.where_allowed(of_all, otherwise=0.0)
        for k, piece in enumerate(self.pieces):
            place = piece.held
            if k != mine:
                exps.append(self.masses[k])
                coefficients.append(terms.of_all(piece.weight, self.classes))
                place = None if place is None else -1
            if place is not None:
                coefficients[place] += terms.of_target(piece.target_weight)
        found = slopes(Sum(exps), Sum(coefficients), terms.pull(self.lse))
        return found[: len(row.logits)]


# All rows.


def _whole_rows(merged: list[Piece]) -> list[WholeRow | None]:
    """The rows of all pieces, None for an ignored one."""
    if not merged:
        raise ValueError("merged: expected at least one piece, got none")
    rows: list[WholeRow | None] = []
    columns = zip(*(piece.rows for piece in merged), strict=True)
    for place, pieces in zip(places(merged[0].shape), columns, strict=True):
        if pieces[0].target is None:
            rows.append(None)
        elif all(piece.held is None for piece in pieces):
            raise IndexError(f"targets{place} = {pieces[0].target} is in none of the shards")
        else:
            rows.append(WholeRow(list(pieces), merged[0].scaling))
    return rows


def _masses(rows: list[WholeRow | None], scales: list[float]) -> list[float | None]:
    """u w_y of each valid row."""
    pairs = zip(valid_only(rows, scales), scales, strict=True)
    return [None if row is None else u * row.target_weight for row, u in pairs]


def _find_piece(
    merged: list[Piece], offset: int, table: Table, ids: list[int | None], scaling: Scaling
) -> int:
    """Which of the pieces is that of this shard."""
    for k, piece in enumerate(merged):
        if (piece.offset, piece.end) == (offset, offset + table.classes):
            same = (piece.shape, piece.scaling) == (table.rows_shape, scaling)
            if not same or [row.target for row in piece.rows] != ids:
                wanted = "the rows, targets, temperature and softcap of the shard"
                raise ValueError(f"merged: expected {wanted}, got others")
            return k
    got = [f"{piece.offset} to {piece.end}" for piece in merged]
    wanted = f"classes {offset} to {offset + table.classes} among its pieces"
    raise ValueError(f"merged: expected {wanted}, got {got}")


def _read_offset(class_offset: int) -> int:
    offset = integer("class_offset", class_offset)
    if offset < 0:
        raise ValueError(f"class_offset: expected a number from 0, got {offset}")
    return offset


def _read_any_class(targets: Nested, table: Table, ignore_index: IgnoreIndex) -> list[int | None]:
    """Class ids, also of other shards; None for an ignored row."""
    ignored = read_ignored(ignore_index)
    ids = table.one_per_row("targets", targets, integer)
    return [None if y in ignored else y for y in ids]


def _read_scales(sample_weight: Nested, merged: list[Piece]) -> list[float]:
    """u of each row, 1 where none is given."""
    if sample_weight is None:
        return [1.0] * len(merged[0].rows)
    shape, scales = read("sample_weight", sample_weight, real)
    if shape != merged[0].shape:
        wanted = f"the shape of the rows, {merged[0].shape}"
        raise ValueError(f"sample_weight: expected {wanted}, got {shape}")
    return scales

"""Kullback-Leibler and Jensen-Shannon divergences from a teacher's logits to a student's.

The mathematics of two distributions is in `distributions.py`; here they are made of what is given,
and the derivatives go back to the student's logits.

The one idea: groups of classes. Of two rows of logits each class that takes part is a group of its
own. A sparse teacher knows some classes by name, and of the others what is left for them together:
they are one group more, a class to the student whose logit is their log-sum-exp.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import nan
from typing import Protocol

from softxent.reference.distributions import (
    CONTEXT,
    Distribution,
    Measure,
    expm1,
    forward,
    jensen_shannon,
    log_sum_exp,
    reverse,
    softmax_of,
)
from softxent.reference.lists import (
    Nested,
    Table,
    boolean,
    cut_flat,
    cut_for_loss,
    fraction,
    integer,
    places,
    read,
    real,
)
from softxent.reference.reduction import Reduction
from softxent.reference.row import Row, Transformation
from softxent.reference.sums import divide

DIRECTIONS = {"forward": forward, "reverse": reverse}
TEACHERS = ("logits", "probabilities")


def kl_divergence(
    teacher_logits: Nested,
    student_logits: Nested,
    *,
    axis: int = -1,
    direction: str = "forward",
    teacher: str = "logits",
    teacher_ids: Nested = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    ignore_rows: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
) -> Nested:
    """The divergence of the rows, in nats, reduced: see `kl_divergence_with_grad`."""
    return kl_divergence_with_grad(
        teacher_logits,
        student_logits,
        axis=axis,
        direction=direction,
        teacher=teacher,
        teacher_ids=teacher_ids,
        temperature=temperature,
        valid_classes=valid_classes,
        class_mask=class_mask,
        ignore_rows=ignore_rows,
        reduction=reduction,
        offsets=offsets,
        normalizer=normalizer,
        on_empty=on_empty,
    )[0]


def kl_divergence_with_grad(
    teacher_logits: Nested,
    student_logits: Nested,
    *,
    axis: int = -1,
    direction: str = "forward",
    teacher: str = "logits",
    teacher_ids: Nested = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    ignore_rows: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
    grad_output: Nested = None,
) -> tuple[Nested, Nested]:
    """The KL divergence, and its gradient with respect to the student's logits.

    With p and q the softmax of the teacher's and of the student's logits over `temperature`,
    "forward" is `sum p (log p - log q)` and "reverse" `sum q (log q - log p)`, where 0 log 0 = 0:
    +inf where q = 0 < p, or p = 0 < q. There is no factor T^2. `valid_classes` and `class_mask` are
    for both, as in `softmax`. A row without a softmax on either side is NaN. Rows where
    `ignore_rows` is True are not read; a mean is over the others. Reductions and `grad_output` are
    as in `cross_entropy_with_grad`.

    With `teacher="probabilities"` the teacher gives probabilities, which are divided by their sum; the
    temperature applies to their logarithms. With `teacher_ids`, K class ids for each row along one more
    axis at the end, the teacher gives log p of those classes, in that shape and at that temperature.
    What is left of 1, if anything, is set against the student's probability of all other classes;
    where there are no others there is no such group. If all of it does not add up to 1 it is divided by
    its sum. An id that is masked is not read.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {tuple(DIRECTIONS)}, got {direction!r}")
    transformation = Transformation(temperature, None, valid_classes, class_mask)
    reduced = Reduction(reduction, offsets, normalizer, on_empty)
    pairs = Pairs(
        cut_for_loss("student_logits", student_logits, axis),
        teacher_logits,
        transformation,
        teacher,
        teacher_ids,
        ignore_rows,
    )
    return pairs.compare(DIRECTIONS[direction], reduced, grad_output)


def js_divergence(
    teacher_logits: Nested,
    student_logits: Nested,
    *,
    axis: int = -1,
    beta: float = 0.5,
    teacher: str = "logits",
    teacher_ids: Nested = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    ignore_rows: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
) -> Nested:
    """The divergence of the rows, in nats, reduced: see `js_divergence_with_grad`."""
    return js_divergence_with_grad(
        teacher_logits,
        student_logits,
        axis=axis,
        beta=beta,
        teacher=teacher,
        teacher_ids=teacher_ids,
        temperature=temperature,
        valid_classes=valid_classes,
        class_mask=class_mask,
        ignore_rows=ignore_rows,
        reduction=reduction,
        offsets=offsets,
        normalizer=normalizer,
        on_empty=on_empty,
    )[0]


def js_divergence_with_grad(
    teacher_logits: Nested,
    student_logits: Nested,
    *,
    axis: int = -1,
    beta: float = 0.5,
    teacher: str = "logits",
    teacher_ids: Nested = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: Nested = None,
    ignore_rows: Nested = None,
    reduction: str = "mean",
    offsets: Nested = None,
    normalizer: float | None = None,
    on_empty: str = "nan",
    grad_output: Nested = None,
) -> tuple[Nested, Nested]:
    """The generalised Jensen-Shannon divergence, and its gradient for the student's logits.

    With `m = beta p + (1 - beta) q` it is `beta KL(p || m) + (1 - beta) KL(q || m)`: finite
    whatever p and q are. For `beta` 0 and 1, where that is 0, it is what that tends to in proportion
    to `beta (1 - beta)`: the forward and the reverse KL. All else is as in
    `kl_divergence_with_grad`.
    """
    measure = jensen_shannon(Decimal(fraction("beta", beta)))
    transformation = Transformation(temperature, None, valid_classes, class_mask)
    reduced = Reduction(reduction, offsets, normalizer, on_empty)
    pairs = Pairs(
        cut_for_loss("student_logits", student_logits, axis),
        teacher_logits,
        transformation,
        teacher,
        teacher_ids,
        ignore_rows,
    )
    return pairs.compare(measure, reduced, grad_output)


# All rows.


@dataclass(frozen=True)
class Pairs:
    """Each row of the student with its row of the teacher."""

    student: Table
    teacher_logits: Nested
    transformation: Transformation
    teacher: str
    teacher_ids: Nested
    ignore_rows: Nested

    def compare(
        self, measure: Measure, reduced: Reduction, grad_output: Nested
    ) -> tuple[Nested, Nested]:
        """The loss and its gradient by some measure."""
        shape = self.student.rows_shape
        rows = self.transformation.rows(self.student)
        ignored = [False] * len(rows)
        if self.ignore_rows is not None:
            ignored = self.student.one_per_row("ignore_rows", self.ignore_rows, boolean)
        teachers = self._teachers(ignored)
        denominator = reduced.denominator(shape, [None if skip else 1.0 for skip in ignored])
        upstream = reduced.upstream(grad_output, shape)
        losses: list[float] = []
        grads: list[list[float]] = []
        for row, teacher, skip, factor in zip(rows, teachers, ignored, upstream, strict=True):
            if skip or denominator is None:
                losses.append(0.0)
                grads.append([0.0] * self.student.classes)
            else:
                loss, slopes = compare_row(row, teacher, measure)
                losses.append(loss)
                grads.append(row.chained(slopes, divide(factor, denominator)))
        return reduced.loss(losses, shape, denominator), self.student.join(grads)

    def _teachers(self, ignored: list[bool]) -> Sequence["Teacher"]:
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher: expected one of {TEACHERS}, got {self.teacher!r}")
        if self.teacher_ids is not None:
            return self._sparse_teachers(ignored)
        shape, flat = read("teacher_logits", self.teacher_logits, real)
        if shape != self.student.shape:
            wanted = f"shape {self.student.shape} to match student_logits"
            raise ValueError(f"teacher_logits: expected {wanted}, got {shape}")
        rows = cut_flat(flat, shape, self.student.axis)
        return [DenseTeacher(row, self.teacher == "probabilities") for row in rows]

    def _sparse_teachers(self, ignored: list[bool]) -> Sequence["Teacher"]:
        if self.teacher != "logits":
            raise ValueError(f"teacher: expected 'logits' with teacher_ids, got {self.teacher!r}")
        shape, ids = read("teacher_ids", self.teacher_ids, integer)
        rows_shape, classes = self.student.rows_shape, self.student.classes
        if not shape or shape[:-1] != rows_shape:
            wanted = f"shape {rows_shape} and one more axis, to match student_logits"
            raise ValueError(f"teacher_ids: expected {wanted} {self.student.shape}, got {shape}")
        given, log_p = read("teacher_logits", self.teacher_logits, real)
        if given != shape:
            raise ValueError(f"teacher_logits: expected shape {shape} of teacher_ids, got {given}")
        each, where = shape[-1], places(shape)
        teachers = []
        for i, skip in enumerate(ignored):
            cut = slice(i * each, (i + 1) * each)
            seen: set[int] = set()
            for place, y in zip(where[cut], ids[cut], strict=True):
                if not skip and not 0 <= y < classes:
                    raise IndexError(f"teacher_ids{place} = {y} is outside [0, {classes})")
                if not skip and y in seen:
                    raise ValueError(f"teacher_ids{place} = {y}: expected each class once in a row")
                seen.add(y)
            teachers.append(SparseTeacher(ids[cut], log_p[cut]))
        return teachers


# One row.


class Teacher(Protocol):
    """A row of the teacher."""

    def groups(self, student: Row) -> list[list[int]]:
        """The groups of those of the student's classes that take part."""

    def distribution(self, student: Row) -> Distribution | None:
        """The teacher's probabilities of the groups; None where it has none."""


@dataclass(frozen=True)
class DenseTeacher:
    """A number for each class: its logit, or its probability but for the sum of all."""

    given: list[float]
    as_probabilities: bool

    def groups(self, student: Row) -> list[list[int]]:
        """Each class is one."""
        return [[i] for i in student.classes]

    def distribution(self, student: Row) -> Distribution | None:
        """The softmax of the logits, or of the logarithms: that of a negative number is NaN."""
        numbers = [Decimal(self.given[i]) for i in student.classes]
        logits = [x.ln() for x in numbers] if self.as_probabilities else numbers
        return softmax_of([x / Decimal(student.scaling.temperature) for x in logits])


@dataclass(frozen=True)
class SparseTeacher:
    """The log p of some classes."""

    ids: list[int]
    log_p: list[float]

    def groups(self, student: Row) -> list[list[int]]:
        """Each of the classes, and all others, if there are any, together."""
        named = [i for i in self.ids if student.allowed[i]]
        others = [i for i in student.classes if i not in named]
        return [[i] for i in named] + ([others] if others else [])

    def distribution(self, student: Row) -> Distribution | None:
        """What is given, and what it leaves of 1 to the others, divided by the sum."""
        pairs = zip(self.ids, self.log_p, strict=True)
        logs = [Decimal(log) for i, log in pairs if student.allowed[i]]
        if not all(log < Decimal("Infinity") for log in logs):  # also where one is NaN
            return None
        # As for any row, the largest probability is not taken from 1 before its logarithm's digits.
        by_size = sorted(logs, reverse=True)
        left = -expm1(by_size[0]) if logs else Decimal(1)
        left -= sum((log.exp() for log in by_size[1:]), Decimal(0))
        others = [max(left, Decimal(0)).ln()] if len(self.groups(student)) > len(logs) else []
        return softmax_of([*logs, *others])


def compare_row(student: Row, teacher: Teacher, measure: Measure) -> tuple[float, list[float]]:
    """The divergence, and its derivatives with respect to the student's s."""
    nothing = nan, [nan] * len(student.logits)
    slopes = [0.0] * len(student.logits)
    with localcontext(CONTEXT):
        temperature = Decimal(student.scaling.temperature)
        groups = [
            {i: Decimal(student.logits[i]) / temperature for i in group}
            for group in teacher.groups(student)
        ]
        logits = [log_sum_exp(list(group.values())) for group in groups]
        p, q = teacher.distribution(student), softmax_of(logits)
        if p is None or q is None:
            return nothing
        loss, of_groups = measure(p, q)
        for group, logit, slope in zip(groups, logits, of_groups, strict=True):
            for i, s in group.items():
                # Each class has its part of what the group's logit is worth; several at -inf none.
                part = (s - logit).exp() if logit.is_finite() else Decimal(len(group) == 1)
                slopes[i] = float(slope * part)
        return float(loss), slopes

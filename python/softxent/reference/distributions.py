"""Two distributions over the same classes: how far apart they are, and which way is nearer.

Logits, batches and options are not known here, nor doubles: all numbers are decimals of 80 digits.

The one idea: where two distributions nearly agree their divergence is far smaller than each of its
terms `p (log p - log q)`. So what all classes together leave unchanged is added to each: with
r = log q - log p, and sum p = sum q,

    KL(p || q) = sum p (e^r - 1 - r) = sum (q - p - p r)                 terms >= 0
    d KL(p || q) / d s_i = q_i - p_i                                     where q = softmax(s)
    d KL(q || p) / d s_i = q_i (r_i - KL(q || p))
    JS = beta KL(p || m) + (1 - beta) KL(q || m)                         m = beta p + (1 - beta) q
    d JS / d s_i = (1 - beta) q_i (log(q_i / m_i) - KL(q || m))

What cancels within a term costs 40 digits at most, and 40 are left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from functools import cached_property
from typing import TypeAlias

# Nothing underflows and nothing is an exception: as IEEE says, by decimals.
CONTEXT = Context(prec=80, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
# Below it, three terms of a series in r have 40 digits; above it, so have differences.
SMALL = Decimal("1e-20")


@dataclass(frozen=True)
class Distribution:
    """The logarithms of probabilities; -inf is a probability of 0."""

    log_p: list[Decimal]

    @cached_property
    def p(self) -> list[Decimal]:
        """The probabilities."""
        return [log.exp() for log in self.log_p]


Measure: TypeAlias = Callable[[Distribution, Distribution], tuple[Decimal, list[Decimal]]]


def softmax_of(s: list[Decimal]) -> Distribution | None:
    """The softmax of some logits; None where they have none, as with a NaN."""
    top, log_total = _top_and_log_total(s)
    return Distribution([x - top - log_total for x in s]) if top.is_finite() else None


def log_sum_exp(s: list[Decimal]) -> Decimal:
    """`log sum exp(s)`, which is NaN, +inf or -inf where there is no softmax."""
    top, log_total = _top_and_log_total(s)
    return top + log_total


def _top_and_log_total(s: list[Decimal]) -> tuple[Decimal, Decimal]:
    """The largest logit, and by how much the logarithm of the sum is more: its digits are its own."""
    if any(x.is_nan() for x in s):
        return Decimal("NaN"), Decimal(0)
    top = max(s, default=Decimal("-Infinity"))
    if not top.is_finite():
        return top, Decimal(0)
    k = s.index(top)
    return top, log1p(sum(((x - top).exp() for x in s[:k] + s[k + 1 :]), Decimal(0)))


# Measures: a divergence of the teacher p and the student q, and its derivatives by the student's s.


def forward(p: Distribution, q: Distribution) -> tuple[Decimal, list[Decimal]]:
    """`KL(p || q) = sum p (log p - log q)`."""
    classes = _classes(p, q)
    value = sum((_term(*of_class) for of_class in classes), Decimal(0))
    return value, [_difference(*of_class) for of_class in classes]


def reverse(p: Distribution, q: Distribution) -> tuple[Decimal, list[Decimal]]:
    """`KL(q || p)`."""
    classes = _classes(p, q)
    value = sum((_term(q_i, p_i, -r) for p_i, q_i, r in classes), Decimal(0))
    return value, [q_i * (r - value) if q_i else q_i for _, q_i, r in classes]


def jensen_shannon(beta: Decimal) -> Measure:
    """The generalised JS; at 0 and at 1 it is 0, and its limit over beta (1 - beta) takes its place."""
    if beta in (0, 1):
        return reverse if beta else forward

    def measure(p: Distribution, q: Distribution) -> tuple[Decimal, list[Decimal]]:
        value, of_student = Decimal(0), Decimal(0)
        logs: list[tuple[Decimal, Decimal]] = []  # q, log(q / m)
        for p_i, q_i, r in _classes(p, q):
            m_i = beta * p_i + (1 - beta) * q_i
            # log(m / p) and log(m / q), by way of the larger of p and q
            if r <= 0:
                m_by_p = log1p((1 - beta) * expm1(r))
                m_by_q = m_by_p - r
            else:
                m_by_q = log1p(beta * expm1(-r))
                m_by_p = m_by_q + r
            value += beta * _term(p_i, m_i, m_by_p) + (1 - beta) * _term(q_i, m_i, m_by_q)
            if q_i:
                logs.append((q_i, -m_by_q))
                of_student += q_i * -m_by_q
            else:
                logs.append((q_i, Decimal(0)))
        return value, [(1 - beta) * q_i * (log - of_student) for q_i, log in logs]

    return measure


def _classes(p: Distribution, q: Distribution) -> list[tuple[Decimal, Decimal, Decimal]]:
    """p, q and r of each class."""
    pairs = zip(p.log_p, q.log_p, strict=True)
    return list(zip(p.p, q.p, (log_q - log_p for log_p, log_q in pairs), strict=True))


def _term(p: Decimal, q: Decimal, r: Decimal) -> Decimal:
    """`q - p - p r`, with 0 log 0 = 0."""
    if not p:
        return q
    return p * (r * r / 2 * (1 + r / 3)) if abs(r) < SMALL else q - p - p * r


def _difference(p: Decimal, q: Decimal, r: Decimal) -> Decimal:
    """`q - p`."""
    return p * expm1(r) if abs(r) < SMALL else q - p


# Functions that decimals lack.


def expm1(r: Decimal) -> Decimal:
    """`e^r - 1`."""
    return r * (1 + r / 2 * (1 + r / 3)) if abs(r) < SMALL else r.exp() - 1


def log1p(x: Decimal) -> Decimal:
    """`log(1 + x)`. What 1 + x loses of x is given back: log y is nearly linear where y is 1."""
    y = 1 + x
    return x if y == 1 else y.ln() * x / (y - 1)

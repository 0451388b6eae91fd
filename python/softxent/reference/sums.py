"""Exact sums, and the arithmetic of IEEE where Python would raise an exception.

Numbers without a meaning: nothing of softmax is known here.

The one idea: a sum that is exact can be asked for all but one of its terms, and keeps the digits
however much that one outweighed the others. So `1 - p` is never formed from a rounded p.
"""

import math


class Sum:
    """The sum of some terms, and of all but one of them."""

    def __init__(self, terms: list[float]) -> None:
        """Add them up."""
        self.terms = terms
        self.value = total(terms)
        # The exact sum is value + missed, up to a rounding of `missed`.
        self.missed = total([*terms, -self.value])

    def without(self, index: int) -> float:
        """The sum of the other terms, with a relative error of a rounding or two.

        `value` is the double nearest to the exact sum, so what is left when another double leaves
        is at least as large as `missed`, and so is exact but for the rounding of that.
        """
        if math.isfinite(self.value):
            return total([self.value, self.missed, -self.terms[index]])
        return total(self.terms[:index] + self.terms[index + 1 :])


def total(values: list[float]) -> float:
    """The exact sum, rounded once; where there is none, what IEEE addition gives."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # fsum refuses a sum beyond the doubles, and inf - inf
        return sum(values)


def divide(x: float, y: float) -> float:
    """`x / y`, also by 0: NaN for 0 / 0, else an infinity."""
    if y != 0:
        return x / y
    return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x)


def share(coefficient: float, value: float) -> float:
    """`coefficient * value`, where a coefficient of 0 leaves nothing of whatever the value is."""
    return 0.0 if coefficient == 0 else coefficient * value

"""How many digits of divergences and their slopes are right, against 60 digits of mpmath.

A divergence is a sum of terms none of which is negative, and each is right to some units in its own
last place, also where the two rows nearly agree and the term is the square of a small number. With
`far_i = -log p_i - log q_i` and `r_i = log q_i - log p_i` the bounds are

    KL      5 + 5 far_i units of each term: p (e^r - 1 - r) forward, q (e^-r - 1 + r) in reverse
    JS      1 + far_i units of beta (1 - beta) (p + q) min(r^2, 1 + abs(r)), which is no smaller
    slopes  10 + 10 far_i units of (p_i + q_i) (abs(r_i) + what it is of all classes), over T;
            the slopes of the Jensen-Shannon divergence have a factor 1 - beta

and one rounding of what is less than the smallest normal number.
"""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Array, Dtype, Options
from digits import NAMES, Errors, assert_within, mp, note, rows

MEASURES: dict[str, tuple[Any, Options]] = {
    "forward": (sx.kl_divergence_with_grad, {"direction": "forward"}),
    "reverse": (sx.kl_divergence_with_grad, {"direction": "reverse"}),
    **{f"beta {beta}": (sx.js_divergence_with_grad, {"beta": beta}) for beta in (0.1, 0.5, 0.9)},
}
UNITS = {"forward": 5.0, "reverse": 5.0}
UNITS_OF_SLOPES = 10.0
SINGLE_LOST, DOUBLE_LOST = 2.0**-120, 2.0**-1000


@functools.lru_cache(maxsize=8)
def exact_logs(row: tuple[float, ...], temperature: float) -> tuple[list[Any], list[Any]]:
    """Of a row the logarithms of the probabilities, and the probabilities."""
    s = [mp.mpf(x) / mp.mpf(temperature) for x in row]
    top = max(s)
    exps = [mp.exp(x - top) for x in s]
    log_total = mp.log(mp.fsum(exps))
    one_over = 1 / mp.fsum(exps)
    return [x - top - log_total for x in s], [e * one_over for e in exps]


def exact(
    measure: str, logs: tuple[list[Any], list[Any]], probabilities: tuple[list[Any], list[Any]]
) -> tuple[Any, list[Any]]:
    """The divergence, and its slopes at a temperature of 1."""
    (log_p, log_q), (p, q) = logs, probabilities
    if measure == "forward":
        loss = mp.fsum(a * (x - y) for a, x, y in zip(p, log_p, log_q, strict=True) if a)
        return loss, [b - a for a, b in zip(p, q, strict=True)]
    if measure == "reverse":
        loss = mp.fsum(b * (y - x) for b, x, y in zip(q, log_p, log_q, strict=True) if b)
        return loss, [b * (y - x - loss) for b, x, y in zip(q, log_p, log_q, strict=True)]
    beta = mp.mpf(MEASURES[measure][1]["beta"])
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    log_m = [mp.log(c) for c in m]
    from_p = mp.fsum(a * (x - z) for a, x, z in zip(p, log_p, log_m, strict=True))
    from_q = mp.fsum(b * (y - z) for b, y, z in zip(q, log_q, log_m, strict=True))
    slopes = [(1 - beta) * b * (y - z - from_q) for b, y, z in zip(q, log_q, log_m, strict=True)]
    return beta * from_p + (1 - beta) * from_q, slopes


def errors_of(
    teacher: Array,
    student: Array,
    temperature: float = 1.0,
    measures: Iterable[str] = tuple(MEASURES),
) -> Errors:
    """All errors of one pair of rows, in units of what is allowed."""
    dtype = student.dtype
    sides = [exact_logs(tuple(side.tolist()), temperature) for side in (teacher, student)]
    logs, probabilities = zip(*sides, strict=True)
    p, q, log_p, log_q = (np.array(x, np.float64) for x in (*probabilities, *logs))
    r = np.array([y - x for x, y in zip(*logs, strict=True)], np.float64)
    far = 1 - log_p - log_q
    precision = 2.0**-52 if dtype == FLOAT64 else 2.0**-23
    lost = DOUBLE_LOST if dtype == FLOAT64 else SINGLE_LOST
    near = np.abs(r) < 1e-3
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = {
            "forward": p * np.where(near, r * r / 2, np.expm1(np.minimum(r, 700)) - r),
            "reverse": q * np.where(near, r * r / 2, np.expm1(np.minimum(-r, 700)) + r),
        }
    both = (p + q) * np.minimum(r * r, 1 + np.abs(r))
    of_slopes = (p + q) * (np.abs(r) + ((p + q) * np.abs(r)).sum()) * far / temperature
    errors: Errors = {}
    for measure in measures:
        function, own = MEASURES[measure]
        beta = own.get("beta", 0.0)
        size = sizes.get(measure, beta * (1 - beta) * both)
        loss, slopes = exact(measure, logs, probabilities)
        got, grad = function(teacher, student, temperature=temperature, **own)
        assert got >= 0
        allowed = UNITS.get(measure, 1.0) * precision * float((size * far).sum()) + lost
        note(errors, measure, float(abs(mp.mpf(float(got)) - loss)), allowed)
        bounds = UNITS_OF_SLOPES * (1 - beta) * precision * of_slopes + lost * (1 + 1 / temperature)
        scaled = [slope / mp.mpf(temperature) for slope in slopes]
        off = [abs(mp.mpf(x) - y) for x, y in zip(grad.tolist(), scaled, strict=True)]
        off_by = np.array(off, np.float64)
        at = int(np.argmax(off_by / bounds))
        note(errors, f"slopes of {measure}", float(off_by[at]), float(bounds[at]))
    return errors


def moved(row: Array, apart: float, seed: int = 0) -> Array:
    """A row whose logits are so far from those of another."""
    noise = apart * np.random.default_rng(seed).standard_normal(len(row))
    return (row.astype(np.float64) + noise).astype(row.dtype)


# The exact value of a divergence is lost itself where its terms are below 60 digits.
ROWS = [name for name in NAMES if name not in ("masked", "normal x 100")]
CASES = [(classes, name) for classes in (1, 2, 7, 130, 1000) for name in ROWS]


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize(("classes", "name"), CASES)
def test_divergences_are_within_the_bounds(classes: int, name: str, dtype: Dtype) -> None:
    student = rows(classes, dtype)[name]
    for apart in (1e-6, 1e-3, 0.1, 1.0, 5.0) if classes < 130 else (1e-3, 1.0):
        # What shifts a whole row costs nothing, or a rounding.
        shift = dtype.type(2.5 if apart == 1.0 else 0.0)
        assert_within(errors_of(moved(student, apart) + shift, student))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("measure", ["forward", "beta 0.5"])
def test_divergences_of_a_large_vocabulary_are_within_the_bounds(
    measure: str, dtype: Dtype
) -> None:
    student = rows(32000, dtype)["normal"]
    assert_within(errors_of(moved(student, 0.1), student, measures=[measure]))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
@pytest.mark.parametrize("name", ROWS)
def test_divergences_are_within_the_bounds_at_other_temperatures(
    name: str, temperature: float, dtype: Dtype
) -> None:
    scale = dtype.type(min(temperature, 1.0))
    for classes in (2, 7, 60):
        student = scale * rows(classes, dtype)[name]
        for apart in (1e-3, 1.0):
            assert_within(errors_of(moved(student, apart), student, temperature))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 7, 20])
def test_divergences_of_many_short_rows_are_within_the_bounds(classes: int, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    for scale in (1e-3, 1.0, 10.0):
        for apart in (1e-6, 1e-3, 0.1, 1.0, 10.0):
            for seed in range(5):
                student = (scale * random.standard_normal(classes)).astype(dtype)
                assert_within(errors_of(moved(student, apart, seed), student))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_divergences_of_unlike_rows_are_within_the_bounds(dtype: Dtype) -> None:
    named = {name: row for name, row in rows(20, dtype).items() if name in ROWS}
    for one, teacher in named.items():
        for other, student in named.items():
            if one != other:
                assert_within(errors_of(teacher, student))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_a_divergence_of_nearly_equal_rows_has_as_many_digits_as_one_of_others(
    measure: str, dtype: Dtype
) -> None:
    # With all logits about as large, what is left of 1 - 1 elsewhere keeps some ulp here, and so do slopes.
    function, own = MEASURES[measure]
    digits = float(np.finfo(dtype).eps)
    for apart in (1e-2, 1e-4, 1e-6):
        for classes in (2, 7, 1000):
            student = np.random.default_rng(classes).standard_normal(classes).astype(dtype)
            teacher = moved(student, apart)
            logs, probabilities = zip(
                *(exact_logs(tuple(side.tolist()), 1.0) for side in (teacher, student)), strict=True
            )
            loss, slopes = exact(measure, logs, probabilities)
            got, grad = function(teacher, student, **own)
            assert abs(mp.mpf(float(got)) - loss) <= 8 * digits * loss
            wanted = np.array(slopes, np.float64)
            error = np.abs(grad.astype(np.float64) - wanted).max()
            assert error <= 20 * digits * np.abs(wanted).max()


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_16_bit_divergences_are_the_single_ones_and_slopes_rounded_once(
    dtype: Dtype, measure: str
) -> None:
    function, own = MEASURES[measure]
    for classes in (1, 2, 7, 1000, 32000):
        for scale in (0.1, 1.0, 10.0):
            random = np.random.default_rng(classes)
            teacher, student = (scale * random.standard_normal((2, 3, classes))).astype(dtype)
            loss, grad = function(teacher, student, **own)
            single, single_grad = function(
                *(x.astype(np.float32) for x in (teacher, student)), **own
            )
            assert loss.tobytes() == single.tobytes()
            assert np.array_equal(grad, single_grad.astype(dtype))

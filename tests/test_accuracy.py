"""How many digits are right, against 60 digits of mpmath.

Errors are counted in units in the last place (ulp) of the exact result, in the result's precision.
With `gap_i = (x_max - x_i) / T`, the price of the one subtraction that no implementation avoids,
the bounds are

    lse                 1 ulp of the larger of abs(lse) and abs(x_max / T); 4 for float64
    p_i, d nll / d x_i  4 + gap_i ulp, where normal
    nll                 2 ulp, plus that error of the others, each weighted by its probability
    d nll / d x_y       4 ulp, plus the same
    totals              1 ulp of the exact total of the rows
    16-bit results      the float32 result, rounded once to nearest even
    loss with options   2 ulp of each of its terms, plus the same error of the others and half a gap;
                        with a softcap also 2 ulp of the largest capped logit over T

The exact values come from the logits as they are in their dtype, so rounding to it costs nothing
here. `lse - x_y` is formed nowhere: with 60 digits it is 0 for a loss of 1e-61. The error of the
exponential itself, over all its arguments, is tested in Rust.
"""

import functools
import math
from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Array, Dtype
from digits import NAMES, Errors, assert_within, mp, note, rows, ulp


@functools.lru_cache(maxsize=50_000)
def exp(x: float, temperature: float) -> Any:
    """Rows of the same numbers in another order share their exponentials."""
    return mp.exp(mp.mpf(x) / mp.mpf(temperature))


def note_one(
    errors: Errors, name: str, got: Any, exact: Any, allowed: float, more: float = 0.0
) -> None:
    """One number: `allowed` is in ulp of the exact one, `more` is absolute."""
    tiny = np.finfo(got.dtype).tiny
    if abs(exact) < tiny:
        assert abs(got) <= tiny
    else:
        unit = ulp(exact, got.dtype)
        error = float(abs(mp.mpf(float(got)) - exact)) / unit
        note(errors, name, error, allowed + more / unit)


def note_all(
    errors: Errors,
    name: str,
    got: Array,
    exact: tuple[Array, Array],
    gaps: Array,
    scale: float = 1.0,
) -> None:
    """Probabilities, or their multiples; the exact ones in two parts."""
    high, low = exact
    # A probability below the smallest normal number may be 0 before it is multiplied.
    smallest = np.finfo(got.dtype).tiny * max(1.0, scale)
    normal = high >= smallest
    assert np.all(np.abs(got[~normal]) <= smallest)
    assert not got[high == 0].any()
    error = (np.abs((got - high) - low) / ulp(high, got.dtype))[normal]
    if len(error):
        allowed = 4 + gaps[normal]
        at = int(np.argmax(error / allowed))
        note(errors, name, float(error[at]), float(allowed[at]))


def in_two_parts(exact: list[Any], dtype: Dtype) -> tuple[Array, Array]:
    """As doubles, and what there is beyond them, which single precision has no need of."""
    high = [float(x) for x in exact]
    low = [float(x - y) for x, y in zip(exact, high, strict=True)] if dtype == FLOAT64 else 0.0
    return np.array(high), np.broadcast_to(low, len(high))


def errors_of(row: Array, targets: set[int], temperature: float = 1.0) -> Errors:
    """All errors of one row, with each of the targets."""
    dtype = row.dtype
    errors: Errors = {}
    options: dict[str, Any] = {"temperature": temperature}
    values, places, counts = np.unique(row, return_inverse=True, return_counts=True)
    exps = [exp(x, temperature) for x in values.tolist()]
    total = mp.fsum(int(n) * e if n > 1 else e for n, e in zip(counts, exps, strict=True))
    top = float(row.max())
    gaps = (top - row.astype(np.float64)) / temperature

    lse = mp.log(total)
    unit = ulp(max(abs(lse), abs(top / temperature)), dtype)
    error = float(abs(mp.mpf(float(sx.logsumexp(row, **options))) - lse)) / unit
    note(errors, "lse", error, 4 if dtype == FLOAT64 else 1)

    one_over = 1 / total
    high, low = in_two_parts([e * one_over for e in exps], dtype)
    p = high[places], low[places]
    note_all(errors, "softmax", sx.softmax(row, **options), p, gaps)
    slopes = p
    if temperature != 1:
        one_over /= mp.mpf(temperature)
        high, low = in_two_parts([e * one_over for e in exps], dtype)
        slopes = high[places], low[places]

    # What a class adds to the error of a sum of probabilities.
    weighted = np.where(p[0] > 0, (4 + np.minimum(gaps, 1e9)) * ulp(p[0], dtype), 0.0)
    log_p = sx.log_softmax(row, **options)
    for target in targets:
        others = math.fsum(np.delete(weighted, target))
        own = exps[places[target]]
        rest = total - own
        if 2 * own > total:
            # That difference has few digits, or none; the target is the single largest.
            rest = mp.fsum(int(n) * e for n, e in zip(counts[:-1], exps[:-1], strict=True))
        loss, grad = sx.cross_entropy_with_grad(row, target, **options)
        nll = mp.log1p(rest / own)
        note_one(errors, "nll", loss, nll, 2, others)
        note_one(errors, "log_softmax", log_p[target], -nll, 2, others)
        slope = -rest * one_over
        note_one(errors, "gradient at target", grad[target], slope, 4, others / temperature)
        others_high, others_low = (np.delete(part, target) for part in slopes)
        note_all(
            errors,
            "gradient",
            np.delete(grad, target),
            (others_high, others_low),
            np.delete(gaps, target),
            1 / temperature,
        )
    return errors


def targets_of(row: Array) -> set[int]:
    """The most probable class, the least, the first, the last, and one in the middle."""
    finite = np.flatnonzero(np.isfinite(row))
    places = [0, -1, len(finite) // 2, int(row[finite].argmax()), int(row[finite].argmin())]
    return {int(finite[place]) for place in places}


# Of the long rows only some: 60 digits take their time.
CASES = [(classes, name) for classes in (1, 2, 7, 64, 130, 1000) for name in NAMES]
CASES += [(50257, name) for name in NAMES if name not in ("far from 0", "largest at 0")]
CASES += [
    (32000, "normal x 10"),
    (32000, "near one-hot"),
    (32000, "large and small in quarters"),
    (128256, "normal"),
    (262144, "one large"),
    (262144, "large and small side by side"),
]


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize(("classes", "name"), CASES)
def test_rows_are_within_the_bounds(classes: int, name: str, dtype: Dtype) -> None:
    row = rows(classes, dtype)[name]
    assert_within(errors_of(row, targets_of(row)))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_within_the_bounds_at_other_temperatures(
    name: str, temperature: float, dtype: Dtype
) -> None:
    for classes in (2, 7, 300):
        row = rows(classes, dtype)[name]
        assert_within(errors_of(row, targets_of(row), temperature))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 7, 20])
def test_many_short_rows_are_within_the_bounds(classes: int, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    for scale in (1e-3, 1.0, 10.0, 100.0):
        for _ in range(60):
            row = (scale * random.standard_normal(classes)).astype(dtype)
            assert_within(errors_of(row, set(range(classes))))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_lse_near_zero_is_within_its_bound(dtype: Dtype) -> None:
    # The largest logit is as good as 0: all that there is of the lse are the other classes.
    random = np.random.default_rng(1)
    for classes in (2, 3, 10, 100):
        for _ in range(60):
            row = -random.uniform(6.0, 16.0, classes)
            row[random.integers(classes)] = random.choice([1e-7, 4e-7, -3e-7, 1e-6, 0.0])
            assert_within(errors_of(row.astype(dtype), {0, classes - 1}))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_equal_errors_of_many_classes_are_within_the_bounds(dtype: Dtype) -> None:
    # One rounding of the exponential, the same for all classes but one, does not average out.
    random = np.random.default_rng(2)
    for _ in range(400):
        row = np.full(int(random.integers(8, 130)), -random.uniform(0.0, 5.0))
        row[0] = 0.0
        shift = random.choice([0.0, 1.0, 3.9])
        assert_within(errors_of((row + shift).astype(dtype), {0, 1}))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("larger", [0.02, 0.5, 1.3, 1.36, 1.37, 1.4, 30.0])
def test_larger_logits_far_from_the_first_block_are_within_the_bounds(
    larger: float, dtype: Dtype
) -> None:
    # Sums are relative to a logit of the block that is read first; a little larger ones stand elsewhere.
    for first, place in [(2053, 300), (10, 1000), (3080, 4094)]:
        row = np.full(4095, -12.0)
        row[first], row[place] = 0.0, larger
        for shift in (0.0, -larger, 5.0):
            assert_within(errors_of((row + shift).astype(dtype), {0, first, place}))


# A confident row.


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("loss", [1e-3, 1e-6, 1e-9, 1e-12, 1e-30])
def test_loss_of_a_confident_row_has_six_right_digits(loss: float, dtype: Dtype) -> None:
    for classes in (2, 7, 1000, 32000):
        row = np.zeros(classes, dtype)
        row[classes // 2] = math.log(classes - 1) - math.log(math.expm1(loss))
        above = mp.exp(-mp.mpf(float(row[classes // 2])))
        exact = mp.log1p((classes - 1) * above)
        got, grad = sx.cross_entropy_with_grad(row, classes // 2)
        assert exact == pytest.approx(loss, rel=1e-4)
        assert abs(float(got) - exact) <= 1e-6 * exact
        assert abs(float(-sx.log_softmax(row)[classes // 2]) - exact) <= 1e-6 * exact
        assert abs(-float(grad[classes // 2]) - -mp.expm1(-exact)) <= 1e-6 * exact


# With options.


def exact_loss(row: Array, targets: Array, temperature: float, **options: Any) -> tuple[Any, float]:
    """The loss, and what it may be off by: the errors of its terms, in ulp of them."""
    dtype, classes = row.dtype, len(row)
    softcap, mask = options.get("softcap"), options.get("class_mask", np.ones(classes, bool))
    weight = options.get("weight", np.ones(classes)).tolist()
    e, z = options.get("label_smoothing", 0.0), options.get("z_loss", 0.0)
    cap = mp.mpf(softcap or 1)
    xs = [mp.mpf(x) for x in row.tolist()]
    capped = xs if softcap is None else [cap * mp.tanh(x / cap) for x in xs]
    allowed = np.flatnonzero(mask).tolist()
    s = {c: capped[c] / mp.mpf(temperature) for c in allowed}
    top = max(s.values())
    first = max(allowed, key=s.__getitem__)
    exps = {c: mp.exp(s[c] - top) for c in allowed if c != first}
    rest = mp.fsum(exps.values())
    log_total = mp.log1p(rest)
    e_over_k = mp.mpf(e) / len(allowed)
    a = {c: ((1 - mp.mpf(e)) * targets[c] + e_over_k) * weight[c] for c in allowed}
    nll = {c: top - s[c] + log_total for c in allowed}
    lse = top + log_total
    surprise = mp.fsum(a[c] * nll[c] for c in allowed if a[c])
    # All but the largest, which a confident row keeps out of the sum.
    others = sum(float(p) * (4 + float(top - s[c])) for c, p in exps.items()) / float(1 + rest)
    precision = 2.0**-52 if dtype == FLOAT64 else 2.0**-23
    weights = float(mp.fsum(abs(x) for x in a.values()))
    of_softcap = 0.0 if softcap is None else 2 * weights * float(max(abs(x) for x in s.values()))
    of_lse = float(z * (2 * lse**2 + 2 * abs(lse) * max(abs(lse), abs(top))))
    mean_gap = float(mp.fsum(abs(a[c]) * (top - s[c]) for c in allowed))
    bound = 2 * float(surprise) + weights * others + of_softcap + of_lse + mean_gap / 2
    return surprise + mp.mpf(z) * lse**2, precision * bound


def options_of(classes: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: class ids or probabilities for targets, and options."""
    random = np.random.default_rng(classes)
    # Exact in single precision, as all that the loss is made of.
    weight = random.integers(1, 17, classes) / 8
    mask = random.random(classes) < 0.7
    mask[classes // 2] = True
    return {
        "weights": ("ids", {"weight": weight}),
        "smoothing": ("ids", {"label_smoothing": 0.125}),
        "all smoothing": ("ids", {"label_smoothing": 1.0, "weight": weight}),
        "masks": ("ids", {"class_mask": mask}),
        "masks and smoothing": ("ids", {"class_mask": mask, "label_smoothing": 0.125}),
        "softcap": ("ids", {"softcap": 5.0}),
        "wide softcap": ("ids", {"softcap": 50.0}),
        "z-loss": ("ids", {"z_loss": 0.0625}),
        "probabilities": ("probabilities", {"weight": weight}),
        "everything": (
            "probabilities",
            {
                "weight": weight,
                "label_smoothing": 0.125,
                "class_mask": mask,
                "softcap": 30.0,
                "z_loss": 0.0625,
            },
        ),
    }


ROWS_OF_OPTIONS = [name for name in NAMES if name not in ("masked", "far from 0")]


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("name", options_of(1))
def test_losses_with_options_are_within_their_bound(name: str, dtype: Dtype) -> None:
    errors: Errors = {}
    for classes in (2, 7, 130, 300):
        kind, options = options_of(classes)[name]
        mask = options.get("class_mask", np.ones(classes, bool))
        for row_name in ROWS_OF_OPTIONS:
            row = rows(classes, dtype)[row_name]
            for temperature in (1.0, 0.75) if classes == 7 else (1.0,):
                for target in {classes // 2, int(np.where(mask, row, -np.inf).argmax())}:
                    targets = np.zeros(classes)
                    targets[target] = 1.0
                    if kind == "probabilities":
                        targets[mask] += np.arange(mask.sum()) % 4 / 4
                    given: Any = target if kind == "ids" else targets
                    exact, bound = exact_loss(row, targets, temperature, **options)
                    options["reduction"] = "sum"
                    got = sx.cross_entropy(row, given, temperature=temperature, **options)
                    tiny = float(np.finfo(dtype).tiny)
                    unit = ulp(exact, dtype) if abs(exact) > tiny else tiny
                    error = float(abs(mp.mpf(float(got)) - exact)) / unit
                    note(errors, f"{row_name}, {classes}", error, bound / unit + 1)
    assert_within(errors)


# Totals of a batch.


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_totals_are_within_one_ulp_of_the_rows(scale: float, dtype: Dtype) -> None:
    random = np.random.default_rng(5)
    logits = (scale * random.standard_normal((20000, 3))).astype(dtype)
    targets = random.integers(3, size=20000)
    targets[::7] = -100
    # As doubles, the losses of the rows are what the total is made of.
    losses = sx.cross_entropy(logits, targets, reduction="none", dtype=np.float64)
    exact = math.fsum(losses)
    valid = int((targets != -100).sum())
    for denominator, options in (
        (1, {"reduction": "sum"}),
        (valid, {"reduction": "mean"}),
        (12345.5, {"normalizer": 12345.5}),
        (3, {"reduction": "sequence_mean", "offsets": [0, 5, 10000, 20000]}),
    ):
        keywords: dict[str, Any] = options
        for threads in (1, 2):
            got = sx.cross_entropy(logits, targets, threads=threads, **keywords)
            total = mp.mpf(exact) / denominator
            assert abs(mp.mpf(float(got)) - total) <= ulp(total, dtype)


def test_total_keeps_what_a_running_sum_would_drop() -> None:
    # Doubles near 1e17 are 16 apart: a running sum loses each ln 2, while 40 of them are 27.7.
    logits = np.zeros((41, 2))
    logits[0, 0] = 1e17
    targets = np.ones(41, int)
    assert sx.cross_entropy(logits, targets, reduction="sum") == 1e17 + 32
    assert sx.cross_entropy(logits[::-1], targets, reduction="sum") == 1e17 + 32
    # In single precision 2^24 + 1 is 2^24.
    rows = np.zeros((1001, 2), np.float32)
    rows[0, 1], rows[1:, 1] = 2**24, math.log(math.e - 1)
    total = sx.cross_entropy(rows, np.zeros(1001, int), reduction="sum")
    assert total == 2**24 + 1000


# 16-bit results.


@pytest.mark.parametrize("temperature", [1.0, 0.37])
@pytest.mark.parametrize("classes", [1, 2, 7, 100, 1000, 32000, 50257])
@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_16_bit_results_are_the_single_ones_rounded_once(
    dtype: Dtype, classes: int, temperature: float
) -> None:
    random = np.random.default_rng(classes)
    options: dict[str, Any] = {"temperature": temperature}
    for scale in (0.1, 1.0, 10.0, 100.0):
        logits = (scale * random.standard_normal((3, classes))).astype(dtype)
        wide = logits.astype(np.float32)
        targets = [0, classes - 1, int(wide[2].argmax())]
        for layout in (logits, np.asfortranarray(logits)):
            for function in (sx.softmax, sx.log_softmax):
                got, single = function(layout, **options), function(wide, **options)
                assert np.array_equal(got, single.astype(dtype))
                assert np.array_equal(function(layout, dtype=np.float32, **options), single)
            assert np.array_equal(sx.logsumexp(layout, **options), sx.logsumexp(wide, **options))
            loss, grad = sx.cross_entropy_with_grad(layout, targets, **options)
            single_loss, single_grad = sx.cross_entropy_with_grad(wide, targets, **options)
            assert loss == single_loss
            assert np.array_equal(grad, single_grad.astype(dtype))
        for name in ("logsumexp", "cross_entropy"):
            arguments = (wide,) if name == "logsumexp" else (wide, targets)
            function = getattr(sx, name)
            narrow = function(*arguments, dtype=dtype, **options)
            assert np.array_equal(narrow, function(*arguments, **options).astype(dtype))


@pytest.mark.parametrize(("dtype", "step"), [(FLOAT16, 2.0**-11), (BFLOAT16, 2.0**-8)], ids=str)
def test_doubles_become_16_bits_in_one_rounding(dtype: Dtype, step: float) -> None:
    # So little above the middle of two neighbours that in single precision it is the middle, and
    # would go to the even one.
    p = 0.5 + step / 2 + 1e-10
    logits = np.array([math.log(p / (1 - p)), 0.0])
    assert np.float32(sx.softmax(logits)[0]) == 0.5 + step / 2
    assert sx.softmax(logits, dtype=dtype)[0] == 0.5 + step
    assert sx.softmax(logits[::-1], dtype=dtype)[1] == 0.5 + step

"""Divergences of rows with infinities, NaN, the largest numbers: literal pairs with literal answers.

Every expected value is written down here, or is that of two uniform distributions over some of the
classes. What makes the loss of a single row go wrong can do it on either side here, and `0 log 0`,
`inf - inf` and a quotient of two zeros come on top.
"""

import math
from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from common import (
    BFLOAT16,
    DTYPES,
    FLOAT64,
    INF,
    NAN,
    Array,
    Dtype,
    Options,
    Thresholds,
    loss_dtype,
)
from extremes import (
    LARGEST,
    LN2,
    LOG_P0,
    LOG_P1,
    MASKS,
    NAN_BITS,
    P0,
    P1,
    WAYS,
    SetThresholds,
    boundaries,
    is_near,
    long_row,
)

FORWARD, REVERSE, JENSEN_SHANNON = "forward", "reverse", "Jensen-Shannon"
CALLS: dict[str, tuple[Any, Any, Options]] = {
    FORWARD: (sx.kl_divergence, sx.kl_divergence_with_grad, {}),
    REVERSE: (sx.kl_divergence, sx.kl_divergence_with_grad, {"direction": "reverse"}),
    JENSEN_SHANNON: (sx.js_divergence, sx.js_divergence_with_grad, {}),
}
LIMITS: dict[str, Options] = {FORWARD: {"beta": 0.0}, REVERSE: {"beta": 1.0}}
ROUNDINGS = 6.0  # of a divergence that is the sum of a few terms


def both(measure: str, teacher: Any, student: Any, **options: Any) -> tuple[Any, Array]:
    """Loss and gradient, which the loss alone and the limits of the Jensen-Shannon divergence confirm."""
    alone, with_grad, own = CALLS[measure]
    loss, grad = with_grad(teacher, student, **own, **options)
    calls = [(alone, own)]
    if measure in LIMITS:
        calls.append((sx.js_divergence, LIMITS[measure]))
    for function, same in calls:
        again = np.asarray(function(teacher, student, **same, **options))
        assert again.tobytes() == np.asarray(loss).tobytes()
    return loss, grad


# Logits 0 and 1 against 1 and 0: the probabilities P0 and P1 swap.
TILTED_KL = P1 - P0
TILTED_JS = LN2 + P0 * LOG_P0 + P1 * LOG_P1
TILTED: dict[str, tuple[float, list[float]]] = {
    FORWARD: (TILTED_KL, [P1 - P0, P0 - P1]),
    REVERSE: (TILTED_KL, [P1 * (1 - TILTED_KL), -P0 * (1 + TILTED_KL)]),
    JENSEN_SHANNON: (
        TILTED_JS,
        [P1 * (LN2 + LOG_P1 - TILTED_JS) / 2, P0 * (LN2 + LOG_P0 - TILTED_JS) / 2],
    ),
}
# A half and a half against the first class alone: m = 3/4, 1/4.
LOPSIDED_JS = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * LN2

# A teacher, a student, and of each measure the divergence and the slopes, None where they are not defined.
Answer: TypeAlias = tuple[float, list[float] | None]
Pair: TypeAlias = tuple[list[float], list[float], dict[str, Answer]]
NOTHING: dict[str, Answer] = {measure: (NAN, [NAN, NAN, NAN]) for measure in CALLS}
NO_PULL: dict[str, Answer] = {measure: (0.0, [0.0, 0.0, 0.0]) for measure in CALLS}


def with_a_zero(place: int) -> dict[str, Answer]:
    """The tilted pair and a class that neither side allows."""
    return {
        measure: (loss, [*slopes[:place], 0.0, *slopes[place:]])
        for measure, (loss, slopes) in TILTED.items()
    }


PAIRS: dict[str, Pair] = {
    "-inf on both sides at the start": ([-INF, 0.0, 1.0], [-INF, 1.0, 0.0], with_a_zero(0)),
    "-inf on both sides in the middle": ([0.0, -INF, 1.0], [1.0, -INF, 0.0], with_a_zero(1)),
    "-inf on both sides in the tail": ([0.0, 1.0, -INF], [1.0, 0.0, -INF], with_a_zero(2)),
    "one class is left on both sides": ([-INF, 7.0, -INF], [-INF, -3.0, -INF], NO_PULL),
    "-inf in the teacher alone": (
        [0.0, -INF, -INF], [0.0, 0.0, -INF],
        {
            FORWARD: (LN2, [-0.5, 0.5, 0.0]),
            REVERSE: (INF, None),
            JENSEN_SHANNON: (LOPSIDED_JS, [-math.log(3) / 8, math.log(3) / 8, 0.0]),
        },
    ),
    "-inf in the student alone": (
        [0.0, 0.0, -INF], [0.0, -INF, -INF],
        {
            FORWARD: (INF, [0.5, -0.5, 0.0]),
            REVERSE: (LN2, [0.0, 0.0, 0.0]),
            JENSEN_SHANNON: (LOPSIDED_JS, [0.0, 0.0, 0.0]),
        },
    ),
    "no class in common": (
        [0.0, -INF, -INF], [-INF, 0.0, 0.0],
        {
            FORWARD: (INF, [-1.0, 0.5, 0.5]),
            REVERSE: (INF, None),
            JENSEN_SHANNON: (LN2, [0.0, 0.0, 0.0]),
        },
    ),
    "as far apart as 2048 nats": (
        [2048.0, 0.0, -INF], [0.0, 2048.0, -INF],
        {
            FORWARD: (2048.0, [-1.0, 1.0, 0.0]),
            REVERSE: (2048.0, [0.0, 0.0, 0.0]),
            JENSEN_SHANNON: (LN2, [0.0, 0.0, 0.0]),
        },
    ),
    "lost beside the largest": ([0.0, -1024.0, -2048.0], [0.0, -2048.0, -1024.0], NO_PULL),
    "zeros of both signs": ([0.0, -0.0, 0.0], [-0.0, 0.0, 0.0], NO_PULL),
    "nothing but -inf in the teacher": ([-INF, -INF, -INF], [0.0, 1.0, 2.0], NOTHING),
    "nothing but -inf in the student": ([0.0, 1.0, 2.0], [-INF, -INF, -INF], NOTHING),
    "nothing but -inf on both sides": ([-INF, -INF, -INF], [-INF, -INF, -INF], NOTHING),
    "+inf in the teacher": ([0.0, INF, 0.0], [0.0, 1.0, 2.0], NOTHING),
    "+inf in the student": ([0.0, 1.0, 2.0], [0.0, INF, 0.0], NOTHING),
    "+inf on both sides": ([INF, 0.0, 0.0], [INF, 0.0, 0.0], NOTHING),
    "nothing but +inf": ([INF, INF, INF], [INF, INF, INF], NOTHING),
    "+inf in the teacher where the student has -inf": ([INF, 0.0, 0.0], [-INF, 0.0, 0.0], NOTHING),
    "-inf in the teacher where the student has +inf": ([-INF, 0.0, 0.0], [INF, 0.0, 0.0], NOTHING),
    "NaN in the teacher": ([NAN, 0.0, 0.0], [0.0, 1.0, 2.0], NOTHING),
    "NaN in the student": ([0.0, 1.0, 2.0], [0.0, 0.0, NAN], NOTHING),
    "NaN in the teacher where the student has -inf": ([NAN, 0.0, 0.0], [-INF, 0.0, 0.0], NOTHING),
    "NaN in the student where the teacher has -inf": ([-INF, 0.0, 0.0], [NAN, 0.0, 0.0], NOTHING),
    "NaN beside +inf": ([NAN, 0.0, 0.0], [0.0, INF, 0.0], NOTHING),
    "NaN beside nothing but -inf": ([-INF, -INF, -INF], [0.0, NAN, 0.0], NOTHING),
    "one class": ([5.0], [-3.0], {measure: (0.0, [0.0]) for measure in CALLS}),
    "one class, -inf": ([-INF], [0.0], {measure: (NAN, [NAN]) for measure in CALLS}),
}  # fmt: skip


@pytest.mark.parametrize("measure", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_with_known_answers(name: str, dtype: Dtype, measure: str) -> None:
    teacher, student, answers = PAIRS[name]
    expected, slopes = answers[measure]
    loss, grad = both(measure, np.array(teacher, dtype), np.array(student, dtype))
    assert loss.dtype == loss_dtype(dtype)
    assert is_near(loss, expected, ROUNDINGS)
    assert slopes is None or is_near(grad, slopes, ROUNDINGS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_one_pair_does_not_touch_the_others(
    name: str, dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    sides = PAIRS[name][:2]
    classes, kept = len(sides[0]), [0, 1, 3, 4]
    others = [np.linspace(-2, 3, 4 * classes).reshape(4, -1).astype(dtype)]
    others.append(others[0][::-1].copy())
    teacher, student = (
        np.insert(good, 2, np.array(row, dtype), axis=0)
        for good, row in zip(others, sides, strict=True)
    )
    for measure in CALLS:
        good_loss, good_grad = both(measure, *others, reduction="none")
        for axis in (1, 0):
            batch = [np.ascontiguousarray(np.moveaxis(x, 1, axis)) for x in (teacher, student)]
            loss, grad = both(measure, *batch, axis=axis, reduction="none", threads=2)
            assert loss[kept].tolist() == good_loss.tolist()
            assert np.moveaxis(grad, axis, 1)[kept].tolist() == good_grad.tolist()
        total = both(measure, teacher, student, reduction="sum")[0]
        bad = PAIRS[name][2][measure][0]
        assert np.isnan(total) if np.isnan(bad) else (total == INF) == (bad == INF)


# NaN and +inf at every place, on either side.


def check_spoilt_rows(places: Array, classes: int, dtype: Dtype, beside: float, way: Any) -> None:
    """A row that holds a bad number on one side is NaN everywhere; a last row without it is not."""
    rows = len(places)
    good = np.zeros((rows + 1, classes), dtype)
    good[:rows] = beside if beside != INF else 0.0
    good[:, 0] = 1.0
    bad = np.full((rows + 1, classes), beside, dtype)
    bad[rows] = 0
    way(bad[:rows])
    for measure in CALLS:
        for teacher, student in ((good, bad), (bad, good)):
            _, with_grad, own = CALLS[measure]
            loss, grad = with_grad(teacher, student, reduction="none", threads=2, **own)
            assert np.isnan(loss[:rows]).all()
            assert np.isnan(grad[:rows]).all()
            assert np.isfinite(loss[rows])
            assert np.isfinite(grad[rows]).all()


def nan_at(places: Array, bits: int) -> Any:
    def put(rows: Array) -> None:
        rows.view(f"u{rows.dtype.itemsize}")[np.arange(len(places)), places] = bits

    return put


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_at_every_place_of_short_rows(dtype: Dtype) -> None:
    for classes in range(1, 101):
        places = np.arange(classes)
        for bits in NAN_BITS[dtype]:
            check_spoilt_rows(places, classes, dtype, 0.0, nan_at(places, bits))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beside", [0.0, -INF, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_around_the_boundaries_of_long_rows(
    dtype: Dtype, beside: float, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for classes in (1023, 1025, 32769):
        places = np.array(boundaries(classes))
        check_spoilt_rows(places, classes, dtype, beside, nan_at(places, NAN_BITS[dtype][0]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_plus_infinity_at_every_place(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    for classes in (1, 2, 16, 17, 65, 130, 1025, 32769):
        places = np.arange(classes) if classes <= 130 else np.array(boundaries(classes))

        def put(rows: Array, places: Array = places) -> None:
            rows[np.arange(len(places)), places] = INF

        check_spoilt_rows(places, classes, dtype, 0.0, put)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_a_single_row_that_threads_share(
    dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    good = np.zeros((1, 70000), dtype)
    for place in boundaries(70000)[::3]:
        bad = good.copy()
        bad[0, place] = NAN
        for sides in ((good, bad), (bad, good)):
            for _, with_grad, own in CALLS.values():
                loss, grad = with_grad(*sides, threads=2, **own)
                assert np.isnan(loss)
                assert np.isnan(grad).all()


# -inf in long rows: two uniform distributions, one of them over some of the classes.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_minus_infinity_in_long_rows(
    name: str, dtype: Dtype, way: Thresholds, set_thresholds: SetThresholds
) -> None:
    set_thresholds(*way)
    some, where, count = long_row(name, dtype, -2.0)
    classes, every = len(some), np.full(len(some), 7.0, dtype)
    p, q = where / count, np.full(classes, 1 / classes)
    gap, share = math.log(classes / count), count / classes
    # Of m: (p + q) / 2 where both are, else q / 2.
    inside = math.log((1 + share) / 2)
    middle = -inside / 2 + (share * (math.log(2 * share / (1 + share))) + (1 - share) * LN2) / 2
    from_m = share * math.log(2 * share / (1 + share)) + (1 - share) * LN2
    log_of_q = np.where(where, math.log(2 * share / (1 + share)), LN2)
    roundings = 4 * float(np.finfo(loss_dtype(dtype)).eps)
    rounding_of_dtype = 2.0**-8 if dtype == BFLOAT16 else float(np.finfo(dtype).eps)

    def agree(got: tuple[Any, Array], loss: float, slopes: Any) -> None:
        assert float(got[0]) == pytest.approx(loss, rel=24 * roundings)
        if slopes is not None:
            size = 3 * (p + q) * roundings * (2 + gap)
            error = np.abs(got[1].astype(np.float64) - slopes)
            lost = 2.0**-24 if dtype.itemsize == 2 else 0.0
            assert (error <= size + rounding_of_dtype * np.abs(slopes) + lost).all()

    agree(both(FORWARD, some, every, threads=2), gap, q - p)
    agree(both(REVERSE, some, every, threads=2), INF, None)
    agree(both(JENSEN_SHANNON, some, every, threads=2), middle, q * (log_of_q - from_m) / 2)
    agree(both(FORWARD, every, some, threads=2), INF, p - q)
    agree(both(REVERSE, every, some, threads=2), gap, np.zeros(classes))
    agree(both(JENSEN_SHANNON, every, some, threads=2), middle, np.zeros(classes))
    rest = np.where(where, -INF, 3.0).astype(dtype)
    agree(both(JENSEN_SHANNON, some, rest, threads=2), LN2, np.zeros(classes))
    for measure in CALLS:
        agree(both(measure, some, some.copy(), threads=2), 0.0, np.zeros(classes))


# Huge and tiny numbers.


@pytest.mark.parametrize("classes", [1, 2, 7, 64, 65, 1000, 50257])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_logits_of_any_size_are_no_divergence(dtype: Dtype, classes: int) -> None:
    large = LARGEST[dtype]
    for one in (0.0, 1.0, -5e4, large, -large):
        for other in (0.0, large, -large):
            sides = [np.full((2, classes), value, dtype) for value in (one, other)]
            for measure in CALLS:
                loss, grad = both(measure, *sides, reduction="none")
                assert loss.tolist() == [0.0, 0.0]
                assert not grad.astype(np.float64).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_numbers_of_both_signs(dtype: Dtype) -> None:
    large = LARGEST[dtype]
    one, other = (np.array([sign * large, -sign * large], dtype) for sign in (1, -1))
    # Twice the largest number: only float16 has a loss, in float32, that can hold it.
    gap = 2 * large if dtype.itemsize == 2 and dtype != BFLOAT16 else INF
    loss, grad = both(FORWARD, one, other)
    assert is_near(loss, gap)
    assert is_near(grad, [-1.0, 1.0])
    assert is_near(both(REVERSE, one, other)[0], gap)
    loss, grad = both(JENSEN_SHANNON, one, other)
    assert is_near(loss, LN2)
    assert is_near(grad, [0.0, 0.0])
    for measure in CALLS:
        loss, grad = both(measure, one, one.copy())
        assert loss == 0
        assert is_near(grad, [0.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_that_is_shifted_exactly_gives_the_same_bits(dtype: Dtype) -> None:
    random = np.random.default_rng(1)
    teacher, student = random.integers(-8, 8, (2, 5, 300)).astype(dtype)
    for measure in CALLS:
        loss, grad = both(measure, teacher, student, reduction="none")
        for shift in (32.0, -32.0):
            moved = [(x.astype(np.float64) + shift).astype(dtype) for x in (teacher, student)]
            for sides in ((moved[0], student), (teacher, moved[1]), moved):
                again, same = both(measure, *sides, reduction="none")
                assert again.tobytes() == loss.tobytes()
                assert same.tobytes() == grad.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_subnormal_logits_are_numbers(dtype: Dtype) -> None:
    tiny = {2: 6e-8, 4: 1e-45, 8: 5e-324}[dtype.itemsize] if dtype != BFLOAT16 else 1e-40
    for measure in CALLS:
        loss, grad = both(measure, np.array([tiny, -tiny, 0.0], dtype), np.zeros(3, dtype))
        assert 0 <= loss <= tiny
        assert (np.abs(grad.astype(np.float64)) <= tiny).all()


# Temperatures.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e3, 1e30])
def test_logits_as_large_as_the_temperature(temperature: float, dtype: Dtype) -> None:
    if not 1e-4 < temperature < 1e4 and dtype.itemsize == 2:
        temperature = 2.0**-10
    temperature = float(np.array(temperature, dtype).astype(np.float64))
    sides = [np.array(x, dtype) for x in ([0.0, temperature], [temperature, 0.0])]
    for measure, (expected, slopes) in TILTED.items():
        loss, grad = both(measure, *sides, temperature=temperature)
        assert is_near(loss, expected, ROUNDINGS)
        assert is_near(grad, np.array(slopes) / temperature, ROUNDINGS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e-3, 1e-30])
def test_low_temperature_takes_the_largest_alone(temperature: float, dtype: Dtype) -> None:
    first, second = (np.array(x, dtype) for x in ([1.0, 0.0, -2.0], [0.0, 1.0, -2.0]))
    scale = 1 / temperature
    slope = scale if scale < LARGEST[dtype] else INF
    for measure, expected, slopes in (
        (FORWARD, scale, [-slope, slope, 0.0]),
        (REVERSE, scale, [0.0, 0.0, 0.0]),
        (JENSEN_SHANNON, LN2, [0.0, 0.0, 0.0]),
    ):
        loss, grad = both(measure, first, second, temperature=temperature)
        assert is_near(loss, expected)
        assert is_near(grad, slopes)
        loss, grad = both(measure, first, 4 * first, temperature=temperature)
        assert is_near(loss, 0.0)
        assert is_near(grad, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1e30, 1e300])
def test_high_temperature_makes_all_equal(temperature: float, dtype: Dtype) -> None:
    first, second = (np.array(x, dtype) for x in ([0.0, 1.0, -2.0], [1.0, 0.0, -2.0]))
    for measure in CALLS:
        loss, grad = both(measure, first, second, temperature=temperature)
        assert 0 <= loss <= 1 / temperature**2 if temperature < 1e100 else loss == 0
        assert (np.abs(grad.astype(np.float64)) <= 1 / temperature).all()


# No class, no row, or none that is allowed.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_of_masked_classes_is_nan_and_pulls_nowhere(dtype: Dtype) -> None:
    x, y = (np.array([row] * 2, dtype) for row in ([0.0, 1.0, 5.0], [1.0, 0.0, -5.0]))
    mask = np.array([[False] * 3, [True, True, False]])
    for measure, (expected, slopes) in TILTED.items():
        loss, grad = both(measure, x, y, class_mask=mask, reduction="none")
        assert is_near(loss, [NAN, expected], ROUNDINGS)
        assert is_near(grad, [[0.0] * 3, [*slopes, 0.0]], ROUNDINGS)
        loss, grad = both(measure, x, y, class_mask=mask[0])
        assert np.isnan(loss)
        assert not grad.astype(np.float64).any()
        # What is masked is not read.
        bad = np.where(mask[1], x, np.array(NAN, dtype))
        for sides in ((bad, y), (x, np.where(mask[1], y, np.array(INF, dtype)))):
            loss, _ = both(measure, *sides, class_mask=mask[1])
            assert is_near(loss, expected, ROUNDINGS)


@pytest.mark.parametrize("measure", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_class(dtype: Dtype, measure: str) -> None:
    alone, with_grad, own = CALLS[measure]
    for rows in (0, 3):
        for function in (alone, with_grad):
            with pytest.raises(ValueError, match="student_logits: expected at least one class"):
                function(np.empty((rows, 0), dtype), np.empty((rows, 0), dtype), **own)


@pytest.mark.parametrize("measure", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_row(dtype: Dtype, measure: str) -> None:
    empty = np.empty((0, 5), dtype)
    ignored = np.zeros((2, 5), dtype)
    more: list[tuple[Array, Options]] = [(empty, {}), (ignored, {"ignore_rows": [True, True]})]
    for x, options in more:
        for how, expected in (
            ({"reduction": "mean"}, NAN),
            ({"reduction": "mean", "on_empty": "zero"}, 0.0),
            ({"reduction": "sum"}, 0.0),
            ({"reduction": "sequence_mean", "offsets": [0]}, NAN),
            ({"reduction": "none"}, np.zeros(len(x))),
        ):
            if "offsets" in how and len(x):
                continue
            loss, grad = both(measure, x, x.copy(), **options, **how)
            assert loss.dtype == (FLOAT64 if dtype == FLOAT64 else np.float32)
            assert is_near(loss, expected)
            assert grad.shape == x.shape
            assert not grad.astype(np.float64).any()
        with pytest.raises(ValueError, match="expected a row that is not ignored"):
            both(measure, x, x.copy(), on_empty="raise", **options)

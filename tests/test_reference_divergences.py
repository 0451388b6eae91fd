"""The divergences of the reference, against literals and against mpmath at 500 digits.

There the formulas stand as they are printed, sums of p (log p - log q), whose cancellation 500
digits can afford; differences of step 1e-150 are the gradient. Nothing here knows the compiled core.
"""

import itertools
import math
import random
import sys
from typing import Any

import mpmath
import pytest
from common import near
from softxent import reference

INF, NAN = math.inf, math.nan
LN2, LN3 = 0.6931471805599453, 1.0986122886681098
EPSILON = sys.float_info.epsilon
DIGITS = 500
TINY = mpmath.mpf(2) ** -1074  # a unit of the doubles where they have no digits to lose
BETAS = [0.0, 1e-6, 0.3, 0.5, 0.9, 1.0]


def divergences(*rows: Any, **options: Any) -> dict[str, Any]:
    """Loss and gradient by each measure."""
    found = {
        direction: reference.kl_divergence_with_grad(*rows, direction=direction, **options)
        for direction in ("forward", "reverse")
    }
    for beta in BETAS:
        found[f"js {beta}"] = reference.js_divergence_with_grad(*rows, beta=beta, **options)
    return found


# Worked numbers: p = (3/4, 1/4), q = (1/2, 1/2), m of the two 5/8, 3/8.

TEACHER, STUDENT = [LN3, 0.0], [7.0, 7.0]


def test_forward_of_known_rows() -> None:
    loss, grad = reference.kl_divergence_with_grad(TEACHER, STUDENT)
    assert loss == near(0.75 * math.log(1.5) - 0.25 * LN2)
    assert grad == near([-0.25, 0.25])
    assert reference.kl_divergence(TEACHER, STUDENT, direction="forward") == loss


def test_reverse_of_known_rows() -> None:
    loss, grad = reference.kl_divergence_with_grad(TEACHER, STUDENT, direction="reverse")
    expected = 0.5 * math.log(2 / 3) + 0.5 * LN2
    assert loss == near(expected)
    slopes = [0.5 * (math.log(2 / 3) - expected), 0.5 * (LN2 - expected)]
    assert grad == near(slopes)
    assert reference.kl_divergence(TEACHER, STUDENT, direction="reverse") == loss


def test_jensen_shannon_of_known_rows() -> None:
    loss, grad = reference.js_divergence_with_grad(TEACHER, STUDENT)
    of_teacher = 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)
    of_student = 0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)
    assert loss == near((of_teacher + of_student) / 2)
    slopes = [0.25 * (math.log(ratio) - of_student) for ratio in (4 / 5, 4 / 3)]
    assert grad == near(slopes)
    assert reference.js_divergence(TEACHER, STUDENT) == loss
    assert reference.js_divergence(STUDENT, TEACHER) == near(loss)
    quarter = reference.js_divergence(TEACHER, STUDENT, beta=0.25)  # m = 9/16, 7/16
    of_teacher = 0.75 * math.log(12 / 9) + 0.25 * math.log(4 / 7)
    of_student = 0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7)
    assert quarter == near(0.25 * of_teacher + 0.75 * of_student, 1e-14)


def test_temperature_is_of_both_and_has_no_square() -> None:
    for name, (loss, grad) in divergences([2 * LN3, 0.0], [9.0, 9.0], temperature=2.0).items():
        expected, slopes = divergences(TEACHER, STUDENT)[name]
        assert loss == near(expected)
        assert grad == near([slope / 2 for slope in slopes])


def test_jensen_shannon_at_its_ends_is_the_two_kl() -> None:
    found = divergences([0.3, -1.0, 2.0], [1.0, 1.0, -INF])
    assert found["js 0.0"] == found["forward"]
    assert found["js 1.0"] == found["reverse"]
    teacher, student = [0.3, -1.0, 2.0], [1.0, 1.0, -0.5]
    for beta, direction in ((1e-9, "forward"), (1 - 1e-9, "reverse")):
        limit = reference.js_divergence(teacher, student, beta=beta) / (beta * (1 - beta))
        assert limit == near(reference.kl_divergence(teacher, student, direction=direction), 1e-7)


def test_what_agrees_has_no_divergence() -> None:
    rows = [[0.3, -1.0, 700.0], [5.0, 5.0, -INF]]
    shifted = [[1.0, 1.0, -INF], [1.0, 1.0, -INF]]
    for student in (rows, [rows[0], shifted[1]]):
        for loss, grad in divergences(rows, student).values():
            assert (loss, grad) == (0.0, [[0.0] * 3] * 2)


# Against 500 digits.


def exact_row(student: list[Any], teacher: list[Any], beta: Any) -> Any:
    """The divergence of a teacher's probabilities and a student's s, by its formula."""
    total = mpmath.fsum(map(mpmath.exp, student))
    q = [mpmath.exp(s) / total for s in student]
    log_q = [s - mpmath.log(total) for s in student]

    def kl(one: list[Any], logs: list[Any], others: list[Any]) -> Any:
        terms = zip(one, logs, others, strict=True)
        return mpmath.fsum(a * (x - y) for a, x, y in terms if a)

    log_p = [mpmath.log(p) if p else -mpmath.inf for p in teacher]
    if beta == "forward":
        return kl(teacher, log_p, log_q)
    if beta == "reverse":
        return kl(q, log_q, log_p)
    beta = mpmath.mpf(beta)
    log_m = [mpmath.log(beta * a + (1 - beta) * b) for a, b in zip(teacher, q, strict=True)]
    return beta * kl(teacher, log_p, log_m) + (1 - beta) * kl(q, log_q, log_m)


def beta_of(name: str) -> Any:
    """The beta of a measure, or which KL it is."""
    kl = {"js 0.0": "forward", "js 1.0": "reverse"}.get(name, name)
    return float(kl.removeprefix("js ")) if kl.startswith("js ") else kl


def exact_softmax(row: list[float], temperature: float) -> list[Any]:
    exps = [mpmath.exp(mpmath.mpf(x) / temperature) for x in row]
    return [e / mpmath.fsum(exps) for e in exps]


def check(
    found: dict[str, Any], student: list[float], teacher: list[Any], temperature: float = 1.0
) -> None:
    """Losses and gradients to the last digits; a gradient, of that of its largest."""
    s = [mpmath.mpf(x) / temperature for x in student]
    step = mpmath.mpf("1e-150")
    for name, (loss, grad) in found.items():
        beta = beta_of(name)
        exact = exact_row(s, teacher, beta)
        assert abs(loss - exact) <= 2 * EPSILON * abs(exact) + TINY, name
        for i, got in enumerate(grad):
            up, down = ([*s[:i], s[i] + sign * step, *s[i + 1 :]] for sign in (1, -1))
            difference = exact_row(up, teacher, beta) - exact_row(down, teacher, beta)
            slope = difference / (2 * step) / temperature
            assert abs(got - slope) <= 4 * EPSILON * abs(slope) + TINY, name


def pairs() -> dict[str, tuple[list[float], list[float], float]]:
    """A teacher, a student and a temperature, by name."""
    generator = random.Random(4)
    row = [generator.gauss(0.0, 2.0) for _ in range(6)]
    found = {
        "nearly equal": (row, [x + 1e-9 * generator.gauss(0.0, 1.0) for x in row], 1.0),
        "equal but for a bit": (row, [math.nextafter(row[0], 9.0), *row[1:]], 1.0),
        "confident": ([31.0, 0.0, -2.0], [35.0, 1.0, 2.0], 0.9),
        "very confident": ([90.0, 0.0, -2.0], [95.0, 1.0, 2.0], 1.0),
        "as good as certain": ([700.0, 0.0, -2.0], [705.0, 1.0, 2.0], 1.0),
        "of other minds": ([60.0, 0.0, 1.0], [0.0, 60.0, 1.0], 1.0),
        "huge": ([1e15, 1e15 + 1, 1e15], [-1e15, 3 - 1e15, -1e15], 2.0),
        "two classes": ([0.1, 0.2], [-3.0, 0.5], 0.5),
        "one class": ([0.1], [3.0], 1.0),
    }
    for scale in (0.01, 1.0, 10.0):
        teacher, student = ([generator.gauss(0.0, scale) for _ in range(5)] for _ in range(2))
        found[f"scale {scale}"] = (teacher, student, 1.7)
    return found


@pytest.mark.parametrize("name", pairs())
def test_divergences_agree_with_their_formulas(name: str) -> None:
    teacher, student, temperature = pairs()[name]
    found = divergences(teacher, student, temperature=temperature)
    with mpmath.workdps(DIGITS):
        check(found, student, exact_softmax(teacher, temperature), temperature)


def test_probabilities_of_the_teacher_are_normalised_and_take_the_temperature() -> None:
    probabilities, student = [3.0, 0.0, 0.5, 1.25], [0.1, -0.2, 0.3, 1.0]
    for temperature in (1.0, 0.4):
        found = divergences(
            probabilities, student, teacher="probabilities", temperature=temperature
        )
        with mpmath.workdps(DIGITS):
            powers = [mpmath.mpf(p) ** (1 / mpmath.mpf(temperature)) for p in probabilities]
            exact = [p / mpmath.fsum(powers) for p in powers]
            forward = {name: found[name] for name in ("forward", "js 0.3", "js 0.5", "js 1e-06")}
            check(forward, student, exact, temperature)
        assert found["reverse"][0] == INF
    one_hot = reference.kl_divergence([0.0, 1.0], [0.0, LN3], teacher="probabilities")
    assert one_hot == near(-math.log(0.75))
    logits = divergences([[LN3, 0.0]], [STUDENT])
    assert divergences([[0.75, 0.25]], [STUDENT], teacher="probabilities") == {
        name: (near(loss), [near(grad[0])]) for name, (loss, grad) in logits.items()
    }


@pytest.mark.parametrize("bad", [[-0.5, 1.0], [0.0, 0.0], [NAN, 1.0], [INF, 1.0]])
def test_what_are_no_probabilities_make_their_row_nan(bad: list[float]) -> None:
    rows = ([bad, [0.5, 0.5]], [[0.0, 0.0]] * 2)
    found = divergences(*rows, teacher="probabilities", reduction="none")
    for loss, grad in found.values():
        assert loss == near([NAN, 0.0])
        assert grad == [near([NAN, NAN]), [0.0, 0.0]]


# Masks and infinities.


@pytest.mark.parametrize("junk", [NAN, INF, -INF, 3.0])
def test_masked_class_is_not_read_on_either_side(junk: float) -> None:
    teacher, student = [LN3, junk, 0.0, junk], [7.0, junk, 7.0, 1.0]
    mask = [True, False, True, True]
    for name, (loss, grad) in divergences(
        teacher, student, class_mask=mask, valid_classes=3
    ).items():
        expected, slopes = divergences(TEACHER, STUDENT)[name]
        assert loss == near(expected)
        assert grad == [near(slopes[0]), 0.0, near(slopes[1]), 0.0]


def test_row_with_every_class_masked() -> None:
    for loss, grad in divergences([[1.0, 2.0]], [[2.0, 1.0]], class_mask=[False, False]).values():
        assert (loss, grad) == (near(NAN), [[0.0, 0.0]])


@pytest.mark.parametrize("bad", [[NAN, 0.0, 0.0], [INF, 0.0, 0.0], [-INF, -INF, 0.0]])
def test_row_without_a_softmax_on_either_side_is_nan(bad: list[float]) -> None:
    good = [0.0, 1.0, NAN]
    for rows in (([bad, good], [good, good]), ([good, good], [bad, good])):
        for loss, grad in divergences(*rows, valid_classes=2, reduction="none").values():
            assert loss == near([NAN, 0.0])
            assert grad == [near([NAN, NAN, 0.0]), [0.0] * 3]


def test_a_class_that_only_one_side_has() -> None:
    half, quarter = [0.0, 0.0, -INF], [LN2, 0.0, 0.0]
    more = divergences(quarter, half)  # p_3 = 1/4, q_3 = 0
    assert more["forward"] == (INF, pytest.approx([0.0, 0.25, -0.25], abs=1e-16))
    assert more["reverse"] == (near(0.5 * LN2), near([-0.25 * LN2, 0.25 * LN2, 0.0]))
    less = divergences(half, quarter)
    assert less["forward"] == (near(0.5 * LN2), pytest.approx([0.0, -0.25, 0.25], abs=1e-16))
    assert less["reverse"][0] == INF
    assert math.isnan(less["reverse"][1][2])
    # m = (1/2, 3/8, 1/8) either way.
    of_half = 0.5 * math.log(4 / 3)
    of_quarter = 0.25 * math.log(2 / 3) + 0.25 * LN2
    assert more["js 0.5"][0] == near((of_half + of_quarter) / 2)
    assert less["js 0.5"][0] == near((of_half + of_quarter) / 2)
    logs = [0.0, math.log(2 / 3), LN2]
    slopes = [p * (log - of_quarter) / 2 for p, log in zip((0.5, 0.25, 0.25), logs, strict=True)]
    assert less["js 0.5"][1] == near(slopes)
    assert more["js 0.5"][1] == near([-0.25 * of_half, 0.25 * (math.log(4 / 3) - of_half), 0.0])
    # A class that neither has.
    both = divergences([*TEACHER, -INF], [*STUDENT, -INF])
    assert all(grad[2] == 0.0 for _, grad in both.values())
    assert {name: loss for name, (loss, _) in both.items()} == {
        name: loss for name, (loss, _) in divergences(TEACHER, STUDENT).items()
    }


def test_jensen_shannon_of_rows_without_a_common_class() -> None:
    loss, grad = reference.js_divergence_with_grad([0.0, -INF], [-INF, 0.0])
    assert (loss, grad) == (near(LN2), [0.0, 0.0])


def test_probability_below_the_doubles_still_has_its_logarithm() -> None:
    # log q = -5000 where q, in doubles, is 0.
    loss, grad = reference.kl_divergence_with_grad([0.0, 0.0], [0.0, -5000.0])
    assert (loss, grad) == (near(2500 - LN2), near([0.5, -0.5]))
    assert reference.kl_divergence([0.0, -1e308], [0.0, 0.0]) == near(LN2)
    assert reference.kl_divergence([0.0, 0.0], [0.0, -1e308]) == near(5e307)
    assert reference.kl_divergence([0.0, 0.0], [0.0, -INF]) == INF


# Sparse teachers.


def test_sparse_teacher_of_known_rows() -> None:
    # p is 1/2 and 1/4 for classes 2 and 0, 1/4 left for 1 and 3; q is 1/4, 1/8, 1/2, 1/8.
    student = [LN2, 0.0, 2 * LN2, 0.0]
    teacher, ids = [-LN2, -2 * LN2], [2, 0]
    for loss, grad in divergences(teacher, student, teacher_ids=ids).values():
        assert loss == pytest.approx(0.0, abs=1e-30)
        assert grad == pytest.approx([0.0] * 4, abs=1e-15)
    loss, grad = reference.kl_divergence_with_grad(teacher, [0.0] * 4, teacher_ids=ids)
    assert loss == near(0.5 * LN2 - 0.25 * LN2)
    assert grad == pytest.approx([0.0, 0.125, -0.25, 0.125], abs=1e-16)
    loss = reference.kl_divergence(teacher, [0.0] * 4, teacher_ids=ids, direction="reverse")
    assert loss == near(-0.25 * LN2 + 0.5 * LN2)


def test_sparse_teacher_is_at_its_temperature() -> None:
    cold = reference.kl_divergence_with_grad(
        [-LN2], [4.0, 2.0, 0.0], teacher_ids=[0], temperature=2.0
    )
    loss, grad = reference.kl_divergence_with_grad([-LN2], [2.0, 1.0, 0.0], teacher_ids=[0])
    assert cold == (near(loss), near([slope / 2 for slope in grad]))


@pytest.mark.parametrize("seed", range(4))
def test_sparse_teacher_sees_the_other_classes_as_one(seed: int) -> None:
    generator = random.Random(seed)
    student = [generator.gauss(0.0, 3.0) for _ in range(7)]
    ids = generator.sample(range(7), 3)
    p = [generator.uniform(0.05, 0.3) for _ in ids]
    log_p = [math.log(x) for x in p]
    found = divergences(log_p, student, teacher_ids=ids, temperature=1.3)
    others = [i for i in range(7) if i not in ids]
    with mpmath.workdps(DIGITS):
        s = [mpmath.mpf(x) / 1.3 for x in student]
        tail = mpmath.log(mpmath.fsum(mpmath.exp(s[i]) for i in others))
        given = [mpmath.exp(mpmath.mpf(x)) for x in log_p]
        teacher = [*given, 1 - mpmath.fsum(given)]
        # What the student knows of the others, each in its part.
        grouped = {
            name: (loss, [*[grad[i] * 1.3 for i in ids], math.fsum(grad[i] for i in others) * 1.3])
            for name, (loss, grad) in found.items()
        }
        loose = [*[s[i] for i in ids], tail]
        for name, (loss, grad) in grouped.items():
            beta = beta_of(name)
            exact = exact_row(loose, teacher, beta)
            assert abs(loss - exact) <= 2 * EPSILON * exact
            step = mpmath.mpf("1e-150")
            for i, got in enumerate(grad):
                up, down = ([*loose[:i], loose[i] + x, *loose[i + 1 :]] for x in (step, -step))
                slope = (exact_row(up, teacher, beta) - exact_row(down, teacher, beta)) / (2 * step)
                assert abs(got - slope) <= 32 * EPSILON * (abs(slope) + 0.1)
        for name, (_, grad) in found.items():
            part = [float(mpmath.exp(s[i] - tail)) for i in others]
            total = math.fsum(grad[i] for i in others)
            assert [grad[i] for i in others] == near([total * x for x in part], 1e-13), name


def test_sparse_teacher_that_knows_all_classes_has_no_others() -> None:
    logits, student = [0.3, -1.0, 2.0], [1.0, 0.1, -0.5]
    log_p = reference.log_softmax(logits)
    dense = divergences(logits, student)
    sparse = divergences([log_p[2], log_p[0], log_p[1]], student, teacher_ids=[2, 0, 1])
    for name, (loss, grad) in sparse.items():
        assert loss == near(dense[name][0], 1e-14)
        assert grad == near(dense[name][1], 1e-13)
    # And of those that take part.
    masked = divergences(
        [log_p[2], log_p[0], log_p[1]], [*student, 9.0], teacher_ids=[2, 0, 1], valid_classes=3
    )
    for name, (loss, grad) in masked.items():
        assert (loss, grad) == (sparse[name][0], [*sparse[name][1], 0.0])


def test_masked_id_of_a_sparse_teacher_is_not_read() -> None:
    for junk in (NAN, 0.0, INF):
        found = divergences(
            [-LN2, junk],
            [0.0, 1.0, 5.0, 2.0],
            teacher_ids=[0, 2],
            class_mask=[True] * 2 + [False, True],
        )
        expected = divergences([-LN2], [0.0, 1.0, 2.0], teacher_ids=[0])
        for name, (loss, grad) in found.items():
            wanted, slopes = expected[name]
            assert (loss, grad) == (wanted, [slopes[0], slopes[1], 0.0, slopes[2]])


def test_sparse_teacher_that_does_not_add_up_to_one_is_divided_by_its_sum() -> None:
    # 1/2 and 3/4 are p = 2/5, 3/5, and nothing is left for the others; q = 1/4, 1/4, 1/2.
    teacher, ids, student = [-LN2, math.log(0.75)], [0, 1], [0.0, 0.0, 0.0, 0.0]
    loss, grad = reference.kl_divergence_with_grad(teacher, student, teacher_ids=ids)
    assert loss == near(0.4 * math.log(1.6) + 0.6 * math.log(2.4))
    assert grad == near([1 / 4 - 0.4, 1 / 4 - 0.6, 1 / 4, 1 / 4])
    reverse = reference.kl_divergence(teacher, student, teacher_ids=ids, direction="reverse")
    assert reverse == INF
    # Less than one, and no class for the rest.
    for direction in ("forward", "reverse"):
        loss, grad = reference.kl_divergence_with_grad(
            [-LN2], [3.0], teacher_ids=[0], direction=direction
        )
        assert (loss, grad) == (0.0, [0.0])


@pytest.mark.parametrize("bad", [NAN, INF])
def test_sparse_teacher_that_is_no_logarithm_makes_its_row_nan(bad: float) -> None:
    for loss, grad in divergences([bad, -1.0], [0.0, 1.0, 2.0], teacher_ids=[0, 1]).values():
        assert (loss, grad) == (near(NAN), near([NAN] * 3))


def test_sparse_teacher_keeps_the_digits_of_what_is_left() -> None:
    left = 1e-100
    found = reference.kl_divergence([-left], [0.0, -300.0], teacher_ids=[0], direction="reverse")
    with mpmath.workdps(300):
        q = 1 / (1 + mpmath.exp(300))
        p = -mpmath.expm1(-mpmath.mpf(left))
        exact = (1 - q) * (mpmath.log1p(-q) - mpmath.log1p(-p)) + q * mpmath.log(q / p)
    assert found == near(float(exact), 1e-14)


def test_sparse_teacher_along_any_axis() -> None:
    student = [[[0.0, 3.0], [1.0, -2.0], [0.5, 0.5]]]  # (1, V, 2)
    loss, grad = reference.kl_divergence_with_grad(
        [[[-1.0], [-2.0]]], student, axis=1, teacher_ids=[[[2], [0]]], reduction="none"
    )
    for t, (log_p, y) in enumerate([(-1.0, 2), (-2.0, 0)]):
        column = [row[t] for row in student[0]]
        expected, slopes = reference.kl_divergence_with_grad([log_p], column, teacher_ids=[y])
        assert loss[0][t] == expected
        assert [row[t] for row in grad[0]] == slopes


# Reductions.


@pytest.mark.parametrize("function", ["kl_divergence", "js_divergence"])
def test_reductions_leave_ignored_rows_unread(function: str) -> None:
    call, with_grad = getattr(reference, function), getattr(reference, f"{function}_with_grad")
    teacher, student = [TEACHER, [NAN, NAN], [0.0, 0.0]], [STUDENT, [1.0, 2.0], STUDENT]
    options: dict[str, Any] = {"ignore_rows": [False, True, False]}
    loss, slopes = with_grad(TEACHER, STUDENT)
    assert call(teacher, student, **options, reduction="none") == [loss, 0.0, 0.0]
    assert call(teacher, student, **options, reduction="sum") == near(loss)
    assert call(teacher, student, **options) == near(loss / 2)
    assert call(teacher, student, **options, normalizer=4) == near(loss / 4)
    assert call(
        teacher, student, **options, reduction="sequence_mean", offsets=[0, 1, 1, 3]
    ) == near(loss / 3)
    cubes = ([teacher], [student])
    assert call(*cubes, ignore_rows=[options["ignore_rows"]], reduction="sequence_mean") == near(
        loss
    )
    answer = with_grad(teacher, student, **options, grad_output=3.0)
    assert answer == (near(loss / 2), [near([1.5 * x for x in slopes]), [0.0] * 2, [0.0] * 2])
    _, grad = with_grad(teacher, student, **options, reduction="none", grad_output=[-1.0, 5.0, 2.0])
    assert grad == [near([-x for x in slopes]), [0.0] * 2, [0.0] * 2]
    nothing = with_grad(teacher, student, ignore_rows=[True] * 3)
    assert nothing == (near(NAN), [[0.0] * 2] * 3)
    assert call(teacher, student, ignore_rows=[True] * 3, on_empty="zero") == 0.0
    with pytest.raises(ValueError, match=r"^reduction: expected something to take the mean of"):
        call(teacher, student, ignore_rows=[True] * 3, on_empty="raise")


def test_ids_of_ignored_rows_are_not_read() -> None:
    loss = reference.kl_divergence(
        [[NAN, NAN], [-LN2, -LN2]],
        [[0.0, 0.0], [0.0, 0.0]],
        teacher_ids=[[9, 9], [0, 1]],
        ignore_rows=[True, False],
    )
    assert loss == pytest.approx(0.0, abs=1e-16)


def test_classes_along_any_axis() -> None:
    rows = ([[LN3, 1.0], [0.0, 2.0]], [[7.0, 0.0], [7.0, 0.0]])
    for direction, turned in itertools.product(("forward", "reverse"), (False, True)):
        teacher, student = (
            [list(column) for column in zip(*each, strict=True)] if turned else each
            for each in rows
        )
        loss = reference.kl_divergence(
            teacher, student, axis=1 if turned else 0, direction=direction, reduction="none"
        )
        assert loss[0] == reference.kl_divergence(TEACHER, STUDENT, direction=direction)


# Bad input.

SQUARE = [[1.0, 2.0], [3.0, 4.0]]
BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([1.0, 2.0], {}, ValueError, "teacher_logits: expected shape (2, 2) to match student_logits"),
    ([["1"]], {}, TypeError, "teacher_logits: expected numbers"),
    (SQUARE, {"teacher": "probs"}, ValueError, "teacher: expected one of ('logits', 'prob"),
    (SQUARE, {"temperature": 0.0}, ValueError, "temperature: expected a finite number above 0"),
    (SQUARE, {"valid_classes": 3}, ValueError, "valid_classes: expected 1 to 2, got 3"),
    (SQUARE, {"class_mask": [1, 1]}, TypeError, "class_mask: expected True or False, got int"),
    (SQUARE, {"ignore_rows": [True]}, ValueError, "ignore_rows: expected shape (2,) to match stud"),
    (SQUARE, {"ignore_rows": [0, 1]}, TypeError, "ignore_rows: expected True or False, got int"),
    (SQUARE, {"reduction": "avg"}, ValueError, "reduction: expected one of"),
    (SQUARE, {"axis": 2}, IndexError, "axis: expected -2 to 1 for student_logits (2, 2), got 2"),
    (SQUARE, {"teacher_ids": [0, 1]}, ValueError, "teacher_ids: expected shape (2,) and one more"),
    (SQUARE, {"teacher_ids": 0}, ValueError, "teacher_ids: expected shape (2,) and one more axis"),
    (SQUARE, {"teacher_ids": [[0], [1]]}, ValueError, "teacher_logits: expected shape (2, 1) of"),
    (
        SQUARE,
        {"teacher_ids": [[0, 1], [2, 0]]},
        IndexError,
        "teacher_ids[1, 0] = 2 is outside [0, 2",
    ),
    (SQUARE, {"teacher_ids": [[0, -1], [1, 0]]}, IndexError, "teacher_ids[0, 1] = -1 is outside"),
    (SQUARE, {"teacher_ids": [[0, 1], [1, 1]]}, ValueError, "teacher_ids[1, 1] = 1: expected each"),
    (
        SQUARE,
        {"teacher_ids": [[0.0, 1.0]] * 2},
        TypeError,
        "teacher_ids: expected integers, got fl",
    ),
    (
        SQUARE,
        {"teacher_ids": [[0, 1]] * 2, "teacher": "probabilities"},
        ValueError,
        "teacher: expected 'logits' with teacher_ids, got 'probabilities'",
    ),
]


@pytest.mark.parametrize(("teacher_logits", "options", "error", "message"), BAD)
def test_bad_input_is_named(
    teacher_logits: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for name in ("kl_divergence", "js_divergence_with_grad"):
        with pytest.raises(error) as caught:
            getattr(reference, name)(teacher_logits, SQUARE, **options)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("beta", [-0.1, 1.1, NAN])
def test_beta_is_from_0_to_1(beta: float) -> None:
    with pytest.raises(ValueError, match=r"^beta: expected a number from 0 to 1, got "):
        reference.js_divergence(SQUARE, SQUARE, beta=beta)


def test_direction_is_one_of_two() -> None:
    with pytest.raises(ValueError, match=r"^direction: expected one of \('forward', 'reverse'\)"):
        reference.kl_divergence(SQUARE, SQUARE, direction="backward")


def test_rows_have_classes() -> None:
    with pytest.raises(ValueError, match=r"^student_logits: expected at least one class"):
        reference.kl_divergence([[]], [[]])

"""The reference is the specification, so its own answers come from outside this package.

They are literals worked by hand, numbers that the field's texts print, finite differences, and
mpmath at 60 digits. Nothing here knows the compiled core; that the core agrees with the reference
is for other files to test.
"""

import math
import random
import sys
from typing import Any

import mpmath
import pytest
from common import near
from softxent import reference

INF, NAN = math.inf, math.nan
LN2 = 0.6931471805599453
EPSILON = sys.float_info.epsilon  # one ulp of 1.0: the unit of a relative error bound
TEXT = [3.2, 1.0, -0.5, 2.5]  # the next word: mat, hat, sat, rug


def flat(nested: Any) -> list[float]:
    if not isinstance(nested, list):
        return [nested]
    return [number for part in nested for number in flat(part)]


# Worked numbers.


def test_softmax_gives_the_worked_probabilities() -> None:
    assert reference.softmax([12.4, -3.2, 0.1]) == near([0.999995, 1.68e-7, 4.55e-6], 2e-3)
    assert reference.softmax([12.4, -3.2, 0.1])[0] == pytest.approx(0.999995, abs=5e-7)
    assert reference.softmax(TEXT) == pytest.approx([0.6127, 0.0679, 0.0151, 0.3043], abs=5e-5)


def test_logsumexp_is_the_log_of_the_worked_sum() -> None:
    assert math.exp(reference.logsumexp(TEXT)) == pytest.approx(40.04, abs=5e-3)


def test_log_softmax_gives_the_worked_logs() -> None:
    expected = [-0.4899, -2.6899, -4.1899, -1.1899]
    assert reference.log_softmax(TEXT) == pytest.approx(expected, abs=5e-5)


def test_loss_and_gradient_give_the_worked_numbers() -> None:
    loss, grad = reference.cross_entropy_with_grad(TEXT, 0)
    assert loss == pytest.approx(0.4899, abs=5e-5)
    assert grad == pytest.approx([0.6127 - 1, 0.0679, 0.0151, 0.3043], abs=5e-5)
    assert reference.cross_entropy(TEXT, 0) == loss


@pytest.mark.parametrize(
    ("p", "loss"), [(0.80, 0.223), (0.60, 0.511), (0.01, 4.605), (0.001, 6.908)]
)
def test_loss_is_minus_log_of_the_probability(p: float, loss: float) -> None:
    logits = [math.log(p), math.log(1 - p)]
    assert reference.cross_entropy(logits, 0) == pytest.approx(loss, abs=5e-4)
    assert reference.cross_entropy(logits, 0) == near(-math.log(p), 1e-13)


def test_only_the_target_counts() -> None:
    logits = [math.log(p) for p in (0.80, 0.15, 0.05)]
    assert reference.cross_entropy(logits, 0) == near(0.22314355131420976, 1e-14)


def test_temperature_divides_the_logits() -> None:
    sharp, flattened = [6.4, 2.0, -1.0, 5.0], [1.6, 0.5, -0.25, 1.25]
    for temperature, scaled in ((0.5, sharp), (2.0, flattened)):
        for name in ("softmax", "log_softmax", "logsumexp"):
            function = getattr(reference, name)
            assert function(TEXT, temperature=temperature) == near(function(scaled))
        loss, grad = reference.cross_entropy_with_grad(TEXT, 3, temperature=temperature)
        scaled_loss, scaled_grad = reference.cross_entropy_with_grad(scaled, 3)
        assert loss == near(scaled_loss)
        assert grad == near([g / temperature for g in scaled_grad])
    assert reference.softmax(TEXT, temperature=0.5)[0] > 0.75
    assert reference.softmax(TEXT, temperature=2.0)[0] < 0.50


# Reductions. A row of two equal logits costs ln 2, one of four costs 2 ln 2, with -inf as padding.

ONE_BIT, TWO_BITS = [0.0, 0.0, -INF, -INF], [5.0, 5.0, 5.0, 5.0]


def test_reductions_of_known_rows() -> None:
    logits, targets = [ONE_BIT, TWO_BITS, TWO_BITS, ONE_BIT], [1, 3, -100, 0]

    def loss(**options: Any) -> Any:
        return reference.cross_entropy(logits, targets, **options)

    assert loss(reduction="none") == near([LN2, 2 * LN2, 0.0, LN2])
    assert loss(reduction="sum") == near(4 * LN2)
    assert loss(reduction="mean") == near(4 * LN2 / 3)
    assert loss() == near(4 * LN2 / 3)
    assert loss(normalizer=8) == near(LN2 / 2)
    assert loss(reduction="sequence_mean", offsets=[0, 1, 4]) == near(2 * LN2)
    assert loss(reduction="sequence_mean", offsets=[0, 1, 1, 1, 4]) == near(LN2)


def test_sequence_mean_divides_by_the_first_axis_of_three() -> None:
    logits = [[ONE_BIT, ONE_BIT, TWO_BITS], [TWO_BITS, TWO_BITS, TWO_BITS]]
    targets = [[0, 1, 2], [3, -100, -100]]
    loss = reference.cross_entropy(logits, targets, reduction="sequence_mean")
    assert loss == near(3 * LN2)
    ignored = [[-100] * 3] * 2
    assert reference.cross_entropy(logits, ignored, reduction="sequence_mean") == 0.0


def test_sequence_mean_takes_packed_rows_of_any_rank() -> None:
    loss = reference.cross_entropy(
        [[ONE_BIT, TWO_BITS]], [[0, 0]], reduction="sequence_mean", offsets=[0, 1, 2]
    )
    assert loss == near(1.5 * LN2)


@pytest.mark.parametrize(
    ("options", "scales"),
    [
        ({"reduction": "none"}, [1, 1]),
        ({"reduction": "none", "grad_output": 3}, [3, 3]),
        ({"reduction": "none", "grad_output": [3.0, 99.0, -2.0]}, [3, -2]),
        ({"reduction": "sum", "grad_output": 3}, [3, 3]),
        ({"reduction": "mean"}, [0.5, 0.5]),
        ({"reduction": "mean", "grad_output": 3.0}, [1.5, 1.5]),
        ({"reduction": "mean", "normalizer": 4}, [0.25, 0.25]),
        ({"reduction": "sequence_mean", "offsets": [0, 0, 3, 3, 3]}, [0.25, 0.25]),
    ],
)
def test_gradient_is_scaled_by_reduction_and_grad_output(
    options: dict[str, Any], scales: list[float]
) -> None:
    # p = (1/4, 1/4, 1/4, 1/4) and p = (1/2, 1/2, 0, 0), with an ignored row between them.
    logits, targets = [TWO_BITS, TWO_BITS, ONE_BIT], [1, -100, 0]
    _, grad = reference.cross_entropy_with_grad(logits, targets, **options)
    first, second = scales
    assert grad[0] == near([first / 4, -3 * first / 4, first / 4, first / 4])
    assert grad[1] == [0.0, 0.0, 0.0, 0.0]
    assert grad[2] == near([-second / 2, second / 2, 0.0, 0.0])


@pytest.mark.parametrize(
    ("ignore_index", "losses"),
    [
        (-100, [2 * LN2, 2 * LN2]),
        (2, [0.0, 2 * LN2]),
        ([7, 2, 1], [0.0, 0.0]),
        (range(1, 2), [2 * LN2, 0.0]),
        ((), [2 * LN2, 2 * LN2]),
        (None, [2 * LN2, 2 * LN2]),
    ],
)
def test_ignore_index_is_one_or_several_or_none(ignore_index: Any, losses: list[float]) -> None:
    logits = [TWO_BITS, TWO_BITS]
    loss = reference.cross_entropy(logits, [2, 1], ignore_index=ignore_index, reduction="none")
    assert loss == near(losses)


def test_without_ignore_index_no_id_is_exempt() -> None:
    with pytest.raises(IndexError, match=r"^targets\[0\] = -100 is outside \[0, 4\)$"):
        reference.cross_entropy([TWO_BITS], [-100], ignore_index=None)


@pytest.mark.parametrize("junk", [NAN, INF, -INF, 1e308])
def test_ignored_row_is_not_read(junk: float) -> None:
    logits = [[junk, 0.0, junk], [1.0, 1.0, -INF]]
    loss, grad = reference.cross_entropy_with_grad(logits, [50257, 1], ignore_index=50257)
    assert loss == near(LN2)
    assert grad == [[0.0, 0.0, 0.0], near([0.5, -0.5, 0.0])]


# Nothing to average: all ignored, no row, no sequence. V = 3 and N = 0 are rows along axis 0.

NO_ROWS: list[list[float]] = [[], [], []]
NOTHING: list[tuple[Any, Any, dict[str, Any]]] = [
    ([[1.0, NAN, 3.0]], [-100], {}),
    (NO_ROWS, [], {"axis": 0}),
    (NO_ROWS, [], {"axis": 0, "reduction": "sequence_mean", "offsets": [0]}),
]


@pytest.mark.parametrize(("logits", "targets", "options"), NOTHING)
def test_on_empty_decides_the_mean_of_nothing(
    logits: Any, targets: Any, options: dict[str, Any]
) -> None:
    zeros = [[0.0] * len(row) for row in logits]
    loss, grad = reference.cross_entropy_with_grad(logits, targets, **options)
    assert (math.isnan(loss), grad) == (True, zeros)
    answer = reference.cross_entropy_with_grad(logits, targets, on_empty="zero", **options)
    assert answer == (0.0, zeros)
    with pytest.raises(ValueError, match=r"^reduction: expected something to take the .*mean of"):
        reference.cross_entropy(logits, targets, on_empty="raise", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "sum"},
        {"normalizer": 2.0},
        {"reduction": "sequence_mean", "offsets": [0, 1]},
    ],
)
def test_sums_of_nothing_are_zero_whatever_on_empty(options: dict[str, Any]) -> None:
    loss, grad = reference.cross_entropy_with_grad([[NAN]], [-100], on_empty="raise", **options)
    assert (loss, grad) == (0.0, [[0.0]])


def test_no_rows_give_empty_lists() -> None:
    loss, grad = reference.cross_entropy_with_grad(NO_ROWS, [], axis=0, reduction="none")
    assert (loss, grad) == ([], [[], [], []])
    assert reference.softmax(NO_ROWS, axis=0) == [[], [], []]
    assert reference.logsumexp(NO_ROWS, axis=0) == []


def test_no_classes() -> None:
    assert reference.logsumexp([]) == -INF
    assert reference.logsumexp([[], []]) == [-INF, -INF]
    assert reference.softmax([[], []]) == [[], []]
    assert reference.log_softmax([]) == []
    with pytest.raises(ValueError, match=r"^logits: expected at least one class, got shape \(1, 0"):
        reference.cross_entropy([[]], [-100])


# Extremes: row, target; then softmax, lse, loss, gradient.

NANS = [NAN, NAN, NAN]
BIG = sys.float_info.max
EXTREMES: list[tuple[list[float], int, list[float], float, float, list[float]]] = [
    ([0.0, NAN, 1.0], 0, NANS, NAN, NAN, NANS),
    ([NAN, INF, -INF], 1, NANS, NAN, NAN, NANS),
    ([INF, NAN, 0.0], 1, NANS, NAN, NAN, NANS),
    ([0.0, INF, 1.0], 0, NANS, INF, NAN, NANS),
    ([INF, INF, -INF], 2, NANS, INF, NAN, NANS),
    ([-INF, -INF, -INF], 0, NANS, -INF, NAN, NANS),
    ([-INF, 2.0, 2.0], 1, [0.0, 0.5, 0.5], 2 + LN2, LN2, [0.0, -0.5, 0.5]),
    ([-INF, 2.0, 2.0], 0, [0.0, 0.5, 0.5], 2 + LN2, INF, [-1.0, 0.5, 0.5]),
    ([-INF, -INF, 7.0], 2, [0.0, 0.0, 1.0], 7.0, 0.0, [0.0, 0.0, 0.0]),
    ([1e30, 1e30, -INF], 1, [0.5, 0.5, 0.0], 1e30, LN2, [0.5, -0.5, 0.0]),
    ([-1e30, -1e30, -INF], 0, [0.5, 0.5, 0.0], -1e30, LN2, [-0.5, 0.5, 0.0]),
    ([BIG, BIG, -BIG], 1, [0.5, 0.5, 0.0], BIG, LN2, [0.5, -0.5, 0.0]),
    ([BIG, BIG, -BIG], 2, [0.5, 0.5, 0.0], BIG, INF, [0.5, 0.5, -1.0]),
    ([1e20, 0.0, 0.0], 1, [1.0, 0.0, 0.0], 1e20, 1e20, [1.0, -1.0, 0.0]),
]


@pytest.mark.parametrize(("row", "target", "softmax", "lse", "loss", "grad"), EXTREMES)
def test_extremes_touch_only_their_own_row(
    row: list[float], target: int, softmax: list[float], lse: float, loss: float, grad: list[float]
) -> None:
    with_neighbour = [row, [0.0, 0.0, -INF]]
    assert reference.softmax(with_neighbour) == [near(softmax), near([0.5, 0.5, 0.0])]
    assert reference.logsumexp(with_neighbour) == near([lse, LN2])
    answer = reference.cross_entropy_with_grad(with_neighbour, [target, 1], reduction="none")
    assert answer == (near([loss, LN2]), [near(grad), near([0.5, -0.5, 0.0])])
    assert reference.log_softmax(row)[target] == near(-loss)


def test_total_beyond_the_doubles_is_infinite() -> None:
    logits = [[BIG, 0.0], [BIG, 0.0]]
    assert reference.cross_entropy(logits, [1, 1], reduction="sum") == INF


# Digits.


def test_confident_row_keeps_the_digits_of_its_loss() -> None:
    # exp(-27.631021115928547) = 1e-12. lse - x_y would be 0, and p - 1 right to four digits.
    loss, grad = reference.cross_entropy_with_grad([127.631021115928547, 100.0], 0)
    assert loss == near(1e-12, 1e-11)
    assert grad == near([-1e-12, 1e-12], 1e-11)
    assert reference.log_softmax([27.631021115928547, 0.0])[0] == near(-1e-12, 1e-11)
    loss, grad = reference.cross_entropy_with_grad([700.0, 0.0, 0.0], 0)
    assert loss == near(2 * math.exp(-700))
    assert grad[0] == near(-2 * math.exp(-700))


def test_totals_are_exact_sums_rounded_once() -> None:
    # Doubles near 1e17 are 16 apart: a running sum loses each ln 2, while 20 of them are 13.9.
    losses = [[1e17, 0.0]] + [[0.0, 0.0]] * 20
    assert reference.cross_entropy(losses, [1] * 21, reduction="sum") == 1e17 + 16
    # 2 ** 14 classes of 2 ** -54 beside a 1: a running sum stays at 1.
    row = [0.0] + [-54 * LN2] * 2**14
    assert reference.softmax(row)[0] == near(1 / (1 + 2**-40), EPSILON / 4)


def random_rows() -> dict[str, tuple[list[float], float]]:
    """Rows and temperatures by name."""
    generator = random.Random(20)
    row = [generator.gauss(0.0, 1.0) for _ in range(100)]
    rows = {
        "near one-hot": ([*row, 40.0], 1.0),
        "with -inf": ([*row, -INF], 1.0),
        "sorted, sharpened": (sorted(row), 0.3),
        "equal": ([1.5] * 100, 1.0),
        "shifted, flattened": ([300.0 + x for x in row], 3.0),
    }
    for classes in (1, 2, 7, 300):
        for scale in (1.0, 10.0, 100.0):
            row = [generator.gauss(0.0, scale) for _ in range(classes)]
            rows[f"{classes} classes x {scale}"] = (row, 1.0)
    return rows


@pytest.mark.parametrize("name", random_rows())
def test_agrees_with_sixty_digits(name: str) -> None:
    row, temperature = random_rows()[name]
    with mpmath.workdps(60):
        scaled = [mpmath.mpf(x) / mpmath.mpf(temperature) for x in row]
        total = mpmath.fsum(map(mpmath.exp, scaled))
        exact_lse = mpmath.log(total)
        exact_p = [mpmath.exp(s) / total for s in scaled]
        top = float(max(scaled))
        lse = reference.logsumexp(row, temperature=temperature)
        assert abs(lse - exact_lse) <= 2 * EPSILON * max(abs(lse), abs(top))

        # The cost in ulp of the few roundings, and of one in each x_i - x_max before the exp.
        ulps = [4 + (top - float(s)) for s in scaled]
        p = reference.softmax(row, temperature=temperature)
        log_p = reference.log_softmax(row, temperature=temperature)
        for i, exact in enumerate(exact_p):
            if exact > sys.float_info.min:
                assert abs(p[i] - exact) <= EPSILON * ulps[i] * exact

        mean_ulps = mpmath.fsum(q * u for q, u in zip(exact_p, ulps, strict=True) if q)
        for target in {row.index(max(row)), 0, len(row) // 2}:
            others = [i for i in range(len(row)) if i != target]
            # lse - x_y would lose all 60 digits where the loss is below 1e-60.
            ratios = mpmath.fsum(mpmath.exp(scaled[i] - scaled[target]) for i in others)
            exact_nll = mpmath.log1p(ratios)
            exact_slope = -mpmath.fsum(exact_p[i] for i in others) / temperature
            from_others = mpmath.fsum(exact_p[i] * ulps[i] for i in others if exact_p[i])
            loss, grad = reference.cross_entropy_with_grad(row, target, temperature=temperature)
            assert abs(loss - exact_nll) <= EPSILON * (2 * exact_nll + from_others)
            assert loss == -log_p[target]
            bound = (5 + mean_ulps) * abs(exact_slope) + from_others / temperature
            assert abs(grad[target] - exact_slope) <= EPSILON * bound
            for i in others:
                if exact_p[i] > sys.float_info.min:
                    slope = exact_p[i] / temperature
                    assert abs(grad[i] - slope) <= EPSILON * (2 + ulps[i]) * slope


# Gradients.

GRADIENT_OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"reduction": "sum", "grad_output": -1.5},
    {"reduction": "none", "grad_output": [[1.0, 2.0], [-3.0, 0.5]]},
    {"reduction": "sequence_mean", "temperature": 2.5},
    {"normalizer": 7.0},
]


@pytest.mark.parametrize("options", GRADIENT_OPTIONS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gradient_agrees_with_finite_differences(axis: int, options: dict[str, Any]) -> None:
    generator = random.Random(7)
    shape = [2, 2, 2]
    shape[axis] = 5
    a, b, c = shape
    targets = [[3, 0], [-100, 4]]
    values = [generator.gauss(0.0, 2.0) for _ in range(a * b * c)]
    loss_options = {key: value for key, value in options.items() if key != "grad_output"}
    factors = flat(options.get("grad_output", 1.0))

    def nested(numbers: list[float]) -> list[list[list[float]]]:
        return [
            [[numbers[(i * b + j) * c + k] for k in range(c)] for j in range(b)] for i in range(a)
        ]

    def following(numbers: list[float]) -> float:
        """What comes after the loss: the sum of factor * loss."""
        losses = flat(reference.cross_entropy(nested(numbers), targets, axis=axis, **loss_options))
        return sum(factor * loss for factor, loss in zip(factors, losses, strict=True))

    _, grad = reference.cross_entropy_with_grad(nested(values), targets, axis=axis, **options)
    step = 1e-5
    for i, slope in enumerate(flat(grad)):
        up, down = list(values), list(values)
        up[i] += step
        down[i] -= step
        difference = (following(up) - following(down)) / (2 * step)
        assert slope == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_gradient_of_a_row_sums_to_zero(scale: float) -> None:
    generator = random.Random(3)
    row = [generator.gauss(0.0, scale) for _ in range(200)]
    for target in (0, 99, row.index(max(row))):
        _, grad = reference.cross_entropy_with_grad(row, target)
        assert abs(math.fsum(grad)) <= 2 * EPSILON * abs(grad[target])


def test_exact_shift_of_a_row_changes_no_bit() -> None:
    row, shifted = [0.25, -3.5, 2.0, 1.125], [1024.25, 1020.5, 1026.0, 1025.125]
    assert reference.softmax(shifted) == reference.softmax(row)
    for target in range(4):
        answer = reference.cross_entropy_with_grad(row, target)
        assert reference.cross_entropy_with_grad(shifted, target) == answer


# Shapes.

CUBE = [[[1.0, 2.0], [0.0, 5.0], [1.0, -1.0]], [[3.0, 3.0], [2.0, 4.0], [1.0, 0.0]]]  # (2, 3, 2)


def test_any_axis_is_a_row_of_its_own() -> None:
    for name in ("softmax", "log_softmax"):
        function = getattr(reference, name)
        answer = function(CUBE, 1)
        assert function(CUBE, axis=-2) == answer
        for b in range(2):
            for t in range(2):
                column = [CUBE[b][v][t] for v in range(3)]
                assert [answer[b][v][t] for v in range(3)] == function(column)
        first = function(CUBE, axis=0)
        assert [first[0][2][1], first[1][2][1]] == function([-1.0, 0.0])
        assert function(CUBE)[1][2] == function([1.0, 0.0])


def test_keepdims_keeps_the_axis_with_length_one() -> None:
    a, b, c, d = (
        reference.logsumexp(column)
        for column in ([1.0, 0.0, 1.0], [2.0, 5.0, -1.0], [3.0, 2.0, 1.0], [3.0, 4.0, 0.0])
    )
    assert reference.logsumexp(CUBE, axis=1) == [[a, b], [c, d]]
    assert reference.logsumexp(CUBE, axis=1, keepdims=True) == [[[a, b]], [[c, d]]]
    assert reference.logsumexp([0.0, 0.0], keepdims=True) == near([LN2])


def test_class_axis_in_the_middle_matches_targets_to_places() -> None:
    loss, grad = reference.cross_entropy_with_grad(CUBE, [[2, 1], [0, 2]], axis=1, reduction="none")
    for b, t, target in ((0, 0, 2), (0, 1, 1), (1, 0, 0), (1, 1, 2)):
        column = [CUBE[b][v][t] for v in range(3)]
        row_loss, row_grad = reference.cross_entropy_with_grad(column, target)
        assert loss[b][t] == row_loss
        assert [grad[b][v][t] for v in range(3)] == row_grad


def test_integers_and_tuples_are_numbers_and_lists() -> None:
    assert reference.softmax(((1, 2), (3, 4))) == reference.softmax([[1.0, 2.0], [3.0, 4.0]])

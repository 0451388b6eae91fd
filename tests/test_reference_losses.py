"""Every option of the reference's losses, against what comes from outside this package.

`test_reference.py` holds the plain losses and reductions, `test_reference_logits.py` softcap and masks,
`test_reference_inputs.py` bad input; here are weights, smoothing, z-loss and probabilities as targets, and
all options at once: literals worked by hand, and the formula written out in mpmath at 80 digits, whose
differences of step 1e-25 are the gradient.
Nothing here knows the compiled core.
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
LN2, LN3 = 0.6931471805599453, 1.0986122886681098
EPSILON = sys.float_info.epsilon


# Weights, smoothing, z-loss. Rows of one and two bits: -log p = ln 2 of two classes, 2 ln 2 of four.

ONE_BIT, TWO_BITS = [0.0, 0.0, -INF, -INF], [5.0, 5.0, 5.0, 5.0]


def test_mean_divides_by_the_weights_of_the_valid_rows() -> None:
    logits, targets = [TWO_BITS, ONE_BIT, TWO_BITS, TWO_BITS], [0, 1, -100, 3]
    options: dict[str, Any] = {"weight": [2.0, 3.0, NAN, -1.0], "sample_weight": [1.0, 2.0, 9.0, 4]}

    def loss(**more: Any) -> Any:
        return reference.cross_entropy(logits, targets, **options, **more)

    rows = [4 * LN2, 6 * LN2, 0.0, -8 * LN2]
    assert loss(reduction="none") == near(rows)
    assert loss(reduction="sum") == near(2 * LN2)
    assert loss() == near(2 * LN2 / (2 + 6 - 4))
    assert loss(normalizer=8) == near(LN2 / 4)
    assert loss(reduction="sequence_mean", offsets=[0, 4]) == near(2 * LN2)
    _, grad = reference.cross_entropy_with_grad(logits, targets, **options)
    assert grad == [
        near([-0.375, 0.125, 0.125, 0.125]),
        near([0.75, -0.75, 0.0, 0.0]),
        [0.0, 0.0, 0.0, 0.0],
        near([-0.25, -0.25, -0.25, 0.75]),
    ]


@pytest.mark.parametrize("junk", [NAN, INF, 1e308])
def test_row_of_sample_weight_zero_is_like_an_ignored_one(junk: float) -> None:
    logits, weights = [[junk, junk], [0.0, 0.0]], [0.0, 2.0]
    answer = reference.cross_entropy_with_grad(logits, [0, 1], sample_weight=weights)
    assert answer == (near(LN2), [[0.0, 0.0], near([0.5, -0.5])])
    losses = reference.cross_entropy(logits, [0, 1], sample_weight=weights, reduction="none")
    assert losses == near([0.0, 2 * LN2])
    nothing = reference.cross_entropy_with_grad(logits, [0, 1], sample_weight=[0, -0.0])
    assert nothing == (near(NAN), [[0.0, 0.0], [0.0, 0.0]])
    zero = reference.cross_entropy(logits, [0, 1], sample_weight=[0, 0], on_empty="zero")
    assert zero == 0.0
    with pytest.raises(IndexError, match=r"^targets\[0\] = 7 is outside"):
        reference.cross_entropy(logits, [7, 1], sample_weight=weights)


def test_weights_that_add_up_to_zero_divide_as_ieee_says() -> None:
    logits, targets = [[0.0, 0.0], [0.0, LN3], [NAN, NAN]], [0, 1, -100]
    zero_by_zero = reference.cross_entropy_with_grad(logits, targets, weight=[0.0, 0.0])
    assert zero_by_zero == (near(NAN), [near([NAN, NAN]), near([NAN, NAN]), [0.0, 0.0]])
    loss, grad = reference.cross_entropy_with_grad(logits, targets, weight=[1.0, -1.0])
    assert loss == INF  # (ln 2 - ln 4/3) / 0
    assert grad == [[-INF, INF], [-INF, INF], [0.0, 0.0]]


def test_label_smoothing_takes_from_the_target_and_gives_to_all() -> None:
    logits, log_p = [0.0, LN2, 0.0], [-2 * LN2, -LN2, -2 * LN2]
    loss, grad = reference.cross_entropy_with_grad(logits, 1, label_smoothing=0.3)
    assert loss == near(-0.7 * log_p[1] - 0.1 * sum(log_p))
    assert grad == near([0.25 - 0.1, 0.5 - 0.8, 0.25 - 0.1])
    weight = [1.0, 4.0, 2.0]
    loss, grad = reference.cross_entropy_with_grad(
        logits, 1, label_smoothing=0.3, weight=weight, reduction="sum"
    )
    assert loss == near(0.7 * 4 * LN2 + 0.1 * (2 + 4 + 4) * LN2)
    both = 0.7 * 4 + 0.1 * 7
    assert grad == near([both / 4 - 0.1, both / 2 - 3.2, both / 4 - 0.2])


def test_z_loss_is_the_square_of_lse_without_a_class_weight() -> None:
    logits, lse = [1.0, 1.0], 1 + LN2
    loss, grad = reference.cross_entropy_with_grad(
        logits, 0, z_loss=0.1, weight=[3.0, 1.0], sample_weight=2.0, reduction="sum"
    )
    assert loss == near(2 * (3 * LN2 + 0.1 * lse**2))
    assert grad == near([2 * (-1.5 + 0.1 * lse), 2 * (1.5 + 0.1 * lse)])


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"label_smoothing": 0.1}, INF),
        ({"label_smoothing": 0.1, "weight": [1.0, 1.0, 0.0]}, (0.9 + 0.1 * 2 / 3) * LN2),
        ({"label_smoothing": 0.1, "valid_classes": 2}, LN2),
        ({"label_smoothing": 1.0, "weight": [1.0, 1.0, 0.0]}, 2 / 3 * LN2),
        ({"weight": [1.0, 1.0, INF]}, LN2),
        ({"weight": [1.0, 1.0, NAN]}, LN2),
    ],
)
def test_a_class_at_minus_infinity_counts_by_its_coefficient(
    options: dict[str, Any], loss: float
) -> None:
    answer = reference.cross_entropy([0.0, 0.0, -INF], 0, reduction="sum", **options)
    assert answer == near(loss)


# Probabilities as targets.


def test_one_hot_probabilities_are_a_class() -> None:
    logits = [[math.log(p) for p in (0.80, 0.15, 0.05)], [0.3, -1.0, 2.0]]
    one_hot = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert reference.cross_entropy(logits[0], one_hot[0]) == near(0.22314355131420976, 1e-14)
    some: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.2, "z_loss": 0.5},
        {"temperature": 2.0},
    ]
    for options in some:
        answer = reference.cross_entropy_with_grad(logits, one_hot, **options)
        assert answer == reference.cross_entropy_with_grad(logits, [0, 2], **options)
    columns = [list(column) for column in zip(*logits, strict=True)]
    turned = [list(column) for column in zip(*one_hot, strict=True)]
    assert reference.cross_entropy(columns, turned, axis=0) == reference.cross_entropy(
        logits, one_hot
    )


def test_probabilities_are_taken_as_given() -> None:
    logits = [0.0, LN2, 0.0]  # -log p = 2, 1, 2 times ln 2
    loss, grad = reference.cross_entropy_with_grad(logits, [2.0, -1.0, 1])
    assert loss == near((4 - 1 + 2) * LN2)
    assert grad == near([2 * 0.25 - 2, 2 * 0.5 + 1, 2 * 0.25 - 1])
    weighted = reference.cross_entropy(logits, [2.0, -1.0, 1.0], weight=[1.0, 2.0, 0.0])
    assert weighted == near((4 - 2) * LN2)
    nothing = reference.cross_entropy_with_grad(logits, [0.0, 0.0, 0.0])
    assert nothing == (0.0, [0.0, 0.0, 0.0])


def test_mean_over_probabilities_divides_by_the_sample_weights() -> None:
    logits, halves = [TWO_BITS, TWO_BITS, [NAN] * 4], [[0.5, 0.5, 0.0, 0.0]] * 3
    options: dict[str, Any] = {"weight": [4.0] * 4, "sample_weight": [3.0, 1.0, 0.0]}
    loss, grad = reference.cross_entropy_with_grad(logits, halves, **options)
    assert loss == near(8 * LN2)
    assert grad[1] == near([-0.25, -0.25, 0.25, 0.25])
    assert grad[2] == [0.0] * 4
    assert reference.cross_entropy(logits[:2], halves[:2]) == near(2 * LN2)


@pytest.mark.parametrize(
    ("probabilities", "loss", "grad"),
    [
        ([0.5, 0.5, 0.0], LN2, [0.0, 0.0, 0.0]),
        ([0.5, 0.25, 0.25], INF, [0.0, 0.25, 0.0]),
        ([0.5, 0.75, -0.25], -INF, [0.0, -0.25, 0.0]),
        ([NAN, 0.5, 0.5], NAN, [NAN, NAN, 0.0]),
        ([0.5, 0.5, NAN], NAN, [NAN, NAN, 0.0]),
    ],
)
def test_probability_of_a_masked_class(
    probabilities: list[float], loss: float, grad: list[float]
) -> None:
    logits = [[1.0, 1.0, NAN], [0.0, 0.0, 0.0]]
    answer = reference.cross_entropy_with_grad(
        logits, [probabilities, [1.0, 0.0, 0.0]], valid_classes=2, reduction="none"
    )
    assert answer == (near([loss, LN2]), [near(grad), near([-0.5, 0.5, 0.0])])


def test_a_target_that_is_nan_makes_its_row_nan_also_where_the_weight_is_zero() -> None:
    some: list[dict[str, Any]] = [{"weight": [0.0, 1.0]}, {"label_smoothing": 1.0}]
    for options in some:
        answer = reference.cross_entropy_with_grad([0.0, 0.0], [NAN, 1.0], **options)
        assert answer == (near(NAN), near([NAN, NAN]))


def test_probability_of_a_class_at_minus_infinity() -> None:
    logits = [0.0, 0.0, -INF]
    answer = reference.cross_entropy_with_grad(logits, [1.0, 0.0, 0.0])
    assert answer == (near(LN2), near([-0.5, 0.5, 0.0]))
    answer = reference.cross_entropy_with_grad(logits, [0.5, 0.0, 0.5])
    assert answer == (INF, near([0.0, 0.5, -0.5]))


def test_without_a_number_the_shape_tells_targets_apart() -> None:
    empty: list[list[float]] = [[], [], []]
    for targets in ([], empty):
        answer = reference.cross_entropy_with_grad(empty, targets, axis=0, reduction="sum")
        assert answer == (0.0, empty)


# Everything at once, against 80 digits.


def exact_loss(
    row: list[Any], probabilities: dict[int, float], allowed: list[int], options: dict[str, Any]
) -> Any:
    """The loss of a row by its formula, in mpmath."""
    c, temperature = options.get("softcap"), options.get("temperature", 1.0)
    weight = options.get("weight", [1.0] * len(row))
    e, z = mpmath.mpf(options.get("label_smoothing", 0.0)), options.get("z_loss", 0.0)
    s = [(c * mpmath.tanh(x / c) if c else x) / temperature for x in row]
    top = max(s[i] for i in allowed)
    others = [mpmath.exp(s[i] - top) for i in allowed]
    others.remove(1)
    log_total = mpmath.log1p(mpmath.fsum(others))
    nll = [log_total - (x - top) for x in s]
    picked = mpmath.fsum(t * weight[i] * nll[i] for i, t in probabilities.items())
    spread = mpmath.fsum(weight[i] * nll[i] for i in allowed)
    return (1 - e) * picked + e / len(allowed) * spread + z * (top + log_total) ** 2


def exact_slope(i: int, row: list[Any], *rest: Any) -> Any:
    step = mpmath.mpf("1e-25")
    up, down = ([*row[:i], row[i] + sign * step, *row[i + 1 :]] for sign in (1, -1))
    return (exact_loss(up, *rest) - exact_loss(down, *rest)) / (2 * step)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.3},
    "softcap": {"softcap": 5.0},
    "hard softcap": {"softcap": 0.75, "temperature": 0.01},
    "wide softcap": {"softcap": 300.0, "temperature": 2.0},
    "mask": {"class_mask": True},
    "valid classes": {"valid_classes": 4},
    "weights": {"weight": True},
    "smoothing": {"label_smoothing": 0.1},
    "nothing but smoothing": {"label_smoothing": 1.0},
    "z-loss": {"z_loss": 1e-4},
    "all": {
        "temperature": 0.7,
        "softcap": 20.0,
        "valid_classes": 6,
        "class_mask": True,
        "weight": True,
        "label_smoothing": 0.05,
        "z_loss": 1e-3,
    },
}


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("kind", ["class", "probabilities", "negative probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
def test_loss_and_gradient_agree_with_the_formula(name: str, kind: str, scale: float) -> None:
    generator = random.Random(f"{name} {kind} {scale}")
    classes = 8
    options = dict(OPTIONS[name])
    allowed = list(range(options.get("valid_classes", classes)))
    if "class_mask" in options:
        out = generator.choice(allowed[1:])
        allowed.remove(out)
        options["class_mask"] = [i != out for i in range(classes)]
    if "weight" in options:
        options["weight"] = [generator.uniform(0.1, 3.0) for _ in range(classes)]
    row = [generator.gauss(0.0, scale) for _ in range(classes)]
    row[allowed[1]] += 3 * scale
    target: Any = generator.choice(allowed)
    probabilities = {target: 1.0}
    if kind != "class":
        low = 0.0 if kind == "probabilities" else -1.0
        probabilities = {i: generator.uniform(low, 1.0) for i in allowed}
        target = [probabilities.get(i, 0.0) for i in range(classes)]
    loss, grad = reference.cross_entropy_with_grad(row, target, reduction="sum", **options)
    with mpmath.workdps(80):
        exact_row = list(map(mpmath.mpf, row))
        rest = (probabilities, allowed, options)
        # What is added up: with negative numbers in it the sum may be less than any of them.
        terms = ({i: abs(t) for i, t in probabilities.items()}, allowed, options)
        unit = 64 * EPSILON * exact_loss(exact_row, *terms)
        assert abs(loss - exact_loss(exact_row, *rest)) <= unit
        slopes = [exact_slope(i, exact_row, *rest) if i in allowed else 0 for i in range(classes)]
        sizes = [
            sum(abs(t) for t in terms[0].values()) * max(options.get("weight", [1.0]))
            + 2 * options.get("z_loss", 0.0) * abs(reference.logsumexp(row))
        ]
        for got, exact in zip(grad, slopes, strict=True):
            bound = 64 * EPSILON * (abs(exact) + sizes[0] / options.get("temperature", 1.0))
            assert abs(got - exact) <= bound


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"softcap": 60.0},
        {"temperature": 1.3},
        {"weight": [2.0, 3.0, 4.0, 5.0]},
        {"valid_classes": 3},
        {"class_mask": [True, True, False, True]},
        {"softcap": 50.0, "temperature": 0.9, "weight": [0.1, 3.0, 4.0, 5.0], "valid_classes": 2},
    ],
)
def test_confident_row_keeps_its_digits_with_every_option(options: dict[str, Any]) -> None:
    row = [31.0, 0.5, 1.0, -2.0]
    mask = options.get("class_mask", [True] * 4)
    allowed = [i for i in range(options.get("valid_classes", 4)) if mask[i]]
    for target in (0, [1.0, 0.0, 0.0, 0.0]):
        loss, grad = reference.cross_entropy_with_grad(row, target, reduction="sum", **options)
        with mpmath.workdps(80):
            exact_row = list(map(mpmath.mpf, row))
            rest = ({0: 1.0}, allowed, options)
            exact = exact_loss(exact_row, *rest)
            assert 1e-20 < exact < 1e-8
            assert abs(loss - exact) <= 64 * EPSILON * exact
            for i in allowed:
                slope = exact_slope(i, exact_row, *rest)
                assert abs(grad[i] - slope) <= 128 * EPSILON * abs(slope)


def test_smoothing_keeps_the_digits_of_a_gradient_that_nearly_vanishes() -> None:
    # Where p is what smoothing asks for, the gradient is a difference of two equal numbers: exact
    # but for the rounding of the numbers themselves.
    logits = [math.log(9.0), 0.0]  # p = 0.9, 0.1, as asked for by e = 0.2
    _, grad = reference.cross_entropy_with_grad(logits, 0, label_smoothing=0.2)
    assert grad == pytest.approx([0.0, 0.0], abs=2 * EPSILON)
    assert grad[0] == -grad[1]


# The diagonal of the Hessian.


def test_grad_hess_of_known_rows() -> None:
    logits = [[0.0, LN2, 0.0], [NAN, 1.0, 2.0], [3.0, -INF, 3.0]]
    grad, hess = reference.softmax_grad_hess(
        logits, [1, -100, 0], weight=[3.0, 4.0, NAN], sample_weight=[0.5, 1.0, -1.0]
    )
    assert grad == [near([0.5, -1.0, 0.5]), [0.0] * 3, near([1.5, 0.0, -1.5])]
    assert hess == [near([0.375, 0.5, 0.375]), [0.0] * 3, near([-0.75, 0.0, -0.75])]
    ignored = reference.softmax_grad_hess(logits[1:2], [1], sample_weight=[0])
    assert ignored == ([[0.0] * 3], [[0.0] * 3])
    columns = [[0.0, 0.0], [0.0, LN3]]
    grad, hess = reference.softmax_grad_hess(columns, [0, 1], axis=0)
    assert grad == [near([-0.5, 0.25]), near([0.5, -0.25])]
    assert hess == [near([0.25, 3 / 16]), near([0.25, 3 / 16])]


@pytest.mark.parametrize("row", [[NAN, 0.0], [INF, 0.0], [-INF, -INF]])
def test_grad_hess_of_a_row_without_a_softmax_is_nan(row: list[float]) -> None:
    answer = reference.softmax_grad_hess([row, [0.0, 0.0]], [1, 1])
    assert answer[0] == [near([NAN, NAN]), near([0.5, -0.5])]
    assert answer[1] == [near([NAN, NAN]), near([0.25, 0.25])]


@pytest.mark.parametrize("scale", [1.0, 10.0, 40.0])
def test_hessian_is_the_derivative_of_the_gradient(scale: float) -> None:
    generator = random.Random(8)
    row = [generator.gauss(0.0, scale) for _ in range(6)]
    weight = [generator.uniform(0.5, 2.0) for _ in row]
    target = row.index(max(row))
    grad, hess = reference.softmax_grad_hess(row, target, weight=weight)
    assert grad == near(
        reference.cross_entropy_with_grad(row, target, weight=weight, reduction="sum")[1]
    )
    with mpmath.workdps(80):
        exact_row, options = list(map(mpmath.mpf, row)), {"weight": weight}
        rest = ({target: 1.0}, list(range(6)), options)
        step = mpmath.mpf("1e-20")
        for i in range(6):
            up, down = (
                [*exact_row[:i], exact_row[i] + sign * step, *exact_row[i + 1 :]]
                for sign in (1, -1)
            )
            middle = exact_loss(exact_row, *rest)
            bend = exact_loss(up, *rest) + exact_loss(down, *rest) - 2 * middle
            exact = bend / step**2
            # Each gap costs an ulp of itself, and p_i (1 - p_i) has two of them.
            assert abs(hess[i] - exact) <= (16 + 4 * scale) * EPSILON * exact + 1e-38

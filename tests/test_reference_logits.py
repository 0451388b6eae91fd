"""What the reference does to logits before it takes a loss of them: the soft cap, and masks.

Literals worked by hand, and the formula in mpmath at 80 digits. Nothing here knows the compiled core.
"""

import math
from typing import Any

import mpmath
import pytest
from common import near
from softxent import reference

INF, NAN = math.inf, math.nan
LN2, LN3 = 0.6931471805599453, 1.0986122886681098

# Softcap.


def test_softcap_is_c_tanh_of_x_over_c() -> None:
    # tanh(ln 3 / 2) = (3 - 1) / (3 + 1) = 1/2.
    capped = [2 * LN2, 0.0, -2 * LN2]
    logits, c = [2 * LN2 * LN3, 0.0, -2 * LN2 * LN3], 4 * LN2
    total = 4 + 1 + 1 / 4
    assert reference.softmax(logits, softcap=c) == near([4 / total, 1 / total, 0.25 / total])
    assert reference.logsumexp(logits, softcap=c) == near(math.log(total))
    assert reference.log_softmax(logits, softcap=c) == near([s - math.log(total) for s in capped])
    loss, grad = reference.cross_entropy_with_grad(logits, 1, softcap=c)
    assert loss == near(math.log(total))
    chain = [3 / 4, 1.0, 3 / 4]  # 1 - tanh^2
    slopes = [4 / total, -4.25 / total, 0.25 / total]
    assert grad == near([slope * step for slope, step in zip(slopes, chain, strict=True)])


def test_softcap_comes_before_the_temperature() -> None:
    # s = c tanh(x / c) / T is 2 * 1/2 * 2 ln 2, and the chain factor 3/4 * 2.
    options: dict[str, Any] = {"softcap": 2 * LN2, "temperature": 0.5}
    loss, grad = reference.cross_entropy_with_grad([LN2 * LN3, 0.0], 1, **options)
    assert loss == near(math.log(5))
    assert grad == near([0.8 * 1.5, -0.8 * 2])


def test_softcap_makes_infinite_logits_plus_and_minus_c() -> None:
    logits, c = [INF, -INF, INF], LN2 / 2
    assert reference.softmax(logits, softcap=c) == near([0.4, 0.2, 0.4])
    assert reference.logsumexp(logits, softcap=c) == near(LN2 / 2 + math.log(2.5))
    assert reference.cross_entropy_with_grad(logits, 1, softcap=c) == (near(math.log(5)), [0.0] * 3)
    assert reference.softmax([-INF, -INF], softcap=c) == [0.5, 0.5]
    assert reference.logsumexp([-INF, -INF], softcap=c) == near(-LN2 / 2 + LN2)
    nan_row = reference.softmax([NAN, 1.0, INF], softcap=c)
    assert all(map(math.isnan, nan_row))


@pytest.mark.parametrize(
    ("c", "top", "below"),
    [
        (1e8, 5e7 + 1, 5e7),  # c tanh(x / c), of some 4e7, has no digits for a difference of 0.8
        (1e8, -5e7, -5e7 - 1),
        (1e8, 2.0, -1.0),
        (1e12, 1e13 + 1e6, 1e13),  # and here none for one of 8e-3
        (30.0, 28.0, 20.0),
        (30.0, -20.0, -28.0),
        (30.0, INF, 400.0),
        (30.0, -400.0, -INF),
    ],
)
def test_softcap_keeps_the_digits_of_differences(c: float, top: float, below: float) -> None:
    with mpmath.workdps(80):
        gap = c * (mpmath.tanh(mpmath.mpf(below) / c) - mpmath.tanh(mpmath.mpf(top) / c))
        p, log_p = 1 / (1 + mpmath.exp(gap)), -mpmath.log1p(mpmath.exp(gap))
        expected = [float(p), float(mpmath.exp(gap) * p)]
        logs = [float(log_p), float(gap + log_p)]
    assert reference.softmax([top, below], softcap=c) == near(expected)
    assert reference.log_softmax([top, below], softcap=c) == near(logs)


def test_softcap_keeps_the_digits_of_a_confident_row() -> None:
    with mpmath.workdps(60):
        exact = mpmath.log1p(mpmath.exp(-100 * mpmath.tanh(mpmath.mpf(28) / 100)))
    assert 1e-12 < exact < 1e-11
    assert reference.cross_entropy([28.0, 0.0], 0, softcap=100) == near(float(exact), 1e-13)


# Masks.


@pytest.mark.parametrize("junk", [NAN, INF, -INF, 1e308, 7.0])
def test_masked_class_is_not_read(junk: float) -> None:
    logits = [[junk, 0.0, LN2, junk]]
    options: dict[str, Any] = {"class_mask": [False, True, True, True], "valid_classes": 3}
    assert reference.softmax(logits, **options) == [[0.0, near(1 / 3), near(2 / 3), 0.0]]
    log_p = reference.log_softmax(logits, **options)
    assert log_p == [[-INF, near(-LN3), near(LN2 - LN3), -INF]]
    assert reference.logsumexp(logits, **options) == [near(LN3)]
    loss, grad = reference.cross_entropy_with_grad(logits, [1], **options)
    assert (loss, grad) == (near(LN3), [[0.0, near(-2 / 3), near(2 / 3), 0.0]])
    # Smoothing and weights leave the class out as well.
    loss, grad = reference.cross_entropy_with_grad(
        logits, [1], label_smoothing=0.5, weight=[5.0, 1.0, 1.0, NAN], **options
    )
    assert loss == near(0.5 * LN3 + 0.25 * (2 * LN3 - LN2))
    assert grad == [[0.0, near(1 / 3 - 0.75), near(2 / 3 - 0.25), 0.0]]


def test_masked_target_has_infinite_loss_and_gradient_p_elsewhere() -> None:
    logits, mask = [0.0, LN2, 9.0], [True, True, False]
    loss, grad = reference.cross_entropy_with_grad(logits, 2, class_mask=mask)
    assert (loss, grad) == (INF, [near(1 / 3), near(2 / 3), 0.0])
    loss, grad = reference.cross_entropy_with_grad(
        logits, 2, class_mask=mask, weight=[1.0, 1.0, 3.0], reduction="sum"
    )
    assert (loss, grad) == (INF, [near(1.0), near(2.0), 0.0])
    assert reference.cross_entropy(logits, 2, valid_classes=2, reduction="none") == INF
    smoothed = reference.cross_entropy_with_grad(
        logits, 2, class_mask=mask, label_smoothing=0.5, reduction="sum"
    )
    assert smoothed == (INF, [near(1 / 3 - 0.25), near(2 / 3 - 0.25), 0.0])


@pytest.mark.parametrize(
    ("options", "loss", "grad"),
    [
        ({"weight": [1.0, 1.0, 0.0]}, 0.0, [0.0, 0.0, 0.0]),
        ({"label_smoothing": 1.0}, LN2, [0.0, 0.0, 0.0]),
        ({"weight": [1.0, 1.0, 0.0], "z_loss": 1.0}, LN2 * LN2, [LN2, LN2, 0.0]),
    ],
)
def test_masked_target_without_a_coefficient_adds_nothing(
    options: dict[str, Any], loss: float, grad: list[float]
) -> None:
    answer = reference.cross_entropy_with_grad(
        [0.0, 0.0, 9.0], 2, valid_classes=2, reduction="sum", **options
    )
    assert answer == (near(loss), near(grad))


@pytest.mark.parametrize("junk", [NAN, INF, 1.0])
def test_row_with_every_class_masked(junk: float) -> None:
    logits, mask = [[junk, junk], [0.0, 0.0]], [[False, False], [True, True]]
    assert reference.softmax(logits, class_mask=mask) == [[0.0, 0.0], [0.5, 0.5]]
    assert reference.log_softmax(logits, class_mask=mask) == [[-INF, -INF], near([-LN2, -LN2])]
    assert reference.logsumexp(logits, class_mask=mask) == [-INF, near(LN2)]
    some: list[dict[str, Any]] = [
        {},
        {"weight": [0.0, 1.0]},
        {"label_smoothing": 0.5},
        {"z_loss": 1.0},
    ]
    for options in some:
        losses, grad = reference.cross_entropy_with_grad(
            logits, [0, 1], class_mask=mask, reduction="none", **options
        )
        assert math.isnan(losses[0])
        assert losses[1] > 0
        assert grad[0] == [0.0, 0.0]
        assert grad[1][0] > grad[1][1]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_masked_class_stays_at_zero_in_a_row_that_is_nan(bad: float) -> None:
    options: dict[str, Any] = {"valid_classes": 2}
    assert reference.softmax([bad, 0.0, 1.0], **options) == near([NAN, NAN, 0.0])
    assert reference.log_softmax([bad, 0.0, 1.0], **options) == near([NAN, NAN, -INF])
    assert reference.logsumexp([bad, 0.0, 1.0], **options) == near(bad)
    for target in (0, 2):
        answer = reference.cross_entropy_with_grad([bad, 0.0, 1.0], target, **options)
        assert answer == (near(NAN), near([NAN, NAN, 0.0]))


def test_class_mask_lies_along_the_classes_or_broadcasts() -> None:
    logits = [[[0.0, 1.0], [2.0, 5.0], [7.0, 1.0]], [[1.0, 0.0], [3.0, 3.0], [2.0, 2.0]]]
    wide = [[[True, True], [False, False], [True, True]]] * 2
    expected = reference.softmax(logits, 1, class_mask=wide)
    assert expected[0][1] == [0.0, 0.0]
    for mask in (
        [True, False, True],  # (V,), whatever the axis
        [[True], [False], [True]],  # (V, 1)
        [[True, True], [False, False], [True, True]],  # (V, 2)
        [[[True], [False], [True]]],  # (1, V, 1)
        (wide[0],),
    ):
        assert reference.softmax(logits, 1, class_mask=mask) == expected
    # A mask of its own for each row: the first batch without class 1, the second without class 0.
    each = [[[True], [False], [True]], [[False], [True], [True]]]
    answer = reference.softmax(logits, 1, class_mask=each)
    assert answer[0] == expected[0]
    assert answer[1][0] == [0.0, 0.0]
    assert answer[1][1][0] == near(math.e / (math.e + 1))
    assert reference.softmax(logits, 1, class_mask=[True]) == reference.softmax(logits, 1)
    assert reference.softmax(logits, 1, class_mask=True) == reference.softmax(logits, 1)
    one = [[[True, False]]]  # (1, 1, 2): the second place has no class at all
    assert reference.logsumexp(logits, 1, class_mask=one)[1][1] == -INF

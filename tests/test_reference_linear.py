"""The reference's loss of a linear layer: that of the logits written out, and its slopes by small steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from softxent import reference

NAN = math.nan
HIDDEN = [[1.0, 2.0], [0.5, -1.0], [-2.0, 0.25]]
HEAD = [[1.0, 0.5], [-1.0, 0.0], [0.0, 0.25], [0.5, 0.5]]
BIAS = [0.1, -0.2, 0.3, 0.0]
TARGETS = [0, 2, 3]
OPTIONS: dict[str, Any] = {
    "label_smoothing": 0.1,
    "z_loss": 0.01,
    "softcap": 3.0,
    "temperature": 1.5,
}


def test_the_loss_is_that_of_the_logits() -> None:
    logits = [
        [h[0] * w[0] + h[1] * w[1] + b for w, b in zip(HEAD, BIAS, strict=True)] for h in HIDDEN
    ]
    for options in ({}, OPTIONS, {"reduction": "none"}, {"class_mask": [True, False, True, True]}):
        expected = reference.cross_entropy(logits, TARGETS, **options)
        got = reference.linear_cross_entropy(HIDDEN, HEAD, TARGETS, BIAS, **options)
        assert got == pytest.approx(expected, rel=1e-14)


def test_the_next_word_after_the_cat_sat_on_the() -> None:
    identity = [[float(i == j) for j in range(4)] for i in range(4)]
    loss = reference.linear_cross_entropy([3.2, 1.0, -0.5, 2.5], identity, 0)
    assert round(loss, 4) == 0.4899
    loss = reference.linear_cross_entropy([0.0] * 4, identity, 0, [3.2, 1.0, -0.5, 2.5])
    assert round(loss, 4) == 0.4899


def test_gradients_are_what_a_small_step_makes_of_the_loss() -> None:
    _, grads = reference.linear_cross_entropy_with_grad(
        HIDDEN, HEAD, TARGETS, BIAS, reduction="sum", grad_output=-2.0, **OPTIONS
    )

    def loss(hidden: Any = HIDDEN, head: Any = HEAD, bias: Any = BIAS) -> float:
        found = reference.linear_cross_entropy(
            hidden, head, TARGETS, bias, reduction="sum", **OPTIONS
        )
        return -2.0 * float(found)

    def moved(rows: Any, place: tuple[int, int], step: float) -> Any:
        copy = [list(row) for row in rows]
        copy[place[0]][place[1]] += step
        return copy

    step = 1e-5
    for name, rows, grad in (("hidden", HIDDEN, grads[0]), ("head", HEAD, grads[1])):
        for place in [(i, j) for i in range(len(rows)) for j in range(2)]:
            up, down = (loss(**{name: moved(rows, place, by)}) for by in (step, -step))
            assert grad[place[0]][place[1]] == pytest.approx((up - down) / (2 * step), abs=1e-8)
    for i in range(4):
        up, down = (loss(bias=moved([BIAS], (0, i), by)[0]) for by in (step, -step))
        assert grads[2][i] == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_where_the_gradient_is_0_nothing_is_added_whatever_stands_there() -> None:
    hidden, head = [HIDDEN[0], [NAN, NAN]], [*HEAD[:3], [NAN, NAN]]
    loss, grads = reference.linear_cross_entropy_with_grad(
        hidden, head, [0, -100], BIAS, valid_classes=3
    )
    alone, expected = reference.linear_cross_entropy_with_grad(HIDDEN[:1], HEAD[:3], [0], BIAS[:3])
    assert loss == alone
    assert grads == ([expected[0][0], [0.0, 0.0]], [*expected[1], [0.0, 0.0]], [*expected[2], 0.0])


def test_what_is_not_asked_for_is_none() -> None:
    for grads in ([], ["hidden"], ["linear_bias", "linear_weight"]):
        _, found = reference.linear_cross_entropy_with_grad(
            HIDDEN, HEAD, TARGETS, BIAS, grads=grads
        )
        names = ("hidden", "linear_weight", "linear_bias")
        assert [grad is not None for grad in found] == [name in grads for name in names]
    _, found = reference.linear_cross_entropy_with_grad(HIDDEN, HEAD, TARGETS)
    assert found[2] is None


@pytest.mark.parametrize(
    ("named", "call"),
    [
        (
            "grads",
            lambda: reference.linear_cross_entropy_with_grad(HIDDEN, HEAD, TARGETS, grads="h"),
        ),
        ("linear_weight", lambda: reference.linear_cross_entropy(HIDDEN, [[1.0]], TARGETS)),
        ("linear_weight", lambda: reference.linear_cross_entropy(HIDDEN, HEAD[0], TARGETS)),
        ("linear_bias", lambda: reference.linear_cross_entropy(HIDDEN, HEAD, TARGETS, [1.0])),
        ("hidden", lambda: reference.linear_cross_entropy(1.0, HEAD, 0)),
        ("targets", lambda: reference.linear_cross_entropy(HIDDEN, HEAD, [0, 1])),
    ],
)
def test_a_bad_argument_is_named(named: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=named):
        call()

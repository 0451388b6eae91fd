"""The gradient is the derivative of the loss, whatever the options.

Tested without the formula of the gradient: by finite differences of the loss in double precision,
in every logit of small batches and in some of long rows; and by what must hold of such a gradient.
What a loss should be is not known here, nor how many digits of a slope are right.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import softxent as sx
from common import (
    Array,
    Options,
)
from finite_differences import difference_at

CLASSES = 6
SHAPE = (2, 3)  # of the rows
IDS = np.array([[3, 0, 5], [-100, 4, 1]])
WEIGHT = [1.0, 0.0, 2.5, 0.5, -0.75, 1.5]
SAMPLE_WEIGHT = [[2.0, 0.0, -1.0], [1.0, 0.25, 3.0]]
CLASS_MASK = [True, True, False, True, True, True]


def normal(*shape: int, seed: int = 1) -> Array:
    return 2 * np.random.default_rng(seed).standard_normal(shape)


def probabilities(*shape: int) -> Array:
    """Not normalised, some of them 0, one negative."""
    targets = np.random.default_rng(2).random(shape)
    targets[targets < 0.3] = 0.0
    targets.flat[1] = -0.4
    return targets


# Each option alone, then beside those that it has to do with.
SINGLE: list[Options] = [
    {"weight": WEIGHT},
    {"sample_weight": SAMPLE_WEIGHT},
    {"label_smoothing": 0.3},
    {"label_smoothing": 1.0},
    {"z_loss": 0.2},
    {"softcap": 1.5},
    {"softcap": 30.0},
    {"valid_classes": 6},
    {"class_mask": [True, True, False, True, True, True]},
]
TOGETHER: list[Options] = [
    {"weight": WEIGHT, "label_smoothing": 0.3},
    {"weight": WEIGHT, "label_smoothing": 1.0, "sample_weight": SAMPLE_WEIGHT},
    {"weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT, "z_loss": 0.2},
    {"softcap": 1.5, "temperature": 0.7, "z_loss": 0.2},
    {"softcap": 3.0, "temperature": 2.0, "label_smoothing": 0.3, "class_mask": CLASS_MASK},
    {"class_mask": CLASS_MASK, "weight": WEIGHT, "label_smoothing": 0.5, "z_loss": 1e-3},
    {
        "weight": WEIGHT,
        "sample_weight": SAMPLE_WEIGHT,
        "label_smoothing": 0.1,
        "z_loss": 0.05,
        "softcap": 4.0,
        "temperature": 1.5,
        "class_mask": CLASS_MASK,
    },
]
REDUCTIONS: list[Options] = [
    {},
    {"reduction": "sum", "grad_output": -1.5},
    {"reduction": "none", "grad_output": np.array([[1.0, 2.0, -3.0], [0.5, 0.0, 4.0]])},
    {"normalizer": 7.0},
    {"reduction": "sequence_mean", "offsets": [0, 1, 1, 6]},
]


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
@pytest.mark.parametrize("options", SINGLE + TOGETHER, ids=lambda options: ", ".join(options))
@pytest.mark.parametrize("kind", ["ids", "probabilities"])
def test_gradient_is_what_finite_differences_say(
    kind: str, options: Options, reduction: Options
) -> None:
    for axis in range(3):
        shape = (*SHAPE[:axis], CLASSES, *SHAPE[axis:])
        targets = IDS if kind == "ids" else probabilities(*shape)
        keywords = {"axis": axis, **options, **reduction}
        if "class_mask" in options and kind != "ids":
            masked = np.moveaxis(targets, axis, -1)
            masked[..., ~np.array(CLASS_MASK)] = 0.0
        logits = normal(*shape)
        _, grad = sx.cross_entropy_with_grad(logits, targets, **keywords)
        for place in np.ndindex(*shape):
            slope = difference_at(place, 1e-5, logits, targets, **keywords)
            assert grad[place] == pytest.approx(slope, rel=1e-6, abs=2e-9)


@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (4, 1), (6,), ()], ids=str)
def test_gradient_of_masked_logits_is_what_finite_differences_say(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(3).random(shape) < 0.7
    logits, targets = normal(4, 6), [0, 5, 2, 1]
    options: Options = {"class_mask": mask, "z_loss": 0.1, "reduction": "sum"}
    # A row whose target is masked has an infinite loss, which has no differences.
    allowed = np.broadcast_to(mask, (4, 6))[range(4), targets]
    options["sample_weight"] = np.where(allowed, 1.0, 0.0)
    for smoothing, softcap in itertools.product([0.0, 0.4], [None, 2.0]):
        options |= {"label_smoothing": smoothing, "softcap": softcap, "valid_classes": 6}
        _, grad = sx.cross_entropy_with_grad(logits, targets, **options)
        for place in np.ndindex(4, 6):
            slope = difference_at(place, 1e-5, logits, targets, **options)
            assert grad[place] == pytest.approx(slope, rel=1e-6, abs=2e-9)


@pytest.mark.parametrize("kind", ["ids", "probabilities"])
@pytest.mark.parametrize("thresholds", [(None, None, None), (0, None, 1), (0, 0, 1)])
@pytest.mark.parametrize("classes", [70, 1030, 33001])
def test_gradient_of_long_rows_is_what_finite_differences_say(
    classes: int, thresholds: Any, kind: str, set_thresholds: Any
) -> None:
    set_thresholds(*thresholds)
    random = np.random.default_rng(classes)
    # Spread so far that single classes matter.
    logits = 2 * normal(2, classes)
    targets: Any = np.array([0, classes // 2])
    if kind == "probabilities":
        targets = np.where(random.random((2, classes)) < 3 / classes, 0.5, 0.0)
    options: Options = {
        "weight": random.random(classes),
        "label_smoothing": 0.2,
        "z_loss": 0.01,
        "softcap": 20.0,
        "temperature": 1.3,
        "reduction": "sum",
        "valid_classes": classes - 3,
        "class_mask": np.arange(classes) % 7 != 5,
        "threads": 2,
    }
    if kind == "probabilities":
        targets[:, classes - 3 :] = targets[:, 5::7] = 0.0
    _, grad = sx.cross_entropy_with_grad(logits, targets, **options)
    largest = int(np.where(options["class_mask"], logits[0], -99)[: classes - 3].argmax())
    assert abs(grad[0, largest]) > 1e-4
    for row, column in itertools.product((0, 1), (0, 1, 5, 64, largest, classes // 2, classes - 1)):
        slope = difference_at((row, column), 1e-4, logits, targets, **options)
        assert grad[row, column] == pytest.approx(slope, rel=1e-6, abs=2e-8)


# What holds of such gradients.


@pytest.mark.parametrize("kind", ["ids", "probabilities"])
def test_gradient_of_a_row_sums_to_zero_but_for_what_the_lse_is_pulled(kind: str) -> None:
    logits = normal(6, 40)
    targets: Any = np.arange(6) if kind == "ids" else np.abs(probabilities(6, 40))
    mask = np.random.default_rng(4).random((6, 40)) < 0.8
    mask[range(6), range(6)] = True
    targets = targets if kind == "ids" else np.where(mask, targets, 0.0)
    options: Options = {"label_smoothing": 0.3, "class_mask": mask, "reduction": "none"}
    for temperature, z_loss in itertools.product((1.0, 2.5), (0.0, 0.5)):
        options |= {"temperature": temperature, "z_loss": z_loss}
        _, grad = sx.cross_entropy_with_grad(logits, targets, weight=np.arange(40.0), **options)
        lse = sx.logsumexp(logits, class_mask=mask, temperature=temperature)
        sums = 2 * z_loss * lse / temperature
        near = 1e-14 * np.abs(grad).sum(axis=1).max()
        np.testing.assert_allclose(grad.sum(axis=1), sums, rtol=1e-13, atol=near)


def test_gradient_of_a_sum_of_terms_is_the_sum_of_theirs() -> None:
    logits, ids = normal(5, 30), np.arange(5)
    weight, targets = np.abs(normal(30)), np.abs(normal(5, 30, seed=5))

    def grad(of: Any, **options: Any) -> Array:
        return sx.cross_entropy_with_grad(logits, of, reduction="none", **options)[1]

    e, z = 0.3, 0.125
    everywhere = np.broadcast_to(1 / 30, (5, 30))
    for of in (ids, targets):
        whole = grad(of, weight=weight, label_smoothing=e, z_loss=z)
        pull = grad(np.zeros((5, 30)), z_loss=z)
        parts = (1 - e) * grad(of, weight=weight) + e * grad(everywhere, weight=weight) + pull
        np.testing.assert_allclose(whole, parts, rtol=1e-12, atol=1e-14)


def test_sample_weight_scales_the_gradient_of_its_row() -> None:
    logits, ids = normal(5, 30), np.arange(5)
    # Powers of two, so that the scaling itself is exact.
    u = np.array([1.0, -2.0, 0.5, 0.0, 64.0])
    for of in (ids, np.abs(normal(5, 30, seed=5))):
        options: Options = {"reduction": "none", "z_loss": 0.25, "label_smoothing": 0.125}
        _, one = sx.cross_entropy_with_grad(logits, of, **options)
        _, grad = sx.cross_entropy_with_grad(logits, of, sample_weight=u, **options)
        _, after = sx.cross_entropy_with_grad(logits, of, grad_output=u, **options)
        np.testing.assert_allclose(grad, u[:, np.newaxis] * one, rtol=1e-15)
        np.testing.assert_allclose(grad, after, rtol=1e-15)

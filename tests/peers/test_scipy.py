"""The same probabilities, entropies and divergences from SciPy."""

from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import (
    DTYPES,
    assert_close,
    random_logits,
    random_probabilities,
    random_targets,
    rounding_of,
)

special: Any = pytest.importorskip("scipy.special", reason="SciPy is not installed")

SHAPES = ((1, 1), (5, 7), (2, 3, 1000))
of_every_kind = pytest.mark.parametrize(
    ("dtype", "shape", "axis"),
    [(dtype, shape, axis) for dtype in DTYPES for shape in SHAPES for axis in (-1, 0)],
)


@of_every_kind
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_softmax_and_its_logarithms(
    dtype: str, shape: tuple[int, ...], axis: int, temperature: float
) -> None:
    logits = random_logits(shape, dtype)
    wide = logits.astype(np.float64) / temperature
    for ours, theirs, absolute in (
        (sx.softmax, special.softmax, 0.0),
        (sx.log_softmax, special.log_softmax, rounding_of(logits, 1.0)),
        (sx.logsumexp, special.logsumexp, rounding_of(logits, 1.0)),
    ):
        result = ours(logits, axis, temperature=temperature)
        assert_close(result, theirs(wide, axis=axis), absolute=absolute)


@of_every_kind
def test_masked_classes_are_excluded_ones(dtype: str, shape: tuple[int, ...], axis: int) -> None:
    logits = random_logits(shape, dtype)
    mask = np.random.default_rng(4).random(shape) < 0.7
    mask[0] = mask[..., 0] = True
    wide = np.where(mask, logits.astype(np.float64), -np.inf)
    result = sx.softmax(logits, axis, class_mask=mask)
    assert_close(result, special.softmax(wide, axis=axis))


@of_every_kind
def test_entropy_is_that_of_the_probabilities(
    dtype: str, shape: tuple[int, ...], axis: int
) -> None:
    logits = random_logits(shape, dtype)
    rows = np.moveaxis(logits, axis, -1).shape[:-1]
    targets = random_targets(rows, shape[axis])
    found = sx.evaluate(logits, targets, axis=axis).entropy
    p = special.softmax(logits.astype(np.float64), axis=axis)
    assert_close(found, special.entr(p).sum(axis=axis), absolute=rounding_of(logits, 1.0))


@of_every_kind
def test_cross_entropy_of_probabilities(dtype: str, shape: tuple[int, ...], axis: int) -> None:
    logits = random_logits(shape, dtype)
    targets = random_probabilities(shape, axis)
    wide = special.log_softmax(logits.astype(np.float64), axis=axis)
    result = sx.cross_entropy(logits, targets, axis=axis, reduction="none")
    expected = -(targets * wide).sum(axis=axis)
    assert_close(result, expected, absolute=rounding_of(logits, 1.0))


@of_every_kind
@pytest.mark.parametrize("beta", [0.5, 0.25])
def test_divergences_are_sums_of_relative_entropies(
    dtype: str, shape: tuple[int, ...], axis: int, beta: float
) -> None:
    teacher, student = random_logits(shape, dtype, 1), random_logits(shape, dtype, 2)
    p, q = (special.softmax(x.astype(np.float64), axis=axis) for x in (teacher, student))
    absolute = rounding_of(student, 1.0)

    def divergence(a: Any, b: Any) -> Any:
        return special.rel_entr(a, b).sum(axis=axis)

    for direction, expected in (("forward", divergence(p, q)), ("reverse", divergence(q, p))):
        options: dict[str, Any] = {"direction": direction, "reduction": "none", "axis": axis}
        assert_close(sx.kl_divergence(teacher, student, **options), expected, absolute=absolute)
    m = beta * p + (1 - beta) * q
    expected = beta * divergence(p, m) + (1 - beta) * divergence(q, m)
    result = sx.js_divergence(teacher, student, beta=beta, axis=axis, reduction="none")
    assert_close(result, expected, absolute=absolute)

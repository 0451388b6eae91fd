"""The data behind the pictures: against NumPy on all rows at once, and the same however they were cut."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import softxent as sx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from softxent.curves.calibration import Calibration
from softxent.curves.distribution import Distribution
from softxent.curves.positions import BINS, LossByPosition
from softxent.curves.rows import counted
from softxent.curves.temperatures import TemperatureCurve, losses_at

PERCENTS = [0.0, 5.0, 50.0, 99.9, 100.0]


def distribution_of(*batches: Any) -> Distribution:
    found = Distribution()
    for batch in batches:
        found.add(np.asarray(batch))
    return found


# The distribution.


@given(st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=200), st.integers(0, 200))
@settings(deadline=None)
def test_percentiles_are_right_to_one_in_eight_thousand(values: list[float], cut: int) -> None:
    found = distribution_of(values[:cut], values[cut:]).percentiles(PERCENTS)
    expected = np.percentile(np.array(values, np.float32), PERCENTS, method="lower")
    smallest = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(found, expected, rtol=1 / 8000, atol=smallest)


def test_what_is_no_finite_loss_has_its_place() -> None:
    found = distribution_of([np.nan, np.inf, 1.0, -0.0, 2.0])
    assert (found.count, found.nan, found.infinite, found.largest) == (4, 1, 1, np.inf)
    assert found.percentiles([0.0, 100.0]) == [0.0, np.inf]
    assert found.histogram(np.array([0.0, 1.5, 3.0])).tolist() == [2, 1]
    assert np.isnan(distribution_of([np.nan]).percentiles(PERCENTS)).all()


def test_a_histogram_counts_every_value_up_to_the_largest() -> None:
    values = np.random.default_rng(0).exponential(3, 10_000).astype(np.float32)
    found = distribution_of(values)
    edges = np.linspace(0, found.largest, 41)
    counts = found.histogram(edges)
    assert counts.sum() == 10_000
    # A value may stand on the other side of an edge that is nearer than its bin is wide.
    assert np.abs(counts - np.histogram(values, edges)[0]).max() <= 5


# Calibration.


def test_the_calibration_error_is_the_mean_gap_by_bin() -> None:
    found = Calibration(2)
    found.add(np.array([0.2, 0.4, 0.9]), np.array([True, False, True]))
    assert found.confidence.tolist() == [pytest.approx(0.3), 0.9]
    assert found.accuracy.tolist() == [0.5, 1.0]
    assert found.expected_error == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.1)


def test_weights_count_like_repeated_rows() -> None:
    sure, correct = np.array([0.2, 0.4, 0.9]), np.array([True, False, True])
    weighted, repeated = Calibration(), Calibration()
    weighted.add(sure, correct, np.array([2.0, 1.0, 3.0]))
    repeated.add(sure.repeat([2, 1, 3]), correct.repeat([2, 1, 3]))
    assert weighted.expected_error == pytest.approx(repeated.expected_error, rel=1e-12)


def test_edges_belong_to_the_bin_below_and_nan_to_none() -> None:
    found = Calibration(4)
    found.add(np.array([0.0, 0.25, 0.5, 1.0, np.nan]), np.ones(5, bool))
    assert found.weights.tolist() == [2, 1, 0, 1]
    assert np.isnan(Calibration().expected_error)
    with pytest.raises(ValueError, match="bins: expected at least 1, got 0"):
        Calibration(0)


# Rows.


def test_ignored_rows_do_not_count_and_rows_of_nan_do() -> None:
    logits = np.zeros((4, 3), np.float32)
    logits[1] = np.nan
    logits[3] = -np.inf
    evaluation = sx.evaluate(logits, [0, 1, -100, 2])
    assert counted(evaluation).tolist() == [True, True, False, True]


# Positions.


@pytest.mark.parametrize("length", [1, BINS, BINS + 1, 5 * BINS - 3])
def test_the_loss_by_position_is_the_mean_over_sequences(length: int) -> None:
    random = np.random.default_rng(0)
    nll, weights = random.exponential(size=(3, length)), random.random((3, length))
    places = np.broadcast_to(np.arange(length), nll.shape)
    found = LossByPosition()
    for cut in pairwise([0, length, 3 * length // 2, 3 * length]):
        rows = slice(*cut)
        found.add(places.ravel()[rows], nll.ravel()[rows], weights.ravel()[rows])
    assert found.width == 2 ** int(np.ceil(np.log2(max(1, length / BINS))))
    starts = np.arange(0, length, found.width)
    expected = np.add.reduceat((weights * nll).sum(axis=0), starts)
    expected /= np.add.reduceat(weights.sum(axis=0), starts)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)
    assert found.positions[0] == (found.width - 1) / 2


# Temperatures.


def test_the_loss_at_a_temperature_is_that_of_cross_entropy() -> None:
    random = np.random.default_rng(0)
    logits: NDArray[Any] = random.standard_normal((60, 30)) * 2
    targets = random.integers(0, 30, 60)
    targets[3] = -100
    found = TemperatureCurve([0.5, 1.0, 3.0])
    for part, weight in ((slice(20), 19), (slice(20, None), 40)):
        found.add(losses_at(found.temperatures.tolist(), logits[part], targets[part]), weight)
    expected = [sx.cross_entropy(logits, targets, temperature=t) for t in (0.5, 1.0, 3.0)]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-13)
    assert found.best == 3.0


def test_evaluations_by_their_temperature_are_the_same_curve_in_order() -> None:
    logits, targets = np.random.default_rng(0).standard_normal((30, 9)), np.arange(30) % 9
    targets[4] = -100
    totals: dict[float, sx.Totals] = {
        t: sx.evaluate(logits, targets, temperature=t) for t in (3.0, 0.5, 1.0)
    }
    found = TemperatureCurve.of_totals(totals)
    assert found.temperatures.tolist() == [0.5, 1.0, 3.0]
    assert found.losses.tolist() == [totals[t].loss for t in (0.5, 1.0, 3.0)]
    assert found.best == min(totals, key=lambda t: totals[t].loss)
    totals[2.0] = sx.evaluate(logits[1:], targets[1:])
    with pytest.raises(
        ValueError, match=r"expected the same rows at each temperature, got 29, 29, 28, 29"
    ):
        TemperatureCurve.of_totals(totals)


def test_without_rows_no_temperature_is_best() -> None:
    assert np.isnan(TemperatureCurve([1.0]).best)
    with pytest.raises(ValueError, match="expected at least one"):
        TemperatureCurve([])

"""Display objects: their data, and that they draw it where they are told.

How they look is for eyes; the data behind them is `test_curves`' affair.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import softxent as sx
from matplotlib.figure import Figure
from numpy.typing import NDArray
from softxent import plots
from softxent.files.results import ResultError

mpl.use("agg")

DISPLAYS: dict[str, Any] = {
    name: getattr(plots, name) for name in plots.__all__ if name.endswith("Display")
}


@pytest.fixture
def batch() -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(0)
    logits = random.standard_normal((6, 30, 40)) * 2
    targets = random.integers(0, 40, (6, 30))
    targets[2, 5] = -100
    return logits, targets


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display_draws_on_axes_of_its_own_or_on_given_ones(name: str, batch: Any) -> None:
    display = DISPLAYS[name].from_logits(*batch)
    assert display.figure_.axes == [display.ax_]
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()
    assert display.ax_.get_title()
    given = Figure().add_subplot()
    assert DISPLAYS[name].from_logits(*batch, ax=given).ax_ is given
    other = Figure().add_subplot()
    assert display.plot(other) is display
    assert (display.ax_, display.figure_) == (other, other.figure)


def test_an_evaluation_is_drawn_as_its_logits_are(batch: Any) -> None:
    logits, targets = batch
    evaluation = sx.evaluate(logits, targets)
    pairs = [
        (
            plots.LossHistogramDisplay.from_evaluation(evaluation),
            plots.LossHistogramDisplay.from_logits(logits, targets),
        ),
        (
            plots.LossByPositionDisplay.from_evaluation(evaluation),
            plots.LossByPositionDisplay.from_logits(logits, targets),
        ),
        (
            plots.ReliabilityDisplay.from_evaluation(evaluation),
            plots.ReliabilityDisplay.from_logits(logits, targets),
        ),
        (
            plots.TemperatureDisplay.from_evaluation(
                {t: sx.evaluate(logits, targets, temperature=t) for t in (0.5, 2.0)}
            ),
            plots.TemperatureDisplay.from_logits(logits, targets, temperatures=[0.5, 2.0]),
        ),
    ]
    for one, other in pairs:
        for key, value in vars(one).items():
            if not key.endswith("_"):
                np.testing.assert_array_equal(value, getattr(other, key))


def test_the_histogram_has_every_token_that_counts(batch: Any) -> None:
    display = plots.LossHistogramDisplay.from_logits(*batch)
    assert display.counts.sum() == 6 * 30 - 1
    assert display.mean == sx.evaluate(*batch).loss


def test_what_is_not_finite_is_named_and_hides_nothing_else(batch: Any) -> None:
    """One infinite loss stretched the histogram to 99, and one NaN row left the temperatures blank."""
    logits, targets = batch[0].copy(), batch[1]
    largest = sx.evaluate(logits, targets).nll.max()
    logits[0, 0, targets[0, 0]] = -np.inf
    logits[1, 1, 3] = np.nan
    display = plots.LossHistogramDisplay.from_logits(logits, targets)
    assert (display.counts.sum(), display.infinite, display.nan) == (6 * 30 - 3, 1, 1)
    assert display.edges[-1] <= largest * (1 + 1 / 8000)
    assert display.ax_.get_title().endswith(", 1 infinite not shown, 1 NaN not shown")
    tempered = plots.TemperatureDisplay.from_logits(logits, targets)
    assert np.isnan(tempered.best)
    assert tempered.ax_.get_title().endswith(": none is finite")


def test_losses_by_position_are_means_over_sequences(batch: Any) -> None:
    nll = sx.cross_entropy(*batch, reduction="none")
    expected = nll.sum(axis=0) / (batch[1] != -100).sum(axis=0)
    display = plots.LossByPositionDisplay.from_logits(*batch)
    np.testing.assert_allclose(display.losses, expected, rtol=1e-6)
    assert display.positions.tolist() == list(range(30))
    flat = (batch[0].reshape(180, 40), batch[1].ravel())
    packed = plots.LossByPositionDisplay.from_logits(*flat, offsets=range(0, 181, 30))
    np.testing.assert_array_equal(packed.losses, display.losses)
    for wrong in ([0, 10], [0, 100, 50, 180]):
        with pytest.raises(ValueError, match="offsets: expected to rise from 0 to 180"):
            plots.LossByPositionDisplay.from_logits(*flat, offsets=wrong)


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_weight_counts_like_repeated_rows(name: str) -> None:
    if (
        name == "LossHistogramDisplay"
    ):  # it counts tokens; the mean of `evaluate` is weighted already
        return
    random = np.random.default_rng(0)
    logits, targets = random.standard_normal((6, 4, 9)), random.integers(0, 9, (6, 4))
    times = np.array([2, 1, 3, 1, 1, 2])
    weighted = DISPLAYS[name].from_logits(
        logits, targets, sample_weight=np.repeat(times[:, None], 4, 1)
    )
    repeated = DISPLAYS[name].from_logits(logits.repeat(times, 0), targets.repeat(times, 0))
    for key, value in vars(weighted).items():
        if not key.endswith("_"):
            np.testing.assert_allclose(value, getattr(repeated, key), rtol=1e-12)


def test_the_class_axis_may_be_any(batch: Any) -> None:
    logits, targets = batch
    one = plots.ReliabilityDisplay.from_logits(logits, targets)
    other = plots.ReliabilityDisplay.from_logits(np.moveaxis(logits, -1, 0), targets, axis=0)
    assert one.expected_error == other.expected_error


def test_probabilities_that_are_right_are_calibrated() -> None:
    """What came is drawn from the model's own probabilities."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((20_000, 3)) * 2
    p = sx.softmax(logits)
    targets = (p.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    assert plots.ReliabilityDisplay.from_logits(logits, targets).expected_error < 0.02
    too_sure = plots.ReliabilityDisplay.from_logits(logits, targets, temperature=0.4)
    assert too_sure.expected_error > 0.1
    best = plots.TemperatureDisplay.from_logits(logits, targets, temperatures=[0.5, 1.0, 2.0]).best
    assert best == 1.0


def test_shapes_that_do_not_fit_are_refused(batch: Any) -> None:
    evaluation = sx.evaluate(*batch)
    with pytest.raises(ValueError, match="sample_weight: expected 180 rows, got 3"):
        plots.ReliabilityDisplay.from_evaluation(evaluation, sample_weight=[0.1, 0.2, 0.3])


def test_nothing_that_counts_is_drawn_as_nothing() -> None:
    logits, targets = np.zeros((3, 4)), np.full(3, -100)
    for display in DISPLAYS.values():
        display.from_logits(logits, targets)


def test_a_page_is_a_file_that_is_not_overwritten(batch: Any, tmp_path: Path) -> None:
    displays = [display.from_logits(*batch) for display in DISPLAYS.values()]
    for suffix, beginning in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"page{suffix}"
        plots.save_page(displays, path, title="a page")
        assert path.read_bytes().startswith(beginning)
        with pytest.raises(ResultError, match="exists already"):
            plots.save_page(displays, path)
        plots.save_page(displays[:1], path, force=True)
    with pytest.raises(ValueError, match=r"expected .png, .svg or .pdf, got .*page.gif"):
        plots.save_page(displays, tmp_path / "page.gif")


def test_without_matplotlib_the_data_is_there_and_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["matplotlib"] = None
import pytest
from softxent import plots
from softxent.curves.temperatures import TemperatureCurve
display = plots.TemperatureDisplay(TemperatureCurve([1.0]))
assert display.temperatures.tolist() == [1.0]
for draw in (display.plot, lambda: plots.save_page([display], "a.png")):
    with pytest.raises(ImportError, match="softxent\\\\[plot\\\\]"):
        draw()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)

"""`softxent score`: the numbers of the functions from files of any size, and what it writes.

Files that are wrong are for `test_files`, the data behind the pictures for `test_curves`; what it prints and
how it ends is in `test_score_ends`.
"""

import csv
import json
import threading
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from array_files import save, save_safetensors
from numpy.typing import NDArray
from score_command import SMALL_CHUNK, run, save_batch
from softxent.files.opening import open_array
from softxent.score import chunks
from softxent.score.teacher import Mean

TOTALS = [name for name in sx.Totals.__annotations__ if name != "top_k_accuracy"]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", SMALL_CHUNK)


@pytest.fixture
def batch(tmp_path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and targets, which are also in `logits.npy` and `targets.npy`."""
    return save_batch(tmp_path)


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `--json` says."""

    def report(*options: str, **files: str) -> dict[str, Any]:
        assert run(tmp_path, "--json", *options, **files) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        found: dict[str, Any] = json.loads(printed.out)
        return found

    return report


# The numbers.


def test_totals_are_those_of_evaluate_bit_for_bit(batch: Any, report: Any) -> None:
    logits, targets = batch
    found = report("--top-k", "1,5", "--temperature", "1.5", "--softcap", "8")
    expected = sx.evaluate(logits, targets, top_k=(1, 5), temperature=1.5, softcap=8)
    assert {name: found[name] for name in TOTALS} == {n: getattr(expected, n) for n in TOTALS}
    assert found["top_k_accuracy"] == {str(k): v for k, v in expected.top_k_accuracy.items()}
    assert found["options"] == {"top_k": [1, 5], "temperature": 1.5, "softcap": 8}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".zip", ".safetensors"])
def test_every_format_gives_the_same(suffix: str, batch: Any, report: Any, tmp_path: Path) -> None:
    logits, targets = batch
    save(tmp_path / f"x{suffix}", logits)
    save(tmp_path / f"y{suffix}", targets)
    found = report(logits=f"x{suffix}", targets=f"y{suffix}")
    assert found["loss"] == sx.evaluate(logits, targets).loss


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype_is_scored_as_it_is(
    dtype: str, batch: Any, report: Any, tmp_path: Path
) -> None:
    logits = batch[0].astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    save_safetensors(tmp_path / "x.safetensors", logits=logits, targets=batch[1])
    found = report(logits="x.safetensors::logits", targets="x.safetensors::targets")
    assert found["loss"] == sx.evaluate(logits, batch[1]).loss
    assert found["logits"] == {"file": "x.safetensors::logits", "shape": [40, 50], "dtype": dtype}


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("size", [1, 200, 201, 1400, 10**6])
def test_the_size_of_a_chunk_leaves_no_trace(
    size: int, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = report("--temperature-grid", "0.5:2:3", "--label-smoothing", "0.1")
    monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
    found = report("--temperature-grid", "0.5:2:3", "--label-smoothing", "0.1")
    grids = [each.pop("temperature_grid")["losses"] for each in (found, expected)]
    assert grids[0] == pytest.approx(grids[1], rel=1e-12)
    for rounded in "objective", "expected_calibration_error":
        assert found.pop(rounded) == pytest.approx(expected.pop(rounded), rel=1e-12)
    assert found == expected


@pytest.mark.parametrize(("suffix", "most"), [(".npy", 2), (".npz", 1)])
def test_chunks_come_in_order_whoever_is_faster_and_an_archive_is_read_by_one(
    suffix: str, most: int, tmp_path: Path
) -> None:
    """Whatever lies behind in an archive would be unpacked again, from the beginning."""
    rows = np.arange(40, dtype=np.float32)[:, None].repeat(50, axis=1)
    at_work: set[str] = set()

    def work(chunk: chunks.Chunk) -> tuple[int, list[float]]:
        at_work.add(threading.current_thread().name)
        time.sleep(
            0.02 if chunk.start % 2 else 0.0
        )  # chunks of seven rows: every other one is slow
        return chunk.start, chunk.arrays["x"][:, 0].tolist()

    with open_array(str(save(tmp_path / f"x{suffix}", rows))) as file:
        found = list(chunks.each_chunk({"x": file}, 40, {"x": 50}, work))
    assert [start for start, _ in found] == list(range(0, 40, 7))
    assert [value for _, values in found for value in values] == list(range(40))
    assert len(at_work) == most


def test_rows_of_several_axes_are_sequences(report: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits, targets = random.standard_normal((4, 9, 20)), random.integers(0, 20, (4, 9))
    save(tmp_path / "logits.npy", logits)
    save(tmp_path / "targets.npy", targets)
    found = report()
    expected = sx.cross_entropy(logits, targets, reduction="sequence_mean")
    assert found["sequence_mean"] == pytest.approx(float(expected), rel=1e-14)
    assert found["sequences"] == 4


def test_offsets_give_the_loss_per_sequence(batch: Any, report: Any, tmp_path: Path) -> None:
    offsets = np.array([0, 10, 10, 33, 40])
    save(tmp_path / "offsets.npy", offsets)
    found = report("--offsets", "offsets.npy")
    expected = sx.cross_entropy(
        *batch, reduction="sequence_mean", offsets=offsets, dtype=np.float64
    )
    assert found["sequence_mean"] == pytest.approx(float(expected), rel=1e-12)
    assert found["sequences"] == 4


def test_the_objective_has_the_options_of_the_loss(batch: Any, report: Any, tmp_path: Path) -> None:
    logits, targets = batch
    random = np.random.default_rng(1)
    side: dict[str, Any] = {
        "weight": random.random(50),
        "sample_weight": random.random(40).astype(np.float32),
        "class_mask": random.random(50) < 0.9,
    }
    side["sample_weight"][7] = 0
    side["class_mask"][np.unique(targets[targets >= 0])] = True
    for name, array in side.items():
        save(tmp_path / f"{name}.npy", array)
    options = [part for name in side for part in (f"--{name.replace('_', '-')}", f"{name}.npy")]
    found = report(
        *options, "--label-smoothing", "0.1", "--z-loss", "0.01", "--valid-classes", "50"
    )
    expected = sx.cross_entropy(
        logits, targets, label_smoothing=0.1, z_loss=0.01, dtype=np.float64, **side
    )
    assert found["objective"] == pytest.approx(float(expected), rel=1e-12)
    del side["weight"]
    assert found["loss"] == sx.evaluate(logits, targets, **side).loss


def test_several_ids_can_be_ignored(batch: Any, report: Any) -> None:
    targets = batch[1]
    found = report("--ignore-index", "-100", "--ignore-index", "7")
    assert found["ignored"] == np.isin(targets, [-100, 7]).sum()


def test_the_grid_has_the_loss_at_every_temperature(batch: Any, report: Any) -> None:
    grid = report("--temperature-grid", "0.5,1,3")["temperature_grid"]
    expected = [
        float(sx.cross_entropy(*batch, temperature=t, dtype=np.float64)) for t in (0.5, 1, 3)
    ]
    assert grid["temperatures"] == [0.5, 1, 3]
    assert grid["losses"] == pytest.approx(expected, rel=1e-12)
    assert grid["best"] == 3


def test_what_is_not_finite_is_counted_and_null_in_json(
    batch: Any, report: Any, tmp_path: Path
) -> None:
    logits, targets = batch[0].copy(), batch[1]
    logits[0, 3] = np.nan
    logits[1, targets[1]] = -np.inf
    save(tmp_path / "logits.npy", logits)
    found = report()
    assert (found["nan_rows"], found["infinite_rows"], found["loss"]) == (1, 1, None)


def test_no_rows_are_no_error(report: Any, tmp_path: Path) -> None:
    save(tmp_path / "logits.npy", np.empty((0, 5), np.float32))
    save(tmp_path / "targets.npy", np.empty(0, np.int64))
    found = report("--temperature-grid", "1,2", "--label-smoothing", "0.1")
    assert (found["rows"], found["loss"], found["objective"]) == (0, None, None)


def test_one_row_without_an_axis_of_rows_is_scored(report: Any, tmp_path: Path) -> None:
    save(tmp_path / "logits.npy", np.array([3.2, 1.0, -0.5, 2.5]))
    save(tmp_path / "targets.npy", np.array(0))
    assert report()["loss"] == pytest.approx(0.4899, abs=5e-5)


# The teacher.


def test_the_teacher_report_is_as_defined(batch: Any, report: Any, tmp_path: Path) -> None:
    logits, targets = batch
    noise = np.random.default_rng(2).standard_normal(logits.shape, dtype=np.float32)
    teacher = logits + noise / 2
    save(tmp_path / "teacher.npy", teacher)
    found = report("--teacher", "teacher.npy")["teacher"]
    kept = targets != -100
    ours, theirs = (sx.evaluate(x[kept], targets[kept]) for x in (logits, teacher))
    kl = sx.kl_divergence(teacher[kept], logits[kept], reduction="none").astype(np.float64)
    change = np.exp(-ours.nll.astype(float)) - np.exp(-theirs.nll.astype(float))
    difference = ours.nll.astype(float) - theirs.nll
    error = np.std(difference, ddof=1) / np.sqrt(kept.sum())
    expected = {
        "kl_divergence": kl.mean(),
        "kl_divergence_standard_error": kl.std(ddof=1) / np.sqrt(kept.sum()),
        "kl_divergence_max": kl.max(),
        "top_1_agreement": np.mean(ours.predicted == theirs.predicted),
        "teacher_loss": theirs.loss,
        "teacher_perplexity": theirs.perplexity,
        "loss_change": ours.loss - theirs.loss,
        "loss_change_standard_error": error,
        "perplexity_ratio": ours.perplexity / theirs.perplexity,
        "perplexity_ratio_standard_error": ours.perplexity / theirs.perplexity * error,
        "probability_change": change.mean(),
        "probability_change_rms": np.sqrt(np.mean(change**2)),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    median = np.percentile(kl, 50, method="lower")
    assert found["kl_divergence_percentiles"]["50"] == pytest.approx(median, rel=1 / 8000)


@pytest.mark.usefixtures("batch")
def test_a_model_is_its_own_best_teacher(report: Any) -> None:
    found = report("--teacher", "logits.npy")["teacher"]
    assert (found["kl_divergence"], found["loss_change"], found["top_1_agreement"]) == (0, 0, 1)


def test_a_mean_of_weights_is_that_of_repeated_values() -> None:
    values, times = np.array([1.0, 4.0, 2.5]), np.array([2, 1, 3])
    one, other = Mean(), Mean()
    one.add(values, times.astype(float))
    other.add(values.repeat(times), np.ones(6))
    assert one.value == pytest.approx(other.value)
    assert np.isnan(Mean().value)
    assert np.isnan(Mean().error)


# What is written.


def test_per_token_losses_have_the_shape_of_the_targets(report: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits, targets = random.standard_normal((4, 9, 20), np.float32), random.integers(0, 20, (4, 9))
    save(tmp_path / "logits.npy", logits)
    save(tmp_path / "targets.npy", targets)
    report("--per-token", "nll.npy")
    found = np.load(tmp_path / "nll.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, sx.cross_entropy(logits, targets, reduction="none"))


@pytest.mark.parametrize("name", ["rows.csv", "ROWS.CSV"])
def test_per_token_tables_have_a_line_for_each_row(
    name: str, batch: Any, report: Any, tmp_path: Path
) -> None:
    report("--per-token", name)
    expected = sx.evaluate(*batch)
    with (tmp_path / name).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == list(range(40))
    assert [int(line["target"]) for line in lines] == batch[1].tolist()
    for column in ("nll", "lse", "entropy", "predicted", "rank"):
        values = np.array([line[column] for line in lines], np.float64)
        np.testing.assert_array_equal(values.astype(np.float32), getattr(expected, column))


@pytest.mark.usefixtures("batch")
def test_the_picture_is_written(report: Any, tmp_path: Path) -> None:
    report("--plot", "p.png", "--temperature-grid", "0.5,1,2")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    report("--plot", "p.svg")
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()

"""`softxent score`: the numbers of the functions from files of any size, and how it ends.

Files that are wrong are for `test_files`, the data behind the pictures for `test_curves`.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from array_files import save, save_safetensors
from numpy.typing import NDArray
from softxent import cli
from softxent.cli import outcome
from softxent.score import chunks
from softxent.score.teacher import Mean

TOTALS = [name for name in sx.Totals.__annotations__ if name != "top_k_accuracy"]
FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows of the widest, so that there are many chunks and a last one that is not full."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 7 * 50 * 4)


@pytest.fixture
def batch(tmp_path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and targets, which are also in `logits.npy` and `targets.npy`."""
    random = np.random.default_rng(5)
    logits = random.standard_normal((40, 50), dtype=np.float32) * np.float32(3)
    targets = random.integers(0, 50, 40)
    targets[[4, 30]] = -100
    save(tmp_path / "logits.npy", logits)
    save(tmp_path / "targets.npy", targets)
    return logits, targets


def run(
    folder: Path, *options: str, logits: str = "logits.npy", targets: str = "targets.npy"
) -> int:
    """In that folder: files are named as a user there would."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return cli.main(["score", logits, targets, *options])
    finally:
        os.chdir(before)


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


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one line that says why."""
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    [line] = printed.err.splitlines()
    assert line.startswith("softxent: ")
    return line.removeprefix("softxent: ")


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


def test_per_token_tables_have_a_line_for_each_row(batch: Any, report: Any, tmp_path: Path) -> None:
    report("--per-token", "rows.csv")
    expected = sx.evaluate(*batch)
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == list(range(40))
    assert [int(line["target"]) for line in lines] == batch[1].tolist()
    for name in ("nll", "lse", "entropy", "predicted", "rank"):
        values = np.array([line[name] for line in lines], np.float64)
        np.testing.assert_array_equal(values.astype(np.float32), getattr(expected, name))


@pytest.mark.usefixtures("batch")
def test_the_picture_is_written(report: Any, tmp_path: Path) -> None:
    report("--plot", "p.png", "--temperature-grid", "0.5,1,2")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    report("--plot", "p.svg")
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()


@pytest.mark.usefixtures("batch")
def test_nothing_is_overwritten_without_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, name in (("--per-token", "a.npy"), ("--plot", "a.png")):
        (tmp_path / name).write_text("mine")
        assert f"{name}: exists already" in refused(capsys, run(tmp_path, option, name))
        assert (tmp_path / name).read_text() == "mine"
        assert run(tmp_path, option, name, "--force") == 0
        assert (tmp_path / name).read_bytes()[:4] != b"mine"
        capsys.readouterr()


def test_a_refused_run_leaves_no_files(
    batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = batch[1].copy()
    targets[39] = 50
    save(tmp_path / "targets.npy", targets)
    before = sorted(tmp_path.iterdir())
    line = refused(capsys, run(tmp_path, "--per-token", "a.npy", "--plot", "a.png"))
    assert line == "targets.npy: targets[39] = 50 is outside [0, 50)"
    assert sorted(tmp_path.iterdir()) == before


# What is printed.


def test_the_table_is_aligned_and_narrow(
    batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "offsets.npy", np.array([0, 20, 40]))
    options = ["--top-k", "5", "--teacher", "logits.npy", "--temperature-grid", "0.5:2:3"]
    options += ["--offsets", "offsets.npy", "--label-smoothing", "0.1", "--z-loss", "0.001"]
    assert run(tmp_path, *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert not set(printed.out) & {"\r", "\x1b", "\t"}
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    expected = sx.evaluate(*batch)
    [loss] = [line for line in lines if line.startswith("loss  ")]
    assert loss.split() == ["loss", f"{expected.loss:.5f}", "±", *loss.split()[3:5]]
    width = len(loss) - len(loss.removeprefix("loss").lstrip())
    assert all(line[width - 2 : width] == "  " for line in lines[3:] if line)


@pytest.mark.usefixtures("batch")
def test_a_terminal_that_knows_no_plus_minus_gets_another_sign(tmp_path: Path) -> None:
    output = subprocess.check_output(
        [sys.executable, "-m", "softxent", "score", "logits.npy", "targets.npy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b" +- " in output


@pytest.mark.usefixtures("batch")
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "softxent", "score", "logits.npy", "targets.npy", "--json"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        process = subprocess.run(
            command, cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert (process.returncode, process.stderr) == (1, b"")


# What is refused.


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        (
            "targets",
            np.zeros(39, int),
            "targets.npy: expected shape (40,) to match logits (40, 50)",
        ),
        (
            "targets",
            np.zeros(40),
            "targets.npy: expected class ids of an integer dtype, got float64",
        ),
        ("targets", np.full(40, -1), "targets.npy: targets[0] = -1 is outside [0, 50)"),
        ("targets", np.full(40, 2**64 - 1, np.uint64), "targets[0] = 18446744073709551615 is out"),
        ("logits", np.zeros((40, 50), bool), "logits.npy: expected logits, got dtype bool"),
        ("logits", np.zeros((40, 0)), "logits.npy: expected logits of at least one class"),
        ("logits", np.array(1.0), "logits.npy: expected logits of at least one class"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    name: str,
    array: NDArray[Any],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(tmp_path / f"{name}.npy", array)
    assert expected in refused(capsys, run(tmp_path))


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    ("option", "array", "expected"),
    [
        ("--offsets", [0, 20], "expected offsets that rise from 0 to the number of rows, 40"),
        ("--offsets", [0, 20, 10, 40], "expected offsets that rise"),
        ("--offsets", [0.0, 40.0], "expected offsets as integers"),
        ("--sample-weight", [1.0], "expected shape (40,) to match logits (40, 50)"),
        ("--sample-weight", [True] * 40, "expected numbers, got dtype bool"),
        ("--weight", [1.0], "expected weight as numbers of shape (50,)"),
        ("--class-mask", [1] * 50, "expected class_mask as bools of shape (50,)"),
        ("--teacher", [[1.0]], "expected shape (40, 50) to match logits"),
        ("--teacher", [[True] * 50] * 40, "expected logits, got dtype bool"),
    ],
)
def test_side_files_that_do_not_fit_are_refused(
    option: str,
    array: Any,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(tmp_path / "side.npy", np.array(array))
    line = refused(capsys, run(tmp_path, option, "side.npy"))
    assert line.startswith("side.npy: ")
    assert expected in line


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--temperature", "0"], "temperature"),
        (["--temperature-grid", "1,-2"], "temperature"),
        (["--softcap", "-1"], "softcap"),
        (["--valid-classes", "51"], "valid_classes"),
        (["--label-smoothing", "2"], "label_smoothing"),
        (["--top-k", "0"], "top_k"),
        (["--teacher", "logits.npy", "--softcap", "3"], "--softcap: not with --teacher"),
        (["--teacher", "missing.npy"], "missing.npy: No such file or directory"),
    ],
)
def test_bad_options_are_refused(
    options: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert expected in refused(capsys, run(tmp_path, *options))


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature-grid", "1,x"],
        ["--temperature-grid", "1:2"],
        ["--temperature-grid", "1:2:100000"],
        ["--temperature-grid", "0:2:5"],
        ["--top-k", "one"],
        ["--threads", "0"],
        ["--per-token", "rows.txt"],
        ["--per-token", "no/such.npy"],
        ["--plot", "picture.jpg"],
    ],
)
def test_an_option_that_means_nothing_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["score", "logits.npy", "targets.npy", *options])
    assert options[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("batch")
def test_a_row_that_fits_in_no_buffer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chunks, "MOST_ROW_BYTES", 100)
    line = refused(capsys, run(tmp_path))
    assert line == "logits.npy: expected rows of at most 100 bytes, got 200"


def test_a_file_that_ends_early_is_refused_and_the_reader_ends(
    batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The archive promises 40 rows and holds 10: known only when they are read."""
    data = bytearray(save(tmp_path / "x.npz", batch[0][:10]).read_bytes())
    place = data.index(b"(10, 50)")
    data[place : place + 8] = b"(40, 50)"
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.rindex(signature) + offset
        data[at : at + 4] = (128 + 8000).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(data)
    line = refused(capsys, run(tmp_path, logits="x.npz"))
    assert line.startswith("x.npz: ")
    assert not [t for t in threading.enumerate() if t.name == "softxent-reader"]


def test_missing_extras_are_named(
    batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outcome, "find_spec", lambda _: None)
    line = refused(capsys, run(tmp_path, "--plot", "p.png"))
    assert line == '--plot needs matplotlib: pip install "softxent[plot]"'
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    save(tmp_path / "x.safetensors", batch[0].astype(ml_dtypes.bfloat16))
    line = refused(capsys, run(tmp_path, logits="x.safetensors"))
    assert line.endswith('bfloat16 needs ml-dtypes: pip install "softxent[cli]"')


# In a process of its own.

MEASURED = """
import resource, sys
from softxent import cli
status = cli.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in KiB there, and files with holes")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Two files of 0.8 GB, holes all of it, with everything that can be asked for."""
    rows, classes = 4_000, 50_000
    for name in ("logits.npy", "teacher.npy"):
        with (tmp_path / name).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, classes)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * rows * classes)
    save(tmp_path / "targets.npy", np.zeros(rows, np.int64))
    command = [sys.executable, "-c", MEASURED, "score", "logits.npy", "targets.npy"]
    command += ["--teacher", "teacher.npy", "--per-token", "a.csv", "--plot", "a.png"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "10.8198" in process.stdout  # log 50,000
    assert int(process.stderr) < 300_000


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_ends_it_and_leaves_no_files(tmp_path: Path) -> None:
    rows, classes = 10**9, 1000
    with (tmp_path / "logits.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, classes)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * rows * classes)
    with (tmp_path / "targets.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"descr": "<i8", "shape": (rows,)})
        file.truncate(file.tell() + 8 * rows)
    before = sorted(tmp_path.iterdir())
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "softxent",
            "score",
            "logits.npy",
            "targets.npy",
            "--per-token",
            "a.npy",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(sorted(tmp_path.iterdir())) == len(before):  # until the result has begun
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "softxent: interrupted\n")
    assert sorted(tmp_path.iterdir()) == before

"""`softxent score`: what it prints, what it refuses, and how it ends.

The numbers are for `test_score`, files that are wrong for `test_files`.
"""

import os
import re
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
from array_files import save
from numpy.typing import NDArray
from score_command import SMALL_CHUNK, refused, run, save_batch
from softxent import cli
from softxent.cli import outcome
from softxent.score import chunks, progress, request


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", SMALL_CHUNK)


@pytest.fixture
def batch(tmp_path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and targets, which are also in `logits.npy` and `targets.npy`."""
    return save_batch(tmp_path)


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.usefixtures("batch")
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "softxent", "score", "logits.npy", "targets.npy"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (process.returncode, process.stderr) == (
        1,
        "softxent: cannot print: No space left on device\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals there")
@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_a_bar_and_standard_output_does_not(no_color: str, tmp_path: Path) -> None:
    terminal, end = os.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "softxent", "score", "logits.npy", "targets.npy"],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": no_color},
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "40/40 rows" in shown
    assert re.search(r"\d\.\d\d GB/s \d:\d\d:\d\d", re.sub("\x1b.*?m", "", shown))
    colours = re.findall("\x1b\\[[0-9;]*3[0-9;]*m", shown)
    assert bool(colours) != bool(no_color)
    assert "rows" in process.stdout
    assert "\x1b" not in process.stdout


@pytest.mark.usefixtures("batch")
def test_a_terminal_without_rich_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda _: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(tmp_path) == 0
    assert capsys.readouterr().err == 'a progress bar needs rich: pip install "softxent[cli]"\n'


# What is refused.


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


def test_what_is_read_is_not_overwritten_even_with_force(
    batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip of the hand, and the logits were gone: their losses stood in their place."""
    save(tmp_path / "offsets.npy", np.array([0, 40]))
    save(tmp_path / "both.npy", batch[0])
    (tmp_path / "link.npy").symlink_to("logits.npy")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["--offsets", "offsets.npy", "--teacher", "both.npy", "--force", "--per-token"]
    for name in ("logits.npy", "targets.npy", "offsets.npy", "both.npy", "link.npy"):
        line = refused(capsys, run(tmp_path, *options, name))
        assert line == f"{name}: is read by this very command"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


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


def test_side_files_that_would_take_much_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Offsets become int64: eight times the file, if they were bytes."""
    monkeypatch.setattr(request, "MOST_HELD", 3)
    save_batch(tmp_path)
    save(tmp_path / "offsets.npy", np.array([0, 10, 20, 40], np.uint8))
    line = refused(capsys, run(tmp_path, "--offsets", "offsets.npy"))
    assert line == "offsets.npy: expected at most 3 numbers, got 4"


def test_a_file_that_ends_early_is_refused_and_the_threads_end(
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
    assert not [t for t in threading.enumerate() if t.name.startswith(chunks.NAME)]


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

# Not `ru_maxrss`: a child begins with what its parent had, 392 MB in a worker that had run other tests.
MEASURED = """
import re, sys
from pathlib import Path
from softxent import cli
status = cli.main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc, and makes files with holes")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Two files of 0.4 GB, holes all of it, with everything that can be asked for."""
    rows, classes = 2_000, 50_000
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

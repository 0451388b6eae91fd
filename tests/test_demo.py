"""The demo: what it reads, that it learns, that it repeats itself, and how it ends.

The corpus is tiny, so that a run takes a fraction of a second; the commands that must not share a
process with pytest (Ctrl-C, the picture) run in one of their own.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import softxent
from hypothesis import given
from hypothesis import strategies as st
from softxent import cli
from softxent.cli import outcome
from softxent.demo import corpus, side_by_side

FILES = 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text with a grammar, and in each file a word that no other file has."""
    texts = tmp_path / "texts"
    texts.mkdir()
    random = np.random.default_rng(7)
    for number in range(FILES):
        lines = [
            f"{subject} {'likes' if subject == 'cat' else 'fears'} {thing}\n"
            for subject, thing in zip(
                random.choice(["cat", "mouse"], 40),
                random.choice(["milk", "cheese", "rain"], 40),
                strict=True,
            )
        ]
        (texts / f"{number:02}.txt").write_text(f"only_in_{number:02}\n{''.join(lines)}")
    return texts


def run_demo(*arguments: str | Path) -> int:
    return cli.main(["demo", "--no-plot", *map(str, arguments)])


def demo_process(directory: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "softxent", "demo", *map(str, arguments)],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def lines_with_losses(output: str) -> list[str]:
    return [line for line in output.splitlines() if "loss" in line or line.startswith("model")]


def perplexity(output: str, row: str) -> float:
    found = re.search(rf"^{row}.* ([\d.]+) *$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(corpus.tokenize(text)) == text


def test_tokens_are_words_numbers_indents_blanks_and_operators() -> None:
    assert corpus.tokenize("def f(x):\n    y_1  = 0.5e3\n") == [
        *("def", " ", "f", "(", "x", "):", "\n    ", "y_1", "  ", "=", " ", "0.5e3", "\n"),
    ]


def test_held_out_files_are_not_trained_on(folder: Path) -> None:
    text = corpus.open_corpus(folder)
    training, held_out = text.training.names, text.held_out.names
    assert sorted(training + held_out) == [f"{number:02}.txt" for number in range(FILES)]
    assert 1 <= len(held_out) <= 3  # a twentieth of the text
    for names, learnt in (training, True), (held_out, False):
        for name in names:
            assert (f"only_in_{name[:2]}" in text.words) == learnt


def test_the_same_files_are_held_out_wherever_the_folder_is(folder: Path, tmp_path: Path) -> None:
    here = corpus.open_corpus(folder)
    elsewhere = corpus.open_corpus(folder.rename(tmp_path / "elsewhere"))
    assert here.held_out.names == elsewhere.held_out.names
    assert here.words == elsewhere.words


def test_an_only_file_is_cut_at_a_line(tmp_path: Path) -> None:
    file = tmp_path / "only.txt"
    file.write_text("one line after another\n" * 500)
    text = corpus.open_corpus(file)
    learnt, kept_back = len(text.training.positions), len(text.held_out.positions)
    assert learnt + kept_back == 500 * 8
    assert learnt % 8 == 0
    assert learnt / 4000 == pytest.approx(0.9, abs=0.01)


def test_a_context_ends_before_its_token_and_begins_with_unknowns(folder: Path) -> None:
    text = corpus.open_corpus(folder)
    positions = text.training.positions[:3]
    tokens = text.training.ids[positions]
    unknown = corpus.CONTEXT * [corpus.UNKNOWN]
    assert text.training.contexts(positions).tolist() == [
        unknown,
        [*unknown[1:], tokens[0]],
        [*unknown[2:], tokens[0], tokens[1]],
    ]


def test_the_vocabulary_keeps_the_most_frequent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "VOCABULARY", 4)
    text = corpus.open_corpus(folder)
    assert text.words == ("<unknown>", " ", "\n", text.words[3])
    assert text.words[3] in {"cat", "mouse", "likes", "fears"}
    assert set(text.training.ids.tolist()) == {0, 1, 2, 3}


def test_unreadable_files_are_counted_and_left_out(folder: Path) -> None:
    (folder / "binary.bin").write_bytes(b"\x00\x01\x02")
    (folder / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    (folder / ".hidden").write_text("not looked at")
    text = corpus.open_corpus(folder)
    assert text.skipped == 2
    assert len(text.training.names) + len(text.held_out.names) == FILES


def test_the_standard_library_fills_the_vocabulary() -> None:
    text = corpus.open_corpus()
    assert len(text.words) == corpus.VOCABULARY >= 32_000
    assert all(name.endswith(".py") for name in text.training.names)
    assert not any("site-packages" in name for name in text.training.names)


def test_the_same_seed_gives_the_same_losses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for seed in (3, 3, 4):
        assert run_demo("--corpus", folder, "--steps", "5", "--seed", str(seed)) == 0
        outputs.append(lines_with_losses(capsys.readouterr().out))
    assert len(outputs[0]) >= 9  # five steps, the last batch, two models, the comparison
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_the_model_starts_as_the_unigram_and_beats_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo("--corpus", folder, "--steps", "60") == 0
    output = capsys.readouterr().out
    unigram = perplexity(output, "unigram baseline")
    assert perplexity(output, "model before training") == pytest.approx(unigram, rel=1e-4)
    assert perplexity(output, "model after 60 steps") < unigram / 2


def test_numpy_and_softxent_agree_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "BLOCK_BYTES", 3 * 50 * 4)  # three rows, and one left over
    random = np.random.default_rng(0)
    logits = random.standard_normal((10, 50), np.float32) * np.float32(5)
    targets = random.integers(0, 50, 10, np.int32)
    loss, gradient = softxent.cross_entropy_with_grad(logits, targets)
    numpy_loss = side_by_side.numpy_loss_and_gradient(logits, targets)
    assert numpy_loss == pytest.approx(float(loss), rel=1e-6)
    np.testing.assert_allclose(logits, gradient, rtol=1e-4, atol=1e-8)


def test_a_pipe_gets_plain_lines_of_80_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo("--corpus", folder, "--steps", "20") == 0
    output = capsys.readouterr().out
    assert not set(output) & {"\r", "\x1b"}
    assert max(map(len, output.splitlines())) <= 80


def test_the_plot_is_written_where_asked(folder: Path, tmp_path: Path) -> None:
    for arguments, name in (([], "softxent-demo.png"), (["--plot", "other.png"], "other.png")):
        process = demo_process(tmp_path, "--corpus", folder, "--steps", "5", *arguments)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        (tmp_path / name).unlink()


def test_a_plot_that_cannot_be_written_costs_only_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    arguments = "--corpus", folder, "--steps", "5", "--plot", "folder.png"
    process = demo_process(tmp_path, *arguments)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "")
    assert "loss curve not saved: folder.png" in output
    assert "largest difference" in output


def test_no_plot_writes_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_demo("--corpus", folder, "--steps", "5") == 0
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("bad", ["missing", "empty", "binary", "short", "no_texts"])
def test_a_bad_corpus_is_refused_in_one_line(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / bad
    match bad:
        case "empty":
            path.touch()
        case "binary":
            path.write_bytes(b"\xff\x00" * 5_000)
        case "short":
            path.write_text("too short to learn from\n")
        case "no_texts":
            path.mkdir()
    assert run_demo("--corpus", path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert str(path) in captured.err


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "0"],
        ["--steps", "many"],
        ["--seed", "-1"],
        ["--plot", "curve.jpg"],
        ["--plot", "no/such/folder/curve.png"],
        ["--plot", "curve.png", "--no-plot"],
    ],
)
def test_a_bad_option_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", *options])
    assert options[0] in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outcome, "find_spec", lambda _: None)
    assert cli.main(["demo"]) == 2
    assert cli.main(["demo", "--no-plot"]) == 2
    with_plot, without = capsys.readouterr().err.splitlines()
    assert "softxent[demo]" in with_plot
    assert "matplotlib" in with_plot
    assert "softxent[demo]" in without
    assert "matplotlib" not in without


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_ends_the_training_and_keeps_what_it_has(folder: Path, tmp_path: Path) -> None:
    process = demo_process(tmp_path, "--corpus", folder, "--steps", "1000000")
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    with pytest.raises(subprocess.TimeoutExpired):  # some steps
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    stopped = re.search(r"interrupted after ([\d,]+) of 1,000,000 steps", output)
    assert stopped, output
    assert f"model after {stopped[1]} steps" in output
    assert "largest difference" in output
    assert (tmp_path / "softxent-demo.png").exists()


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert re.fullmatch(r"softxent \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)

"""The doctor: that it finds nothing wrong here, and says so when something is.

Whether every level is right is for `test_levels`; here it is the examination itself.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import softxent as sx
from softxent import cli
from softxent.doctor import levels, self_test
from softxent.doctor.levels import LEVELS, Level
from softxent.doctor.report import report

WELL = Level("portable", True, 10, (), "bits")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets another program answer in place of the self-test."""

    def program(text: str) -> None:
        (tmp_path / "answer.py").write_text(text)
        run = subprocess.run

        def other(command: list[str], **options: Any) -> Any:
            return run([command[0], str(tmp_path / "answer.py")], **options)

        monkeypatch.setattr(subprocess, "run", other)

    return program


def test_here_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all is well"
    shown = dict(line.split(maxsplit=1) for line in lines if not line.startswith("level"))
    assert shown["version"] == sx.show_runtime()["version"]
    verdicts = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines if "level " in line}
    assert list(verdicts) == list(LEVELS)
    assert verdicts["portable"].startswith("right, ")


def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the third digit of one element wrong, one line would say of what."""
    right = self_test.self_test()
    assert right.failures == []
    softmax = sx.softmax

    def wrong(logits: Any, **options: Any) -> Any:
        p = softmax(logits, **options)
        if logits.dtype == np.float32 and logits.shape == (3, 150):
            p[1, 77] += 0.004
        return p

    monkeypatch.setitem(self_test._FUNCTIONS, "softmax", wrong)
    found = self_test.self_test()
    assert found.failures == [
        "softmax of float32 (3, 150), 1 threads",
        "softmax of float32 (3, 150), 2 threads",
    ]
    assert found.bits != right.bits
    assert found.comparisons == right.comparisons > 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os; os.kill(os.getpid(), 4)", "killed by signal 4"),
        ("raise RuntimeError('broken')", "exit status 1: RuntimeError: broken"),
        (
            'print(\'{"runtime": {"isa": "avx2"}, "comparisons": 1, "failures": [], "bits": ""}\')',
            "asked for portable, ran avx2",
        ),
    ],
)
def test_whatever_happens_to_its_process_is_a_failure_of_the_level(
    text: str, expected: str, program: Any
) -> None:
    program(text)
    assert levels.examine("portable").failures == (expected,)


def test_a_level_that_is_not_there_is_no_failure(program: Any) -> None:
    program(
        "raise ImportError('SOFTXENT_ISA: expected one of portable on this processor, got neon')"
    )
    assert levels.examine("neon") == Level("neon", False)


def test_levels_that_should_agree_bit_for_bit_and_do_not_are_wrong(
    program: Any,
) -> None:
    answer = json.dumps(
        {"runtime": {"isa": "ISA"}, "comparisons": 1, "failures": [], "bits": "ISA"}
    )
    program(f"import os; print({answer!r}.replace('ISA', os.environ['SOFTXENT_ISA']))")
    wrong = {level.name for level in levels.examine_all() if level.failures}
    assert wrong == {"avx512", "avx2", "neon"}


def test_what_is_wrong_is_said_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Level("avx2", True, 7, ("softmax of float32 (3, 7), 1 threads",))
    monkeypatch.setattr(levels, "examine_all", lambda: [WELL, bad])
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "level avx2      1 wrong of 7 comparisons" in output
    assert output.endswith("  avx2: softmax of float32 (3, 7), 1 threads\nsomething is wrong\n")


def test_no_level_at_all_is_not_well() -> None:
    assert report([WELL])[1]
    assert not report([Level("neon", False)])[1]


def test_an_extra_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softxent.doctor.report.OPTIONAL", {"no-such-package": "nothing"})
    assert "no-such-package  not installed (nothing)" in report([WELL])[0]

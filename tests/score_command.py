"""`softxent score` as a user runs it, on a small batch in a folder: what its test files share."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_files import save
from numpy.typing import NDArray
from softxent import cli

#: Seven rows of the batch, so that there are many chunks and a last one that is not full.
SMALL_CHUNK = 7 * 50 * 4


def save_batch(folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and targets, which are then also in `logits.npy` and `targets.npy`."""
    random = np.random.default_rng(5)
    logits = random.standard_normal((40, 50), dtype=np.float32) * np.float32(3)
    targets = random.integers(0, 50, 40)
    targets[[4, 30]] = -100
    save(folder / "logits.npy", logits)
    save(folder / "targets.npy", targets)
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


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one line that says why."""
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    [line] = printed.err.splitlines()
    assert line.startswith("softxent: ")
    return line.removeprefix("softxent: ")

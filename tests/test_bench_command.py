"""`softxent bench`: that everyone computes the same, that who is wrong is left out, and what is shown.

No time is tested.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from softxent import cli
from softxent.bench import rounds
from softxent.bench.contestants import LIMITS, LOSS, OPERATIONS, contestants
from softxent.bench.limits import Limits
from softxent.bench.report import BenchDisplay, table
from softxent.bench.rounds import Result, make_arrays, measure

SMALL = ["--rows", "9", "--classes", "300", "--rounds", "2"]


def small_result(count: int = 2) -> Result:
    *_, result = measure(make_arrays(9, 300, 2), count)
    return result


def test_everyone_computes_the_same_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softxent.bench.contestants.BLOCK_BYTES", 4 * 300 * 4)  # four rows
    arrays = make_arrays(9, 300, 2)
    for (operation, library), contestant in contestants().items():
        expected = contestants()[operation, "softxent"](arrays)
        reference = arrays.out.copy()
        arrays.out[:] = np.nan
        assert contestant(arrays) == pytest.approx(expected, rel=1e-5), (operation, library)
        if library == "numpy" and LIMITS[operation] == "copy":
            np.testing.assert_allclose(arrays.out, reference, rtol=1e-4, atol=1e-8)


def test_every_operation_has_ours_and_a_limit() -> None:
    assert {what for what, who in contestants() if who == "softxent"} == set(OPERATIONS)
    assert set(LIMITS) == set(OPERATIONS)


def test_the_limits_touch_everything() -> None:
    arrays = make_arrays(7, 11, 3)
    limits = Limits(3)
    arrays.logits[6, 10] = 99
    assert limits.read(arrays.logits) == 99
    limits.copy(arrays.logits, arrays.out)
    assert np.array_equal(arrays.logits, arrays.out)
    limits.close()


def test_every_round_has_a_time_of_everyone() -> None:
    result = small_result(3)
    assert {len(seconds) for seconds in result.seconds.values()} == {3}
    assert {len(seconds) for seconds in result.limits.values()} == {3}
    assert result.seconds.keys() == contestants().keys()


def test_who_is_wrong_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = contestants() | {(LOSS, "guess"): lambda _: 1.0}
    monkeypatch.setattr(rounds, "contestants", lambda: everyone)
    result = small_result()
    assert result.wrong == ["loss of guess"]
    assert (LOSS, "guess") not in result.seconds
    assert "left out, as its answer is wrong: loss of guess" in table(result)


def test_ratios_are_of_medians() -> None:
    seconds = {(LOSS, "softxent"): [1.0, 9.0, 2.0], (LOSS, "numpy"): [8.0, 8.0, 8.0]}
    result = Result(10, 100, 1, {"read": [1.0, 1.0, 7.0], "copy": [3.0]}, seconds)
    assert result.of_limit(LOSS, "softxent") == 0.5
    [ours, numpys] = [
        line.split() for line in table(result).splitlines() if line.startswith("loss")
    ]
    assert ours[-2:] == ["0.50", "1.0"]
    assert numpys[-2:] == ["0.12", "4.0"]
    assert BenchDisplay(result).of_limit == [0.5, 0.125]


def test_the_table_is_narrow_and_the_json_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *SMALL, "--plot", "bars.png"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines())) <= 80
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["bench", *SMALL, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["classes"]) == (9, 300)
    assert {len(each["seconds"]) for each in found["seconds"]} == {2}


def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars.png").write_text("mine")
    assert cli.main(["bench", *SMALL, "--plot", "bars.png"]) == 2
    assert "bars.png: exists already" in capsys.readouterr().err
    assert cli.main(["bench", "--rows", "1000000000", "--classes", "1000000"]) == 2
    assert "too little memory" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", "--rows", "0"])

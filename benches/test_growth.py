"""The growth of time and memory: recorded for every size, and the model's arithmetic."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benches import growth, records
from benches.model import PARALLEL, Machine, exponent


def test_growth_is_recorded_for_each_size_and_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("the limits need a C compiler named cc")
    monkeypatch.setattr(records, "RECORD", tmp_path)
    size = ["--largest", "7", "--real", "5", "--calibrate", "1000", "--rounds", "2"]
    growth.main([*size, "--record", "--machine", "here"])
    (file,) = (tmp_path / "here").glob("*-growth.json")
    points = [growth.Point(**point) for point in json.loads(file.read_text())["points"]]
    sizes = {(p.series, p.elements, p.threads) for p in points}
    assert sizes == {
        *(("in memory", 10**power, threads) for power in (3, 4, 5) for threads in (1, 2)),
        *(("one row", 10**power, threads) for power in (6, 7) for threads in (1, 2)),
    }
    assert all(len(p.seconds) == 2 and p.model > 0 for p in points)
    page = file.with_suffix(".md").read_text()
    assert all(f"| {p.rows} x {p.columns} " in page for p in points)


def test_the_largest_size_takes_no_memory() -> None:
    logits, targets = growth.arrays(growth.ONE_ROW, 10**10)
    assert logits.size == 10**10
    assert logits.strides == (0, 4)
    assert targets.nbytes < 1 << 20
    real, _ = growth.arrays(growth.IN_MEMORY, 10**6)
    assert real.flags.c_contiguous


@pytest.mark.skipif(growth.resident() is None, reason="only Linux says how much memory was in use")
def test_memory_that_was_in_use_for_a_moment_is_seen() -> None:
    before = growth.resident()
    assert before is not None
    np.ones(1 << 23)  # 64 MiB, gone at once
    assert growth.peak() - before > 60 << 20
    again = growth.resident()
    assert again is not None
    assert growth.peak() - again < 60 << 20


MACHINE = Machine(
    sockets=2, cores=4, rate=1e9, core_bandwidth=1e9, socket_bandwidth=2e9, call=1.0, wake=0.1
)


def test_the_model_takes_the_slower_of_arithmetic_and_memory() -> None:
    million = 10**6
    assert MACHINE.seconds(million, 0, 1) == pytest.approx(1.001)
    assert MACHINE.seconds(million, 4 * million, 1) == pytest.approx(1.004)
    assert MACHINE.seconds(million, 4 * million, 2) == pytest.approx(1.102)
    # Two sockets hold the pages, or one does and gives no more than its own.
    assert MACHINE.seconds(million, 4 * million, 8) == pytest.approx(1.701)
    assert MACHINE.seconds(million, 4 * million, 8, holding=1) == pytest.approx(1.702)
    assert MACHINE.bandwidth(8) == 4e9
    assert MACHINE.bandwidth(8, holding=1) == 2e9


def test_the_model_wakes_nobody_for_little() -> None:
    assert MACHINE.seconds(PARALLEL - 1, 0, 8) < 1.1 < MACHINE.seconds(PARALLEL, 0, 8)
    assert MACHINE.best_threads(10**6, 0) == 1
    assert MACHINE._replace(wake=0.0).best_threads(10**6, 0) == 8


def test_the_model_and_the_package_mean_the_same_by_little() -> None:
    source = Path(__file__).parent.parent / "src" / "sweep" / "mod.rs"
    found = re.findall(r"\bparallel: (\d+) \* (\d+),", source.read_text(encoding="utf-8"))
    assert [int(one) * int(other) for one, other in found] == [PARALLEL]


def test_the_exponent_of_growth() -> None:
    assert exponent(10, 1.0, 100, 10.0) == pytest.approx(1.0)
    assert exponent(10, 1.0, 100, 1.0) == 0.0

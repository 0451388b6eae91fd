"""The benchmarks' own tests: nothing is left out, nothing wrong is timed, no limit cheats."""

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx

from benches import linear, ratios, report
from benches.batch import DELIVERIES, DTYPES, Batch, function_of, option_of
from benches.libraries import LIBRARIES, OPERATIONS, OURS, installed
from benches.limits import Limits
from benches.machine import STAT, Neighbours

NOT_MEASURED = {"show_runtime", "set_threads", "get_threads", "release_memory"}
NOT_MEASURED |= {"merge_partials", "finish_cross_entropy"}  # a hundred bytes a row


@pytest.fixture(scope="module")
def limits() -> Limits:
    if shutil.which("cc") is None:
        pytest.skip("the limits need a C compiler named cc")
    return Limits(threads=2)


def test_every_public_function_is_measured() -> None:
    public = {name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))}
    operations = {*OPERATIONS, *linear.OPERATIONS}
    assert {function_of(operation) for operation in operations} == public - NOT_MEASURED


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_library_is_right_on_every_dtype(library: str, dtype: str) -> None:
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    batch = Batch.random(3, 1001, dtype, threads=2)
    calls = LIBRARIES[library](batch)
    assert set(calls) <= set(OPERATIONS)
    if library == OURS:
        assert set(calls) == set(OPERATIONS)
    for operation, call in calls.items():
        call.prepare()
        batch.check(operation, call.run())


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_existing_array_is_written_to_where_the_operation_says_so(library: str) -> None:
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    batch = Batch.random(3, 1001, "float32", threads=1)
    for operation, call in LIBRARIES[library](batch).items():
        call.prepare()
        result = call.run()
        arrays = result if isinstance(result, tuple) else (result,)
        shared = not hasattr(result, "nll") and any(
            np.shares_memory(np.asarray(array), batch.out) for array in arrays
        )
        assert shared == operation.endswith(DELIVERIES), operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_wrong_element_is_noticed(operation: str) -> None:
    batch = Batch.random(3, 1001, "float32", threads=1)
    call = LIBRARIES[OURS](batch)[operation]
    call.prepare()
    right = call.run()
    batch.check(operation, right)

    def spoil(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        wrong = np.array(a)
        wrong.flat[-1] += np.float32(1e-3)
        return wrong

    several: list[Any]
    if isinstance(right, sx.Evaluation):
        several = [dataclasses.replace(right, nll=spoil(right.nll))]
    elif isinstance(right, tuple):
        several = [(spoil(right[0]), right[1]), (right[0], spoil(right[1]))]
    else:
        several = [spoil(right)]
    for wrong in several:
        with pytest.raises(AssertionError):
            batch.check(operation, wrong)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if option_of(o)])
def test_an_option_left_out_is_noticed(operation: str) -> None:
    batch = Batch.random(3, 1001, "float32", threads=1)
    loss, grad = LIBRARIES[OURS](batch)["cross_entropy_with_grad"].run()
    right = LIBRARIES[OURS](batch)[operation].run()
    if isinstance(right, tuple):
        several: list[Any] = [(loss, right[1]), (right[0], grad)]
    else:
        several = [loss]
    for wrong in several:
        with pytest.raises(AssertionError):
            batch.check(operation, wrong)


@pytest.mark.parametrize("library", linear.LIBRARIES)
def test_every_library_is_right_about_a_linear_layer(library: str) -> None:
    if not installed(library.split()[0]):
        pytest.skip(f"{library} is not installed")
    linear.check(library)


def test_a_wrong_answer_about_a_linear_layer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(p: linear.Problem) -> linear.Calls:
        right = linear.numpy_calls(p)["linear_cross_entropy_with_grad"]
        loss, (hidden, weight, _) = right()
        weight[-1] += np.float32(1e-3)
        return {"linear_cross_entropy_with_grad": lambda: (loss, (hidden, weight, None))}

    monkeypatch.setattr(linear, "LIBRARIES", {"wrong": wrong})
    with pytest.raises(AssertionError):
        linear.check("wrong")


@pytest.mark.skipif(not STAT.exists(), reason="only Linux says how much memory a call takes")
def test_a_run_of_the_linear_layer_records_every_operation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(linear, "RECORD", tmp_path)
    size = ["--sizes", "6x4x30", "--rounds", "2", "--threads", "2", "--peers", "numpy"]
    linear.main([*size, "--record", "--machine", "here"])
    (recorded,) = (tmp_path / "here").glob("linear-*.json")
    rows = json.loads(recorded.read_text())["measured"]
    ours = {row["operation"] for row in rows if row["library"] == "softxent"}
    assert ours == {*linear.OPERATIONS, linear.PRODUCTS, f"{linear.PRODUCTS}, one"}
    assert all(len(row["seconds"]) == 2 and row["extra MiB"] >= 0 for row in rows)
    page = recorded.with_suffix(".md").read_text()
    assert all(row["operation"] in page for row in rows)


@pytest.mark.parametrize("length", [0, 1, 127, 129, 257, 2**21, 2**22 + 37])
@pytest.mark.parametrize("offset", [0, 1, 5])
def test_the_limits_do_all_of_their_work_and_no_more(
    limits: Limits, length: int, offset: int
) -> None:
    src = np.random.default_rng(0).integers(-8, 8, length + 16).astype(np.float32)
    inner = slice(offset, offset + length)
    assert limits.read(src[inner]) == src[inner].sum(dtype=np.float64)
    for streaming in (True, False):
        dst = np.full(length + 16, 99, np.float32)
        limits.copy(src[inner], dst[inner], streaming=streaming)
        expected = np.full(length + 16, 99, np.float32)
        expected[inner] = src[inner]
        np.testing.assert_array_equal(dst, expected)
        limits.scale(dst[inner], 3.0)
        expected[inner] *= 3
        np.testing.assert_array_equal(dst, expected)


def test_a_ratio_run_records_every_operation(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del limits  # only for its skip
    monkeypatch.setattr(ratios, "RECORD", tmp_path)
    size = ["--rows", "3", "--columns", "1001", "--rounds", "2"]
    ratios.main([*size, "--also", "bfloat16", "--record", "--machine", "here"])
    (recorded,) = (tmp_path / "here").glob("*.json")
    content = json.loads(recorded.read_text())
    rows = [report.Measured(**row) for row in content["measured"]]
    ours = {(row.operation, row.dtype) for row in rows if row.library == "softxent"}
    assert ours == {(o, dtype) for o in OPERATIONS for dtype in ("float32", "bfloat16")}
    assert all(len(row.seconds) == 2 for row in rows)
    page = recorded.with_suffix(".md").read_text()
    assert all(str(row.operation) in page for row in rows)


def test_shares_of_a_limit_are_of_its_bandwidth() -> None:
    limit = report.Measured("limit", "read", "float32", 4000, 4000, [2.0, 1.0])
    row = report.Measured("softxent", "logsumexp", "bfloat16", 2000, 2000, [1.0, 1.0])
    assert report.share_of_limit(row, limit, min) == 0.5
    twice = report.Measured("softxent", "cross_entropy", "float32", 4000, 8000, [2.5, 4.0])
    assert report.share_of_limit(twice, limit, min) == 0.8


def test_a_peer_without_out_stands_against_ours_with_and_without() -> None:
    names = ["softmax", "softmax out="]
    ours = [report.Measured("softxent", name, "float32", 4, 8, [1.0]) for name in names]
    peer = report.Measured("scipy", "softmax", "float32", 4, 8, [3.0])
    against = [ratio.fast.operation for ratio in report.ratios([*ours, peer]) if ratio.slow == peer]
    assert against == names


def test_an_option_stands_against_the_same_without_it_and_no_other() -> None:
    ours = [report.Measured("softxent", name, "float32", 4, 8, [1.0]) for name in OPERATIONS]
    peer = report.Measured("scipy", "cross_entropy", "float32", 4, 4, [3.0])
    pairs = [(r.slow.operation, r.fast.operation) for r in report.ratios(ours)]
    for pair in (
        ("cross_entropy of probabilities", "cross_entropy"),
        ("cross_entropy_with_grad class_mask= out=", "cross_entropy_with_grad out="),
        ("cross_entropy_with_grad class_mask=", "cross_entropy_with_grad class_mask= out="),
    ):
        assert pairs.count(pair) == 1
    # A peer that has no such option does not stand against ours that has.
    against = [r.fast.operation for r in report.ratios([*ours, peer]) if r.slow == peer]
    assert against == ["cross_entropy"]


@pytest.mark.skipif(not STAT.exists(), reason="only Linux says what other processes take")
def test_a_busy_neighbour_is_noticed() -> None:
    # Beside a compiler torch's times were off a hundredfold, and nothing on the page said so.
    neighbours = Neighbours()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1.0)
        said = str(neighbours)
        other.kill()
    assert "BUSY" in said

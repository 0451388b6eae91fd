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

from benches import libraries, linear, ratios, readme, records, targets
from benches.batch import DELIVERIES, DTYPES, Batch, function_of, option_of
from benches.clock import MOST_REPEATS, repeats_for
from benches.libraries import LIBRARIES, OURS, PEERS, installed
from benches.limits import Limits
from benches.machine import STAT, Neighbours, largest_cache
from benches.measured import Measured, What
from benches.operations import OPERATIONS, Call
from benches.other_level import NoSuchLevelError, OtherLevel
from benches.scene import Scene
from benches.targets import TARGETS

NOT_MEASURED = {"show_runtime", "set_threads", "get_threads", "release_memory"}
NOT_MEASURED |= {"merge_partials", "finish_cross_entropy"}  # a hundred bytes a row
# Right, but not to the last of their 16 bits: left out of a run.
WRONG = {("torch", dtype, "js_divergence_with_grad") for dtype in ("float16", "bfloat16")}


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
    calls = LIBRARIES[library].calls(batch)
    assert set(calls) <= set(OPERATIONS)
    if library == OURS:
        assert set(calls) == set(OPERATIONS)
    for operation, call in calls.items():
        if (library, dtype, operation) not in WRONG:
            call.prepare()
            batch.check(operation, call.run())


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_existing_array_is_written_to_where_the_operation_says_so(library: str) -> None:
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    batch = Batch.random(3, 1001, "float32", threads=2)
    for operation, call in LIBRARIES[library].calls(batch).items():
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
    call = LIBRARIES[OURS].calls(batch)[operation]
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
    loss, grad = LIBRARIES[OURS].calls(batch)["cross_entropy_with_grad"].run()
    right = LIBRARIES[OURS].calls(batch)[operation].run()
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
    monkeypatch.setattr(records, "RECORD", tmp_path)
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


SMALL = ["--rows", "3", "--columns", "1001", "--rounds", "2"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of all settings, made of hardly anything."""
    if shutil.which("cc") is None:
        pytest.skip("the limits need a C compiler named cc")
    folder = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RECORD", folder)
        ratios.main([*SMALL, "--peers", "numpy", "--record", "--machine", "here"])
    (file,) = (folder / "here").glob("*.json")
    return file


def test_a_run_records_every_target_and_every_operation(recorded: Path) -> None:
    content = json.loads(recorded.read_text())
    rows = [Measured.from_json(row) for row in content["measured"]]
    assert all(len(row.seconds) == 2 for row in rows)
    family = {row.what.operation for row in rows if row.what[:2] == (targets.FAMILY, OURS)}
    assert family == set(OPERATIONS)

    levels = ("avx2", "avx512")
    of_others = {t.case for t in TARGETS if "torch" in t.case or t.what.isa in levels}
    judged = {row["case"]: row for row in content["targets"]}
    assert list(judged) == [target.case for target in TARGETS]
    assert {case for case, row in judged.items() if row["verdict"] == "not measured"} <= of_others
    assert "NOT BEYOND" in content["beyond cache"] or largest_cache() == 0
    page = recorded.with_suffix(".md").read_text()
    assert all(f"| {case} " in page for case in judged)
    assert all(
        f"{peer}: not asked for" in page for peer in PEERS if installed(peer) and peer != "numpy"
    )
    assert all(f"{peer}: not installed" in page for peer in PEERS if not installed(peer))


def test_the_readmes_table_is_made_of_a_record(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "README.md"
    shutil.copy(readme.README, copy)
    monkeypatch.setattr(readme, "README", copy)
    before = copy.read_text(encoding="utf-8")
    readme.main([str(recorded)])
    after = copy.read_text(encoding="utf-8")
    old, new = (readme.TABLE.search(page) for page in (before, after))
    assert old is not None
    assert new is not None
    assert before.replace(old[0], new[0]) == after
    shown = [line.split("`")[1] for line in new[0].splitlines() if "`" in line]
    assert shown == list(readme.ROWS)
    assert (
        new[0].splitlines()[0]
        == "| | ms | of the limit | limit | torch / softxent | best other peer / softxent |"
    )
    assert {line.count("|") for line in new[0].splitlines()} == {len(readme.HEADER) + 1}
    # It can be made again of the next record.
    monkeypatch.setattr(records, "RECORD", recorded.parent.parent)
    readme.main([])
    assert copy.read_text(encoding="utf-8") == after


def test_a_peer_that_is_wrong_or_broken_is_left_out_and_said(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no compiler\nat all")

    calls = {"cross_entropy": Call(lambda: 0.0), "softmax": Call(broken)}
    wrong = libraries.Library(lambda _: calls, ())
    monkeypatch.setitem(libraries.LIBRARIES, "numpy", wrong)
    names = ["cross_entropy", "softmax", "logsumexp"]
    with Scene((3, 1001), limits, "avx2") as scene:
        assert scene.work([What("beyond", "numpy", name) for name in names]) == []
        assert scene.left_out == [
            "numpy cross_entropy, float32: its answer is wrong",
            "numpy softmax, float32: RuntimeError: no compiler",
        ]


def test_an_answer_of_ours_that_is_wrong_ends_the_run(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = libraries.Library(lambda _: {"cross_entropy": Call(lambda: 0.0)}, ())
    monkeypatch.setitem(libraries.LIBRARIES, OURS, wrong)
    with Scene((3, 1001), limits, "avx2") as scene, pytest.raises(AssertionError):
        scene.work([What("beyond", OURS, "cross_entropy")])


def test_another_instruction_set_answers_from_a_process_of_its_own() -> None:
    with OtherLevel("portable", rows=3, columns=1001, threads=1) as process:
        for operation in ("cross_entropy", "cross_entropy_with_grad in place"):
            process.check(operation)
            assert process.seconds(operation) > 0
    with pytest.raises(NoSuchLevelError, match="no-such-isa"):
        OtherLevel("no-such-isa", rows=3, columns=1001, threads=1)


def test_short_calls_are_repeated_and_long_ones_are_not() -> None:
    assert repeats_for(lambda repeats: 10.0 * repeats) == 1
    assert repeats_for(lambda _: 1e-3) == 20
    assert repeats_for(lambda _: 0.0) == MOST_REPEATS


def test_the_same_values_in_another_dtype_take_no_more_bytes() -> None:
    batch = Batch.random(4, 1001, "float32", threads=1)
    for dtype, rows in (("float64", 2), ("bfloat16", 4), ("float16", 4)):
        other = batch.as_dtype(dtype)
        assert other.logits.shape == other.out.shape == (rows, 1001)
        assert np.shares_memory(other.out, batch.out)
        assert other.logits.dtype == DTYPES[dtype]
    assert Batch.random(1, 3, "float32", threads=1).as_dtype("float64").out.shape == (1, 3)


@pytest.mark.skipif(not STAT.exists(), reason="only Linux says what other processes take")
def test_a_busy_neighbour_is_noticed() -> None:
    # Beside a compiler torch's times were off a hundredfold, and nothing on the page said so.
    neighbours = Neighbours()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1.0)
        said = str(neighbours)
        other.kill()
    assert "BUSY" in said

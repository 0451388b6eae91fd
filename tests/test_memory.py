"""Memory of large results: used again when a result is gone, never while anything sees it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx

MIB = 2**20
SHAPE = (1024, 8192)  # 32 MiB of singles
LOGITS = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)

needs_maps = pytest.mark.skipif(sys.platform == "win32", reason="only where memory is mapped")


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    sx.release_memory()
    yield
    sx.release_memory()


@needs_maps
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_result_takes_the_memory_of_one_that_is_gone(dtype: type) -> None:
    logits: npt.NDArray[Any] = np.tile(LOGITS.astype(dtype), (2, 1))
    address = sx.softmax(logits).ctypes.data
    assert sx.softmax(logits).ctypes.data == address
    assert sx.cross_entropy_with_grad(logits, np.zeros(len(logits), int))[1].ctypes.data == address
    assert address % 64 == 0


def test_what_waits_is_returned_once() -> None:
    sx.softmax(LOGITS)
    expected = 32 * MIB if sys.platform != "win32" else 0
    assert sx.release_memory() == expected
    assert sx.release_memory() == 0


def test_a_result_is_left_alone_while_a_view_of_it_is_alive() -> None:
    first = sx.softmax(LOGITS)
    expected = first[3].copy()
    view = first[3].reshape(2, -1).T
    del first
    others = [sx.softmax(LOGITS + 1) for _ in range(3)]
    sx.release_memory()
    np.testing.assert_array_equal(view.T.reshape(-1), expected)
    assert len({other.ctypes.data for other in others}) == 3


def test_a_result_is_an_ordinary_array() -> None:
    result = sx.softmax(LOGITS)
    assert type(result) is np.ndarray
    assert result.flags.writeable
    assert result.flags.c_contiguous
    result[:] = 7
    assert (result.copy() == 7).all()


def test_other_orders_of_axes_are_kept() -> None:
    result = sx.softmax(np.asfortranarray(LOGITS))
    assert result.flags.f_contiguous
    np.testing.assert_array_equal(result, sx.softmax(LOGITS))


def test_threads_get_memory_of_their_own() -> None:
    def work(seed: int) -> bool:
        logits = np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)
        expected = sx.softmax(logits, out=np.empty_like(logits))
        return all(np.array_equal(sx.softmax(logits), expected) for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@needs_maps
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_its_parents_results_alone() -> None:
    mine = sx.softmax(LOGITS)
    expected = mine.copy()
    sx.softmax(LOGITS)  # waits, for both
    child = os.fork()
    if child == 0:
        good = np.array_equal(
            sx.softmax(LOGITS + 1), sx.softmax(LOGITS + 1, out=np.empty_like(mine))
        )
        mine[:] = 0
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(sx.softmax(LOGITS), expected)


LIMITED = """
import resource
import numpy as np
import softxent as sx

sx.set_threads(1)
large, small = np.zeros((40, 2**20), np.float32), np.zeros((20, 2**20), np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sx.softmax(small)  # 80 MiB that wait
sx.softmax(large)  # 160 MiB: there is room only without them
try:
    sx.softmax(np.broadcast_to(large[0], (60, 2**20)))
except MemoryError:
    print("no memory")
print(sx.softmax(small)[0, 0] == np.float32(2**-20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_what_waits_makes_room_for_a_result_that_needs_it() -> None:
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split("\n") == ["no memory", "True", ""], done.stderr


LAYER = """
import sys
from pathlib import Path
import numpy as np
import softxent as sx

def of_process(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

rows, classes, width = map(int, sys.argv[1:])
random = np.random.default_rng(0)
hidden = random.standard_normal((rows, width), np.float32)
weight = random.standard_normal((classes, width), np.float32)
targets = random.integers(classes, size=rows)
out = np.ones_like(hidden), np.ones_like(weight), None
sx.linear_cross_entropy_with_grad(hidden[:2], weight[:2], targets[:2] * 0, threads=2)
Path("/proc/self/clear_refs").write_text("5")
before = of_process("VmRSS")
sx.linear_cross_entropy_with_grad(hidden, weight, targets, out=out, threads=2)
print(of_process("VmHWM") - before)
"""


def taken_by_a_layer(rows: int, classes: int, width: int) -> int:
    """By how many bytes one call makes the peak of a process grow."""
    command = [sys.executable, "-c", LAYER, *map(str, (rows, classes, width))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a call took")
@pytest.mark.parametrize(("classes", "width"), [(128_256, 8), (50_257, 64)])
def test_a_linear_layer_takes_no_more_for_more_rows(classes: int, width: int) -> None:
    a_chunk = min(1024, 192 * MIB // (4 * (classes + 3 * width)))
    few, many = (taken_by_a_layer(n * a_chunk, classes, width) for n in (6, 12))
    assert 4 * a_chunk * classes <= few <= 256 * MIB
    assert many <= few + 8 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a call took")
def test_a_linear_layer_takes_a_quarter_of_its_logits() -> None:
    assert taken_by_a_layer(2048, 50_257, 512) <= 4 * 2048 * 50_257 / 4

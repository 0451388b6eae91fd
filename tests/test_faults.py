"""What goes wrong around a call: a fork, Ctrl-C, too little memory, no threads, a rude neighbour.

A fault that can end or hang a process is tested in one of its own: a *program*, a function of this
file that `run_program` starts with a time limit. What a call computes is not asked here beyond
"the same as before".
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from numpy.typing import NDArray
from softxent import _core

Array: TypeAlias = NDArray[Any]

MEBIBYTE = 2**20
SECONDS = 60  # for a program, which takes one or two
CTRL_C_SECONDS = 0.2  # from the signal to the exception
COMPILER = shutil.which("cc")


# What the programs are made of.


def threaded_call() -> bytes:
    """Many rows on several threads: a call for which the pool is needed. The bits of its result."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 1000)).astype(np.float32)
    targets = random.integers(1000, size=400)
    found: list[Any] = [*sx.cross_entropy_with_grad(logits, targets, threads=4)]
    hidden, weight = logits[:, :64], random.normal(size=(1000, 64)).astype(np.float32)
    loss, grads = sx.linear_cross_entropy_with_grad(hidden, weight, targets, threads=4)
    return b"".join(part.tobytes() for part in [*found, loss, *grads[:2]])


def threads_of_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` comes back and is right in a forked child."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if work() else 1)
        os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def limit_memory(mebibytes: float) -> None:
    """Let the process grow by so much and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(mebibytes * MEBIBYTE)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def rows_of(length: int, columns: int = 1) -> Array:
    """So many rows of ones that take no memory."""
    return np.broadcast_to(np.float32(1), (length, columns))


def ids_of(length: int) -> Array:
    return np.broadcast_to(np.int64(0), (length,))


def merged_of(length: int) -> Array:
    """What is known of so many rows of one class, in the memory of one."""
    row = sx.partial_cross_entropy(np.zeros((1, 1), np.float32), [0], class_offset=0)
    return np.broadcast_to(sx.merge_partials([row]), (1, length))


def run_program(program: Callable[..., None], *arguments: str | float) -> str:
    """Run a function of this file in a process of its own, which must end well. What it prints."""
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, program.__name__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that children which hang can be ended with it
    )
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, f"exit {process.returncode}\n{errors[-2000:]}"
    return output


# Forks.


def fork_from_a_warm_parent() -> None:
    before = threads_of_process()
    expected = threaded_call()
    assert threads_of_process() > before

    def works() -> bool:
        alone = threads_of_process() == 1
        return alone and threaded_call() == expected and threads_of_process() > 1

    for _ in range(3):
        assert in_child(works)
    assert in_child(lambda: works() and in_child(works) and threaded_call() == expected)
    assert threaded_call() == expected


def fork_while_others_are_at_work() -> None:
    expected = threaded_call()
    stop = threading.Event()

    def keep_calling() -> None:
        while not stop.is_set():
            threaded_call()

    threads = [threading.Thread(target=keep_calling) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: threaded_call() == expected)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert threaded_call() == expected


def call_in_pool(_: int) -> bytes:
    result = threaded_call()
    assert threads_of_process() > 1
    return result


def fork_a_pool_of_processes() -> None:
    expected = threaded_call()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(call_in_pool, range(9)) == [expected] * 9
    assert threaded_call() == expected


@pytest.mark.parametrize(
    "program",
    [fork_from_a_warm_parent, fork_while_others_are_at_work, fork_a_pool_of_processes],
    ids=lambda program: program.__name__,
)
def test_a_forked_child_works(program: Callable[[], None]) -> None:
    run_program(program)


# Ctrl-C.

LONG: dict[str, Callable[[], Any]] = {
    "rows without end": lambda: sx.logsumexp(rows_of(10**6, 40_000)),
    "one thread": lambda: sx.logsumexp(rows_of(10**6, 40_000), threads=1),
    "losses of many rows": lambda: sx.cross_entropy(rows_of(10**6, 40_000), ids_of(10**6)),
    "chunks of a row without end": lambda: sx.logsumexp(rows_of(1, 2**33)),
    "a row without end on one thread": lambda: sx.logsumexp(rows_of(1, 2**31), threads=1),
    "probabilities in place": lambda: in_place(sx.softmax),
    "logarithms in place": lambda: in_place(sx.log_softmax),
    "gradients in place": lambda: in_place(
        lambda logits, out: sx.cross_entropy_with_grad(logits, ids_of(len(logits)), out=out)
    ),
    "divergences of many rows": lambda: sx.kl_divergence(*[rows_of(10**6, 40_000)] * 2),
    "a divergence of a row without end": lambda: sx.js_divergence(*[rows_of(1, 2**31)] * 2),
    "gradients of divergences in place": lambda: in_place(
        lambda logits, out: sx.js_divergence_with_grad(rows_of(len(logits)), logits, out=out)
    ),
    "partials of many rows": lambda: sx.partial_cross_entropy(
        rows_of(10**6, 40_000), ids_of(10**6), class_offset=0
    ),
    "a partial of a row without end": lambda: sx.partial_cross_entropy(
        rows_of(1, 2**33), ids_of(1), class_offset=0
    ),
    "gradients of a shard in place": lambda: in_place(
        lambda logits, out: sx.shard_grad(
            logits, ids_of(len(logits)), merged_of(len(logits)), class_offset=0, out=out
        ),
        rows=2 * 10**6,
    ),
    "a linear layer of many rows": lambda: sx.linear_cross_entropy(
        rows_of(10**6, 64), rows_of(20_000, 64), ids_of(10**6)
    ),
    "gradients of a wide linear layer": lambda: sx.linear_cross_entropy_with_grad(
        rows_of(10**5, 4096), rows_of(5000, 4096), ids_of(10**5), grads=["linear_weight", "hidden"]
    ),
}


def in_place(function: Callable[..., Any], rows: int = 10**7) -> None:
    """A long call on little memory: each element is a task."""
    _core._set_thresholds(0, None, 1)
    logits = np.zeros((rows, 1), np.float16)
    function(logits, out=logits)


def interrupt(name: str) -> None:
    """Prints how long it takes from the signal to the exception."""
    sent: list[float] = []

    def press() -> None:
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    try:
        LONG[name]()
    except KeyboardInterrupt:
        seconds = time.perf_counter() - sent[0]
    else:
        raise AssertionError("the call came to its end")
    _core._set_thresholds(None, None, None)
    assert len(threaded_call()) == 4 * (400_001 + 89_601)
    print(seconds)


@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_ends_a_long_call_at_once_and_the_next_one_works(name: str) -> None:
    # A busy machine may be late once; a call that does not listen is late each time.
    taken = []
    for _ in range(3):
        taken.append(float(run_program(interrupt, name)))
        if taken[-1] < CTRL_C_SECONDS:
            return
    pytest.fail(f"after {taken} seconds")


# Memory.

ROWS = 500_000
HUNGRY: dict[str, Callable[[], Any]] = {
    "softmax": lambda: sx.softmax(rows_of(ROWS, 8)),
    "log_softmax": lambda: sx.log_softmax(rows_of(ROWS, 8)),
    "logsumexp": lambda: sx.logsumexp(rows_of(ROWS)),
    "logsumexp to float16": lambda: sx.logsumexp(rows_of(ROWS), dtype=np.float16),
    "mean": lambda: sx.cross_entropy(rows_of(ROWS), ids_of(ROWS)),
    "losses": lambda: sx.cross_entropy(rows_of(ROWS), ids_of(ROWS), reduction="none"),
    "gradient": lambda: sx.cross_entropy_with_grad(
        rows_of(ROWS, 8),
        ids_of(ROWS),
        reduction="none",
        grad_output=np.broadcast_to(1.0, (ROWS,)),
    ),
    "sequences": lambda: sx.cross_entropy(
        rows_of(0), ids_of(0), reduction="sequence_mean", offsets=ids_of(ROWS)
    ),
    "divergences": lambda: sx.kl_divergence(*[rows_of(ROWS)] * 2, reduction="none"),
    "gradient of divergences": lambda: sx.js_divergence_with_grad(*[rows_of(ROWS, 8)] * 2),
    "partials": lambda: sx.partial_cross_entropy(
        rows_of(ROWS // 8), ids_of(ROWS // 8), class_offset=0
    ),
    "a linear layer": lambda: sx.linear_cross_entropy_with_grad(
        rows_of(ROWS // 8, 8), rows_of(9000, 8), ids_of(ROWS // 8), rows_of(9000)[:, 0]
    ),
    "losses of shards": lambda: sx.finish_cross_entropy(merged_of(ROWS), reduction="none"),
    "gradient of a shard": lambda: sx.shard_grad(
        rows_of(ROWS // 8), ids_of(ROWS // 8), merged_of(ROWS // 8), class_offset=0
    ),
}


def run_short_of_memory(name: str) -> None:
    """The same call with ever more memory until it is enough. Prints how often it was not."""
    small = sx.softmax([1.0, 2.0]).tobytes()
    for attempt in range(100):
        limit_memory(attempt / 2)
        try:
            HUNGRY[name]()
        except MemoryError:
            assert sx.softmax([1.0, 2.0]).tobytes() == small
        else:
            print(attempt)
            return


@pytest.mark.parametrize("name", HUNGRY)
def test_too_little_memory_is_a_memory_error_and_the_process_lives(name: str) -> None:
    assert int(run_program(run_short_of_memory, name)) > 2


def test_a_result_larger_than_any_memory_is_a_memory_error() -> None:
    logits, targets = rows_of(2**40), ids_of(2**40)
    for call in (
        lambda: sx.softmax(logits),
        lambda: sx.log_softmax(logits),
        lambda: sx.logsumexp(logits),
        lambda: sx.cross_entropy(logits, targets),
        lambda: sx.cross_entropy_with_grad(logits, targets),
        lambda: sx.linear_cross_entropy(logits, logits[:2], targets),
        lambda: sx.linear_cross_entropy(logits[:2], logits, targets[:2]),
        lambda: sx.kl_divergence(logits, logits),
        lambda: sx.js_divergence_with_grad(logits, logits),
        lambda: sx.partial_cross_entropy(logits, targets, class_offset=0),
    ):
        with pytest.raises(MemoryError):
            call()


def start_no_threads(mebibytes: str) -> None:
    """Too little memory for the stacks of all threads, or of any. Prints how many there are."""
    logits = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    expected = sx.logsumexp(logits, threads=1).tobytes()
    before = threads_of_process()
    limit_memory(float(mebibytes))
    for _ in range(3):
        assert sx.logsumexp(logits, threads=9).tobytes() == expected
    print(threads_of_process() - before)


def test_a_call_that_gets_no_threads_does_the_work_itself() -> None:
    started = [int(run_program(start_no_threads, mebibytes)) for mebibytes in (1, 4, 9, 2000)]
    assert started[0] == 0
    assert started[-1] == 8


# Very many calls, and many at once.


def test_many_calls_leave_nothing_behind() -> None:
    logits, targets = np.zeros((3, 7), np.float32), np.array([0, 1, 2])
    swapped, out = logits.astype(">f4"), np.zeros_like(logits)
    ignored = np.array([True, False, False])

    def refused(**options: Any) -> None:
        with contextlib.suppress(ValueError, TypeError, IndexError):
            sx.cross_entropy_with_grad(logits, targets, **options)
            raise AssertionError("accepted")

    def call_all() -> None:
        sx.softmax(logits, out=out)
        sx.log_softmax(swapped, dtype=np.float16)
        sx.logsumexp(logits.tolist(), keepdims=True)
        sx.cross_entropy(logits, targets, reduction="none", ignore_index=[5, 6])
        sx.cross_entropy_with_grad(logits, targets, grad_output=2.0, threads=2)
        sx.linear_cross_entropy_with_grad(logits, swapped, targets, logits[:, 0], threads=2)
        sx.kl_divergence(logits, swapped, reduction="none")
        sx.js_divergence_with_grad(logits, swapped, ignore_rows=ignored, out=out)
        merged = sx.merge_partials([sx.partial_cross_entropy(logits, targets, class_offset=0)])
        sx.finish_cross_entropy(merged, sample_weight=targets)
        sx.shard_grad(logits, targets, merged, class_offset=0, out=out)
        refused(axis=7)
        refused(out=out[:, ::-1].T)
        refused(temperature="1")
        refused(ignore_index=[object()])

    arrays = [logits, targets, swapped, out, ignored]
    kept: list[Any] = [*arrays, *(a.dtype for a in arrays)]
    kept += [np.dtype(np.float16), np.dtype(np.float64), 7, "none", np.ndarray]

    def state() -> tuple[list[int], int, int]:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        return [sys.getrefcount(value) for value in kept], resident, threads_of_process()

    for _ in range(500):
        call_all()
    references, resident, threads = state()
    for _ in range(5500):
        call_all()
    references_after, resident_after, threads_after = state()
    assert all(
        after < before + 100 for before, after in zip(references, references_after, strict=True)
    )
    assert resident_after < resident + 2 * MEBIBYTE
    assert threads_after <= threads


def test_64_python_threads_may_call_at_once() -> None:
    expected = threaded_call()
    ready = threading.Barrier(64)

    def call_often(_: int) -> set[bytes]:
        ready.wait()
        return {threaded_call() for _ in range(3)}

    with ThreadPoolExecutor(64) as executor:
        assert set().union(*executor.map(call_often, range(64))) == {expected}


# The neighbour.

NEIGHBOUR = """
#include <immintrin.h>
void set_state(unsigned state) { _mm_setcsr(state); }
unsigned get_state(void) { return _mm_getcsr(); }
"""
DEFAULT_STATE, FLUSH_TO_ZERO, INPUTS_TOO, FLAGS = 0x1F80, 0x8000, 0x0040, 0x003F


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A library that changes the floating-point state of its caller, as fast-math ones do."""
    if COMPILER is None or os.uname().machine != "x86_64":
        pytest.skip("needs a C compiler named cc, on x86-64")
    folder = tmp_path_factory.mktemp("neighbour")
    (folder / "neighbour.c").write_text(NEIGHBOUR)
    library = folder / "neighbour.so"
    command: list[str | Path] = [
        COMPILER,
        "-O1",
        "-shared",
        "-fPIC",
        "-o",
        library,
        folder / "neighbour.c",
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("state", [FLUSH_TO_ZERO, INPUTS_TOO, FLUSH_TO_ZERO | INPUTS_TOO], ids=hex)
def test_a_neighbour_that_flushes_to_zero_changes_nothing(
    neighbour: ctypes.CDLL,
    set_thresholds: Callable[[int | None, int | None, int | None], None],
    state: int,
    dtype: type[np.floating[Any]],
) -> None:
    set_thresholds(0, None, 1)
    random = np.random.default_rng(0)
    logits = (20 * random.normal(size=(64, 300))).astype(dtype)
    targets = random.integers(300, size=64)
    weight = random.normal(size=(300, 300)).astype(dtype)
    tiny = float(np.finfo(dtype).smallest_subnormal) * 1000

    def results(threads: int) -> list[Array]:
        options: dict[str, Any] = {"reduction": "none", "threads": threads}
        # The upstream gradient makes every element of the gradient subnormal.
        found: list[Any] = []
        found += sx.cross_entropy_with_grad(logits, targets, grad_output=tiny, **options)
        found += sx.js_divergence_with_grad(logits, logits[::-1], grad_output=tiny, **options)
        shard: dict[str, Any] = {"class_offset": 0, "threads": threads}
        merged = sx.merge_partials([sx.partial_cross_entropy(logits, targets, **shard)])
        found.append(sx.finish_cross_entropy(merged, reduction="none"))
        upstream: dict[str, Any] = {"reduction": "none", "grad_output": tiny}
        found.append(sx.shard_grad(logits, targets, merged, **shard, **upstream))
        loss, grads = sx.linear_cross_entropy_with_grad(logits, weight, targets, **upstream)
        found += [loss, *grads[:2]]
        return [*found, sx.softmax(logits, threads=threads), sx.logsumexp(logits, threads=threads)]

    expected = results(threads=1)
    for grad in (expected[1], expected[5]):
        assert 0 < abs(grad).max() < np.finfo(dtype).tiny
    for threads in (1, 4):
        neighbour.set_state(DEFAULT_STATE | state)
        try:
            found = results(threads)
            state_after = neighbour.get_state() & ~FLAGS
        finally:
            neighbour.set_state(DEFAULT_STATE)
        assert state_after == DEFAULT_STATE | state
        for a, b in zip(found, expected, strict=True):
            assert a.tobytes() == b.tobytes()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

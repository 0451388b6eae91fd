"""How many threads a call uses, who decides it, and that Python goes on meanwhile.

That the results do not depend on the number is for other files to test. What the environment says
is read at import, so each case of it imports the package in a process of its own.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import softxent as sx

VARIABLES = ("SOFTXENT_NUM_THREADS", "OMP_NUM_THREADS")
PROCESSORS = len(os.sched_getaffinity(0))

# Prints how many threads a call on large logits has started.
COUNT_STARTED = """
import os, numpy as np, softxent as sx
logits = np.zeros(({rows}, 1000), np.float32)
before = len(os.listdir("/proc/self/task"))
{calls}
print(len(os.listdir("/proc/self/task")) - before)
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def printed(code: str, **environment: str) -> int:
    process = run_python(code, **environment)
    assert process.returncode == 0, process.stderr
    return int(process.stdout)


def started_by(calls: str, rows: int = 300) -> int:
    return printed(COUNT_STARTED.format(rows=rows, calls=calls), SOFTXENT_NUM_THREADS="5")


GET = "import softxent as sx; print(sx.get_threads())"


# Who decides.


@pytest.mark.parametrize(
    ("package", "openmp", "expected"),
    [
        (None, None, PROCESSORS),
        ("", "", PROCESSORS),
        ("3", None, 3),
        ("3", "5", 3),
        (" 3 ", None, 3),
        ("1", "5", 1),
        (None, "5", 5),
        ("", "5", 5),
        (None, "5,2", 5),
        # What OpenMP itself would not take as a number of threads is not ours to judge.
        (None, "many", PROCESSORS),
        (None, "0", PROCESSORS),
    ],
)
def test_the_environment_sets_the_default(
    package: str | None, openmp: str | None, expected: int
) -> None:
    given = dict(zip(VARIABLES, (package, openmp), strict=True))
    environment = {name: value for name, value in given.items() if value is not None}
    assert printed(GET, **environment) == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "3,4", "9" * 30])
def test_a_bad_number_in_the_environment_is_an_import_error_that_says_so(value: str) -> None:
    process = run_python(GET, SOFTXENT_NUM_THREADS=value)
    assert process.returncode == 1
    message = f"ImportError: SOFTXENT_NUM_THREADS: expected a number >= 1, got {value}"
    assert process.stderr.splitlines()[-1] == message


def test_the_default_is_the_processors_that_the_process_may_use() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {GET}"
    assert printed(code) == 1
    assert printed(code, OMP_NUM_THREADS="2") == 2


def test_set_threads_goes_before_the_environment_until_it_is_taken_back() -> None:
    code = "import softxent as sx; sx.set_threads(7); print(sx.get_threads())"
    assert printed(code, SOFTXENT_NUM_THREADS="3") == 7
    code = "import softxent as sx; sx.set_threads(7); sx.set_threads(None); print(sx.get_threads())"
    assert printed(code, SOFTXENT_NUM_THREADS="3") == 3


def test_show_runtime_says_how_many_threads_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    sx.set_threads(5)
    try:
        assert sx.show_runtime()["threads"] == 5
        assert "threads: 5\n" in capsys.readouterr().out
    finally:
        sx.set_threads(None)


# How many are started: the calling thread works too, so one less than are used.


@pytest.mark.parametrize(
    ("calls", "started"),
    [
        ("sx.softmax(logits, threads=1)", 0),
        ("sx.softmax(logits, threads=3)", 2),
        ("sx.softmax(logits)", 4),
        ("sx.set_threads(2); sx.softmax(logits)", 1),
        ("sx.set_threads(2); sx.softmax(logits, threads=3)", 2),
        ("sx.logsumexp(logits, threads=3)", 2),
        ("sx.log_softmax(logits, threads=3)", 2),
        ("sx.cross_entropy(logits, [0] * 300, threads=3)", 2),
        ("sx.cross_entropy_with_grad(logits, [0] * 300, threads=3)", 2),
        # A row alone is large enough to be shared.
        ("sx.logsumexp(np.zeros(300_000), threads=3)", 2),
        # Not worth waking anybody for; only one thing to do.
        ("sx.softmax(logits[:9], threads=3)", 0),
        ("sx.logsumexp(np.zeros((1, 9)), threads=9)", 0),
    ],
)
def test_a_call_uses_the_threads_that_it_is_given(calls: str, started: int) -> None:
    assert started_by(calls) == started


def test_threads_are_kept_and_used_again() -> None:
    calls = "for _ in range(20): sx.softmax(logits, threads=3); sx.logsumexp(logits, threads=2)"
    assert started_by(calls) <= 3


def test_a_huge_number_of_threads_starts_no_more_than_are_of_use() -> None:
    assert started_by("sx.softmax(logits, threads=10**9)", rows=2000) <= 1024


# Python goes on.

LONG_CALLS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "softmax": lambda x: sx.softmax(x, threads=1),
    "log_softmax": lambda x: sx.log_softmax(x, threads=1),
    "logsumexp": lambda x: sx.logsumexp(x, threads=1),
    "cross_entropy": lambda x: sx.cross_entropy(x, [0] * len(x), threads=1),
    "cross_entropy_with_grad": lambda x: sx.cross_entropy_with_grad(x, [0] * len(x), threads=1),
}


@pytest.mark.parametrize("name", LONG_CALLS)
def test_another_python_thread_goes_on_during_a_call(name: str) -> None:
    # Some 0.1 seconds: bytes in another order are gathered, and rows that are all the same need no memory.
    logits = np.broadcast_to(np.zeros(50_000, ">f4"), (2000, 50_000))
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.perf_counter()
        LONG_CALLS[name](logits)
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    middle = [t for t in ticks if start + 0.2 * (end - start) < t < end - 0.2 * (end - start)]
    assert len(middle) > 3, f"in a call of {end - start:.3f} seconds"

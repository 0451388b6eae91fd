"""The arrays of one setting, and the clocks of everything that is measured on them.

It turns a ``What`` into a timer once its answer has been checked, and keeps account of what cannot be
measured here and why. It knows no target.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from benches.batch import Batch
from benches.clock import Timer, repeats_for, seconds_of
from benches.libraries import LIBRARIES, OURS
from benches.limits import Floats, Limits
from benches.measured import LIMIT, Measured, What
from benches.operations import OPERATIONS, Call
from benches.other_level import NoSuchLevelError, OtherLevel


class LeftOutError(Exception):
    """What cannot be measured; the message says why."""


class Work(NamedTuple):
    """One row of a round."""

    row: Measured
    timer: Timer
    repeats: int


class Scene:
    """A float32 batch and what follows from it: other dtypes, other instruction sets, the limits."""

    def __init__(self, shape: tuple[int, int], limits: Limits, isa: str) -> None:
        self.limits, self.isa = limits, isa
        self.left_out: list[str] = []
        self._batches = {
            ("float32", limits.threads): Batch.random(*shape, "float32", limits.threads)
        }
        self._batch = self._batches["float32", limits.threads]
        self._calls: dict[tuple[str, str, int], dict[str, Call]] = {}
        self._processes: dict[tuple[str, int], OtherLevel] = {}
        self._limit_calls: dict[str, Call] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def work(self, wanted: Iterable[What]) -> list[Work]:
        """All that a library has and gives the right answer to, ready to be timed."""
        work = []
        for what in wanted:
            print(f"checking {what}", file=sys.stderr)
            try:
                work.append(self._work_of(what))
            except LeftOutError as reason:
                if str(reason):
                    print(f"left out: {reason}", file=sys.stderr)
                    self.left_out.append(str(reason))
        return work

    def _work_of(self, what: What) -> Work:
        threads = what.threads or self.limits.threads
        batch = self._batch
        if what.library == LIMIT:
            call = self._limit(what.operation)
            timer, repeatable = _local(call)
            arrays = 1 if what.operation == "read" else 2
        elif what.isa in ("", self.isa):
            batch = self._batch_of(what.dtype, threads)
            timer, repeatable = _local(self._checked(what, batch, threads))
            arrays = OPERATIONS[what.operation][1]
        else:
            timer, repeatable = self._elsewhere(what, threads)
            arrays = OPERATIONS[what.operation][1]
        size, (rows, columns) = batch.logits.nbytes, batch.logits.shape
        row = Measured(what, rows, columns, size, arrays * size, [])
        return Work(row, timer, repeats_for(timer) if repeatable else 1)

    def _batch_of(self, dtype: str, threads: int) -> Batch:
        key = dtype, threads
        if key not in self._batches:
            same = self._batch if dtype == "float32" else self._batch.as_dtype(dtype)
            self._batches[key] = same.on(threads)
        return self._batches[key]

    def _checked(self, what: What, batch: Batch, threads: int) -> Call:
        key = what.library, what.dtype, threads
        with _peers_left_out(what):
            if key not in self._calls:
                self._calls[key] = LIBRARIES[what.library].calls(batch)
            call = self._calls[key].get(what.operation)
            if call is None:
                raise LeftOutError  # without a word: no library has everything
            call.prepare()
            batch.check(what.operation, call.run())
        return call

    def _elsewhere(self, what: What, threads: int) -> tuple[Timer, bool]:
        key = what.isa, threads
        if key not in self._processes:
            try:
                rows, columns = self._batch.logits.shape
                process = OtherLevel(what.isa, rows, columns, threads)
            except NoSuchLevelError as error:
                raise LeftOutError(str(error)) from error
            self._processes[key] = self._closing.enter_context(process)
        process = self._processes[key]
        process.check(what.operation)
        return partial(process.seconds, what.operation), not what.operation.endswith("in place")

    def _limit(self, name: str) -> Call:
        """A limit, on the arrays that everything else runs on, and once it was seen to do all of its work."""
        limits, x, out = self.limits, self._batch.logits, self._batch.out
        if not self._limit_calls:
            calls: dict[str, Callable[[], object]] = {
                "read": lambda: limits.read(x),
                "streaming copy": lambda: limits.copy(x, out),
                "ordinary copy": lambda: limits.copy(x, out, streaming=False),
                "in-place scale": lambda: limits.scale(out),
            }
            total = x.sum(dtype=np.float64)
            if abs(limits.read(x) - total) > 1e-6 * x.size:
                raise AssertionError(f"the sum is {total}, limits.read says {limits.read(x)}")
            for copy in ("streaming copy", "ordinary copy"):
                out.fill(0)
                calls[copy]()
                _assert_equal(copy, out, x)
            limits.scale(out)
            _assert_equal("in-place scale", out, -x)
            self._limit_calls = {key: Call(run) for key, run in calls.items()}
        return self._limit_calls[name]


@contextmanager
def _peers_left_out(what: What) -> Iterator[None]:
    """Whatever goes wrong with a peer is its own affair, and said; with ours it ends the run."""
    try:
        yield
    except LeftOutError:
        raise
    except Exception as error:  # torch.compile finds no C++ compiler, for one
        if what.library == OURS:
            raise
        wrong = isinstance(error, AssertionError)
        reason = "its answer is wrong" if wrong else _in_a_line(error)
        raise LeftOutError(f"{what}: {reason}") from error


def _local(call: Call) -> tuple[Timer, bool]:
    return partial(seconds_of, call), call.repeatable


def _assert_equal(name: str, actual: Floats, expected: Floats) -> None:
    if not np.array_equal(actual, expected):  # NumPy's own assertion copies both
        raise AssertionError(f"limits: {name} does not do all of its work")


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]

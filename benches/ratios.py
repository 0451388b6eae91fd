"""Ours against the memory limits and the peers, beyond every cache, in one run of one process.

Absolute times belong to a machine and an hour; ratios of things measured side by side do not. So
each round runs every limit, every operation of ours and every peer's once, one after the other on
the same arrays, and then comes the next round. Each result is checked before any clock starts.

    python -m benches.ratios --peers numpy scipy torch --record
"""

import argparse
import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import softxent as sx

from benches.batch import DTYPES, Batch
from benches.libraries import LIBRARIES, OPERATIONS, OURS, PEERS, Call, installed
from benches.limits import Floats, Limits
from benches.machine import Neighbours, largest_cache, machine_name, processor, versions
from benches.report import LIMITS, Measured, markdown

RECORD = Path(__file__).with_name("record")
NARROW = ("float16", "bfloat16")
MIB = 2**20
PAUSE = 0.01  # seconds, until the idle threads of the row before no longer spin

Work = list[tuple[Measured, Call]]


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    limits = Limits(options.threads)
    work: Work = []
    for batch in batches(options.rows, options.columns, options.also, options.threads):
        if batch.logits.dtype == np.float32:
            work += limit_work(limits, batch)
        for library in (OURS, *options.peers):
            work += library_work(library, batch)
    neighbours = Neighbours()
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for row, call in work:
            row.seconds.append(seconds_of(call))
    taken_by_others = str(neighbours)
    measured = [row for row, _ in work]

    now = datetime.now()
    with contextlib.redirect_stdout(sys.stderr):
        runtime = sx.show_runtime()
    facts = {
        "machine": processor(),
        "date": now.isoformat(" ", "minutes"),
        "command": " ".join(["python -m benches.ratios", *arguments]),
        "versions": versions(dict.fromkeys([OURS, "numpy", *options.peers])),
        "instruction set": runtime["isa"],
        "build": runtime["profile"],
        "threads": options.threads,
        "taken by other processes": taken_by_others,
        "float32 logits": f"{options.rows} x {options.columns}, {measured[0].size / MIB:.0f} MiB",
        "largest cache": f"{largest_cache() / MIB:.0f} MiB",
        "starting the limits' threads": f"{thread_start(limits) * 1e6:.0f} µs, within the limits",
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB:.1f} GiB",
    }
    page = markdown(facts, measured)
    print(page)
    if options.record:
        folder = RECORD / options.machine
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{now:%Y-%m-%d-%H%M}"
        content = {**facts, "measured": [row._asdict() for row in measured]}
        file.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
        file.with_suffix(".md").write_text(page)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.ratios",
        description="Measure against the memory limits and the peers. Needs some 9 GB of memory, "
        "with peers 14 GB, with scipy 18 GB; all fall with --rows.",
    )
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=128256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=sx.get_threads())
    parser.add_argument("--also", nargs="*", choices=NARROW, default=[], help="more dtypes")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="if installed")
    parser.add_argument("--record", action="store_true", help=f"write to benches/{RECORD.name}/")
    parser.add_argument("--machine", default=machine_name(), help="the folder of the record")
    options = parser.parse_args(arguments)
    missing = [name for name in options.peers if not installed(name)]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    return options


def batches(rows: int, columns: int, also: Sequence[str], threads: int) -> Iterator[Batch]:
    """The float32 batch, then narrower ones of the same values that write into its ``out``."""
    first = Batch.random(rows, columns, "float32", threads)
    yield first
    for dtype in also:
        logits = first.logits.astype(DTYPES[dtype])
        out = first.out.reshape(-1).view(logits.dtype)[: logits.size].reshape(logits.shape)
        yield Batch(logits, first.targets, out, threads)


def limit_work(limits: Limits, batch: Batch) -> Work:
    """The limits, on the arrays that everything else runs on."""
    x, out = batch.logits, batch.out
    total = x.sum(dtype=np.float64)
    if abs(limits.read(x) - total) > 1e-6 * x.size:
        raise AssertionError(f"the sum is {total}, limits.read says {limits.read(x)}")
    calls = {
        "read": Call(lambda: limits.read(x)),
        "streaming copy": Call(lambda: limits.copy(x, out)),
        "ordinary copy": Call(lambda: limits.copy(x, out, streaming=False)),
        "in-place scale": Call(lambda: limits.scale(out)),
    }
    for name in ("streaming copy", "ordinary copy"):
        out.fill(0)
        calls[name].run()
        _assert_equal(name, out, x)
    limits.scale(out)
    _assert_equal("in-place scale", out, -x)
    arrays = {name: 1 if name == "read" else 2 for name in calls}
    return [
        (Measured(LIMITS, name, "float32", x.nbytes, arrays[name] * x.nbytes, []), call)
        for name, call in calls.items()
    ]


def _assert_equal(name: str, actual: Floats, expected: Floats) -> None:
    if not np.array_equal(actual, expected):  # NumPy's own assertion copies both
        raise AssertionError(f"limits: {name} does not do all of its work")


def library_work(library: str, batch: Batch) -> Work:
    """All operations that a library has and gives the right answer to."""
    work = []
    calls, size = LIBRARIES[library](batch), batch.logits.nbytes
    for operation, (_, arrays) in OPERATIONS.items():
        if operation not in calls:
            continue
        call = calls[operation]
        row = Measured(library, operation, batch.logits.dtype.name, size, arrays * size, [])
        print(f"checking {row}", file=sys.stderr)
        call.prepare()
        try:
            batch.check(operation, call.run())
        except AssertionError as error:
            if library == OURS:
                raise
            print(f"left out, for its answer is wrong: {row}{error}", file=sys.stderr)
            continue
        work.append((row, call))
    return work


def seconds_of(call: Call) -> float:
    call.prepare()
    time.sleep(PAUSE)
    start = time.perf_counter()
    call.run()  # a new array is freed on the clock too, as in a user's loop
    return time.perf_counter() - start


def thread_start(limits: Limits) -> float:
    """Seconds that a limit spends on its threads: what it takes to read nothing."""
    nothing = Call(lambda: limits.read(np.empty(0, np.float32)))
    return min(seconds_of(nothing) for _ in range(100))


if __name__ == "__main__":
    main(sys.argv[1:])

"""How time and memory of the loss grow from a thousand logits to ten thousand million.

Two series. *in memory*: an array of its own for each size, beyond every cache in the end. *one row*: the same
row of 400 kB again and again (a view with a row stride of 0), which stays in cache, so that the largest size
needs no memory. Time should grow like the number of elements once a call's fixed cost is forgotten, memory
not at all. Next to each time stands what the model of ``model.py`` says, from four numbers that are measured
first and on other arrays.

    python -m benches.growth --record
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import softxent as sx

from benches import records
from benches.clock import repeats_for, seconds_of
from benches.limits import Limits
from benches.machine import Neighbours, cache, largest_cache, machine_name, processor, versions
from benches.model import PARALLEL, Machine, exponent
from benches.operations import Call
from benches.report import table

IN_MEMORY, ONE_ROW = "in memory", "one row"
COLUMNS = 100_000
SMALLEST, LARGEST = 3, 10  # powers of ten
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20

# A server of two sockets, for the forecast: 32 cores and twelve channels of DDR5-4800 each, of whose 461 GB/s
# some four fifths can be had. Its cores are taken to be like the ones here.
SERVER_SOCKETS, SERVER_CORES, SERVER_BANDWIDTH = 2, 32, 0.8 * 12 * 8 * 4.8e9


class Point(NamedTuple):
    """One size on one number of threads."""

    series: str
    rows: int
    columns: int
    threads: int
    seconds: list[float]
    model: float  # seconds
    memory: (
        int | None
    )  # bytes that a call takes beside its arguments, None if the system does not say

    @property
    def elements(self) -> int:
        return self.rows * self.columns


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    neighbours = Neighbours()
    machine = calibrated(max(options.threads), options.calibrate)
    points = [
        point
        for series, elements in sizes(options.smallest, options.largest, options.real)
        for point in measure(series, elements, machine, options.threads, options.rounds)
    ]
    now = datetime.now()
    facts = {
        "machine": processor(),
        "date": now.isoformat(" ", "minutes"),
        "command": " ".join(["python -m benches.growth", *arguments]),
        "versions": versions(["softxent", "numpy"]),
        "taken by other processes": str(neighbours),
        "model": described(machine),
    }
    page = markdown(facts, points, machine)
    print(page)
    if options.record:
        rest = {
            "machine of the model": machine._asdict(),
            "points": [point._asdict() for point in points],
        }
        records.write(options.machine, f"{now:%Y-%m-%d-%H%M}-growth", {**facts, **rest}, page)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.growth",
        description="Measure how time and memory grow. Needs 5 GB of memory, less with --real.",
    )
    power = partial(parser.add_argument, type=int, metavar="POWER")
    power("--smallest", default=SMALLEST, help="power of ten of elements to begin with")
    power("--largest", default=LARGEST, help="and to end with")
    power("--real", default=9, help="the largest that has memory of its own")
    parser.add_argument(
        "--calibrate",
        type=int,
        metavar="ELEMENTS",
        default=max(10**8, largest_cache()),  # four times its bytes
        help="of the array that bandwidth is measured on",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write to benches/record/")
    parser.add_argument("--machine", default=machine_name(), help="the folder of the record")
    return parser.parse_args(arguments)


def sizes(smallest: int, largest: int, real: int) -> Iterator[tuple[str, int]]:
    """Each series from its smallest to its largest size."""
    for power in range(smallest, min(real, largest) + 1):
        yield IN_MEMORY, 10**power
    for power in range(smallest, largest + 1):
        if 10**power > COLUMNS:  # else it has a single row anyway
            yield ONE_ROW, 10**power


def arrays(series: str, elements: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Equal rows of normal logits, and targets here and there."""
    columns = min(elements, COLUMNS)
    random = np.random.default_rng(0)
    row = 3 * random.standard_normal(columns, dtype=np.float32)
    logits = np.broadcast_to(row, (elements // columns, columns))
    targets = random.integers(0, columns, len(logits))
    return (np.array(logits, order="C") if series == IN_MEMORY else logits), targets


def measure(
    series: str, elements: int, machine: Machine, threads: Sequence[int], rounds: int
) -> list[Point]:
    """One size; the numbers of threads take turns."""
    logits, targets = arrays(series, elements)
    print(f"{series}: {logits.shape}", file=sys.stderr)
    row = logits[0].astype(np.float64)
    expected = np.log(np.exp(row - row.max()).sum()) + row.max() - row[targets].mean()
    calls = {t: Call(partial(sx.cross_entropy, logits, targets, threads=t)) for t in threads}
    memory = {}
    for t, call in calls.items():
        call.run()  # what a first call leaves behind is not of every call
        before = resident()
        loss = call.run()
        memory[t] = None if before is None else max(0, peak() - before)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    repeats = {t: repeats_for(partial(seconds_of, call)) for t, call in calls.items()}
    seconds: dict[int, list[float]] = {t: [] for t in calls}
    for _ in range(rounds):
        for t, call in calls.items():
            seconds[t].append(seconds_of(call, repeats[t]))
    moved = logits.nbytes if series == IN_MEMORY and logits.nbytes > largest_cache() else 0
    rows, columns = logits.shape
    return [
        Point(series, rows, columns, t, seconds[t], machine.seconds(elements, moved, t), memory[t])
        for t in calls
    ]


# What the model is made of, measured on other arrays than the series.


def calibrated(threads: int, large: int) -> Machine:
    """The numbers of this machine, as if it had so many cores."""
    small, cached = [
        # Written, for pages that nobody has written are all the same one.
        (np.ones((1, columns), np.float32), np.zeros(1, np.int64))
        for columns in (1, max(PARALLEL, cache(2) // 2 // 4))
    ]
    elements = cached[0].size

    def loss(arguments: Any, threads: int) -> float:
        return fastest(Call(partial(sx.cross_entropy, *arguments, threads=threads)))

    call, alone, together = loss(small, 1), loss(cached, 1), loss(cached, threads)
    array = np.ones(large, np.float32)
    read = {t: array.nbytes / fastest(Call(partial(Limits(t).read, array))) for t in (1, threads)}
    return Machine(
        sockets=1,
        cores=threads,
        rate=elements / max(alone - call, 1e-9),
        core_bandwidth=read[1],
        socket_bandwidth=read[threads],
        call=call,
        wake=max(0.0, together - call - (alone - call) / threads) / max(1, threads - 1),
    )


def fastest(call: Call, rounds: int = 5) -> float:
    call.run()
    repeats = repeats_for(partial(seconds_of, call))
    return min(seconds_of(call, repeats) for _ in range(rounds))


def resident() -> int | None:
    """Bytes of memory now; the peak begins anew from here. None where the system does not say."""
    try:
        CLEAR.write_text("5")
        return field("VmRSS")
    except OSError:
        return None


def peak() -> int:
    return field("VmHWM")


def field(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


# The page.


def described(machine: Machine) -> str:
    delays = f"a call {1e6 * machine.call:.2f} µs, a wake-up {1e6 * machine.wake:.1f} µs"
    memory = [f"{b / 1e9:.1f}" for b in (machine.core_bandwidth, machine.socket_bandwidth)]
    return (
        f"{delays}, a thread {machine.rate / 1e9:.2f} G elements/s in cache and {memory[0]} GB/s "
        f"from memory, which gives {memory[1]} GB/s to {machine.cores}"
    )


def server(machine: Machine) -> Machine:
    """The server of the forecast, with cores like the ones that were measured."""
    return machine._replace(
        sockets=SERVER_SOCKETS, cores=SERVER_CORES, socket_bandwidth=SERVER_BANDWIDTH
    )


def markdown(facts: dict[str, Any], points: Sequence[Point], machine: Machine) -> str:
    sections = ["\n".join(f"* {name}: {value}" for name, value in facts.items())]
    for series in dict.fromkeys(point.series for point in points):
        of_series = [point for point in points if point.series == series]
        sections += [f"## {series}", growth_table(of_series)]
    sections += [
        "## 64 cores on two sockets, by the model",
        forecast(server(machine)),
    ]
    return "\n\n".join(sections) + "\n"


def growth_table(points: Sequence[Point]) -> str:
    """A line for each size, and in it three columns for each number of threads."""
    threads = list(dict.fromkeys(point.threads for point in points))
    header = "elements shape " + " ".join(f"ms,_{t} exponent model/measured" for t in threads)
    lines = []
    before: dict[int, tuple[int, float]] = {}
    for elements in dict.fromkeys(point.elements for point in points):
        at_size = [point for point in points if point.elements == elements]
        cells = [f"{elements:.0e}", f"{at_size[0].rows} x {at_size[0].columns}"]
        for point in at_size:
            seconds = min(point.seconds)
            fewer, in_less = before.get(point.threads, (0, 0.0))
            grown = f"{exponent(fewer, in_less, elements, seconds):.2f}" if fewer else ""
            before[point.threads] = elements, seconds
            cells += [f"{1e3 * seconds:.4g}", grown, f"{point.model / seconds:.2f}"]
        memory = [point.memory for point in at_size if point.memory is not None]
        cells.append(f"{max(memory) / MIB:.1f}" if memory else "")
        lines.append(cells)
    return table(header + " more_memory/MiB", lines)


def forecast(machine: Machine) -> str:
    """The loss of 2.1 GB of logits by threads and by where the pages are."""
    elements = 4096 * 128256
    lines = []
    for threads in (1, 2, 8, 16, 32, 64):
        placed = [machine.seconds(elements, 4 * elements, threads, sockets) for sockets in (1, 2)]
        cached = machine.seconds(elements, 0, threads)
        lines.append([str(threads), *(f"{1e3 * seconds:.3g}" for seconds in (*placed, cached))])
    few = "; ".join(
        f"{size:.0e} elements in cache: {machine.best_threads(size, 0)} threads"
        for size in (10**5, 10**6, 10**7)
    )
    header = "threads ms,_pages_on_one_socket ms,_on_both ms,_in_cache"
    return table(header, lines) + f"\n\nThe number of threads that is done first. {few}."


if __name__ == "__main__":
    main(sys.argv[1:])

"""Ours against the memory limits, the peers and the targets, in one run of one process.

Absolute times belong to a machine and an hour; ratios of things measured side by side do not. So
each round runs every limit, every operation of ours and every peer's once, one after the other on
the same arrays, and then comes the next round. Each result is checked before any clock starts.
``targets.py`` says what is measured, one setting of arrays after the other.

    python -m benches.ratios --record
"""

import argparse
import contextlib
import gc
import resource
import sys
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import softxent as sx

from benches import readme, records
from benches.clock import seconds_of
from benches.libraries import LIBRARIES, OURS, PEERS, installed
from benches.limits import Limits
from benches.machine import Neighbours, cache, largest_cache, machine_name, processor, versions
from benches.measured import Measured
from benches.operations import Call
from benches.report import markdown
from benches.scene import Scene
from benches.targets import SETTINGS, TARGETS, Size, judge, wanted

MIB = 2**20


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    with contextlib.redirect_stdout(sys.stderr):
        runtime = sx.show_runtime()
    limits = Limits(options.threads)
    size = Size(options.rows, options.columns, cache(2), largest_cache())
    neighbours = Neighbours()
    measured: list[Measured] = []
    left_out = absent(options.peers)
    for setting in options.settings:
        rows, reasons = measure(setting, size, limits, runtime["isa"], options)
        measured += rows
        left_out += [f"{setting}: {reason}" for reason in reasons]
        gc.collect()  # what torch compiled refers to itself, and its memory is the next setting's
        sx.release_memory()
    judged = [judge(target, measured) for target in TARGETS]

    now = datetime.now()
    libraries = (OURS, "numpy", *options.peers)
    packages = [package for name in libraries for package in LIBRARIES[name].packages]
    facts = {
        "machine": processor(),
        "date": now.isoformat(" ", "minutes"),
        "command": " ".join(["python -m benches.ratios", *arguments]),
        "versions": versions(dict.fromkeys(packages)),
        "instruction set": runtime["isa"],
        "build": runtime["profile"],
        "threads": f"{options.threads}, of everyone that has more than one",
        "taken by other processes": str(neighbours),
        "beyond cache": beyond(size),
        "caches": f"L2 {cache(2) / MIB:.3g} MiB, the largest {largest_cache() / MIB:.0f} MiB",
        "waking the limits' threads": f"{thread_start(limits) * 1e6:.0f} µs, within the limits",
        "peak memory": f"{peak_memory() / 2**30:.1f} GiB",
        "left out": "; ".join(left_out) or "nothing",
    }
    page = markdown(facts, judged, measured)
    print(page)
    if options.record:
        rest = {
            "targets": [row._asdict() for row in judged],
            "measured": [row.to_json() for row in measured],
        }
        records.write(options.machine, f"{now:%Y-%m-%d-%H%M}", {**facts, **rest}, page)


def measure(
    setting: str, size: Size, limits: Limits, isa: str, options: argparse.Namespace
) -> tuple[list[Measured], list[str]]:
    """Everything that a setting has, and why not more."""
    what = wanted(setting, options.peers, readme.needed(options.peers))
    with Scene(SETTINGS[setting](size), limits, isa) as scene:
        work = scene.work(what)
        for number in range(options.rounds):
            print(f"{setting}: round {number + 1} of {options.rounds}", file=sys.stderr)
            for row, timer, repeats in work:
                row.seconds.append(timer(repeats))
        return [row for row, _, _ in work], scene.left_out


def beyond(size: Size) -> str:
    """The arrays that no cache is meant to hold, and whether that is so."""
    size_in_bytes = 4 * size.rows * size.columns
    fits = ": NOT BEYOND, for a cache holds half of it" if size_in_bytes < 2 * size.l3 else ""
    return f"{size.rows} x {size.columns}, {size_in_bytes / MIB:.0f} MiB{fits}"


def absent(peers: Sequence[str]) -> list[str]:
    """The peers that do not take part, and why."""
    reasons = {
        peer: f"not installed: {', '.join(LIBRARIES[peer].missing)}"
        if LIBRARIES[peer].missing
        else "not asked for"
        for peer in PEERS
        if peer not in peers
    }
    return [f"{peer}: {reason}" for peer, reason in reasons.items()]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.ratios",
        description="Measure against the memory limits, the peers and the targets. Needs some 18 GB "
        "of memory, and falls with --rows.",
    )
    parser.add_argument("--rows", type=int, default=4096, help="of the arrays beyond cache")
    parser.add_argument("--columns", type=int, default=128256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=sx.get_threads())
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default: all that are installed")
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument(
        "--record", action="store_true", help=f"write to benches/{records.RECORD.name}/"
    )
    parser.add_argument("--machine", default=machine_name(), help="the folder of the record")
    options = parser.parse_args(arguments)
    if options.peers is None:
        options.peers = [peer for peer in PEERS if installed(peer)]
    missing = [name for name in options.peers if not installed(name)]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    return options


def thread_start(limits: Limits) -> float:
    """Seconds that a limit spends on its threads: what it takes to read nothing."""
    nothing = Call(lambda: limits.read(np.empty(0, np.float32)))
    return min(seconds_of(nothing) for _ in range(100))


def peak_memory() -> int:
    """Bytes, of this process and the largest beside it."""
    kib = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return kib * 1024


if __name__ == "__main__":
    main(sys.argv[1:])

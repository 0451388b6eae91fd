"""What a measurement has to say about where it was made."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
STAT = Path("/proc/stat")
QUIET = 0.05  # of the processors' time may go to others before a measurement is worth nothing
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def processor() -> str:
    """The processor's name, and how many of them this process may use."""
    found = re.search(r"model name\s*: (.+)", CPUINFO.read_text()) if CPUINFO.exists() else None
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{found[1] if found else platform.machine()}, {count} cpus"


def machine_name() -> str:
    """The processor as the name of a folder."""
    plain = re.sub(r"\(\w+\)", "", processor().lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def cache(level: int) -> int:
    """Bytes of the first processor's cache of that level, 0 if the system does not say."""
    folders = [
        f for f in CACHES.glob("index*") if (f / "type").read_text().strip() != "Instruction"
    ]
    sizes = {int((f / "level").read_text()): (f / "size").read_text().strip() for f in folders}
    return int(sizes.get(level, "0K").removesuffix("K")) * 1024


def largest_cache() -> int:
    """Bytes of the largest cache that the first processor sees, 0 if the system does not say."""
    return max(map(cache, range(1, 5)))


def versions(packages: Iterable[str]) -> str:
    """The versions of Python and of the packages, and the commit of this tree."""
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    commit = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    python = f"python {platform.python_version()}"
    return ", ".join([python, *found, f"commit {commit.stdout.strip() or 'unknown'}"])


class Neighbours:
    """The processors' time that other processes take, from here on.

    They do not slow everyone alike. OpenMP threads, torch's for one, spin while they wait for each
    other: with another process on their processor a call of 0.1 ms took 28 ms.
    """

    def __init__(self) -> None:
        self._start = _processor_seconds()

    def share(self) -> float | None:
        """From 0 to 1, or None where the system does not say."""
        now = _processor_seconds()
        if now is None or self._start is None:
            return None
        all_of_it, idle, own = (b - a for a, b in zip(self._start, now, strict=True))
        return max(all_of_it - idle - own, 0.0) / all_of_it if all_of_it > 0 else None

    def __str__(self) -> str:
        share = self.share()
        if share is None:
            return "unknown"
        verdict = "" if share <= QUIET else ": BUSY, quote nothing of this run"
        return f"{share:.0%} of the processors' time{verdict}"


def _processor_seconds() -> tuple[float, float, float] | None:
    """Seconds of all processors since the start: all, idle, and of this process."""
    if not STAT.exists():
        return None
    ticks = [int(n) for n in STAT.read_text().splitlines()[0].split()[1:9]]  # user ... steal
    per_second = os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4])
    return sum(ticks) / per_second, (ticks[3] + ticks[4]) / per_second, own

"""What a measurement has to say about where it was made."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
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


def largest_cache() -> int:
    """Bytes of the largest cache that the first processor sees, 0 if the system does not say."""
    kib = [int(f.read_text().strip().removesuffix("K")) for f in CACHES.glob("index*/size")]
    return max(kib, default=0) * 1024


def versions(packages: Iterable[str]) -> str:
    """The versions of Python and of the packages, and the commit of this tree."""
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    commit = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    python = f"python {platform.python_version()}"
    return ", ".join([python, *found, f"commit {commit.stdout.strip() or 'unknown'}"])

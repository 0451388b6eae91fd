"""The self-test once for every instruction set that the package knows, each in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

LEVELS = ("avx512", "avx2", "neon", "portable")
FUSED = frozenset({"avx512", "avx2", "neon"})  # with a fused multiply-add, and the same bits
SECONDS = 120


@dataclass(frozen=True)
class Level:
    """An instruction set: whether this processor has it, what the self-test compared, and what was wrong."""

    name: str
    available: bool
    comparisons: int = 0
    failures: tuple[str, ...] = ()
    bits: str = ""


def examine(name: str) -> Level:
    """Run the self-test on one level; whatever happens to its process is a failure of it."""
    try:
        process = subprocess.run(
            [sys.executable, "-m", "softxent.doctor.self_test"],
            env={**os.environ, "SOFTXENT_ISA": name},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Level(name, True, failures=(f"no answer: {error}",))
    last = (process.stderr.strip().splitlines() or ["nothing"])[-1]
    if process.returncode < 0:
        return Level(name, True, failures=(f"killed by signal {-process.returncode}",))
    if process.returncode and "SOFTXENT_ISA: expected one of" in last:
        return Level(name, False)
    if process.returncode:
        return Level(name, True, failures=(f"exit status {process.returncode}: {last}",))
    found = json.loads(process.stdout)
    failures = tuple(found["failures"])
    if found["runtime"]["isa"] != name:
        failures += (f"asked for {name}, ran {found['runtime']['isa']}",)
    return Level(name, True, found["comparisons"], failures, found["bits"])


def examine_all() -> list[Level]:
    """Every level; those with a fused multiply-add must agree bit for bit."""
    levels = [examine(name) for name in LEVELS]
    bits = {level.bits for level in levels if level.name in FUSED and level.bits}
    if len(bits) > 1:
        different = ("other bits than another level",)
        levels = [
            Level(one.name, one.available, one.comparisons, one.failures + different, one.bits)
            if one.name in FUSED and one.available
            else one
            for one in levels
        ]
    return levels

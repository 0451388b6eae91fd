"""All that there is to say about an installation, as aligned lines, and whether it is well."""

import contextlib
import io
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from softxent.doctor.levels import Level
from softxent.functions.runtime import show_runtime

OPTIONAL = {
    "matplotlib": "plots",
    "ml-dtypes": "bfloat16",
    "rich": "a progress bar, the demo",
}
VARIABLES = ("SOFTXENT_ISA", "SOFTXENT_NUM_THREADS", "OMP_NUM_THREADS")


def report(levels: Sequence[Level]) -> tuple[str, bool]:
    """The lines, and whether nothing is wrong."""
    with contextlib.redirect_stdout(io.StringIO()):
        runtime = show_runtime()
    facts = [
        *((name, str(value)) for name, value in runtime.items()),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.system()} {platform.machine()}"),
        *((name, f"{_installed(name)}") for name in OPTIONAL),
        *((name, os.environ[name]) for name in VARIABLES if name in os.environ),
    ]
    facts += [(f"level {level.name}", _verdict(level)) for level in levels]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    wrong = [f"{level.name}: {failure}" for level in levels for failure in level.failures]
    well = not wrong and any(level.available for level in levels)
    shown = [f"  {line}" for line in wrong[:20]] + ["  ..."] * (len(wrong) > 20)
    return "\n".join([*lines, *shown, "all is well" if well else "something is wrong"]), well


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"not installed ({OPTIONAL[name]})"


def _verdict(level: Level) -> str:
    if not level.available:
        return "not on this processor"
    if level.failures:
        return f"{len(level.failures)} wrong of {level.comparisons} comparisons"
    return f"right, {level.comparisons} comparisons with the reference"

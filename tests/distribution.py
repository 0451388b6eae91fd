"""Build the sdist, build the wheel from it in a clean environment, and use the wheel as its users will.

Run by `make dist`. Knows files and processes, nothing of the package but its name and its command line. The
one idea: nothing of the checkout is at hand, neither its target folder nor its environment, so what the
sdist lacks is missed here and not by the first who installs it. What the wheel costs is printed, and with
`--record` written down in `docs/installation_cost.md`.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "installation_cost.md"
IMPORTS = 15  # of which the median is taken

SDIST_HAS = {
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "python/softxent/_core.pyi",
    "python/softxent/py.typed",
    "src/lib.rs",
}
WHEEL_HAS = {"softxent/__init__.py", "softxent/_core.pyi", "softxent/py.typed"}
METADATA_HAS = {
    "License-Expression: MIT OR Apache-2.0",
    "License-File: LICENSE-APACHE",
    "License-File: LICENSE-MIT",
    "Requires-Python: >=3.11",
}
WHEEL_NAME = re.compile(r"softxent-[\w.]+-cp311-abi3-\w+\.whl")
#: What a user's first minute calls.
FIRST_MINUTE = ("doctor", "explain", "explain --dataset", "--version")


class DistributionError(Exception):
    """What was built is not what it should be. The message is one line."""


def main() -> int:
    """Build and check; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "dist", metavar="FOLDER")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="use the wheel with this one too",
    )
    options = parser.parse_args()
    try:
        sdist = build_sdist(options.out)
        wheel = build_wheel(sdist, options.out)
        check_wheel(wheel)
        seconds = use_wheel(sys.executable, wheel)
        for python in options.python:
            use_wheel(python, wheel)
    except DistributionError as error:
        print(f"distribution: {error}", file=sys.stderr)
        return 1
    lines = measured(sdist, wheel, seconds)
    print("\n".join(lines))
    if options.record:
        text = "# What an installation costs\n\nWritten by `make dist-record`.\n\n"
        RECORD.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def clean_environment() -> dict[str, str]:
    """This one without what would lead a build to this checkout or its tools."""
    leading = ("CARGO_TARGET_DIR", "VIRTUAL_ENV", "PYTHON", "RUSTFLAGS", "SOFTXENT", "MATURIN")
    return {name: value for name, value in os.environ.items() if not name.startswith(leading)}


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in a folder; its output, or DistributionError with the end of what it said."""
    process = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = (process.stderr or process.stdout).strip().splitlines()[-15:]
        raise DistributionError(
            f"{' '.join(map(str, command))}: status {process.returncode}\n" + "\n".join(said)
        )
    return process.stdout


def build_sdist(out: Path) -> Path:
    """The source distribution, which must hold what a build needs and the licences, and no more."""
    for old in out.glob("softxent-*"):
        old.unlink()
    run(ROOT, Path(sys.executable).with_name("maturin"), "sdist", "--out", out)
    sdist = only(out.glob("softxent-*.tar.gz"))
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if missing := SDIST_HAS - names:
        raise DistributionError(f"{sdist.name}: lacks {', '.join(sorted(missing))}")
    if foreign := [name for name in names if re.match(r"(\.|target|benches|docs)", name)]:
        raise DistributionError(f"{sdist.name}: holds {', '.join(sorted(foreign)[:5])}")
    return sdist


def build_wheel(sdist: Path, out: Path) -> Path:
    """The wheel that pip makes of the sdist: unpacked elsewhere, with build tools of its own."""
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        run(Path(folder), *pip, "wheel", "--no-deps", "--wheel-dir", folder, sdist)
        wheel = only(Path(folder).glob("*.whl"))
        return wheel.replace(out / wheel.name)


def check_wheel(wheel: Path) -> None:
    """Its name says abi3; it has types, licences and a bill of materials, and only the package."""
    if not WHEEL_NAME.fullmatch(wheel.name):
        raise DistributionError(f"expected an abi3 wheel for Python 3.11, got {wheel.name}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    if missing := WHEEL_HAS - names:
        raise DistributionError(f"{wheel.name}: lacks {', '.join(sorted(missing))}")
    if missing := METADATA_HAS - set(text.splitlines()):
        raise DistributionError(f"{wheel.name}: its metadata lacks {'; '.join(sorted(missing))}")
    if not any(".dist-info/sboms/" in name for name in names):
        raise DistributionError(f"{wheel.name}: has no bill of materials")
    if foreign := [name for name in names if not name.startswith(("softxent/", "softxent-"))]:
        raise DistributionError(f"{wheel.name}: holds {', '.join(sorted(foreign)[:5])}")


def use_wheel(python: str | Path, wheel: Path) -> float:
    """Install it alone into a new environment, and use it; seconds of an import, without NumPy's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, python, "-m", "venv", "venv")
        bin_folder = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        run(folder, bin_folder / "python", "-m", "pip", "install", "--quiet", wheel)
        for command in FIRST_MINUTE:
            run(folder, bin_folder / "softxent", *command.split())
        own = [imported(folder, bin_folder / "python", "numpy, softxent") for _ in range(IMPORTS)]
        numpy = [imported(folder, bin_folder / "python", "numpy") for _ in range(IMPORTS)]
        return statistics.median(own) - statistics.median(numpy)


def imported(folder: Path, python: Path, modules: str) -> float:
    """Seconds of a process that imports modules."""
    start = time.perf_counter()
    run(folder, python, "-I", "-c", f"import {modules}")
    return time.perf_counter() - start


def measured(sdist: Path, wheel: Path, seconds: float) -> list[str]:
    """What the wheel costs, as a table."""
    with zipfile.ZipFile(wheel) as archive:
        installed = sum(member.file_size for member in archive.infolist())
        library = sum(
            m.file_size for m in archive.infolist() if re.search(r"\.(so|pyd)$", m.filename)
        )
    rows = (
        ("sdist", f"{sdist.stat().st_size / 1e3:.0f} kB"),
        ("wheel", f"{wheel.stat().st_size / 1e6:.2f} MB, {wheel.name}"),
        ("installed", f"{installed / 1e6:.2f} MB, of which {library / 1e6:.2f} MB are the library"),
        ("import", f"{seconds * 1e3:.0f} ms beyond NumPy's own"),
    )
    return ["| what | costs |", "|---|---|", *(f"| {name} | {cost} |" for name, cost in rows)]


def only(paths: Iterable[Path]) -> Path:
    """The one path that there is."""
    found = list(paths)
    if len(found) != 1:
        raise DistributionError(f"expected one file, got {[path.name for path in found]}")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())

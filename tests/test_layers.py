"""Who knows whom: the house has floors, and arrows only point down.

The `use` lines of the Rust sources and the imports of the Python sources are read as text. The
table below says for each module which others it imports; it is exact, so an arrow that is new, or
gone, is written down here first.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.rs"))
PACKAGE = ROOT / "python" / "softxent"

# Each module of the crate, ground floor first: its floor, and whom it imports.
HOUSE: dict[str, tuple[int, set[str]]] = {
    "simd": (0, set()),
    "error": (0, set()),
    "threads": (1, {"error"}),
    "memory": (1, {"error"}),
    "element": (1, {"simd"}),
    "exp": (2, {"simd"}),
    "batch": (2, {"element", "error", "simd"}),
    "log": (3, {"exp", "simd"}),
    "row": (4, {"element", "exp", "log", "simd"}),
    "product": (4, {"batch", "element", "error", "memory", "simd"}),
    "loss": (5, {"error", "exp", "row"}),
    "sweep": (6, {"batch", "element", "error", "exp", "loss", "row", "simd", "threads"}),
    "compute": (
        7,
        {"batch", "element", "error", "loss", "product", "row", "simd", "sweep", "threads"},
    ),
    "python": (
        8,
        {"batch", "compute", "element", "error", "loss", "memory", "simd", "sweep", "threads"},
    ),
}
# Where an upper floor may take only so much from far below.
ONLY = {
    ("python", "simd"): {"Level", "with_default_float_state"},
    ("compute", "simd"): {"Level", "with_default_float_state"},
    ("python", "sweep"): {"Input", "Run", "Thresholds"},
}
# What is kept in one place, as a pattern of source code: the modules that may contain it.
KEPT_IN = {
    r"\bpyo3\b": {"python"},
    r"\bnumpy::": {"python"},
    r"\b(core|std)::arch\b": {"simd"},
    r"\brayon\b": {"threads"},
    r"\bgemm_": {"product"},
    r"\blibc::": {"memory", "threads"},
    r"\bunsafe\b": {"batch", "element", "memory", "product", "python", "simd", "threads"},
}


def code_of(path: Path) -> str:
    """A Rust source without its comments and strings."""
    return re.sub(r"""//.*|'"'|"(\\.|[^"\\])*\"""", "", path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """The module of the crate that a file belongs to: `simd` for `src/simd/avx2.rs`."""
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".rs")


def imports_of(code: str, *, in_root: bool) -> set[tuple[str, str]]:
    """The modules of the crate that code names, each with what it takes from there."""
    # In a file directly below src, `super` is the crate as well.
    start = r"\b(?:crate|super)" if in_root else r"\bcrate"
    found: set[tuple[str, str]] = set()
    for module, items in re.findall(start + r"::(\w+)((?:::\w+|::\{[^}]*\})?)", code):
        found |= {(module, item) for item in re.findall(r"\w+", items) or ["self"]}
    assert not re.search(start + r"::\{", code), (
        "one `use crate::` for each module, to be read here"
    )
    return found


def imports_by_module() -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in HOUSE}
    for path in SOURCES:
        module = module_of(path)
        if module != "lib":
            imported = imports_of(code_of(path), in_root=path.parent == ROOT / "src")
            found[module] |= {(name, item) for name, item in imported if name in HOUSE}
    return found


# Each room of the Python package, ground floor first: whom it imports. "softxent" is the public functions.
ROOMS: dict[str, set[str]] = {
    "totals": set(),
    "partials": set(),
    "reference": set(),
    "functions": {"softxent", "partials", "totals"},
    "files": set(),
    "curves": {"functions", "totals"},
    "plots": {"curves", "files", "functions", "totals"},
    "score": {"curves", "files", "functions", "totals"},
    "bench": {"functions", "plots"},
    "explain": {"functions"},
    "demo": {"softxent"},
    "doctor": {"functions", "reference"},
    "cli": {"bench", "demo", "functions", "doctor", "explain", "files", "plots", "score"},
}
# What only some installations have, and the files that know it.
EXTRAS = {
    "matplotlib": {"demo/loss_curve.py", "plots/axes.py"},
    "ml_dtypes": {"doctor/self_test.py", "files/safetensors.py"},
    "rich": {"demo/screen.py", "score/progress.py"},
}


# Rust.


def test_every_module_has_a_floor() -> None:
    declared = re.findall(r"^(?:pub )?mod (\w+);", code_of(ROOT / "src" / "lib.rs"), re.MULTILINE)
    assert sorted(declared) == sorted(HOUSE)
    assert {module_of(path) for path in SOURCES} == {*HOUSE, "lib"}


def test_arrows_point_down() -> None:
    upwards = [
        f"{name} -> {other}"
        for name, (floor, others) in HOUSE.items()
        for other in others
        if HOUSE[other][0] >= floor
    ]
    assert upwards == []


@pytest.mark.parametrize("name", HOUSE)
def test_a_module_imports_whom_the_table_says(name: str) -> None:
    found = {other for other, _ in imports_by_module()[name]} - {name}
    assert found == HOUSE[name][1]


@pytest.mark.parametrize(("name", "other"), ONLY)
def test_from_far_below_only_a_few_things_are_taken(name: str, other: str) -> None:
    taken = {item for module, item in imports_by_module()[name] if module == other}
    assert taken == ONLY[name, other]


@pytest.mark.parametrize("pattern", KEPT_IN)
def test_what_is_kept_in_one_place_is_nowhere_else(pattern: str) -> None:
    places = {module_of(path) for path in SOURCES if re.search(pattern, code_of(path))}
    assert places == KEPT_IN[pattern]


def test_the_root_of_the_crate_only_names_the_modules() -> None:
    lines = [line for line in code_of(ROOT / "src" / "lib.rs").splitlines() if line.strip()]
    assert [line for line in lines if not re.match(r"(pub )?mod \w+;$|#!?\[.*\]$", line)] == []


def test_every_rust_file_opens_with_what_it_is_for() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.rs")]
    silent = [p for p in files if not p.read_text(encoding="utf-8").startswith("//! ")]
    assert silent == []


# Python.


def python_imports(path: Path) -> set[str]:
    """The full names of all modules, and of all things in them, that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_below(name: str) -> set[str]:
    """The files of the package that import `name` or something in it."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(f"{found}.".startswith(f"{name}.") for found in python_imports(path))
    }


def test_only_the_public_functions_know_the_core() -> None:
    files = imports_below("softxent._core")
    assert files
    assert {Path(file).parent.as_posix() for file in files} == {"functions"}


def test_the_reference_knows_the_standard_library_alone() -> None:
    rooms = sorted((PACKAGE / "reference").glob("*.py"))
    assert len(rooms) > 1
    imported = set().union(*map(python_imports, rooms))
    others = {name for name in imported if not name.startswith("softxent.reference.")}
    assert {name.partition(".")[0] for name in others} <= set(sys.stdlib_module_names)


def test_arrows_point_down_in_the_reference() -> None:
    text = (PACKAGE / "reference" / "__init__.py").read_text(encoding="utf-8")
    listed = re.findall(r"^    (\w+)   +\S", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE)
    rooms = {path.stem: path for path in (PACKAGE / "reference").glob("*.py")}
    assert {*listed, "__init__"} == rooms.keys()
    assert len(listed) == len(set(listed))
    for floor, room in enumerate(listed):
        imported = {
            name.split(".")[2] for name in python_imports(rooms[room]) if "softxent" in name
        }
        assert imported <= set(listed[:floor]), room


def test_the_package_itself_imports_its_functions_and_nothing_else() -> None:
    imported = python_imports(PACKAGE / "__init__.py")
    assert imported
    assert {name.split(".")[1] for name in imported} == {"functions", "totals"}
    known = set().union(*map(python_imports, (PACKAGE / "functions").glob("*.py")))
    ours = {".".join(name.split(".")[:3]) for name in known if name.startswith("softxent")}
    assert ours == {
        "softxent._core",
        "softxent.functions.choices",
        "softxent.partials",
        *(name for name in ours if name.startswith("softxent.totals.")),
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_package_imports_whom_the_table_says(room: str) -> None:
    path = PACKAGE / room
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    imported = set().union(*map(python_imports, files))
    ours = {
        name.split(".")[1] if name.split(".")[1] in ROOMS else "softxent"
        for name in imported
        if name.startswith("softxent.")
    } | ({"softxent"} if "softxent" in imported else set())
    assert ours - {room} == ROOMS[room]


def test_every_room_of_the_package_is_in_the_table_below_those_who_know_it() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert ROOMS.keys() == files | folders
    order = list(ROOMS)
    for room, known in ROOMS.items():
        assert known - {"softxent"} <= set(order[: order.index(room)])


@pytest.mark.parametrize("library", EXTRAS)
def test_an_extra_dependency_is_known_in_few_files(library: str) -> None:
    assert imports_below(library) == EXTRAS[library]


def test_every_python_file_opens_with_what_it_is_for() -> None:
    folders = [ROOT / name for name in ("python", "tests", "benches")]
    files = [path for folder in folders for path in folder.rglob("*.py*") if path.suffix != ".pyc"]
    assert len(files) > 10
    silent = [p for p in files if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert silent == []

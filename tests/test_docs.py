"""What the documentation shows is run, and what it lists is complete.

The README, the pages of the documentation and the examples of every docstring are executed; a public
function's docstring has its sections, and they name each of its parameters and only what exists.
"""

import builtins
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import softxent as sx
from softxent import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# With the boosters, and the torch, that their pages use, tests in `tests/peers` run these.
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUN_ELSEWHERE = {"boosting.md", "linear.md"}
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
RESULTS = ("Evaluation", "LinearGrads", "Totals")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sx, name) for name in sx.__all__ if name not in RESULTS
}
MODULES = ["softxent"] + [
    module.name
    for module in pkgutil.walk_packages(sx.__path__, "softxent.")
    if not module.name.endswith("__main__")  # importing it runs it
]


# The README.


def test_the_readme_shows_python() -> None:
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_the_readme_runs(block: str) -> None:
    if ">>> " in block:
        test = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
        assert doctest.DocTestRunner().run(test).failed == 0
    else:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_names_every_public_function_and_every_command() -> None:
    assert [name for name in sx.__all__ if f"`{name}`" not in README] == []
    targets = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"^\$ make ([a-z0-9-]+)", README, flags=re.MULTILINE)
    assert shown
    assert set(shown) <= set(targets)


# The pages.


@pytest.mark.parametrize("page", [p.name for p in PAGES if p.name not in RUN_ELSEWHERE])
def test_a_page_runs(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its Python in order, with its commands in between, in a folder of its own."""
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for kind, block in re.findall(
        r"^```(python|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    ):
        if kind == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for line in block.splitlines():
            assert line.startswith("$ softxent "), line
            assert cli.main(shlex.split(line)[2:]) == 0, capsys.readouterr().err


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.stem for page in PAGES if not re.search(rf"^{page.stem}$", index, re.MULTILINE)]
    assert missing == ["index"]


@pytest.mark.parametrize("module", ["softxent", "softxent.plots", "softxent.explain"])
def test_every_public_name_is_in_the_api(module: str) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    part = re.search(
        rf"currentmodule:: {re.escape(module)}$(.*?)(currentmodule|automodule)", text, re.S | re.M
    )
    assert part
    listed = re.findall(r"^   (\w+)$", part[1], re.MULTILINE)
    assert sorted(listed) == sorted(importlib.import_module(module).__all__)


def test_the_command_line_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) > 3
    text = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `softxent (\w+)", text, re.MULTILINE) == commands


# The examples.


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(name)
    # Without the names of the module: an example imports what it uses, as a reader has to.
    assert doctest.testmod(module, globs={}).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example_that_calls_it(name: str) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name)
    source = "".join(example.source for test in tests for example in test.examples)
    assert re.search(rf"\bsx\.{name}\(", source)


def test_the_reference_has_an_example() -> None:
    module: ModuleType = importlib.import_module("softxent.reference")
    tests = doctest.DocTestFinder(recurse=False).find(module, "reference")
    assert any(test.examples for test in tests)


# The sections.


def sections(name: str) -> dict[str, list[str]]:
    """The lines of each section of a docstring, by its title; the first has none."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in (inspect.getdoc(getattr(sx, name)) or "").splitlines():
        if line and set(line) == {"-"}:
            title = found[title].pop()
            found[title] = []
        else:
            found[title].append(line)
    return found


def entries(lines: list[str]) -> list[str]:
    """The names that a section explains, also several at once: `a, b : type`."""
    heads = [line.partition(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [entry for head in heads for entry in head.split(", ")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_docstring_has_its_sections(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    expected = {"Examples"}
    if signature.parameters:  # what takes an argument can refuse it
        expected |= {"Parameters", "Raises"}
    if signature.return_annotation is not None:
        expected |= {"Returns"}
    found = sections(name)
    assert expected - found.keys() == set()
    assert all(any(line.strip() for line in lines) for lines in found.values())
    summary = found[""][0]
    assert summary.endswith(".")
    assert found[""][1:2] in ([], [""])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_explained_and_no_other(name: str) -> None:
    explained = entries(sections(name).get("Parameters", []))
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters)
    assert sorted(explained) == sorted(parameters)


@pytest.mark.parametrize("name", RESULTS)
def test_every_attribute_of_a_result_is_explained_and_no_other(name: str) -> None:
    explained = entries(sections(name)["Attributes"])
    assert explained == list(getattr(sx, name).__annotations__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exceptions_and_siblings_that_a_docstring_names_exist(name: str) -> None:
    found = sections(name)
    for error in entries(found.get("Raises", [])):
        kind = getattr(np.exceptions, error.removeprefix("numpy.exceptions."), None)
        kind = kind or getattr(builtins, error)
        assert issubclass(kind, Exception)
    for sibling in entries(found.get("See Also", [])):
        assert sibling in FUNCTIONS
        assert sibling != name

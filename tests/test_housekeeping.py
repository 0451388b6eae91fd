"""What stands around the package: its metadata, the workflows, and the pages for those who change it.

The packages themselves are built and used by `make dist`.
"""

import inspect
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
import softxent as sx

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_metadata_says_licence_python_and_numpy_alone() -> None:
    found = metadata("softxent")
    assert found["License-Expression"] == "MIT OR Apache-2.0"
    assert found["Requires-Python"] == ">=3.11"
    needed = [line for line in found.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert [re.split(r"\W", line)[0] for line in needed] == ["numpy"]
    assert set(found.get_all("Provides-Extra") or []) == {"cli", "plot", "demo"}


def test_one_version_everywhere() -> None:
    version = re.search(r'^version = "(.*)"$', read("Cargo.toml"), re.MULTILINE)
    assert version
    assert metadata("softxent")["Version"] == version[1] == sx.show_runtime()["version"]


def test_only_files_of_the_root_go_into_the_sdist() -> None:
    """`README.md` without a slash was every README in .venv as well: 38 MB."""
    found = re.search(r"^include = \[(.*)\]$", read("Cargo.toml"), re.MULTILINE)
    assert found
    assert all(name.startswith("/") for name in re.findall(r'"(.*?)"', found[1]))


@pytest.mark.parametrize("workflow", [path.name for path in WORKFLOWS])
def test_every_job_says_why_it_is_there(workflow: str) -> None:
    lines = read(f".github/workflows/{workflow}").partition("\njobs:\n")[2].splitlines()
    jobs = [i for i, line in enumerate(lines) if re.fullmatch(r"  [\w-]+:", line)]
    assert jobs
    assert [lines[i] for i in jobs if i == 0 or not lines[i - 1].startswith("  # ")] == []


def test_an_action_is_named_by_its_commit_and_by_the_version_that_it_is() -> None:
    """A tag can be moved to other code; a commit cannot. One commit for an action, wherever it is used."""
    lines = [line for path in WORKFLOWS for line in path.read_text(encoding="utf-8").splitlines()]
    uses = [line.partition("uses: ")[2] for line in lines if "uses: " in line]
    pinned = [re.fullmatch(r"([\w./-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in uses]
    assert [use for use, found in zip(uses, pinned, strict=True) if not found] == []
    assert len(set(uses)) == len({found[1] for found in pinned if found})


def test_only_the_publishing_job_may_write_anything() -> None:
    text = read(".github/workflows/release.yml")
    assert text.count("id-token: write") == 1
    assert text.index("id-token: write") > text.index("\n  publish:\n")
    assert "secrets." not in text
    publish = text.partition("\n  publish:\n")[2]
    needed = re.search(r"needs: \[(.*)\]", publish)
    assert needed
    jobs = re.findall(r"^  ([\w-]+):$", text.partition("\njobs:\n")[2], re.MULTILINE)
    assert {*needed[1].split(", "), "publish"} == set(jobs)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_files_and_commands_that_a_page_names_exist(page: str) -> None:
    text = read(page)
    paths = re.findall(r"`((?:src|tests|python|docs|benches|\.github)/[\w./-]*)`", text)
    paths += re.findall(r"\]\((?!http)([\w./-]+)\)", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"^([a-z][a-z0-9-]*):", read("Makefile"), re.MULTILINE)
    named = re.findall(r"`make ([a-z-]+)`|^\$ make ([a-z-]+)", text, re.MULTILINE)
    assert {one or other for one, other in named} <= set(targets)


def test_every_public_function_and_command_is_in_the_changelog() -> None:
    text = read("CHANGELOG.md")
    functions = [name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))]
    names = {name.removesuffix("_with_grad") for name in functions}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
    for command in ("score", "explain", "bench", "doctor", "demo"):
        assert f"softxent {command}" in text

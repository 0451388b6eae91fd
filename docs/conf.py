"""How the documentation is built: `make docs`. Warnings are errors there."""

import re
from pathlib import Path

project = "softxent"
author = "the softxent developers"
cargo = (Path(__file__).parent.parent / "Cargo.toml").read_text(encoding="utf-8")
release = re.findall(r'^version = "(.*)"', cargo, re.MULTILINE)[0]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autosummary_generate = True
# The docstrings name the types in words.
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"softxent {release}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False, "show_prev_next": True}

"""Boosters learn as well with our objective as with their own, and what docs/boosting.md shows runs.

The page's blocks are executed as they stand. The objectives that they define are then compared with the
library's own: by the first trees, which show the factor of the Hessian, and by what is learnt.
"""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import softxent as sx

PAGE = Path(__file__).parent.parent.parent / "docs" / "boosting.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)
ROUNDS = 20
Objective = Callable[[Any, Any], tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: `make test-peers` brings it")


def after_block(name: str) -> dict[str, Any]:
    """What the page has defined when its block on a library has run."""
    first, *others = BLOCKS
    block = next(block for block in others if f"import {name}" in block)
    names: dict[str, Any] = {}
    for source in (first, block):
        exec(compile(source, str(PAGE), "exec"), names)
    return names


def test_the_page_has_a_block_for_the_data_and_one_for_each_library() -> None:
    assert [re.findall(r"import (xgboost|lightgbm)", block) for block in BLOCKS] == [
        [],
        ["xgboost"],
        ["lightgbm"],
    ]


def accuracy(page: dict[str, Any], scores: npt.NDArray[Any]) -> float:
    return float(np.mean(scores.argmax(axis=-1) == page["labels"][page["test"]]))


def loss(page: dict[str, Any], scores: npt.NDArray[Any]) -> float:
    return float(sx.cross_entropy(scores, page["labels"][page["test"]]))


def test_xgboost_learns_with_our_objective_what_it_learns_with_its_own() -> None:
    xgb = library("xgboost")
    page = after_block("xgboost")
    # Both from 0: by default the built-in objective starts from the classes' shares.
    options = page["options"] | {"base_score": 0.0}
    train = xgb.DMatrix(
        page["features"][page["train"]],
        page["labels"][page["train"]],
        weight=page["weights"][page["train"]],
    )
    test = xgb.DMatrix(page["features"][page["test"]])

    def trained(**how: Any) -> npt.NDArray[Any]:
        objective = how.pop("obj", None)
        booster = xgb.train(options | how, train, ROUNDS, obj=objective)
        return np.asarray(booster.predict(test, output_margin=True))

    own = trained(objective="multi:softprob")
    ours = trained(obj=page["objective"])
    assert accuracy(page, own) > 0.8
    assert accuracy(page, ours) >= accuracy(page, own) - 0.01
    np.testing.assert_allclose(loss(page, ours), loss(page, own), rtol=0.02)


def test_lightgbm_learns_with_our_objective_what_it_learns_with_its_own() -> None:
    lgb = library("lightgbm")
    page = after_block("lightgbm")
    features, labels = page["features"][page["train"]], page["labels"][page["train"]]
    weights = page["weights"][page["train"]]

    def trained(objective: Any) -> npt.NDArray[Any]:
        options = page["options"] | {"objective": objective, "boost_from_average": False}
        booster = lgb.train(options, lgb.Dataset(features, labels, weight=weights), ROUNDS)
        return np.asarray(booster.predict(page["features"][page["test"]], raw_score=True))

    own, ours = trained("multiclass"), trained(page["objective"])
    assert accuracy(page, own) > 0.8
    assert accuracy(page, ours) >= accuracy(page, own) - 0.01
    np.testing.assert_allclose(loss(page, ours), loss(page, own), rtol=0.02)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_the_objective_gets_and_gives_the_layout_that_the_page_says(name: str) -> None:
    booster_library = library(name)
    page = after_block(name)
    objective: Objective = page["objective"]
    seen: list[tuple[npt.NDArray[Any], ...]] = []

    def watched(scores: Any, data: Any) -> Any:
        grad, hess = objective(scores, data)
        seen.append((scores, grad, hess))
        return grad, hess

    rows = page["features"][page["train"]], page["labels"][page["train"]]
    if name == "xgboost":
        booster_library.train(page["options"], booster_library.DMatrix(*rows), 2, obj=watched)
    else:
        options = page["options"] | {"objective": watched}
        booster_library.train(options, booster_library.Dataset(*rows), 2)
    assert len(seen) == 2
    for array in (array for arrays in seen for array in arrays):
        assert array.shape == (800, 4)
        assert array.dtype == (np.float32 if name == "xgboost" else np.float64)
        assert array.flags.c_contiguous if name == "xgboost" else array.flags.f_contiguous


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_the_first_trees_are_those_of_the_built_in_objective(name: str) -> None:
    """From scores of 0 and without regularisation leaves are -sum grad / sum hess: a factor of the Hessian
    that is not the library's shows in every leaf."""
    booster_library = library(name)
    page = after_block(name)
    features, labels = page["features"][page["train"]], page["labels"][page["train"]]
    weights = page["weights"][page["train"]]
    if name == "xgboost":
        options = page["options"] | {"base_score": 0.0, "lambda": 0.0}
        data = booster_library.DMatrix(features, labels, weight=weights)
        own = booster_library.train(options | {"objective": "multi:softprob"}, data, 1)
        ours = booster_library.train(options, data, 1, obj=page["objective"])
        own, ours = (booster.predict(data, output_margin=True) for booster in (own, ours))
    else:
        options = page["options"] | {"boost_from_average": False}
        own, ours = (
            booster_library.train(
                options | {"objective": objective},
                booster_library.Dataset(features, labels, weight=weights),
                1,
            ).predict(features, raw_score=True)
            for objective in ("multiclass", page["objective"])
        )
    assert np.abs(own).max() > 0.1
    # Trees are grown from histograms of single precision; a tie may go either way in a few rows.
    assert np.mean(np.isclose(ours, own, rtol=1e-4, atol=1e-5)) > 0.99


def test_both_are_installed_where_peers_are() -> None:
    """So that nothing above is skipped for years without a word."""
    requirements = (PAGE.parent.parent / "benches" / "requirements.txt").read_text()
    assert re.search(r"^xgboost-cpu==", requirements, re.MULTILINE)
    assert re.search(r"^lightgbm==", requirements, re.MULTILINE)
    pytest.importorskip("torch", reason="not the peers' environment: torch is not installed")
    assert all(importlib.util.find_spec(name) for name in ("xgboost", "lightgbm"))

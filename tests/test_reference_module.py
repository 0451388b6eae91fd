"""The reference as a module: what it imports, that it changes no input, and which arguments need names."""

import ast
import copy
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
from softxent import reference

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_only_the_standard_library_is_imported() -> None:
    rooms = sorted(Path(reference.__file__).parent.glob("*.py"))
    imported: set[str] = set()
    for node in (node for room in rooms for node in ast.walk(ast.parse(room.read_text("utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))
    others = {name for name in imported if not name.startswith("softxent.reference.")}
    assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names


# A call of each function, by its first arguments.
SHARD = {"class_offset": 0}
PIECES = reference.partial_cross_entropy(ROWS, [0, 1], class_offset=0)
CALLS: dict[str, tuple[Any, ...]] = {
    "Evaluator": (),
    "cross_entropy": (ROWS, [0, 1]),
    "cross_entropy_with_grad": (ROWS, [0, 1]),
    "evaluate": (ROWS, [0, 1]),
    "finish_cross_entropy": (PIECES,),
    "js_divergence": (ROWS, ROWS),
    "js_divergence_with_grad": (ROWS, ROWS),
    "kl_divergence": (ROWS, ROWS),
    "kl_divergence_with_grad": (ROWS, ROWS),
    "linear_cross_entropy": (ROWS, ROWS, [0, 1]),
    "linear_cross_entropy_with_grad": (ROWS, ROWS, [0, 1]),
    "log_softmax": (ROWS,),
    "logsumexp": (ROWS,),
    "merge_partials": ([PIECES],),
    "partial_cross_entropy": (ROWS, [0, 1]),
    "shard_grad": (ROWS, [0, 1], PIECES),
    "softmax": (ROWS,),
    "softmax_grad_hess": (ROWS, [0, 1]),
    "token_logprobs": (ROWS, [[0, 2], [1, 1]]),
}
NEEDED: dict[str, dict[str, Any]] = {"partial_cross_entropy": SHARD, "shard_grad": SHARD}


def test_every_function_has_a_call() -> None:
    assert list(CALLS) == reference.__all__


@pytest.mark.parametrize("name", CALLS)
def test_input_is_left_as_it_was(name: str) -> None:
    arguments = copy.deepcopy(CALLS[name])
    getattr(reference, name)(*arguments, **NEEDED.get(name, {}))
    assert arguments == CALLS[name]


@pytest.mark.parametrize("keyword", ["out", "dtype", "threads"])
@pytest.mark.parametrize("name", CALLS)
def test_keywords_of_arrays_do_not_exist(name: str, keyword: str) -> None:
    options = {**NEEDED.get(name, {}), keyword: None}
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
        getattr(reference, name)(*CALLS[name], **options)


@pytest.mark.parametrize("name", CALLS)
def test_all_but_the_first_arguments_need_their_names(name: str) -> None:
    kinds = [p.kind for p in inspect.signature(getattr(reference, name)).parameters.values()]
    axis = name in ("softmax", "log_softmax", "logsumexp")
    first = len(CALLS[name]) + (axis or name.startswith("linear_"))  # whose bias may be left out
    assert inspect.Parameter.KEYWORD_ONLY not in kinds[:first]
    assert set(kinds[first:]) <= {inspect.Parameter.KEYWORD_ONLY}

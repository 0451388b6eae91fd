"""One list of public names and keywords, and every place that repeats it says the same.

The public functions stand in `softxent.__all__`. They have twins: in the compiled core and its
stub, in the reference, in the tests and in the benchmarks. A twin that is missing, or has another
keyword, order or default, fails here; what the functions do is for other files to test.
"""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import softxent as sx
from softxent import _core, functions, reference

ROOT = Path(__file__).parent.parent
FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(sx, name) for name in sx.__all__}
NOT_MATHEMATICS = {"get_threads", "set_threads", "show_runtime"}
MATHEMATICS = sorted(FUNCTIONS.keys() - NOT_MATHEMATICS)
# What the reference has no use for: it is always in double precision, alone, and makes a new list.
NOT_IN_REFERENCE = {"dtype", "out", "threads"}
# Each default, the same in every function. No default: no value may be left out.
REQUIRED = inspect.Parameter.empty
DEFAULTS: dict[str, Any] = {
    "logits": REQUIRED,
    "targets": REQUIRED,
    "axis": -1,
    "keepdims": False,
    "temperature": 1.0,
    "ignore_index": -100,
    "reduction": "mean",
    "offsets": None,
    "normalizer": None,
    "on_empty": "nan",
    "grad_output": None,
    "out": None,
    "dtype": None,
    "threads": None,
}
# Beside a loss and its classes the axis needs its name.
POSITIONAL = {
    "softmax": ["logits", "axis"],
    "log_softmax": ["logits", "axis"],
    "logsumexp": ["logits", "axis"],
    "cross_entropy": ["logits", "targets"],
    "cross_entropy_with_grad": ["logits", "targets"],
}
# Test files that go through all functions of the mathematics.
SUITES = [
    "test_accuracy.py",
    "test_extremes.py",
    "test_levels.py",
    "test_processors.py",
    "test_reference.py",
    "test_threads.py",
    "test_values.py",
    "peers/test_torch.py",
]


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def stub_functions() -> dict[str, list[str]]:
    """The functions of the stub, each with the names of its parameters in order."""
    tree = ast.parse((ROOT / "python" / "softxent" / "_core.pyi").read_text(encoding="utf-8"))
    return {
        node.name: [argument.arg for argument in node.args.posonlyargs]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def core_calls() -> dict[str, list[str]]:
    """For each public function, the arguments that its call into the core passes on, as written."""
    calls: dict[str, list[str]] = {}
    for function in ast.parse(inspect.getsource(functions)).body:
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_core."):
                assert node.keywords == []
                calls[ast.unparse(node.func)] = [ast.unparse(argument) for argument in node.args]
    return calls


def loss_options() -> str:
    """The tuple in which the core takes the options of the losses, as `functions.py` has to write it."""
    source = (ROOT / "src" / "python" / "loss_call.rs").read_text(encoding="utf-8")
    match = re.search(r"let LossOptions\((.*?)\) = options;", source, re.DOTALL)
    assert match is not None
    return f"({', '.join(re.findall(r'[a-z_]+', match[1]))})"


# The functions.


def test_all_public_names_are_listed_once_and_in_order() -> None:
    assert sx.__all__ == sorted(set(sx.__all__))
    assert sx.__all__ == sorted(
        name
        for name, value in vars(functions).items()
        if inspect.isfunction(value) and not name.startswith("_")
    )
    assert all(function.__module__ == "softxent.functions" for function in FUNCTIONS.values())


def test_the_package_shows_no_other_names() -> None:
    shown = {name for name in vars(sx) if not name.startswith("_")}
    assert shown - set(sx.__all__) <= {"functions", "reference", "cli", "demo"}


@pytest.mark.parametrize("name", MATHEMATICS)
def test_every_keyword_has_its_default(name: str) -> None:
    found = {key: parameter.default for key, parameter in parameters(FUNCTIONS[name]).items()}
    assert found == {key: DEFAULTS[key] for key in found}
    assert all(type(value) is type(DEFAULTS[key]) for key, value in found.items())


@pytest.mark.parametrize("name", MATHEMATICS)
def test_all_but_the_first_arguments_need_their_names(name: str) -> None:
    kinds = {key: parameter.kind for key, parameter in parameters(FUNCTIONS[name]).items()}
    first = [k for k, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert first == POSITIONAL[name]
    others = {kind for key, kind in kinds.items() if key not in first}
    assert others == {inspect.Parameter.KEYWORD_ONLY}


def test_every_default_is_of_some_function() -> None:
    assert DEFAULTS.keys() == set().union(*(parameters(FUNCTIONS[name]) for name in MATHEMATICS))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_and_result_has_a_type(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    annotations = [p.annotation for p in signature.parameters.values()]
    assert REQUIRED not in [*annotations, signature.return_annotation]


def test_the_gradient_takes_what_the_loss_takes_and_two_more() -> None:
    loss, grad = (list(parameters(FUNCTIONS[name])) for name in MATHEMATICS[:2])
    assert MATHEMATICS[:2] == ["cross_entropy", "cross_entropy_with_grad"]
    assert grad == [*loss, "grad_output", "out"]


# The core.


def test_the_stub_lists_what_the_core_has() -> None:
    compiled = {name for name in vars(_core) if not name.startswith("__")}
    assert stub_functions().keys() == compiled
    assert compiled - FUNCTIONS.keys() == {"runtime", "_set_thresholds"}
    assert FUNCTIONS.keys() - compiled == {"show_runtime"}


@pytest.mark.parametrize("name", stub_functions())
def test_the_stub_has_the_parameters_of_the_core_in_order(name: str) -> None:
    assert list(parameters(getattr(_core, name))) == stub_functions()[name]


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"show_runtime"}))
def test_every_argument_goes_to_its_parameter_of_the_core(name: str) -> None:
    passed = core_calls()[f"_core.{name}"]
    expected = [loss_options() if p == "options" else p for p in stub_functions()[name]]
    assert passed == expected
    assert sorted(re.findall(r"\w+", " ".join(passed))) == sorted(parameters(FUNCTIONS[name]))


# The reference.


def test_the_reference_has_every_function_of_the_mathematics() -> None:
    assert sorted(reference.__all__) == MATHEMATICS


@pytest.mark.parametrize("name", MATHEMATICS)
def test_the_reference_has_the_same_keywords_in_order(name: str) -> None:
    ours = [p for key, p in parameters(FUNCTIONS[name]).items() if key not in NOT_IN_REFERENCE]
    theirs = list(parameters(getattr(reference, name)).values())
    as_seen = [(p.name, p.kind, p.default) for p in theirs]
    assert as_seen == [(p.name, p.kind, p.default) for p in ours]


# The tests and the benchmarks.


@pytest.mark.parametrize("suite", SUITES)
def test_every_function_is_in_every_suite(suite: str) -> None:
    text = (ROOT / "tests" / suite).read_text(encoding="utf-8")
    assert [name for name in MATHEMATICS if not re.search(rf"\b{name}\b", text)] == []


def test_every_function_is_measured() -> None:
    text = (ROOT / "benches" / "libraries.py").read_text(encoding="utf-8")
    table = next(
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OPERATIONS"
    )
    assert table is not None
    operations: dict[str, str] = ast.literal_eval(table)
    assert sorted({operation.split()[0] for operation in operations}) == MATHEMATICS

"""One list of public names and keywords, and every place that repeats it says the same.

The public functions stand in `softxent.__all__`. They have twins: in the compiled core and its
stub, in the reference, in the tests and in the benchmarks. A twin that is missing, or has another
keyword, order or default, fails here; what the functions do is for other files to test.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import softxent as sx
from softxent import _core, functions, reference

ROOT = Path(__file__).parent.parent
CLASSES = {"Evaluation", "Evaluator", "LinearGrads", "Totals"}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sx, name) for name in sx.__all__ if name not in CLASSES
}
FAMILIES = [
    importlib.import_module(f"softxent.functions.{module.name}")
    for module in pkgutil.iter_modules(functions.__path__)
]
NOT_MATHEMATICS = {"get_threads", "release_memory", "set_threads", "show_runtime"}
MATHEMATICS = sorted(FUNCTIONS.keys() - NOT_MATHEMATICS)
# What the reference has no use for: it is always in double precision, alone, and makes a new list.
NOT_IN_REFERENCE = {"accumulate", "dtype", "out", "threads"}
# What Python does itself: printing, and putting small arrays side by side.
NOT_IN_CORE = {"show_runtime", "merge_partials"}
# What the core does not need to know: it says the rank.
NOT_FOR_CORE = {"top_k"}
# Each default, the same in every function. No default: no value may be left out.
REQUIRED = inspect.Parameter.empty
DEFAULTS: dict[str, Any] = {
    "logits": REQUIRED,
    "logits_shard": REQUIRED,
    "teacher_logits": REQUIRED,
    "student_logits": REQUIRED,
    "hidden": REQUIRED,
    "linear_weight": REQUIRED,
    "linear_bias": None,
    "targets": REQUIRED,
    "tokens": REQUIRED,
    "parts": REQUIRED,
    "merged": REQUIRED,
    "class_offset": REQUIRED,
    "direction": "forward",
    "beta": 0.5,
    "teacher": "logits",
    "teacher_ids": None,
    "ignore_rows": None,
    "axis": -1,
    "keepdims": False,
    "weight": None,
    "sample_weight": None,
    "ignore_index": -100,
    "label_smoothing": 0.0,
    "z_loss": 0.0,
    "temperature": 1.0,
    "softcap": None,
    "valid_classes": None,
    "class_mask": None,
    "reduction": "mean",
    "offsets": None,
    "normalizer": None,
    "on_empty": "nan",
    "grad_output": None,
    "top_k": (),
    "grads": ("hidden", "linear_weight", "linear_bias"),
    "out": None,
    "accumulate": False,
    "dtype": None,
    "threads": None,
}
# Beside a loss and its classes the axis needs its name.
POSITIONAL = {
    "softmax": ["logits", "axis"],
    "log_softmax": ["logits", "axis"],
    "logsumexp": ["logits", "axis"],
    "cross_entropy": ["logits", "targets"],
    "linear_cross_entropy": ["hidden", "linear_weight", "targets", "linear_bias"],
    "linear_cross_entropy_with_grad": ["hidden", "linear_weight", "targets", "linear_bias"],
    "evaluate": ["logits", "targets"],
    "softmax_grad_hess": ["logits", "targets"],
    "token_logprobs": ["logits", "tokens"],
    "cross_entropy_with_grad": ["logits", "targets"],
    "kl_divergence": ["teacher_logits", "student_logits"],
    "kl_divergence_with_grad": ["teacher_logits", "student_logits"],
    "js_divergence": ["teacher_logits", "student_logits"],
    "js_divergence_with_grad": ["teacher_logits", "student_logits"],
    "partial_cross_entropy": ["logits_shard", "targets"],
    "merge_partials": ["parts"],
    "finish_cross_entropy": ["merged"],
    "shard_grad": ["logits_shard", "targets", "merged"],
}
# Test files that go through all functions of the families that write or reduce rows; the other families have
# each a file of their own.
FIRST_FAMILIES = [
    "cross_entropy",
    "cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "softmax",
]
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


def in_core(name: str) -> str:
    """What the core calls a public function: all divergences are one there."""
    return re.sub("^(kl|js)_divergence", "divergence", name)


def stub_functions() -> dict[str, list[str]]:
    """The functions of the stub, each with the names of its parameters in order."""
    tree = ast.parse((ROOT / "python" / "softxent" / "_core.pyi").read_text(encoding="utf-8"))
    return {
        node.name: [argument.arg for argument in node.args.posonlyargs]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def core_call(name: str) -> list[str]:
    """The arguments that a public function passes on to its function of the core, as written."""
    for node in ast.walk(ast.parse(inspect.getsource(FUNCTIONS[name]))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"_core.{in_core(name)}":
            assert node.keywords == []
            return [ast.unparse(argument) for argument in node.args]
    raise AssertionError(f"{name} does not call _core.{in_core(name)}")


def bundles(name: str) -> dict[str, list[str]]:
    """The tuples that a public function makes of its arguments, each under the name that it gives it."""
    return {
        ast.unparse(node.targets[0]): [ast.unparse(item) for item in node.value.elts]
        for node in ast.walk(ast.parse(inspect.getsource(FUNCTIONS[name])))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
    }


def unpacked_in_core() -> dict[str, list[str]]:
    """The tuples as the core takes them apart, by the name of its parameter."""
    found = {}
    for path in (ROOT / "src" / "python").glob("*.rs"):
        text = path.read_text(encoding="utf-8")
        for names, parameter in re.findall(r"let \w+Options\(([^)]*)\)\s*=\s*(\w+);", text):
            found[parameter] = re.findall(r"[a-z_]+", names)
    return found


# The functions.


def test_all_public_names_are_listed_once_and_in_order() -> None:
    assert sx.__all__ == sorted(set(sx.__all__))
    assert sorted(FUNCTIONS) == sorted(
        name
        for family in FAMILIES
        for name, value in vars(family).items()
        if inspect.isfunction(value) and value.__module__ == family.__name__
        if not name.startswith("_")
    )


def test_the_package_shows_no_other_names() -> None:
    shown = {name for name in vars(sx) if not name.startswith("_")}
    package = Path(sx.__path__[0])
    rooms = {path.stem for path in package.iterdir() if (path / "__init__.py").exists()}
    assert shown - set(sx.__all__) <= rooms | {"totals", "partials"}


def test_importing_the_package_imports_its_functions_alone() -> None:
    """No file is read, nothing drawn, no command line: import time is paid by every program."""
    program = "import sys, softxent; print(*(m for m in sys.modules if m.startswith('softxent.')))"
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    rooms = {name.split(".")[1] for name in printed.split()}
    assert rooms == {"_core", "functions", "partials", "totals"}


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
    assert others <= {inspect.Parameter.KEYWORD_ONLY}


def test_every_default_is_of_some_function() -> None:
    assert DEFAULTS.keys() == set().union(*(parameters(FUNCTIONS[name]) for name in MATHEMATICS))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_and_result_has_a_type(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    annotations = [p.annotation for p in signature.parameters.values()]
    assert REQUIRED not in [*annotations, signature.return_annotation]


def test_the_gradient_takes_what_the_loss_takes_and_two_more() -> None:
    pairs = {name: f"{name}_with_grad" for name in FUNCTIONS if f"{name}_with_grad" in FUNCTIONS}
    assert len(pairs) == 4
    for name, with_grad in pairs.items():
        loss, grad = list(parameters(FUNCTIONS[name])), list(parameters(FUNCTIONS[with_grad]))
        # Of several gradients one can choose, and add them up.
        several = ["grads", "out", "accumulate"] if name == "linear_cross_entropy" else ["out"]
        assert grad == [*loss, "grad_output", *several]


@pytest.mark.parametrize("module", [sx, reference])
def test_an_evaluator_takes_what_is_the_same_for_all_batches(module: Any) -> None:
    def keywords(function: Any) -> dict[str, Any]:
        return {key: parameter.default for key, parameter in parameters(function).items()}

    per_batch = keywords(module.Evaluator.update).keys() | {"dtype"}
    once = {k: v for k, v in keywords(module.evaluate).items() if k not in per_batch}
    assert keywords(module.Evaluator) == once


# The core.


def test_the_stub_lists_what_the_core_has() -> None:
    compiled = {name for name in vars(_core) if not name.startswith("__")}
    assert stub_functions().keys() == compiled
    names = {in_core(name) for name in FUNCTIONS}
    assert compiled - names == {"runtime", "_linear_products", "_set_thresholds"}
    assert names - compiled == NOT_IN_CORE


@pytest.mark.parametrize("name", stub_functions())
def test_the_stub_has_the_parameters_of_the_core_in_order(name: str) -> None:
    assert list(parameters(getattr(_core, name))) == stub_functions()[name]


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - NOT_IN_CORE))
def test_every_argument_goes_to_its_parameter_of_the_core(name: str) -> None:
    passed = core_call(name)
    assert passed == stub_functions()[in_core(name)]
    tuples = {bundle: names for bundle, names in bundles(name).items() if bundle in passed}
    for bundle, names in tuples.items():
        # A constant stands where a function lacks the option; a divergence says which argument follows.
        for ours, theirs in zip(names, unpacked_in_core()[bundle], strict=True):
            given = {"argument": f"'{names[1]}'", "given": names[1]}.get(theirs, theirs)
            assert ours in (given, "None", "'nan'", "-1")
        tuples[bundle] = [ours for ours in names if ours.isidentifier() and ours != "None"]
    single = [argument for argument in passed if argument not in tuples]
    taken = parameters(FUNCTIONS[name]).keys() - NOT_FOR_CORE
    assert sorted(sum(tuples.values(), single)) == sorted(taken)


# The reference.


def test_the_reference_has_every_function_of_the_mathematics() -> None:
    assert sorted(reference.__all__) == sorted([*MATHEMATICS, "Evaluator"])


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
    assert [name for name in FIRST_FAMILIES if not re.search(rf"\b{name}\b", text)] == []


def test_every_other_function_is_called_by_a_test_file() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")]
    others = sorted(set(MATHEMATICS) - set(FIRST_FAMILIES))
    silent = [name for name in others if not any(f"sx.{name}(" in t for t in texts)]
    assert silent == []


def test_every_function_is_measured() -> None:
    operations: set[str] = set()
    for file in ("operations.py", "linear.py"):
        text = (ROOT / "benches" / file).read_text(encoding="utf-8")
        table = next(
            node.value
            for node in ast.parse(text).body
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OPERATIONS"
        )
        assert table is not None
        operations |= ast.literal_eval(table).keys()
    small = {"merge_partials", "finish_cross_entropy"}  # a hundred bytes a row
    assert {operation.split()[0] for operation in operations} == set(MATHEMATICS) - small

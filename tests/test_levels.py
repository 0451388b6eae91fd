"""Every instruction set of this processor really runs, and is right.

What the processor has is read from the system, not from the package: a level that the package
silently could not use fails here. The level is chosen at import, so each is used in a process of
its own: this file is also the program that runs there. Processors other than this one are for
`test_processors`.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from softxent import reference

# What each level is made of, in the words of /proc/cpuinfo; the best level first.
FLAGS = {
    "avx512": {"avx2", "fma", "f16c", "popcnt", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma", "f16c", "popcnt"},
    "neon": {"asimd"},
    "portable": set[str](),
}
FUSED = {"avx512", "avx2", "neon"}
DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
# Relative, and what a probability may lose below the smallest normal number.
TOLERANCES = {
    "float16": (1e-3, 6e-8),
    "bfloat16": (8e-3, 1e-37),
    "float32": (2e-5, 1e-37),
    "float64": (4e-14, 1e-300),
}
# One class; part of a vector; a step and a tail; more than a chunk.
COLUMNS = (1, 7, 150, 16_500)


def expected_levels() -> list[str]:
    """The levels that this processor has, the best one first."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        pytest.skip("no /proc/cpuinfo says what this processor has")
    lines = [line for line in path.read_text().splitlines() if line.startswith(("flags", "Feat"))]
    flags = set(lines[0].partition(":")[2].split()) if lines else set[str]()
    return [level for level, needed in FLAGS.items() if needed <= flags]


def logits_of(columns: int, dtype: str) -> np.ndarray[Any, Any]:
    """Multiples of 1/16 within +-8, which every dtype holds exactly."""
    random = np.random.default_rng(columns)
    return (random.integers(-128, 129, size=(3, columns)) / 16).astype(DTYPES[dtype])


def calls(columns: int) -> dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What is computed, by name: the function, what follows the logits, and the options."""
    targets = [0, -100, columns - 1]
    probabilities = [[(7 * i + 3 * row) % 5 / 4 for i in range(columns)] for row in range(3)]
    rows: dict[str, Any] = {"temperature": 1.5, "reduction": "none"}
    reading: dict[str, Any] = {
        "softcap": 8.0,
        "valid_classes": columns - columns // 10,
        "class_mask": [i % 7 != 5 for i in range(columns)],
    }
    weights: dict[str, Any] = {
        "weight": [1 + i % 3 / 4 for i in range(columns)],
        "sample_weight": [0.5, 1.0, 2.0],
        "z_loss": 0.125,
    }
    smoothed = {**rows, **reading, **weights, "label_smoothing": 0.25}
    return {
        "softmax": ("softmax", (), {}),
        "log_softmax": ("log_softmax", (), {}),
        "logsumexp": ("logsumexp", (), {}),
        "cross_entropy": ("cross_entropy", (targets,), {}),
        "loss and grad": ("cross_entropy_with_grad", (targets,), rows),
        "softmax, capped and masked": ("softmax", (), reading),
        "log_softmax, capped and masked": ("log_softmax", (), reading),
        "logsumexp, capped and masked": ("logsumexp", (), reading),
        "weighted loss and grad": ("cross_entropy_with_grad", (targets,), {**rows, **weights}),
        "smoothed loss and grad": ("cross_entropy_with_grad", (targets,), smoothed),
        "of probabilities": ("cross_entropy_with_grad", (probabilities,), smoothed),
    }


def results_of(module: Any, logits: Any, columns: int, most: int = 99_999) -> dict[str, Any]:
    """What every call makes of the logits, as lists of doubles; a loss and its gradient apart.

    With options only up to so many columns.
    """
    found: dict[str, Any] = {}
    for name, (function, arguments, options) in calls(columns).items():
        if columns > most and options.keys() - {"temperature", "reduction"}:
            continue
        result = getattr(module, function)(logits, *arguments, **options)
        parts = {name: result}
        if isinstance(result, tuple):
            parts = {f"loss: {name}": result[0], f"grad: {name}": result[1]}
        found |= {part: np.asarray(value, np.float64).tolist() for part, value in parts.items()}
    return found


def results(logits: np.ndarray[Any, Any]) -> dict[str, Any]:
    return results_of(sx, logits, logits.shape[1]) | of_layer(logits)


def of_layer(logits: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The loss and the gradients of a linear layer with these rows, and theirs in reverse for classes."""
    hidden = logits[:, :1500]
    weight = np.tile(hidden[::-1, ::-1], (100, 1)) / 64
    loss, grads = sx.linear_cross_entropy_with_grad(hidden, weight, [0, -100, 299], weight[:, 0])
    parts = {"loss": loss, **grads._asdict()}
    return {f"layer: {k}": np.asarray(v, np.float64).tolist() for k, v in parts.items()}


def written_out(logits: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The same in doubles, with the logits written out."""
    hidden = logits[:, :1500].astype(np.float64)
    weight = np.tile(hidden[::-1, ::-1], (100, 1)) / 64
    x = hidden @ weight.T + weight[:, 0]
    loss, grad = sx.cross_entropy_with_grad(x, [0, -100, 299])
    parts = (loss, grad @ weight, grad.T @ hidden, grad.sum(axis=0))
    return dict(zip(("loss", *sx.LinearGrads._fields), parts, strict=True))


@functools.cache
def expected_results(columns: int) -> dict[str, Any]:
    """The same from the reference, which would take minutes for long rows with all options."""
    return results_of(reference, logits_of(columns, "float64").tolist(), columns, most=1000)


def run_with(isa: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SOFTXENT_ISA"}
    return subprocess.run(
        [sys.executable, "-I", __file__],
        env=environment if isa is None else environment | {"SOFTXENT_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@functools.cache
def report_of(isa: str | None) -> dict[str, Any]:
    """What this file prints as a program: the level in use, and the results."""
    process = run_with(isa)
    assert process.returncode == 0, process.stderr
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("isa", FLAGS)
def test_every_level_that_the_processor_has_is_used_when_asked_for(isa: str) -> None:
    if isa in expected_levels():
        assert report_of(isa)["isa"] == isa
    else:
        assert run_with(isa).returncode == 1


@pytest.mark.parametrize("isa", [None, ""])
def test_the_best_level_is_used_unless_asked(isa: str | None) -> None:
    assert report_of(isa)["isa"] == expected_levels()[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_every_level_computes_right_values(columns: int, dtype: str) -> None:
    expected = expected_results(columns)
    for isa in expected_levels():
        found = report_of(isa)[f"{dtype} {columns}"]
        relative, absolute = TOLERANCES[dtype]
        for name, values in expected.items():
            # With smoothing a slope is the difference of a probability and such a number.
            terms = (
                0.0
                if name.startswith("grad: weighted")
                else 4 * name.startswith("grad: ") / columns
            )
            lost = absolute + relative * terms
            np.testing.assert_allclose(
                found[name], values, relative, lost, err_msg=f"{isa}: {name}"
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_every_level_multiplies_right(columns: int, dtype: str) -> None:
    expected = written_out(logits_of(columns, dtype))
    relative, absolute = TOLERANCES[dtype]
    for isa in expected_levels():
        found = report_of(isa)[f"{dtype} {columns}"]
        for name, values in expected.items():
            largest = np.abs(values).max()
            lost = absolute + 10 * relative * largest
            np.testing.assert_allclose(found[f"layer: {name}"], values, 0, lost, err_msg=isa)


def test_levels_with_a_fused_multiply_add_give_the_same_bits() -> None:
    reports = [report_of(isa) for isa in expected_levels() if isa in FUSED]
    for report in reports[1:]:
        assert {**report, "isa": ""} == {**reports[0], "isa": ""}


def test_the_portable_level_runs_other_code() -> None:
    """Without a fused multiply-add some doubles are rounded otherwise; so it really was another."""
    levels = [isa for isa in expected_levels() if isa in FUSED]
    if not levels:
        pytest.skip("this processor has no other level")
    name = f"float64 {COLUMNS[-1]}"
    assert report_of("portable")[name] != report_of(levels[0])[name]


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx2 ", "best", "neon,avx2"])
def test_a_level_that_does_not_exist_fails_the_import_and_says_which_do(name: str) -> None:
    process = run_with(name)
    assert process.returncode == 1
    available = ", ".join(expected_levels())
    expected = f"SOFTXENT_ISA: expected one of {available} on this processor, got {name}"
    assert process.stderr.splitlines()[-1] == f"ImportError: {expected}"


if __name__ == "__main__":
    report: dict[str, Any] = {"isa": sx.show_runtime()["isa"]}
    for columns in COLUMNS:
        for dtype in DTYPES:
            report[f"{dtype} {columns}"] = results(logits_of(columns, dtype))
    print(json.dumps(report))

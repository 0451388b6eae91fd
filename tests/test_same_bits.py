"""The same input gives the same bits, however the work is done.

A table of hashes, one for each row of some 200 inputs and one for the totals, is made plainly: by
one thread, from contiguous rows. Then it is made again by other numbers of threads, thresholds,
layouts, places in a batch, and, this file run as a program, by other instruction sets. It must not
change.

What the right values are is not known here.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Dtype: TypeAlias = np.dtype[Any]
Layout: TypeAlias = Callable[[Array], Array]
SetThresholds: TypeAlias = Callable[[int | None, int | None, int | None], None]
Input: TypeAlias = tuple[Array, Array, float]  # logits, class ids, temperature
Table: TypeAlias = dict[str, list[str]]

DTYPES = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
# One class; less than a vector; a tail; a step; a block and a tail; the edge of a chunk; chunks, of
# few rows and of too many to cut them.
SHAPES = [
    (4, 1),
    (6, 7),
    (19, 77),
    (5, 64),
    (3, 1100),
    (2, 32768),
    (1, 32769),
    (2, 70001),
    (9, 33001),
]
# Levels with a fused multiply-add.
LEVELS = ["avx512", "avx2", "neon"]


def kinds(shape: tuple[int, int], dtype: Dtype) -> Iterator[tuple[str, Array, float]]:
    """Logits and temperatures by name."""
    random = np.random.default_rng(shape[1])
    normal = random.standard_normal(shape)
    steps = np.arange(shape[1])
    yield "normal", (3 * normal).astype(dtype), 1.0
    yield "normal, flattened", (30 * normal).astype(dtype), 7.3
    yield "a reference that rises", (normal + steps / 700).astype(dtype), 1.0
    masked = np.where(random.random(shape) < 0.3, -np.inf, 10 * normal)
    yield "masked, sharpened", masked.astype(dtype), 0.6
    confident = normal.copy()
    confident[:, shape[1] // 2] = 30
    yield "near one-hot", confident.astype(dtype), 1.0
    special = normal.copy()
    special[0, -1] = np.nan
    special[-1, 0] = np.inf
    special[shape[0] // 2] = -np.inf
    yield "NaN and infinities", special.astype(dtype), 1.0


def inputs() -> Iterator[tuple[str, Input]]:
    for dtype in DTYPES:
        for shape in SHAPES:
            targets = np.random.default_rng(0).integers(shape[1], size=shape[0])
            targets[shape[0] // 3] = shape[1] // 2
            if shape[0] > 3:
                targets[1] = -100
            for name, logits, temperature in kinds(shape, dtype):
                yield f"{name}, {dtype} {shape}", (logits, targets, temperature)


INPUTS = dict(inputs())


def digest(*results: Any) -> str:
    found = hashlib.sha256()
    for result in results:
        found.update(f"{result.dtype} {result.shape}".encode())
        found.update(np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def hashes(logits: Array, targets: Array, temperature: float, **options: Any) -> list[str]:
    """One hash for all that becomes of each row, one for the totals; classes along `axis`."""
    options = {"temperature": temperature, **options}
    axis = options.get("axis", -1)
    p, log_p = sx.softmax(logits, **options), sx.log_softmax(logits, **options)
    lse = sx.logsumexp(logits, **options)
    losses, slopes = sx.cross_entropy_with_grad(logits, targets, reduction="none", **options)
    same_losses = sx.cross_entropy(logits, targets, reduction="none", **options)
    wide, slopes, log_p = (np.moveaxis(result, axis, -1) for result in (p, slopes, log_p))
    rows = [
        digest(wide[row], log_p[row], slopes[row], lse[row], losses[row], same_losses[row])
        for row in range(len(lse))
    ]
    mean, grad = sx.cross_entropy_with_grad(logits, targets, **options)
    total = sx.cross_entropy(logits, targets, reduction="sum", **options)
    return [*rows, digest(mean, total, np.moveaxis(grad, axis, -1))]


def table(**options: Any) -> Table:
    return {name: hashes(*given, **options) for name, given in INPUTS.items()}


@pytest.fixture(scope="module")
def plain() -> Table:
    return table(threads=1)


def differing(found: Table, plain: Table) -> list[str]:
    assert found.keys() == plain.keys()
    return [name for name in found if found[name] != plain[name]]


def test_the_table_tells_results_apart(plain: Table) -> None:
    # No two rows are the same but those that are NaN all over, or of a single class.
    assert len(plain) == 216
    name = "normal, float32 (19, 77)"
    assert len(set(plain[name])) == 20
    logits, targets, temperature = INPUTS[name]
    logits = logits.copy()
    logits[4, 5] = np.nextafter(logits[4, 5], np.float32(9))
    changed = hashes(logits, targets, temperature)
    same = [before == after for before, after in zip(plain[name], changed, strict=True)]
    assert same == [row not in (4, 19) for row in range(20)]


def test_repeats(plain: Table) -> None:
    assert differing(table(threads=1), plain) == []


@pytest.mark.parametrize("thresholds", [(0, None, 1), (0, 0, 1000)])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 8])
def test_threads(
    threads: int,
    thresholds: tuple[int | None, int | None, int | None],
    plain: Table,
    set_thresholds: SetThresholds,
) -> None:
    set_thresholds(*thresholds)
    assert differing(table(threads=threads), plain) == []


def test_layouts(layout: Layout, plain: Table) -> None:
    found = {
        name: hashes(layout(logits), layout(targets), temperature)
        for name, (logits, targets, temperature) in INPUTS.items()
    }
    assert differing(found, plain) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_class_axis_first(threads: int, plain: Table, set_thresholds: SetThresholds) -> None:
    set_thresholds(0, None, 1)
    found = {
        name: hashes(np.ascontiguousarray(logits.T), targets, temperature, axis=0, threads=threads)
        for name, (logits, targets, temperature) in INPUTS.items()
    }
    assert differing(found, plain) == []


def test_a_row_alone_and_in_a_batch(plain: Table) -> None:
    # The row as it is in its batch; alone; last of three; between rows that end a call early.
    for name, (logits, targets, temperature) in INPUTS.items():
        for row, expected in enumerate(plain[name][:-1]):
            one, target = logits[row : row + 1], targets[row : row + 1]
            assert hashes(one, target, temperature)[0] == expected
            before = np.zeros((2, logits.shape[1]), logits.dtype)
            batch = np.concatenate([before, one, one[:, ::-1]])
            ids = np.concatenate([[0, -100], target, [0]])
            assert hashes(batch, ids, temperature, threads=2)[2] == expected


@pytest.mark.parametrize("thresholds", [(None, None, None), (0, 0, 1)])
def test_in_place(
    thresholds: tuple[int | None, int | None, int | None], set_thresholds: SetThresholds
) -> None:
    for logits, targets, temperature in INPUTS.values():
        options: dict[str, Any] = {"temperature": temperature, "threads": 2}
        expected = [
            sx.softmax(logits, **options),
            sx.log_softmax(logits, **options),
            sx.cross_entropy_with_grad(logits, targets, **options)[1],
        ]
        set_thresholds(*thresholds)
        found = [logits.copy() for _ in expected]
        sx.softmax(found[0], out=found[0], **options)
        sx.log_softmax(found[1], out=found[1], **options)
        sx.cross_entropy_with_grad(found[2], targets, out=found[2], **options)
        set_thresholds(None, None, None)
        assert digest(*found) == digest(*expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_shift_of_a_row(dtype: Dtype) -> None:
    # Multiples of 1/4 within +-2, which even the 8 bits of bfloat16 can hold beside 29.
    random = np.random.default_rng(6)
    for classes in (1, 7, 64, 1100, 33001):
        exact = random.integers(-8, 9, size=(1, classes)) / 4
        logits, target = exact.astype(dtype), np.array([classes // 3])
        p, log_p = sx.softmax(logits), sx.log_softmax(logits)
        loss, grad = sx.cross_entropy_with_grad(logits, target, temperature=1.7)
        expected = digest(p, log_p, loss, grad)
        for shift in (29, -29, 16, -0.25):
            moved = (exact + shift).astype(dtype)
            assert np.array_equal(moved.astype(np.float64), exact + shift)
            p, log_p = sx.softmax(moved), sx.log_softmax(moved)
            loss, grad = sx.cross_entropy_with_grad(moved, target, temperature=1.7)
            assert digest(p, log_p, loss, grad) == expected


def test_huge_exact_shift_of_a_row() -> None:
    row = np.array([0.0, 1.0, -2.0, 3.0, 3.0])
    for dtype, unit in ((np.float32, 2.0**100), (np.float64, 2.0**1000)):
        small, large = (row * unit).astype(dtype), (row * unit + 8 * unit).astype(dtype)
        for target in range(5):
            expected = digest(*sx.cross_entropy_with_grad(small, target))
            assert digest(*sx.cross_entropy_with_grad(large, target)) == expected
        assert digest(sx.softmax(large)) == digest(sx.softmax(small))


def test_instruction_sets(tmp_path: Path) -> None:
    found: dict[str, Table] = {}
    for level in LEVELS:
        # -I: what is imported is the installed package, wherever the tests were started.
        process = subprocess.run(
            [sys.executable, "-I", __file__],
            env={**os.environ, "SOFTXENT_ISA": level},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode == 0:
            found[level] = json.loads(process.stdout)
        else:
            # That this processor has no such level is the only excuse.
            assert f"on this processor, got {level}" in process.stderr
    if not found:
        pytest.skip("this processor has no level with a fused multiply-add")
    expected = next(iter(found.values()))
    for level, hashes_there in found.items():
        assert differing(hashes_there, expected) == [], level


if __name__ == "__main__":
    print(json.dumps(table(threads=2)))

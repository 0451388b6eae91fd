"""The same input gives the same bits, however the work is done.

A table of hashes, one for each row of some 300 inputs and one for the totals, is made plainly: by
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
from dataclasses import dataclass, replace
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
Options: TypeAlias = dict[str, Any]
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
# With every option, of these.
SHAPES_OF_OPTIONS = [(6, 7), (19, 77), (3, 1100), (1, 32769), (2, 70001)]
# Levels with a fused multiply-add.
LEVELS = ["avx512", "avx2", "neon"]
# What is said of how logits are read, and what only of a loss.
READING = {"temperature", "softcap", "valid_classes", "class_mask"}


@dataclass(frozen=True)
class Input:
    """Logits with the classes along `axis`, their targets, and options."""

    logits: Array
    targets: Array
    options: Options
    axis: int = 1

    @property
    def has_probabilities(self) -> bool:
        return self.targets.ndim == 2

    @property
    def reading(self) -> Options:
        return {name: value for name, value in self.options.items() if name in READING}

    def each(
        self, change: Callable[[Array], Array], which: Callable[[str, Array], bool]
    ) -> "Input":
        """Another input, with a change of those arrays that are asked for."""

        def changed(name: str, value: Any) -> Any:
            return change(value) if isinstance(value, np.ndarray) and which(name, value) else value

        return replace(
            self,
            logits=changed("logits", self.logits),
            targets=changed("targets", self.targets),
            options={name: changed(name, value) for name, value in self.options.items()},
        )

    def laid_out(self, layout: Layout) -> "Input":
        return self.each(layout, lambda *_: True)

    def transposed(self) -> "Input":
        turned = self.each(lambda a: np.ascontiguousarray(a.T), lambda _, a: a.ndim == 2)
        return replace(turned, axis=0)

    def rows(self, choice: list[int]) -> "Input":
        """Some of the rows."""
        return self.each(lambda a: a[choice], of_rows)

    def among_others(self, row: int) -> "Input":
        """The row as the third of four; one of the others is ignored, if the targets are ids."""
        four = self.rows([row] * 4)
        four.logits[:2], four.logits[3] = 0, four.logits[3, ::-1].copy()
        if not four.has_probabilities:
            four.targets[:2], four.targets[3] = [0, -100], 0
        return four


def of_rows(name: str, array: Array) -> bool:
    """Whether it has a value for each row, and not for each class alone."""
    return array.ndim == 2 or name in ("targets", "sample_weight")


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


def class_ids(shape: tuple[int, int]) -> Array:
    targets = np.random.default_rng(0).integers(shape[1], size=shape[0])
    targets[shape[0] // 3] = shape[1] // 2
    if shape[0] > 3:
        targets[1] = -100
    return targets


def options_of(shape: tuple[int, int]) -> Iterator[tuple[str, Options, Array | None]]:
    """Options by name, and targets that are probabilities."""
    random = np.random.default_rng(shape[0])
    rows, classes = shape
    padded = {"valid_classes": classes - classes // 5}
    of_classes = {"class_mask": random.random(classes) < 0.8}
    of_all = {"class_mask": random.random(shape) < 0.7}
    if rows > 3:
        of_all["class_mask"][3] = False
    weights: Options = {
        "weight": random.random(classes),
        "sample_weight": np.where(np.arange(rows) % 5 == 4, 0.0, 1 + random.random(rows)),
        "z_loss": 1e-3,
    }
    probabilities = random.dirichlet(np.ones(classes), rows).astype(np.float32)
    yield "softcap", {"softcap": 5.0, "temperature": 1.5}, None
    yield "padded, some masked", {**padded, **of_classes}, None
    yield "some masked in each row", of_all, None
    yield "weights", weights, None
    yield "smoothed", {"label_smoothing": 0.1}, None
    yield "smoothed with weights", {"label_smoothing": 0.1, **weights, **of_classes}, None
    yield "probabilities", {}, probabilities
    everything = {"softcap": 5.0, "label_smoothing": 0.2, **padded, **of_all, **weights}
    yield "everything", everything, None
    yield "everything with probabilities", {**everything, "temperature": 0.7}, probabilities


def inputs() -> Iterator[tuple[str, Input]]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for name, logits, temperature in kinds(shape, dtype):
                options = {"temperature": temperature}
                yield f"{name}, {dtype} {shape}", Input(logits, class_ids(shape), options)
        for shape in SHAPES_OF_OPTIONS:
            logits = (3 * np.random.default_rng(shape[1]).standard_normal(shape)).astype(dtype)
            for name, options, probabilities in options_of(shape):
                targets = class_ids(shape) if probabilities is None else probabilities
                yield f"{name}, {dtype} {shape}", Input(logits, targets, options)


INPUTS = dict(inputs())


def digest(*results: Any) -> str:
    found = hashlib.sha256()
    for result in results:
        found.update(f"{result.dtype} {result.shape}".encode())
        found.update(np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def hashes(given: Input, **how: Any) -> list[str]:
    """One hash for all that becomes of each row, one for the totals."""
    how["axis"] = given.axis
    reading, options = {**given.reading, **how}, {**given.options, **how}
    logits, targets = given.logits, given.targets
    p, log_p = sx.softmax(logits, **reading), sx.log_softmax(logits, **reading)
    lse = sx.logsumexp(logits, **reading)
    losses, slopes = sx.cross_entropy_with_grad(logits, targets, reduction="none", **options)
    same_losses = sx.cross_entropy(logits, targets, reduction="none", **options)
    same = {name: value for name, value in reading.items() if name != "softcap"}
    teacher = np.flip(logits, given.axis)
    far, nearer = sx.js_divergence_with_grad(teacher, logits, reduction="none", **same)
    reverse = sx.kl_divergence(teacher, logits, direction="reverse", reduction="none", **same)
    of_classes = [np.moveaxis(result, given.axis, -1) for result in (p, log_p, slopes, nearer)]
    by_row = [lse, losses, same_losses, far, reverse]
    rows = [digest(*(result[row] for result in of_classes + by_row)) for row in range(len(lse))]
    mean, grad = sx.cross_entropy_with_grad(logits, targets, **options)
    total = sx.cross_entropy(logits, targets, reduction="sum", **options)
    return [*rows, digest(mean, total, np.moveaxis(grad, given.axis, -1))]


def table(**how: Any) -> Table:
    return {name: hashes(given, **how) for name, given in INPUTS.items()}


@pytest.fixture(scope="module")
def plain() -> Table:
    return table(threads=1)


def differing(found: Table, plain: Table) -> list[str]:
    assert found.keys() == plain.keys()
    return [name for name in found if found[name] != plain[name]]


def test_the_table_tells_results_apart(plain: Table) -> None:
    # No two rows are the same but those that are NaN all over, or of a single class.
    assert len(plain) == 396
    name = "normal, float32 (19, 77)"
    assert len(set(plain[name])) == 20
    logits = INPUTS[name].logits.copy()
    logits[4, 5] = np.nextafter(logits[4, 5], np.float32(9))
    changed = hashes(replace(INPUTS[name], logits=logits))
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


def test_every_option_makes_a_difference(plain: Table) -> None:
    for dtype in DTYPES:
        found = [plain[f"{name}, {dtype} (19, 77)"][0] for name, *_ in options_of((19, 77))]
        # The first row has the sample weight 1 or more, and no class of it is padding.
        assert len(set(found)) == len(found)


def test_layouts(layout: Layout, plain: Table) -> None:
    found = {name: hashes(given.laid_out(layout)) for name, given in INPUTS.items()}
    assert differing(found, plain) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_class_axis_first(threads: int, plain: Table, set_thresholds: SetThresholds) -> None:
    set_thresholds(0, None, 1)
    found = {name: hashes(given.transposed(), threads=threads) for name, given in INPUTS.items()}
    assert differing(found, plain) == []


def test_a_row_alone_and_in_a_batch(plain: Table) -> None:
    # The row as it is in its batch; alone; third of four, after an ignored one.
    for name, given in INPUTS.items():
        for row, expected in enumerate(plain[name][:-1]):
            assert hashes(given.rows([row]))[0] == expected
            assert hashes(given.among_others(row), threads=2)[2] == expected


@pytest.mark.parametrize("thresholds", [(None, None, None), (0, 0, 1)])
def test_in_place(
    thresholds: tuple[int | None, int | None, int | None], set_thresholds: SetThresholds
) -> None:
    for given in INPUTS.values():
        logits, targets = given.logits, given.targets
        reading, options = ({**o, "threads": 2} for o in (given.reading, given.options))
        expected = [
            sx.softmax(logits, **reading),
            sx.log_softmax(logits, **reading),
            sx.cross_entropy_with_grad(logits, targets, **options)[1],
        ]
        set_thresholds(*thresholds)
        found = [logits.copy() for _ in expected]
        sx.softmax(found[0], out=found[0], **reading)
        sx.log_softmax(found[1], out=found[1], **reading)
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


# Different words for the same.

NEARLY = dict(zip(DTYPES, [(4e-3, 1e-4), (3e-2, 1e-3), (1e-5, 1e-6), (1e-12, 1e-13)], strict=True))


@pytest.mark.parametrize("thresholds", [(None, None, None), (0, 0, 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES_OF_OPTIONS)
def test_the_first_classes_alone_are_those_of_a_slice(
    shape: tuple[int, int],
    dtype: Dtype,
    thresholds: tuple[int | None, int | None, int | None],
    set_thresholds: SetThresholds,
) -> None:
    set_thresholds(*thresholds)
    random = np.random.default_rng(8)
    rows, classes = shape
    logits = (3 * random.standard_normal(shape)).astype(dtype)
    for count in {1, classes // 2, classes - 1, classes}:
        weight, probabilities = random.random(classes), random.random(shape)
        probabilities[:, count:] = 0.0
        harmed = logits.copy()
        harmed[:, count:] = np.nan
        for options in (
            {},
            {"softcap": 4.0},
            {"label_smoothing": 0.1, "z_loss": 0.01, "sample_weight": random.random(rows)},
        ):
            for targets in (np.arange(rows) % count, probabilities):
                sliced = targets if targets.ndim == 1 else targets[:, :count]
                of_slice = Input(logits[:, :count], sliced, {**options, "weight": weight[:count]})
                expected = results(of_slice)
                of_all = {**options, "weight": weight}
                mask = np.arange(classes) < count
                for words in (
                    {"valid_classes": count},
                    {"class_mask": mask},
                    {"class_mask": np.broadcast_to(mask, shape)},
                    {"class_mask": mask, "valid_classes": count},
                ):
                    found = results(Input(harmed, targets, {**of_all, **words}))
                    for result, wanted in zip(found, expected, strict=True):
                        real = result[:, :count] if result.ndim == 2 else result
                        if "valid_classes" in words:
                            assert digest(real) == digest(wanted)
                        # A mask does not say where a row ends: its sums are cut as those of all classes.
                        np.testing.assert_allclose(
                            real.astype(float), wanted.astype(float), *NEARLY[dtype]
                        )
                        assert not np.nan_to_num(result[:, count:] if result.ndim == 2 else 0).any()


def results(given: Input) -> list[Array]:
    """What becomes of an input; log-probabilities as an exponential, which is 0 where masked."""
    losses, slopes = sx.cross_entropy_with_grad(
        given.logits, given.targets, reduction="none", **given.options
    )
    mean = sx.cross_entropy(given.logits, given.targets, **given.options)
    p, log_p = (f(given.logits, **given.reading) for f in (sx.softmax, sx.log_softmax))
    masked = np.exp(log_p.astype(np.float64))
    return [p, masked, sx.logsumexp(given.logits, **given.reading), losses, slopes, mean]


def test_options_that_say_nothing_change_no_bit(plain: Table) -> None:
    short = [(name, given) for name, given in INPUTS.items() if given.logits.size < 10_000]
    for name, given in short:
        rows, classes = given.logits.shape
        for words in (
            {"valid_classes": classes},
            {"class_mask": np.True_},
            {"class_mask": np.ones(classes, bool)},
            {"class_mask": np.ones((rows, classes), bool), "valid_classes": classes},
            {"weight": np.ones(classes, np.float32)},
            {"sample_weight": np.ones(rows)},
            {"label_smoothing": 0, "z_loss": 0, "softcap": None, "temperature": 1},
        ):
            if not words.keys() & given.options.keys():
                assert hashes(replace(given, options={**given.options, **words})) == plain[name]


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

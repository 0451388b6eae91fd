"""`softmax_grad_hess`: the gradient and the diagonal of the Hessian, row by row.

The values come from literal cases, from the reference, from 60 digits and from finite differences; the
bits of the gradient from `cross_entropy_with_grad`. What boosters make of the two: peers/test_boosters.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import mpmath
import numpy as np
import pytest
import softxent as sx
from conftest import LAYOUTS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from softxent import reference

Array: TypeAlias = NDArray[Any]
SetThresholds: TypeAlias = Callable[[int | None, int | None, int | None], None]

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
# The precision of the computation: the distance from 1 to the next number.
UNIT = {"float16": 2.0**-23, "bfloat16": 2.0**-23, "float32": 2.0**-23, "float64": 2.0**-52}
# Half a unit of the dtype itself, where it is not that of the computation; and its smallest normal number.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 0.0, "float64": 0.0}
SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}
# As the docstring says, in units: this, and one for each nat below the row's largest. Measured: 4.3 at the
# largest, 0.6 of (4 + nats) elsewhere.
BOUND = 6.0


def normal(rows: int, columns: int, dtype: str = "float64", scale: float = 3.0) -> Array:
    random = np.random.default_rng(columns)
    return (scale * random.standard_normal((rows, columns))).astype(DTYPES[dtype])


def some_classes(rows: int, columns: int) -> Array:
    return np.random.default_rng(rows).integers(0, columns, size=rows)


def bits(pair: tuple[Array, Array]) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in pair]


# Values.


def test_of_the_row_that_everyone_knows() -> None:
    grad, hess = sx.softmax_grad_hess([[3.2, 1.0, -0.5, 2.5]], [0])
    np.testing.assert_allclose(grad, [[-0.3873, 0.0679, 0.0151, 0.3043]], atol=6e-5)
    np.testing.assert_allclose(hess, [[0.2373, 0.0633, 0.0149, 0.2117]], atol=6e-5)


def test_of_rows_without_rounding() -> None:
    grad, hess = sx.softmax_grad_hess([[7.0, 7.0], [-1.0, -1.0]], [0, 1])
    np.testing.assert_array_equal(grad, [[-0.5, 0.5], [0.5, -0.5]])
    np.testing.assert_array_equal(hess, np.full((2, 2), 0.25))
    grad, hess = sx.softmax_grad_hess([[3.0]], [0])
    np.testing.assert_array_equal((grad, hess), np.zeros((2, 1, 1)))


def test_weights_multiply_both() -> None:
    logits = normal(3, 4)
    grad, hess = sx.softmax_grad_hess(logits, [2, 0, 3])
    weight, sample_weight = [0.5, 7.0, 3.0, -2.0], [1.0, 4.0, 0.25]
    found = sx.softmax_grad_hess(logits, [2, 0, 3], weight=weight, sample_weight=sample_weight)
    factors = np.array([[3.0], [2.0], [-0.5]])
    np.testing.assert_allclose(found, (factors * grad, factors * hess), rtol=1e-15)


def test_a_class_of_weight_0_has_zeros() -> None:
    found = sx.softmax_grad_hess([[1.0, 2.0], [1.0, 2.0]], [0, 1], weight=[0.0, 1.0])
    np.testing.assert_array_equal([array[0] for array in found], np.zeros((2, 2)))
    assert all(array[1].all() for array in found)


# More than one chunk of 32,768 columns would take the reference too long; the layouts below have some.
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_reference_agrees(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 70))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    name = data.draw(st.sampled_from(list(DTYPES)))
    logits = random.normal(scale=data.draw(st.sampled_from([0.1, 3, 30])), size=(rows, columns))
    logits = logits.astype(DTYPES[name])
    logits[random.random(logits.shape) < data.draw(st.sampled_from([0, 0.2]))] = -np.inf
    targets = random.integers(-1, columns, size=rows)
    options: dict[str, Any] = {"ignore_index": -1}
    if data.draw(st.booleans()):
        options["weight"] = random.normal(size=columns)
    if data.draw(st.booleans()):
        options["sample_weight"] = random.integers(0, 3, size=rows)
    found = sx.softmax_grad_hess(logits, targets, **options)
    wide = logits.astype(np.float64)
    for actual, expected in zip(
        found,
        reference.softmax_grad_hess(
            wide.tolist(),
            targets.tolist(),
            **{k: v if k == "ignore_index" else v.tolist() for k, v in options.items()},
        ),
        strict=True,
    ):
        expected = np.array(expected).reshape(rows, columns)
        assert actual.dtype == logits.dtype
        finite = np.where(np.isfinite(wide), wide, -1e300)
        depth = np.where(np.isfinite(wide), finite.max(axis=-1, keepdims=True) - finite, 0.0)
        # The reference rounds differences of logits to doubles: half a unit for each nat that counts.
        units = (BOUND + depth) * UNIT[name] + ROUNDING[name] + depth.max() * UNIT["float64"]
        # Below the smallest normal number there are fewer digits; weights are at most 10 here.
        tolerance = units * np.abs(expected) + 10 * SMALLEST[name]
        wrong = np.abs(actual.astype(np.float64) - expected) > tolerance
        assert not wrong.any(), (actual[wrong], expected[wrong], depth[wrong])
        np.testing.assert_array_equal(np.isnan(actual.astype(np.float64)), np.isnan(expected))


def exact(row: Array, target: int) -> tuple[list[Any], list[Any]]:
    """The gradient and the Hessian to 60 digits."""
    with mpmath.workdps(60):
        exps = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
        total = mpmath.fsum(exps)
        others = [mpmath.fsum(exps[:i] + exps[i + 1 :]) / total for i in range(len(exps))]
        p = [e / total for e in exps]
        grad = [-others[i] if i == target else p[i] for i in range(len(p))]
        return grad, [a * b for a, b in zip(p, others, strict=True)]


def peaks() -> list[float]:
    """How far the largest logit stands above the others: from nothing to a p of 1 - 1e-20, finely where
    the way of working changes (p = 1/2 and p = 0.8)."""
    return [
        0.0,
        0.5,
        1,
        2,
        3,
        3.3,
        *np.arange(3.4, 3.9, 0.02),
        *np.arange(4.6, 5.2, 0.02),
        6,
        9,
        14,
        25,
        50,
    ]


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("largest_is_target", [True, False])
def test_the_docstring_s_bound_holds_against_60_digits(name: str, largest_is_target: bool) -> None:
    random = np.random.default_rng(1)
    worst = 0.0
    for peak in peaks():
        row = random.normal(scale=0.5, size=40)
        row[17] = row.max() + peak
        row = (row + 2).astype(DTYPES[name])
        target = 17 if largest_is_target else 30
        found = sx.softmax_grad_hess(row, target)
        depth = (row.max() - row).astype(np.float64)
        for actual, expected in zip(found, exact(row, target), strict=True):
            off = [
                float(abs((mpmath.mpf(float(a)) - e) / e)) / UNIT[name]
                for a, e in zip(actual, expected, strict=True)
            ]
            worst = max(worst, *(np.array(off) / (BOUND + depth)))
    print(f"{name}, {largest_is_target}: {worst:.2f} of the bound")
    assert worst <= 1


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_confident_row_keeps_its_digits(name: str, target: int) -> None:
    # 1 - p of the first class is 2e-12, whichever class is the target.
    row = np.array([27.0, 0.0, -0.5], DTYPES[name])
    _, hess = sx.softmax_grad_hess(row, target)
    _, expected = exact(row, target)
    np.testing.assert_allclose(hess, np.array(expected, float), rtol=30 * UNIT[name])
    assert hess[0] > 1e-12


@pytest.mark.parametrize("target", [0, 40_000, 69_999])
def test_a_confident_row_of_several_chunks_keeps_its_digits(target: int) -> None:
    row = normal(1, 70_001, "float32", 1.0)[0]
    row[40_000] = 40
    _, hess = sx.softmax_grad_hess(row, target)
    others = np.exp(np.delete(row, 40_000).astype(np.float64) - 40).sum()
    np.testing.assert_allclose(hess[40_000], others / (1 + others) ** 2, rtol=1e-6)


def test_the_hessian_is_the_slope_of_the_gradient() -> None:
    logits, step = normal(4, 6), 1e-5
    targets, weight = [0, 5, 2, 2], np.array([1.0, 2.0, 0.3, 1.0, 1.0, 4.0])
    _, hess = sx.softmax_grad_hess(logits, targets, weight=weight)
    slopes = np.empty_like(hess)
    for i in range(6):
        shift = step * (np.arange(6) == i)
        up, _ = sx.softmax_grad_hess(logits + shift, targets, weight=weight)
        down, _ = sx.softmax_grad_hess(logits - shift, targets, weight=weight)
        slopes[:, i] = (up - down)[:, i] / (2 * step)
    np.testing.assert_allclose(hess, slopes, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", DTYPES)
def test_the_gradient_has_the_bits_of_the_losss(name: str) -> None:
    logits, targets = normal(20, 300, name), some_classes(20, 300)
    targets[3] = -100
    logits[5, 7], logits[6, 8], logits[7] = np.nan, np.inf, -np.inf
    options: dict[str, Any] = {"weight": np.linspace(0, 2, 300), "sample_weight": np.arange(20) % 5}
    grad, _ = sx.softmax_grad_hess(logits, targets, **options)
    _, expected = sx.cross_entropy_with_grad(logits, targets, reduction="sum", **options)
    assert bits((grad, grad)) == bits((expected, expected))


# Special rows.


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("bad", [[np.nan, 0.0, 1.0], [np.inf, 0.0, 1.0], [-np.inf] * 3])
def test_a_row_without_a_softmax_is_nan_and_no_other(name: str, bad: list[float]) -> None:
    logits = np.array([[0.0, 0.0, 0.0], bad, [0.0, 0.0, 0.0]]).astype(DTYPES[name])
    for array in sx.softmax_grad_hess(logits, [1, 1, 1]):
        assert np.isnan(array[1].astype(float)).all()
        np.testing.assert_array_equal(array[0], array[2])
        assert not np.isnan(array[0].astype(float)).any()


def test_minus_infinity_is_an_impossible_class() -> None:
    grad, hess = sx.softmax_grad_hess([[-np.inf, 0.0, 0.0]] * 2, [0, 1])
    np.testing.assert_array_equal(grad, [[-1, 0.5, 0.5], [0, -0.5, 0.5]])
    np.testing.assert_array_equal(hess, [[0, 0.25, 0.25]] * 2)


@pytest.mark.parametrize("name", DTYPES)
def test_rows_that_are_ignored_are_zeros_and_not_read(name: str) -> None:
    logits = np.full((4, 3), np.nan).astype(DTYPES[name])
    logits[1] = 1
    out = np.full_like(logits, 5), np.full_like(logits, 5)
    targets, weights = [-100, 0, 7, 1], [1, 1, 1, 0]
    found = sx.softmax_grad_hess(
        logits, targets, ignore_index=[-100, 7], sample_weight=weights, out=out
    )
    for array in found:
        np.testing.assert_array_equal(array[[0, 2, 3]], np.zeros((3, 3)))
        assert array[1].astype(float).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    targets = np.zeros(shape[:-1], int)
    grad, hess = sx.softmax_grad_hess(np.zeros(shape, np.float32), targets)
    assert grad.shape == hess.shape == shape
    assert grad.dtype == hess.dtype == np.float32


def test_integers_become_float64() -> None:
    found = sx.softmax_grad_hess(np.array([[1, 2, 3]]), [0])
    assert all(array.dtype == np.float64 for array in found)
    assert bits(found) == bits(sx.softmax_grad_hess([[1.0, 2.0, 3.0]], [0]))


# The same bits.

# Rows that are whole tasks; rows cut into chunks for all threads; rows of several chunks that are not.
SHAPES = [(19, 77), (2, 70_001), (9, 33_001)]


def rows_of_all_kinds(shape: tuple[int, int], name: str) -> tuple[Array, Array]:
    logits, targets = normal(*shape, name), some_classes(*shape)
    logits[0, shape[1] // 2] = 40  # confident, in another class than the target
    logits[1, targets[1]] = 40  # and in the target
    return logits, targets


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stream", [None, 0])
def test_threads_do_not_change_a_bit(
    shape: tuple[int, int], name: str, stream: int | None, set_thresholds: SetThresholds
) -> None:
    logits, targets = rows_of_all_kinds(shape, name)
    expected = bits(sx.softmax_grad_hess(logits, targets, threads=1))
    set_thresholds(0, stream, 1000)
    for threads in (1, 2, 7):
        assert bits(sx.softmax_grad_hess(logits, targets, threads=threads)) == expected


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layouts_do_not_change_a_bit(
    shape: tuple[int, int],
    name: str,
    layout: Callable[[Array], Array],
    set_thresholds: SetThresholds,
) -> None:
    logits, targets = rows_of_all_kinds(shape, name)
    expected = bits(sx.softmax_grad_hess(logits, targets, threads=1))
    set_thresholds(0, None, 1000)
    same = layout(logits)
    assert bits(sx.softmax_grad_hess(same, layout(targets), threads=3)) == expected
    columns = sx.softmax_grad_hess(layout(logits.T), targets, axis=0, threads=3)
    assert bits((columns[0].T, columns[1].T)) == expected


def test_results_have_the_order_of_the_logits() -> None:
    # LightGBM hands out its scores class by class; so nothing has to be turned.
    for array in sx.softmax_grad_hess(np.asfortranarray(normal(5, 4)), some_classes(5, 4)):
        assert array.flags.f_contiguous


@pytest.mark.parametrize("name", DTYPES)
def test_a_row_alone_has_the_bits_that_it_has_in_a_batch(name: str) -> None:
    logits, targets = rows_of_all_kinds((19, 77), name)
    whole = sx.softmax_grad_hess(logits, targets)
    for row in range(19):
        alone = sx.softmax_grad_hess(logits[row], targets[row])
        assert bits(alone) == bits((whole[0][row], whole[1][row]))


# For another process, which starts with another instruction set. Rows confident in the target and elsewhere.
PROGRAM = """
import hashlib, json, ml_dtypes, numpy as np, softxent as sx
digest, values = hashlib.sha256(), []
for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
    for columns in (5, 77, 33_001):
        logits = 3 * np.random.default_rng(columns).standard_normal((4, columns))
        logits[1, 3], logits[2, 4] = 40, 40
        pair = sx.softmax_grad_hess(logits.astype(dtype), [0, 3, 3, 1])
        for array in pair:
            digest.update(array.tobytes())
        if dtype is np.float32:
            values += [array[:, :5].tolist() for array in pair]
print(json.dumps([digest.hexdigest(), values]))
"""


def test_instruction_sets(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for level in ("portable", "avx2", "avx512", "neon"):
        process = subprocess.run(
            [sys.executable, "-I", "-c", PROGRAM],
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
    _, plain = found.pop("portable")
    assert len({digest for digest, _ in found.values()}) <= 1
    for _, values in found.values():
        for actual, expected in zip(values, plain, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=40 * UNIT["float32"], atol=1e-37)


# Outputs.


OUT_LAYOUTS = [name for name in LAYOUTS if name not in ("byte-swapped", "read-only")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("first", OUT_LAYOUTS)
@pytest.mark.parametrize("second", ["C", "F", "strided"])
def test_outputs_of_two_layouts(
    shape: tuple[int, int], first: str, second: str, set_thresholds: SetThresholds
) -> None:
    logits, targets = rows_of_all_kinds(shape, "float32")
    expected = bits(sx.softmax_grad_hess(logits, targets))
    out = LAYOUTS[first](np.zeros_like(logits)), LAYOUTS[second](np.zeros_like(logits))
    set_thresholds(0, None, 1000)
    found = sx.softmax_grad_hess(logits, targets, out=out, threads=3)
    assert found[0] is out[0]
    assert found[1] is out[1]
    assert bits(found) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("mine", ["C", "F", "strided"])
@pytest.mark.parametrize("other", ["C", "F"])
@pytest.mark.parametrize("place", [0, 1])
def test_either_output_may_be_the_logits(
    shape: tuple[int, int],
    name: str,
    mine: str,
    other: str,
    place: int,
    set_thresholds: SetThresholds,
) -> None:
    logits, targets = rows_of_all_kinds(shape, name)
    expected = bits(sx.softmax_grad_hess(logits, targets))
    mutable, apart = LAYOUTS[mine](logits), LAYOUTS[other](np.zeros_like(logits))
    set_thresholds(0, None, 1000)
    out = (mutable, apart) if place == 0 else (apart, mutable)
    found = sx.softmax_grad_hess(mutable, targets, out=out, threads=3)
    assert found[place] is mutable
    assert bits(found) == expected


def test_a_list_is_a_pair_too() -> None:
    logits = normal(2, 3)
    out = [np.zeros((2, 3)), np.zeros((2, 3))]
    found = sx.softmax_grad_hess(logits, [0, 1], out=out)  # type: ignore[arg-type]
    assert found[0] is out[0]
    assert bits(found) == bits(sx.softmax_grad_hess(logits, [0, 1]))

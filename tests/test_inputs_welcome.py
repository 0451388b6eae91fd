"""What looks bad and is welcome: inputs at the border of what is refused, and very large ones.

Any number of threads, ids to ignore that are no classes, infinities and NaN in single rows, no row
or no class at all, targets that change meanwhile, more than two billion elements. What is refused
is for `test_inputs` to test.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

FLOATS = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
REDUCTIONS = ["mean", "sum", "none", "sequence_mean"]
LOSSES = ["cross_entropy", "cross_entropy_with_grad"]
CLASSES = 5
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("threads", [1, 2**20, np.uint8(2), np.int64(3), 2**62, 2**70])
def test_any_number_of_threads_is_welcome(threads: Any) -> None:
    # Large enough for threads, with too few rows to wake many.
    logits = np.zeros((5, 20_000), np.float32)
    assert sx.logsumexp(logits, threads=threads).tolist() == [pytest.approx(math.log(20_000))] * 5


IGNORED: list[tuple[Any, list[int]]] = [
    (3, [3]),
    (np.int8(3), [3]),
    (np.array(3), [3]),
    ([3], [3]),
    ((3, 3), [3]),
    ({3}, [3]),
    (range(1, 3), [1, 2]),
    (np.array([3], np.uint64), [3]),
    (iter([3]), [3]),
    ([-7, 3, 99], [3]),
    (-7, []),
    (2**64, []),
    (-(2**200), []),
    ([], []),
    (None, []),
]


@pytest.mark.parametrize(
    ("ignore_index", "ignored"),
    IGNORED,
    ids=lambda value: "an iterator" if isinstance(value, Iterator) else repr(value),
)
def test_any_integers_can_be_ignored(ignore_index: Any, ignored: list[int]) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4))
    targets = [0, 1, 2, 3, 0]
    losses = sx.cross_entropy(logits, targets, reduction="none", ignore_index=None)
    expected = [0.0 if y in ignored else loss for y, loss in zip(targets, losses, strict=True)]
    found = sx.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_class_may_lie_outside_of_the_classes(name: str, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    for outside in {limits.min or CLASSES, limits.max}:
        targets = np.array([1, outside, 2], dtype)
        logits = np.zeros((3, CLASSES))
        logits[1] = math.nan
        result = getattr(sx, name)(logits, targets, ignore_index=int(outside))
        loss = result[0] if isinstance(result, tuple) else result
        assert loss == pytest.approx(math.log(CLASSES))
        with pytest.raises(IndexError):
            getattr(sx, name)(logits, targets, ignore_index=0)


ROWS: dict[str, tuple[Callable[[Array], None], float, bool]] = {
    "NaN": (lambda x: x.put(3, NAN), NAN, False),
    "-inf everywhere": (lambda x: x.fill(-INF), -INF, False),
    "+inf": (lambda x: x.put(3, INF), INF, False),
    "+inf and NaN": (lambda x: x.put([2, 3], [INF, NAN]), NAN, False),
    "+inf and -inf": (lambda x: x.put([2, 3], [INF, -INF]), INF, False),
    "some -inf": (lambda x: x.put([2, 3], -INF), math.log(3), True),
    "-inf at the target": (lambda x: x.put(0, -INF), math.log(4), True),
}


@pytest.mark.parametrize("dtype", [*FLOATS], ids=str)
@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_infinities_or_nan_keeps_to_itself(row: str, dtype: np.dtype[Any]) -> None:
    spoil, lse, defined = ROWS[row]
    logits = np.zeros((3, CLASSES), dtype)
    spoil(logits[1])
    targets = [0, 0, 0]
    assert sx.logsumexp(logits)[1] == pytest.approx(lse, rel=1e-6, nan_ok=True)
    loss = sx.cross_entropy(logits, targets, reduction="none")
    expected = INF if row == "-inf at the target" else lse if defined else NAN
    assert loss[1] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    outputs = [sx.softmax(logits), sx.log_softmax(logits)]
    for reduction in REDUCTIONS:
        options: dict[str, Any] = {"reduction": reduction}
        options |= {"offsets": [0, 1, 3]} if reduction == "sequence_mean" else {}
        total, grad = sx.cross_entropy_with_grad(logits, targets, **options)
        assert np.isfinite(total).tolist() == (
            [True, math.isfinite(expected), True]
            if reduction == "none"
            else math.isfinite(expected)
        )
        outputs.append(grad)
    for output in outputs:
        alone = np.isnan(output)
        assert not alone[[0, 2]].any()
        assert alone[1].all() == (not defined)
        assert alone[1].any() == (not defined)
        assert output[0].tobytes() == output[2].tobytes()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_nothing_is_what_on_empty_says(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    logits = np.full(shape, NAN, dtype)
    targets = np.full(shape[:-1], -100)
    values = {"nan": NAN, "zero": 0.0}
    for reduction, on_empty in itertools.product(REDUCTIONS, ["nan", "zero", "raise"]):
        nothing = reduction == "mean" or (reduction == "sequence_mean" and shape[0] == 0)

        def loss_and_grad(reduction: str = reduction, on_empty: str = on_empty) -> tuple[Any, Any]:
            result = getattr(sx, name)(logits, targets, reduction=reduction, on_empty=on_empty)
            return result if isinstance(result, tuple) else (result, np.zeros_like(logits))

        if nothing and on_empty == "raise":
            with pytest.raises(ValueError, match="targets"):
                loss_and_grad()
            continue
        loss, grad = loss_and_grad()
        if reduction == "none":
            assert loss.tolist() == np.zeros(shape[:-1]).tolist()
        else:
            expected = values[on_empty] if nothing else 0.0
            assert loss == pytest.approx(expected, nan_ok=True)
        assert grad.dtype == dtype
        assert grad.tolist() == np.zeros(shape).tolist()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_no_classes_have_no_probabilities_and_no_loss(dtype: np.dtype[Any]) -> None:
    logits = np.zeros((2, 3, 0), dtype)
    assert sx.logsumexp(logits).tolist() == [[-INF] * 3] * 2
    for function in (sx.softmax, sx.log_softmax):
        assert function(logits).shape == (2, 3, 0)
    for name, reduction in itertools.product(LOSSES, REDUCTIONS):
        with pytest.raises(ValueError, match="at least one class"):
            getattr(sx, name)(logits, np.zeros((2, 3), int), reduction=reduction)


# What changes meanwhile, and what is large.


def outcome(logits: Array, targets: Array) -> Any:
    """What the call raises or returns."""
    try:
        return sx.cross_entropy_with_grad(logits, targets)
    except IndexError as error:
        return error


def test_targets_that_another_thread_changes_do_no_harm() -> None:
    logits = np.zeros((3000, 7), np.float32)
    targets = np.zeros(3000, np.int64)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            targets[::2] = 2**62
            targets[::2] = 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            result = outcome(logits, targets)
            if isinstance(result, IndexError):
                assert "4611686018427387904 is outside [0, 7)" in str(result)
            else:
                loss, grad = result
                assert loss == pytest.approx(math.log(7))
                assert np.isfinite(grad).all()
    finally:
        stop.set()
        thread.join()


def test_more_than_two_billion_elements_are_right() -> None:
    row = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    logits = np.broadcast_to(row, (70_000, 40_000))
    assert logits.size > 2**31
    lse = sx.logsumexp(logits)
    assert lse.shape == (70_000,)
    assert (lse == sx.logsumexp(row)).all()
    targets = np.full(70_000, -100)
    targets[-1] = 39_999  # the last element of all
    assert sx.cross_entropy(logits, targets) == sx.cross_entropy(row, 39_999)


def test_more_than_two_billion_classes_are_right() -> None:
    logits = np.broadcast_to(np.float64(1), (2**31 + 5,))
    assert sx.cross_entropy(logits, 2**31 + 4) == pytest.approx(math.log(2**31 + 5), rel=1e-15)
    with pytest.raises(IndexError, match=r"targets = 2147483653 is outside \[0, 2147483653\)"):
        sx.cross_entropy(logits, 2**31 + 5)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_strides_of_more_than_two_billion_bytes_are_right(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.truncate(3 * 2**32 + 4096)  # takes no room on the disk
    mapped = np.memmap(path, dtype, "r+")
    far_apart = as_strided(mapped, (4, 3), (2**32, mapped.itemsize), writeable=True)
    close = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    far_apart[...] = close
    views: list[Callable[[Array], Array]]
    views = [lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: a[::-1, ::-1].T]
    for view in views:
        far, near = view(far_apart), np.ascontiguousarray(view(close))
        assert max(map(abs, far.strides)) > 2**31
        assert sx.softmax(far).tobytes() == sx.softmax(near).tobytes()
        targets = np.arange(len(near)) % near.shape[1]
        loss, grad = sx.cross_entropy_with_grad(far, targets, reduction="none")
        near_loss, near_grad = sx.cross_entropy_with_grad(near, targets, reduction="none")
        assert loss.tobytes() == near_loss.tobytes()
        assert grad.tobytes() == near_grad.tobytes()
    sx.softmax(far_apart, out=far_apart)
    assert far_apart.tobytes() == sx.softmax(close).tobytes()
    del far_apart, far, mapped
    path.unlink()

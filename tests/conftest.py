"""What several test files need: thresholds that are put back, and layouts of the same values.

A layout is a function from an array to one of equal shape and values whose memory lies differently.
It says nothing about what a function makes of it.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from softxent import _core

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

Array: TypeAlias = NDArray[Any]


def strided(array: Array) -> Array:
    """Every second element along each axis, NaN (or the largest integer) in between."""
    fill = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.nan
    wide = np.full([2 * length for length in array.shape], fill, array.dtype)
    every_second: tuple[Any, ...] = (..., *[slice(None, None, 2)] * array.ndim)
    view: Array = wide[every_second]
    view[...] = array
    return view


def reversed_twice(array: Array) -> Array:
    """Negative strides along each axis."""
    backwards: tuple[Any, ...] = (..., *[slice(None, None, -1)] * array.ndim)
    view: Array = array[backwards].copy()[backwards]
    return view


def swapped(array: Array) -> Array:
    """The other byte order. bfloat16, to NumPy a kind of void, has none and stays as it is."""
    return array.copy() if array.dtype.kind == "V" else array.astype(array.dtype.newbyteorder())


def misaligned(array: Array) -> Array:
    """One byte off the alignment of the dtype."""
    raw = np.empty(array.nbytes + 1, np.uint8)[1:]
    view = raw.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: Array) -> Array:
    view = array.copy()
    view.flags.writeable = False
    return view


def one_element_on(array: Array) -> Array:
    """Aligned to its elements, but not to a cache line."""
    view = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    view[...] = array
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda array: np.array(array, order="C"),
    "F": lambda array: np.array(array, order="F"),
    "one element on": one_element_on,
    "strided": strided,
    "negative strides": reversed_twice,
    "byte-swapped": swapped,
    "misaligned": misaligned,
    "read-only": read_only,
}


@pytest.fixture(params=[*LAYOUTS, "memory-mapped"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Array], Array]:
    """Each layout in turn."""

    def memory_mapped(array: Array) -> Array:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.raw"
        # An empty file can't be mapped.
        path.write_bytes(array.tobytes() or b"\0")
        return np.memmap(path, array.dtype, "r", shape=array.shape)

    return LAYOUTS.get(request.param, memory_mapped)


@contextlib.contextmanager
def thresholds(parallel: int | None, stream: int | None, task: int | None) -> Iterator[None]:
    """Other sizes at which the way of working changes, for a while."""
    _core._set_thresholds(parallel, stream, task)
    try:
        yield
    finally:
        _core._set_thresholds(None, None, None)


@pytest.fixture
def set_thresholds() -> Iterator[Callable[[int | None, int | None, int | None], None]]:
    """Sets those sizes for the rest of a test."""
    with thresholds(None, None, None):
        yield _core._set_thresholds

"""NumPy's `.npy`: a short header, then the elements.

NumPy itself parses the header (a Python literal, never evaluated as code), here from a copy of its first
bytes: a header that claims gigabytes costs nothing. An array of objects would be a pickle, and is refused.
"""

import io
import tokenize
import warnings
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from softxent.files.array_file import ArrayFile, FileError, Source, one_line

MAGIC = b"\x93NUMPY"
MOST_HEADER = 10_000  # characters; what NumPy itself takes as safe to parse
_BEFORE_HEADER = 12  # bytes: magic, version, and the header's length

_READERS: dict[tuple[int, int], Any] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
# What a hostile literal or dtype makes Python's parser and NumPy raise.
_UNPARSABLE = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


def read_npy(label: str, source: Source) -> ArrayFile:
    """The array of a source that holds an `.npy` file."""
    beginning = bytearray(min(source.size, MOST_HEADER + _BEFORE_HEADER))
    del beginning[source.read_into(memoryview(beginning), 0) :]
    stream = io.BytesIO(beginning)
    try:
        version = npy_format.read_magic(stream)
        if version not in _READERS:
            raise FileError(f"{label}: expected version 1.0 or 2.0 of the format, got {version}")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # a header as Python 2 wrote it, or a strange escape in it
            shape, fortran_order, dtype = _READERS[version](stream)
    except _UNPARSABLE as error:
        raise FileError(f"{label}: not a readable .npy header: {one_line(error)}") from error
    dtype = checked_dtype(label, dtype)
    if fortran_order and sum(length > 1 for length in shape) > 1:
        raise FileError(
            f"{label}: in Fortran order, in which no row lies together: save np.ascontiguousarray of it"
        )
    return ArrayFile(label, shape, dtype, source, stream.tell())


def checked_dtype(label: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype if it is one of plain numbers."""
    if dtype.hasobject:
        raise FileError(f"{label}: holds Python objects, a pickle: pickles are never loaded")
    if dtype.str[1:] == "V2":  # how NumPy saves an extension's dtype: without its name
        raise FileError(
            f"{label}: elements of two bytes without a type; if it is bfloat16, save it as "
            ".safetensors or as float32"
        )
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise FileError(f"{label}: expected an array of numbers, got dtype {one_line(dtype)}")
    return dtype

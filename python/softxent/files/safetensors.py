"""`.safetensors`: eight bytes with the header's length, a header in JSON, then the arrays' bytes.

Why not the package of that name? It maps the file, and does not say where in the file an array lies, so it
can neither read a part at a time nor outlive a file that shrinks; and to NumPy it cannot give bfloat16.
What it does check is checked here too: the arrays lie side by side, without gap or overlap, and end with
the file.
"""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np

from softxent.files.array_file import ArrayFile, FileError, WholeFile, check_shape, one_line
from softxent.files.npz import chosen

LENGTH = 8  # bytes that say how long the header is
MOST_HEADER = 4 * 2**20  # bytes, some 40,000 arrays; parsed, the worst takes twenty times as much

DTYPES = {
    "F16": "<f2",
    "BF16": "bfloat16",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}


def is_safetensors(whole: WholeFile) -> bool:
    """Whether the file begins as one: a length, and the brace that opens the header."""
    return whole.read(1, LENGTH) == b"{"


def read_safetensors(label: str, whole: WholeFile, name: str | None) -> ArrayFile:
    """The array of that name, or the only one."""
    length = int.from_bytes(whole.read(LENGTH, 0), "little")
    start = LENGTH + length
    if start > whole.size:
        raise FileError(
            f"{label}: truncated: a header of {length:,} bytes in a file of {whole.size:,}"
        )
    if length > MOST_HEADER:
        raise FileError(
            f"{label}: expected a header of at most {MOST_HEADER:,} bytes, got {length:,}"
        )
    header = _parsed(label, whole.read(length, LENGTH))
    header.pop("__metadata__", None)
    if not header:
        raise FileError(f"{label}: holds no array")
    places = {key: _place(label, key, entry) for key, entry in header.items()}
    _check_side_by_side(label, places, whole.size - start)
    key = chosen(label, name, list(places))
    begin, _ = places[key]
    kind, shape = header[key]["dtype"], tuple(header[key]["shape"])
    return ArrayFile(label, shape, _dtype(label, kind), whole, start + begin)


def _parsed(label: str, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{label}: not a readable header: {one_line(error)}") from error
    if not isinstance(header, dict):
        raise FileError(f"{label}: expected a header that is an object")
    return header


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name that stands twice")
    return found


def _place(label: str, key: str, entry: Any) -> tuple[int, int]:
    """From where to where an array goes, in bytes behind the header."""
    name = one_line(key)
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise FileError(f"{label}: {name}: expected dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _naturals(shape):
        raise FileError(f"{label}: {name}: expected a shape, got {one_line(shape)}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileError(f"{label}: {name}: expected two offsets in order, got {one_line(offsets)}")
    begin, end = offsets
    if isinstance(kind, str) and kind in DTYPES:
        size = 2 if kind == "BF16" else np.dtype(DTYPES[kind]).itemsize
        check_shape(f"{label}: {name}", tuple(shape), size)
        if end - begin != math.prod(shape) * size:
            wanted = f"{math.prod(shape) * size:,} bytes for {one_line(shape)} of {kind}"
            raise FileError(f"{label}: {name}: expected {wanted}, got {end - begin:,}")
    return begin, end


def _naturals(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def _check_side_by_side(label: str, places: dict[str, tuple[int, int]], size: int) -> None:
    in_order = sorted(places.values())
    for one, other in pairwise([(0, 0), *in_order]):
        if one[1] != other[0]:
            what = "overlap" if one[1] > other[0] else "leave a gap"
            raise FileError(f"{label}: damaged: arrays {what} at byte {other[0]:,} of the data")
    end = in_order[-1][1]
    if end != size:
        what = "truncated" if end > size else "damaged"
        raise FileError(f"{label}: {what}: expected {end:,} bytes of data, got {size:,}")


def _dtype(label: str, kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, str) or kind not in DTYPES:
        raise FileError(f"{label}: expected one of {', '.join(DTYPES)}, got {one_line(kind)}")
    if kind != "BF16":
        return np.dtype(DTYPES[kind])
    try:
        import ml_dtypes  # NumPy itself has no bfloat16
    except ImportError as error:
        raise FileError(
            f'{label}: bfloat16 needs ml-dtypes: pip install "softxent[cli]"'
        ) from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype

"""Arrays as files for the tests: every format, and some that are wrong in ways that NumPy does not write."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}


def safetensors_bytes(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A file with that header, which may be anything, and the length that it claims to have."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    return claimed.to_bytes(8, "little") + text + data


def save_safetensors(path: Path, **arrays: NDArray[Any]) -> Path:
    """Arrays side by side in the order in which they are given."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    path.write_bytes(safetensors_bytes(header, data))
    return path


def save(path: Path, array: NDArray[Any], name: str = "logits") -> Path:
    """In the format that the name of the file asks for; `.zip` is a compressed `.npz`."""
    mapping: dict[str, Any] = {name: array}
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, **mapping)
        case ".zip":
            with path.open("wb") as file:
                np.savez_compressed(file, **mapping)
        case ".safetensors":
            save_safetensors(path, **{name: array})
    return path


def npy_bytes(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    """An `.npy` file of version 1.0 with that header, and the length that it claims to have."""
    text = header.encode("latin-1")
    claimed = len(text) if length is None else length
    return b"\x93NUMPY\x01\x00" + claimed.to_bytes(2, "little") + text + data


def save_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """An archive with any members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path

"""The machine's memory limits, to hold the package's times against.

Compiles ``limits.c`` for the processor at hand and calls it through ctypes. It knows nothing of the
package: NumPy arrays in, the time is the caller's to take.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SOURCE = Path(__file__).with_name("limits.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-pthread")


class Limits:
    """Loops over float32 arrays that do nothing but move memory, on a fixed number of threads."""

    def __init__(self, threads: int) -> None:
        """Compile the loops (in a second, with ``$CC`` or ``cc``)."""
        self.threads = threads
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "limits.so")
            compiler = os.environ.get("CC", "cc")
            subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(library)], check=True)
            self._library = ctypes.CDLL(str(library))

    def read(self, a: Floats) -> float:
        """Read every float once; returns their sum."""
        total = ctypes.c_double()
        self._call("limit_read", _address(a), _length(a), self.threads, ctypes.byref(total))
        return total.value

    def copy(self, src: Floats, dst: Floats, *, streaming: bool = True) -> None:
        """Copy with stores that go past the caches, or with ordinary ones."""
        if src.size != dst.size:
            raise ValueError(f"dst: expected {src.size} elements as in src, got {dst.size}")
        arguments = _address(src), _address(dst), _length(src), self.threads, int(streaming)
        self._call("limit_copy", *arguments)

    def scale(self, a: Floats, factor: float = -1.0) -> None:
        """Multiply in place: ``a *= factor``."""
        self._call("limit_scale", _address(a), _length(a), self.threads, ctypes.c_float(factor))

    def _call(self, name: str, *arguments: object) -> None:
        if self._library[name](*arguments) != 0:
            raise RuntimeError(f"could not start {self.threads} threads")


def _address(a: Floats) -> ctypes.c_void_p:
    if a.dtype != np.float32 or not a.flags.c_contiguous:
        raise TypeError(
            f"expected a C-contiguous float32 array, got {a.dtype}, strides {a.strides}"
        )
    return ctypes.c_void_p(a.ctypes.data)


def _length(a: Floats) -> ctypes.c_size_t:
    return ctypes.c_size_t(a.size)

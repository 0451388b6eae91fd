"""One array in a file: what its header says of it, and any range of its bytes on request.

Knows neither formats nor what the numbers mean. The one idea: an array is a place in a `Source`, from which
bytes are read into memory that the caller owns. So the same few buffers serve a file of any size.
"""

import math
import os
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MOST_AXES = 32  # NumPy's limit before version 2
MOST_BYTES = 2**63  # beyond it no file is, and numbers of a thousand digits are no message
PIECE = 2**30  # bytes asked for at once: no system reads more than 2 GiB in one call


class FileError(Exception):
    """A file cannot be used. The message is one line that names it and says why."""


class Source(Protocol):
    """Bytes at offsets."""

    #: Whether one thread has to read them, from the first to the last.
    in_order: bool

    @property
    def size(self) -> int:
        """How many there are."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` with the bytes from `offset`; returns how many there were, fewer only at the end."""

    def close(self) -> None:
        """Let go of the file."""


class WholeFile:
    """The bytes of a regular file, by positioned reads. Any thread may read."""

    in_order = False

    def __init__(self, path: Path) -> None:
        """OSError where it cannot be opened; ValueError where it is no regular file."""
        # Asked first: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("expected a regular file")
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size

    def read_into(self, view: memoryview, offset: int) -> int:
        """As `Source` says."""
        done = 0
        while done < len(view):
            piece = view[done : done + PIECE]
            if hasattr(os, "preadv"):
                count = os.preadv(self._file.fileno(), [piece], offset + done)
            else:  # Windows: two steps, so one thread at a time
                with self._lock:
                    self._file.seek(offset + done)
                    count = self._file.readinto(piece) or 0
            if count == 0:
                break
            done += count
        return done

    def read(self, count: int, offset: int) -> bytes:
        """At most `count` bytes from `offset`."""
        data = bytearray(max(0, min(count, self.size - offset)))
        return bytes(data[: self.read_into(memoryview(data), offset)])

    def close(self) -> None:
        """As `Source` says."""
        self._file.close()


class ArrayFile:
    """An array in C order that starts at a byte of a source. Usable in a `with` statement."""

    def __init__(
        self, label: str, shape: tuple[int, ...], dtype: np.dtype[Any], source: Source, start: int
    ) -> None:
        """`label` is what messages call it. FileError if the source is too short."""
        self.label = label
        self.shape = shape
        self.dtype = dtype
        self._source = source
        self._start = start
        check_shape(label, shape, dtype.itemsize)
        end = start + self.nbytes
        if end > source.size:
            wanted = f"{shape_text(shape)} of {dtype.name} end at byte {end:,}"
            raise FileError(f"{label}: truncated: {wanted}, the file at {source.size:,}")

    @property
    def in_order(self) -> bool:
        """Whether one thread has to read it, from the first element to the last."""
        return self._source.in_order

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_flat(self, first: int, count: int, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        """`count` elements from the `first` on, as a view of `buffer`, which must be large enough."""
        size = count * self.dtype.itemsize
        view = buffer[:size]
        start = self._start + first * self.dtype.itemsize
        try:
            got = self._source.read_into(view.data, start)
        except OSError as error:
            raise FileError(f"{self.label}: {error.strerror or error}") from error
        if got < size:  # a file that became shorter meanwhile, or an archive that promised more
            raise FileError(f"{self.label}: ends early: nothing from byte {start + got:,} on")
        return view.view(self.dtype)

    def read_all(self, most: int) -> NDArray[Any]:
        """The whole array, unless it has more elements than that."""
        if (count := math.prod(self.shape)) > most:
            raise FileError(f"{self.label}: expected at most {most:,} numbers, got {count:,}")
        return self.read_flat(0, count, np.empty(self.nbytes, np.uint8)).reshape(self.shape)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def __enter__(self) -> "ArrayFile":
        """The array itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def check_shape(label: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse what is no shape, or not one of an array that a file could hold."""
    if len(shape) > MOST_AXES or any(not 0 <= length < MOST_BYTES for length in shape):
        wanted = f"a shape of at most {MOST_AXES} axes"
        raise FileError(f"{label}: expected {wanted}, got {one_line(shape[: MOST_AXES + 1])}")
    if math.prod(shape) * itemsize >= MOST_BYTES:
        raise FileError(f"{label}: truncated: no file holds {one_line(shape_text(shape))} numbers")


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as a person reads it: `4,096 x 128,256`."""
    return " x ".join(f"{length:,}" for length in shape) or "one number"


def one_line(text: object) -> str:
    """What a file says of itself, fit for a message: control characters as escapes, and not too long."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return shown if len(shown) <= 200 else f"{shown[:200]}..."

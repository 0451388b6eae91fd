"""Rows of arrays in files, chunk by chunk; the next ones are read while one is being computed.

Knows bytes and threads, not what the arrays mean. The one idea: a few sets of buffers go round between a
thread that fills them and the caller who uses them, so memory is the same for every size of file.
"""

import queue
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from softxent.files.array_file import ArrayFile, FileError

# Of one file. With less, what Python adds to a chunk shows; with more, or a third set of buffers, they no
# longer fit into the third-level cache: 2 sets of 8 MiB took 0.8 of the time of 2 or 3 sets of 16 MiB (EPYC).
CHUNK_BYTES = 8 * 2**20
MOST_ROWS = 32_768  # in a chunk: what is computed about a row takes memory too
MOST_ROW_BYTES = 32 * 2**20  # of one file: a row cannot be cut
SETS = 2  # of buffers: one is computed while the other is filled

Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Chunk:
    """Some rows of every file: views that hold until the next chunk is asked for."""

    start: int
    stop: int
    arrays: Arrays


class _Reader(threading.Thread):
    """Fills sets of buffers in order; what stops it early is handed over in place of a chunk."""

    def __init__(
        self, files: Mapping[str, ArrayFile], rows: int, columns: Mapping[str, int]
    ) -> None:
        super().__init__(name="softxent-reader", daemon=True)
        self._files, self._rows, self._columns = files, rows, columns
        row_bytes = {
            name: columns.get(name, 1) * file.dtype.itemsize for name, file in files.items()
        }
        for name, size in row_bytes.items():
            if size > MOST_ROW_BYTES:
                wanted = f"rows of at most {MOST_ROW_BYTES:,} bytes"
                raise FileError(f"{files[name].label}: expected {wanted}, got {size:,}")
        self._step = max(1, min(MOST_ROWS, rows, CHUNK_BYTES // max(row_bytes.values())))
        self.full: queue.SimpleQueue[tuple[Chunk, Arrays] | BaseException | None]
        self.full = queue.SimpleQueue()
        self.free: queue.SimpleQueue[Arrays | None] = queue.SimpleQueue()
        for _ in range(SETS):
            self.free.put(
                {n: np.empty(self._step * size, np.uint8) for n, size in row_bytes.items()}
            )

    def run(self) -> None:
        """Until the rows end, something fails, or the caller wants no more."""
        try:
            for start in range(0, self._rows, self._step):
                buffers = self.free.get()
                if buffers is None:
                    return
                stop = min(start + self._step, self._rows)
                self.full.put((Chunk(start, stop, self._read(start, stop, buffers)), buffers))
            self.full.put(None)
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            self.full.put(error)

    def _read(self, start: int, stop: int, buffers: Arrays) -> Arrays:
        arrays: Arrays = {}
        for name, file in self._files.items():
            each = self._columns.get(name, 1)
            flat = file.read_flat(start * each, (stop - start) * each, buffers[name])
            arrays[name] = flat.reshape(-1, each) if name in self._columns else flat
        return arrays


def read_chunks(
    files: Mapping[str, ArrayFile], rows: int, columns: Mapping[str, int]
) -> Generator[Chunk, None, None]:
    """The rows of every file in order: of `columns[name]` elements, or one number where not named there.

    FileError for rows that are too long, and for whatever goes wrong with a file on the way. Close it if
    not all chunks are taken: then the thread ends.
    """
    reader = _Reader(files, rows, columns)
    reader.start()
    try:
        while (item := reader.full.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            chunk, buffers = item
            yield chunk
            reader.free.put(buffers)
    finally:
        reader.free.put(None)
        reader.join()

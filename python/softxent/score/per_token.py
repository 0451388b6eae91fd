"""What is known of each row, written as the rows pass: the losses as `.npy`, or all of it as `.csv`."""

import csv
import io
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy_format

from softxent.score.rows import Columns

SUFFIXES = (".npy", ".csv")
COLUMNS = ("nll", "lse", "entropy", "predicted", "rank")


class PerToken(Protocol):
    """Takes rows in order."""

    def add(self, start: int, rows: Columns) -> None:
        """Write rows, the first of which is number `start`."""


class NllArray:
    """An `.npy` file with the nll of every row, in the shape of the targets."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], *, double: bool) -> None:
        """Write the header. `double`: float64, not float32."""
        self._file = file
        self._dtype = np.dtype("<f8" if double else "<f4")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(file, header)

    def add(self, start: int, rows: Columns) -> None:
        """As `PerToken` says."""
        del start
        self._file.write(rows["nll"].astype(self._dtype).tobytes())


class Table:
    """A `.csv` file with a line for each row."""

    def __init__(self, file: BinaryIO) -> None:
        """Write the names of the columns."""
        self._file = file
        self._write([("row", "target", *COLUMNS)])

    def add(self, start: int, rows: Columns) -> None:
        """As `PerToken` says."""
        numbers = range(start, start + len(rows["targets"]))
        columns = [map(str, rows[name]) for name in COLUMNS]
        self._write(list(zip(numbers, rows["targets"].tolist(), *columns, strict=True)))

    def _write(self, lines: list[tuple[object, ...]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._file.write(text.getvalue().encode())


def per_token(path: Path, file: BinaryIO, shape: tuple[int, ...], *, double: bool) -> PerToken:
    """What the name of the file asks for."""
    return Table(file) if path.suffix.lower() == ".csv" else NllArray(file, shape, double=double)

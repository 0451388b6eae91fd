"""NumPy's `.npz`: a zip archive whose members are `.npy` files, stored or deflated.

The standard library reads the archive. The one idea: it gets a file that refuses to hand out much at once,
so that a directory of gigabytes is refused instead of read; and a member is a stream that is unpacked piece
by piece.
"""

import io
import zipfile
import zlib
from typing import cast

from softxent.files.array_file import ArrayFile, FileError, WholeFile, one_line
from softxent.files.npy import read_npy

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an archive without members
MOST_AT_ONCE = 2**20  # bytes: a directory of some 20,000 members
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


class _Careful(io.RawIOBase):
    """A file for `zipfile`, by positioned reads, that refuses to hand out much at once."""

    def __init__(self, whole: WholeFile) -> None:
        self._whole = whole
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._whole.size}[whence]
        if base + offset < 0:
            raise zipfile.BadZipFile("an offset before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._whole.size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if count > MOST_AT_ONCE:
            raise zipfile.BadZipFile(f"a directory of {count:,} bytes")
        data = self._whole.read(count, self._at)
        self._at += len(data)
        return data


class _Member:
    """The unpacked bytes of one member: what lies behind is unpacked again, from the beginning."""

    in_order = True

    def __init__(
        self, label: str, whole: WholeFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo
    ) -> None:
        self._label = label
        self._whole = whole
        self._stream = cast("zipfile.ZipExtFile", archive.open(member))
        self.size = member.file_size

    def read_into(self, view: memoryview, offset: int) -> int:
        """As `Source` says."""
        try:
            self._stream.seek(offset)
            done = 0
            while done < len(view):
                data = self._stream.read1(min(len(view) - done, MOST_AT_ONCE))
                if not data:
                    break
                view[done : done + len(data)] = data
                done += len(data)
        except _UNREADABLE as error:
            raise FileError(f"{self._label}: damaged: {one_line(error)}") from error
        return done

    def close(self) -> None:
        """As `Source` says."""
        self._stream.close()
        self._whole.close()


def read_npz(label: str, whole: WholeFile, name: str | None) -> ArrayFile:
    """The array of that name, or the only one, of a file that holds an archive."""
    try:
        archive = zipfile.ZipFile(cast("io.BufferedIOBase", _Careful(whole)))
        arrays = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
        if not arrays:
            others = ", ".join(map(one_line, archive.namelist()[:3])) or "nothing"
            raise FileError(f"{label}: expected .npy members, got {others}")
        member = arrays[chosen(label, name, list(arrays))]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"{label}: packed by method {member.compress_type}: expected deflate")
        return read_npy(label, _Member(label, whole, archive, member))
    except _UNREADABLE as error:
        raise FileError(f"{label}: not a readable zip archive: {one_line(error)}") from error


def chosen(label: str, name: str | None, names: list[str]) -> str:
    """The name of the array that is meant, in a file with arrays of these names."""
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    some = ", ".join(one_line(each) for each in names[:8]) + (", ..." if len(names) > 8 else "")
    if name is None:
        raise FileError(f"{label}: holds {len(names)} arrays, name one as FILE::NAME: {some}")
    raise FileError(f"{label}: no array of that name, but: {some}")

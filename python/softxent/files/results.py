"""Files that appear whole or not at all, and over an existing one only if told so.

Knows nothing of what is written. The one idea: a result is written under another name in the same folder,
and gets its own when it is complete.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from softxent.files.array_file import one_line


class ResultError(Exception):
    """A result cannot be written. The message is one line that names the file and says why."""


def check_result(path: Path, *, force: bool, read: Iterable[str] = ()) -> None:
    """Refuse a result early, before work is done for it, and always over a file that is `read` for it."""
    if not path.parent.is_dir():
        raise ResultError(f"{one_line(path)}: no such folder: {one_line(path.parent)}")
    if path.is_dir():
        raise ResultError(f"{one_line(path)}: is a folder")
    if path.exists() and any(os.path.exists(each) and path.samefile(each) for each in read):
        raise ResultError(f"{one_line(path)}: is read by this very command")
    if os.path.lexists(path) and not force:
        raise ResultError(f"{one_line(path)}: exists already; --force replaces it")


@contextlib.contextmanager
def result_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file to write into. It is there under its name once the block has ended, and not if it fails."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise ResultError(f"{one_line(path)}: {error.strerror or error}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(part, path, force=force)
    except OSError as error:
        raise ResultError(f"{one_line(path)}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _publish(part: Path, path: Path, *, force: bool) -> None:
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)  # as any other new file; temporary ones are for their owner alone
    if force:
        part.replace(path)
        return
    try:
        path.hardlink_to(part)  # fails if another process made the file meanwhile
    except FileExistsError as error:
        raise ResultError(f"{one_line(path)}: exists already; --force replaces it") from error
    except (OSError, NotImplementedError):  # a file system without links
        check_result(path, force=False)
        part.rename(path)

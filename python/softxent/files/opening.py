"""From FILE or FILE::NAME, as a person names it, to the array: the first bytes say which format it is."""

from pathlib import Path

from softxent.files import npy, npz, safetensors
from softxent.files.array_file import ArrayFile, FileError, WholeFile, one_line

SEPARATOR = "::"


def split(text: str) -> tuple[str, str | None]:
    """The file, and the name of the array in it, if one is named."""
    path, separator, name = text.rpartition(SEPARATOR)
    return (path, name or None) if separator else (text, None)


def open_array(text: str) -> ArrayFile:
    """The array `NAME` of `FILE`, or the only one in it. FileError where there is none to be read."""
    path, name = split(text)
    label = one_line(text)
    try:
        whole = WholeFile(Path(path))
    except OSError as error:
        raise FileError(f"{label}: {error.strerror or error}") from error
    except ValueError as error:  # also a NUL in the name
        raise FileError(f"{label}: {error}") from error
    try:
        return _read(label, whole, name)
    except BaseException:
        whole.close()
        raise


def _read(label: str, whole: WholeFile, name: str | None) -> ArrayFile:
    beginning = whole.read(len(npy.MAGIC), 0)
    if beginning == npy.MAGIC:
        if name is not None:
            raise FileError(f"{label}: an .npy file holds one array, without a name")
        return npy.read_npy(label, whole)
    if beginning.startswith(npz.MAGICS):
        return npz.read_npz(label, whole, name)
    if safetensors.is_safetensors(whole):
        return safetensors.read_safetensors(label, whole, name)
    got = f"a file that begins with {beginning!r}" if beginning else "an empty file"
    raise FileError(f"{label}: expected .npy, .npz or .safetensors, got {got}")

"""Arrays in files: the same values from every format, and a `FileError` of one line for every wrong file.

What is done with the arrays is for `test_score`.
"""

import contextlib
import io
import json
import os
import pickle
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from array_files import npy_bytes, safetensors_bytes, save, save_safetensors, save_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from softxent.files import npz
from softxent.files import safetensors as safetensors_format
from softxent.files.array_file import ArrayFile, FileError
from softxent.files.opening import open_array
from softxent.files.results import ResultError, check_result, result_file

FORMATS = [".npy", ".npz", ".zip", ".safetensors"]
DTYPES = ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"]
GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def array_of(dtype: str, shape: tuple[int, ...] = (5, 7)) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def whole(file: ArrayFile) -> NDArray[Any]:
    return file.read_all(2**20)


def reason(path: Path, name: str = "") -> str:
    """Why a file is refused: the one line without the name of the file, which must stand in front."""
    with pytest.raises(FileError) as caught, open_array(f"{path}{name}") as file:
        whole(file)
    message = str(caught.value)
    assert message.startswith(f"{path}{name}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}{name}: ")


# What is right.


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_come_back_from_every_format(suffix: str, dtype: str, tmp_path: Path) -> None:
    array = array_of(dtype)
    with open_array(str(save(tmp_path / f"a{suffix}", array))) as file:
        assert (file.shape, file.dtype) == (array.shape, array.dtype)
        assert np.array_equal(whole(file), array)


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_range_can_be_read_in_any_order(suffix: str, tmp_path: Path) -> None:
    array = array_of("float32", (300, 11))
    buffer = np.empty(array.nbytes, np.uint8)
    with open_array(str(save(tmp_path / f"a{suffix}", array))) as file:
        for first, count in ((0, 10), (2000, 1300), (10, 1), (3299, 1), (0, 3300), (3300, 0)):
            expected = array.ravel()[first : first + count]
            assert np.array_equal(file.read_flat(first, count, buffer), expected)


def test_bfloat16_comes_from_safetensors(tmp_path: Path) -> None:
    array = array_of("float32").astype(ml_dtypes.bfloat16)
    with open_array(str(save(tmp_path / "a.safetensors", array))) as file:
        assert file.dtype == ml_dtypes.bfloat16
        assert np.array_equal(whole(file), array)


def test_the_safetensors_package_writes_what_is_read(tmp_path: Path) -> None:
    arrays = {
        "b": array_of("int64"),
        "a": array_of("float32"),
        "empty": array_of("float16", (0, 3)),
    }
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"by": "the package"})
    for name, array in arrays.items():
        with open_array(f"{path}::{name}") as file:
            assert np.array_equal(whole(file), array)


def test_big_endian_arrays_and_version_2_headers_are_read(tmp_path: Path) -> None:
    array = array_of("float32").astype(">f4")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=(2, 0))
    with open_array(str(tmp_path / "a.npy")) as opened:
        assert np.array_equal(whole(opened), array)


def test_the_end_of_the_name_chooses_among_several(tmp_path: Path) -> None:
    one, other = array_of("float32"), array_of("int64", (5,))
    np.savez(tmp_path / "a.npz", one=one, other=other)
    save_safetensors(tmp_path / "a.safetensors", one=one, other=other)
    for name in ("a.npz", "a.safetensors"):
        with open_array(f"{tmp_path / name}::other") as file:
            assert np.array_equal(whole(file), other)
        assert reason(tmp_path / name) == "holds 2 arrays, name one as FILE::NAME: one, other"
        assert "no array of that name, but: one, other" in reason(tmp_path / name, "::neither")


def test_one_axis_in_fortran_order_is_in_c_order_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(array_of("float32", (1, 7))))
    with open_array(str(tmp_path / "a.npy")) as file:
        assert file.shape == (1, 7)
    np.save(tmp_path / "b.npy", np.asfortranarray(array_of("float32")))
    assert "Fortran order" in reason(tmp_path / "b.npy")


# What is wrong.


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    """The pickle of an array of objects would run `Trap.__reduce__`, and so would a plain pickle."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(trap),))

    np.save(tmp_path / "a.npy", np.array([Trap()]), allow_pickle=True)
    assert reason(tmp_path / "a.npy") == "holds Python objects, a pickle: pickles are never loaded"
    np.savez(tmp_path / "a.npz", logits=np.array([Trap()]))
    assert "pickles are never loaded" in reason(tmp_path / "a.npz")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Trap()))
    assert "expected .npy, .npz or .safetensors" in reason(tmp_path / "a.pkl")
    save_zip(tmp_path / "a.pt", {"archive/data.pkl": pickle.dumps(Trap())})
    assert reason(tmp_path / "a.pt") == "expected .npy members, got archive/data.pkl"
    assert not trap.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", array_of("float32", (100, 100)))
    data = path.read_bytes()
    for length in {*range(0, 400, 7), len(data) // 2, len(data) - 1}:
        path.write_bytes(data[:length])
        assert reason(path)


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
BAD_NPY: dict[str, tuple[bytes, str]] = {
    "negative shape": (npy_bytes(HEADER % "(-1, 3)", bytes(99)), "expected a shape"),
    "huge shape": (npy_bytes(HEADER % f"({10**15}, 3)"), "truncated"),
    "lengths of 4000 digits": (npy_bytes(HEADER % f"({10**4000}, {10**4000})"), "a shape of at"),
    "many axes": (npy_bytes(HEADER % f"({'1, ' * 40})", bytes(4)), "expected a shape"),
    "shape of floats": (npy_bytes(HEADER % "(1.5, 2)"), "not a readable .npy header"),
    "code": (npy_bytes("__import__('os').getcwd()"), "not a readable .npy header"),
    "deep nesting": (npy_bytes("(" * 9000), "not a readable .npy header"),
    "too long": (npy_bytes(HEADER % "(1,)" + " " * 20_000), "not a readable .npy header"),
    "length beyond the end": (npy_bytes(HEADER % "(1,)", length=60_000), "not a readable .npy"),
    "4 GB of header": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        "not a readable .npy header",
    ),
    "unknown version": (b"\x93NUMPY\x09\x00" + bytes(100), "version 1.0 or 2.0"),
    "version 3": (b"\x93NUMPY\x03\x00" + bytes(100), "version 1.0 or 2.0"),
    "records": (npy_bytes(HEADER.replace("'<f4'", "[('a', '<f4')]") % "(1,)"), "array of numbers"),
    "complex": (npy_bytes(HEADER.replace("f4", "c8") % "(1,)", bytes(8)), "array of numbers"),
    "strings": (npy_bytes(HEADER.replace("f4", "U9") % "(1,)", bytes(36)), "array of numbers"),
    "dates": (npy_bytes(HEADER.replace("f4", "M8[s]") % "(1,)", bytes(8)), "array of numbers"),
    "no such dtype": (npy_bytes(HEADER.replace("f4", "q9") % "(1,)"), "not a readable .npy header"),
    "void": (npy_bytes(HEADER.replace("<f4", "|V2") % "(1,)", bytes(2)), "if it is bfloat16"),
    "wide void": (npy_bytes(HEADER.replace("<f4", "|V2000000000") % "(0,)"), "array of numbers"),
}


@pytest.mark.parametrize("case", BAD_NPY)
def test_a_hostile_npy_is_refused(case: str, tmp_path: Path) -> None:
    data, expected = BAD_NPY[case]
    (tmp_path / "a.npy").write_bytes(data)
    assert expected in reason(tmp_path / "a.npy")
    assert expected in reason(save_zip(tmp_path / "a.npz", {"a.npy": data}))


def entry(**changes: Any) -> dict[str, Any]:
    return {"logits": GOOD | changes}


BAD_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "length beyond the end": (safetensors_bytes({}, b"", 10**18), "truncated: a header of"),
    "length above the limit": (
        safetensors_bytes(b"{" + b" " * 2**23, b"", 2**23),
        "expected a header of at most",
    ),
    "no JSON": (safetensors_bytes(b"{logits}", b""), "not a readable header"),
    "no UTF-8": (safetensors_bytes(b'{"\xff": 1}', b""), "not a readable header"),
    "deep nesting": (safetensors_bytes(b'{"a":' + b"[" * 10**5, b""), "not a readable header"),
    "a number of a million digits": (
        safetensors_bytes(b'{"a":' + b"9" * 10**6 + b"}", b""),
        "not a readable header",
    ),
    "a name twice": (safetensors_bytes(b'{"a": 1, "a": 2}', b""), "a name that stands twice"),
    "empty": (safetensors_bytes({}, b""), "holds no array"),
    "only metadata": (safetensors_bytes({"__metadata__": {}}, b""), "holds no array"),
    "no entry": (safetensors_bytes({"logits": 3}, b""), "expected dtype, shape and data_offsets"),
    "no shape": (safetensors_bytes({"logits": {"dtype": "F32"}}, b""), "expected dtype, shape and"),
    "negative shape": (safetensors_bytes(entry(shape=[-2, -3]), bytes(24)), "expected a shape"),
    "shape of floats": (safetensors_bytes(entry(shape=[2.0, 3]), bytes(24)), "expected a shape"),
    "shape of bools": (safetensors_bytes(entry(shape=[True, 6]), bytes(24)), "expected a shape"),
    "huge shape": (safetensors_bytes(entry(shape=[2**62] * 9), bytes(24)), "truncated: no file"),
    "a hundred thousand axes": (
        safetensors_bytes(entry(shape=[2**62] * 10**5), bytes(24)),
        "a shape of at most",
    ),
    "many axes": (
        safetensors_bytes(entry(shape=[2, 3] + [1] * 40), bytes(24)),
        "expected a shape of at most",
    ),
    "wrong size": (safetensors_bytes(entry(shape=[2, 4]), bytes(24)), "expected 32 bytes for"),
    "offsets backwards": (safetensors_bytes(entry(data_offsets=[24, 0]), bytes(24)), "two offsets"),
    "negative offsets": (safetensors_bytes(entry(data_offsets=[-24, 0]), b""), "two offsets"),
    "one offset": (safetensors_bytes(entry(data_offsets=[24]), bytes(24)), "two offsets"),
    "beyond the end": (safetensors_bytes(entry(), bytes(23)), "truncated: expected 24 bytes"),
    "more than the arrays": (safetensors_bytes(entry(), bytes(25)), "damaged: expected 24 bytes"),
    "a gap": (safetensors_bytes(entry(data_offsets=[4, 28]), bytes(28)), "leave a gap at byte 4"),
    "overlap": (
        safetensors_bytes({"a": GOOD, "b": GOOD | {"data_offsets": [12, 36]}}, bytes(36)),
        "arrays overlap at byte 12",
    ),
    "unknown dtype": (safetensors_bytes(entry(dtype="F8_E4M3"), bytes(24)), "got F8_E4M3"),
    "dtype of another type": (safetensors_bytes(entry(dtype=[1]), bytes(24)), "got [1]"),
    "a name with a line end": (
        safetensors_bytes({"a\nb": GOOD | {"shape": 3}}, bytes(24)),
        "a\\nb: expected a shape",
    ),
}


@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_a_hostile_safetensors_is_refused(case: str, tmp_path: Path) -> None:
    data, expected = BAD_SAFETENSORS[case]
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert expected in reason(path)


def npz_with(change: Callable[[bytearray], None], path: Path) -> Path:
    data = bytearray(save(path, array_of("float32")).read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_a_damaged_member_of_an_archive_is_refused(tmp_path: Path) -> None:
    def flip(data: bytearray) -> None:
        data[300] ^= 1  # among the numbers

    assert "damaged: Bad CRC-32" in reason(npz_with(flip, tmp_path / "a.npz"))


def test_an_archive_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    data = npy_bytes(HEADER % "(1000, 1000)", bytes(100))
    assert "truncated" in reason(save_zip(tmp_path / "a.npz", {"a.npy": data}))


def test_a_huge_directory_of_an_archive_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MOST_AT_ONCE", 2**16)
    members = {f"{number:0100}.npy": b"" for number in range(1000)}
    assert "a directory of 1" in reason(save_zip(tmp_path / "a.npz", members))


def test_packings_that_unpack_without_bound_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, array_of("float32"))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = save_zip(tmp_path / f"{method}.npz", {"a.npy": stream.getvalue()}, method)
        assert "expected deflate" in reason(path)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    assert "regular file" in reason(tmp_path)
    assert reason(tmp_path / "missing.npy") == "No such file or directory"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npy")
        assert "regular file" in reason(tmp_path / "pipe.npy")
    with pytest.raises(FileError, match="null"):
        open_array("a\0b.npy")


def test_a_file_that_becomes_shorter_is_refused_where_it_ends(tmp_path: Path) -> None:
    """Under a memory map the process would die of SIGBUS."""
    path = save(tmp_path / "a.npy", array_of("float32", (100, 100)))
    with open_array(str(path)) as file:
        os.truncate(path, 128 + 4 * 150)
        buffer = np.empty(800, np.uint8)
        assert file.read_flat(0, 100, buffer)[-1] == 99
        with pytest.raises(FileError, match="ends early: nothing from byte 728 on"):
            file.read_flat(100, 100, buffer)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_of_a_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / f"a{data.draw(st.sampled_from(FORMATS))}"
    changed = bytearray(save(path, array_of("float32")).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, min(len(changed) - 1, 150)))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(changed)
    with contextlib.suppress(FileError), open_array(str(path)) as file:
        whole(file)


def test_the_largest_header_that_is_read_takes_little_memory() -> None:
    """What JSON makes the most of for its length: empty lists."""
    text = b'{"a":[' + b"[]," * (safetensors_format.MOST_HEADER // 3 - 10) + b"[]]}"
    assert len(text) <= safetensors_format.MOST_HEADER
    tracemalloc.start()
    json.loads(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 2**20


# Results.


def test_a_result_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with contextlib.suppress(RuntimeError), result_file(path, force=False) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with result_file(path, force=False) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_replaces_a_file_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    with pytest.raises(ResultError, match="exists already; --force"):
        check_result(path, force=False)
    with pytest.raises(ResultError, match="exists already"), result_file(path, force=False) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    with result_file(path, force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with result_file(tmp_path / "result", force=False):
        pass
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_only_one_of_many_writers_wins(tmp_path: Path) -> None:
    """Looking first and renaming then would let the last one win."""
    barrier, outcomes = threading.Barrier(8), []

    def write(number: int) -> None:
        try:
            with result_file(tmp_path / "result", force=False) as file:
                file.write(bytes([number]))
                barrier.wait()
            outcomes.append(number)
        except ResultError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "result").read_bytes() == bytes(outcomes)


def test_a_result_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no such folder"):
        check_result(tmp_path / "no" / "result", force=False)
    with pytest.raises(ResultError, match="is a folder"):
        check_result(tmp_path, force=True)
    with (
        pytest.raises(ResultError, match="result: No such file"),
        result_file(tmp_path / "no" / "result", force=False),
    ):
        pass

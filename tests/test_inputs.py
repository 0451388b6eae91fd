"""What bad input gets: the promised exception, a message that names the argument, nothing written.

A *mistake* spoils one argument of a call that is otherwise right. Every mistake is made in every
function that has the argument, for every dtype and reduction, with the result in an array of its
own and in place of the logits. What good input gives is for other files to test; here are only the
inputs at the border: what looks bad and is welcome, and what is welcome and very large.
"""

import importlib
import inspect
import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from numpy.exceptions import AxisError
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = dict[str, Any]

FLOATS = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
REDUCTIONS = ["mean", "sum", "none", "sequence_mean"]
LOSSES = ["cross_entropy", "cross_entropy_with_grad"]
NOT_MATHEMATICS = {"get_threads", "set_threads", "show_runtime"}
PARAMETERS = {
    name: list(inspect.signature(getattr(sx, name)).parameters)
    for name in sx.__all__
    if name not in NOT_MATHEMATICS
}
SHAPE, CLASSES = (2, 3, 5), 5
sparse = importlib.import_module("scipy.sparse")


# Calls that are right, and what they may write to.


def right_call(name: str, dtype: np.dtype[Any], reduction: str, in_place: bool) -> Call:
    """The arguments of a call of that function, all of its kind and shape."""
    logits = np.linspace(-2, 2, math.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    everything: Call = {
        "logits": logits,
        "targets": np.array([[0, 4, 2], [3, -100, 1]]),
        "reduction": reduction,
        "out": logits if in_place else np.full(SHAPE, 7, dtype),
        "offsets": [0, 2, 6] if reduction == "sequence_mean" else None,
        "normalizer": 3.0 if reduction == "mean" else None,
    }
    return {
        argument: everything[argument] for argument in PARAMETERS[name] if argument in everything
    }


def right_calls(name: str) -> Iterator[Call]:
    reductions = REDUCTIONS if "reduction" in PARAMETERS[name] else ["none"]
    places = [False, True] if "out" in PARAMETERS[name] else [False]
    for dtype, reduction, in_place in itertools.product(FLOATS, reductions, places):
        yield right_call(name, dtype, reduction, in_place)


def memory(call: Call) -> list[bytes]:
    """The bytes of every array of a call, whatever lies in between its elements."""

    def owner(array: Array) -> Array:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    return [
        owner(value).view(np.ndarray).tobytes()
        for value in call.values()
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OT"
    ]


# The mistakes.


@dataclass(frozen=True)
class Mistake:
    """A wrong value of one argument."""

    name: str
    argument: str
    error: type[Exception]
    value: Callable[[Call], Any]

    def make_in(self, call: Call) -> Call | None:
        """The call with the mistake in it, or None where the value would not be one."""
        value = self.value(call)
        return None if value is NotImplemented else call | {self.argument: value}


def always(value: Any) -> Callable[[Call], Any]:
    return lambda _: value


def label(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return repr(value) if len(repr(value)) < 50 else f"{repr(value)[:40]} and so on"


def constants(argument: str, error: type[Exception], *values: Any) -> list[Mistake]:
    """Values that are wrong whatever the rest of the call."""
    return [
        Mistake(f"{argument}={label(value)}", argument, error, always(value)) for value in values
    ]


def changes(
    argument: str, error: type[Exception], **values: Callable[[Call], Any]
) -> list[Mistake]:
    """Values that are made of what the call holds."""
    return [
        Mistake(f"{argument}: {name.replace('_', ' ')}", argument, error, value)
        for name, value in values.items()
    ]


@dataclass
class Exporter:
    """A tensor of another library that can't be read where it lies."""

    device: int  # in the numbers of DLPack: 1 is the CPU, 2 a GPU

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("call detach() first")


def spoilt(argument: str) -> list[Mistake]:
    """An array argument of every dtype and container that is not a plain array of numbers."""

    def made_by(convert: Callable[[Array], Any]) -> Callable[[Call], Any]:
        return lambda call: convert(np.asarray(call.get(argument, np.ones(SHAPE[:-1], int))))

    def flat(array: Array) -> Array:  # as wide as SciPy wants it
        return array.astype(np.result_type(array.dtype, np.float32)).reshape(len(array), -1)

    def of_dtype(kind: Any) -> Callable[[Call], Any]:
        return made_by(lambda array: np.zeros(array.shape, kind))

    kinds: list[Any] = ["?", "D", "F", "g", "O", "U", "S", "M8[s]", "m8[s]", "V8", [("x", "f4")]]
    kinds += [np.dtypes.StringDType(), ml_dtypes.int4]
    containers: dict[str, Callable[[Array], Any]] = {
        "masked array": lambda array: np.ma.array(array),
        "sparse matrix": lambda array: sparse.csr_matrix(flat(array)),
        "sparse array": lambda array: sparse.csr_array(flat(array)),
        "matrix": lambda array: matrix(flat(array)),
        "lists of text": lambda array: np.full(array.shape, "1").tolist(),
        "text": lambda _: "12",
        "set": lambda _: {1, 2},
        "object": lambda _: ...,
        "tensor on a GPU": lambda _: Exporter(device=2),
        "tensor that refuses": lambda _: Exporter(device=1),
    }
    mistakes = {f"dtype {np.dtype(kind)}": of_dtype(kind) for kind in kinds}
    mistakes |= {name: made_by(convert) for name, convert in containers.items()}
    return changes(argument, TypeError, **mistakes)


def matrix(array: Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(array)


def with_class_id(value: int, dtype: np.dtype[Any]) -> Callable[[Call], Any]:
    def targets(call: Call) -> Array:
        ids = np.zeros(call["targets"].shape, dtype)
        ids[1, 2] = value
        return ids

    return targets


def out_of_range() -> Iterator[Mistake]:
    """Class ids below 0 and from V on, in every integer dtype and byte order."""
    for dtype, order in itertools.product(INTEGERS, "<>"):
        limits = np.iinfo(dtype)
        values = {CLASSES, limits.max, limits.max - 1, limits.max // 2 + 1}
        values |= {-1, limits.min} if limits.min else set()
        for value in sorted(values):
            ids = with_class_id(value, dtype.newbyteorder(order))
            yield Mistake(f"targets: {value} of dtype {order}{dtype}", "targets", IndexError, ids)


def of_logits(change: Callable[[Array], Array]) -> Callable[[Call], Any]:
    """An `out` that lies in the memory of the logits."""

    def value(call: Call) -> Array:
        # Room around the logits, so that a shifted view of them stays inside.
        room = np.zeros(3 * math.prod(SHAPE), call["logits"].dtype)
        middle = room[math.prod(SHAPE) :][: math.prod(SHAPE)].reshape(SHAPE)
        middle[...] = call["logits"]
        call["logits"] = middle
        return change(middle)

    return value


def shifted(logits: Array) -> Array:
    room: Any = logits.base
    return np.asarray(room)[math.prod(SHAPE) + 1 :][: math.prod(SHAPE)].reshape(SHAPE)


def over(argument: str, dtype: Any) -> Callable[[Call], Any]:
    """An `out` whose first bytes are the array of another argument."""

    def value(call: Call) -> Any:
        if argument not in call and argument != "grad_output":
            return NotImplemented
        if argument == "offsets" and call["reduction"] != "sequence_mean":
            return NotImplemented
        if argument == "grad_output" and call.get("reduction") != "none":
            return NotImplemented
        given = np.ones(SHAPE[:-1]) if argument == "grad_output" else call[argument]
        room = np.zeros(1000, np.uint8)
        inside = room[: np.asarray(given).size * np.dtype(dtype).itemsize].view(dtype)
        call[argument] = inside.reshape(np.shape(given))
        call[argument][...] = given
        call["logits"] = call["logits"].copy()
        return room[: call["logits"].nbytes].view(call["logits"].dtype).reshape(SHAPE)

    return value


def like_logits(change: Callable[[Array], Any]) -> Callable[[Call], Any]:
    return lambda call: change(np.zeros_like(call["logits"]))


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def with_strides(*steps: int) -> Callable[[Array], Array]:
    """Strides in elements."""

    def change(array: Array) -> Array:
        room = np.zeros(1000, array.dtype)
        return as_strided(room, SHAPE, [step * array.itemsize for step in steps])

    return change


def swapped(array: Array) -> Any:
    other = array.dtype.newbyteorder()
    return NotImplemented if other == array.dtype else array.astype(other)


def per_row_only(value: Any) -> Callable[[Call], Any]:
    """Wrong where the loss is a scalar."""
    return lambda call: NotImplemented if call["reduction"] == "none" else value


def where_not(reduction: str, value: Any) -> Callable[[Call], Any]:
    return lambda call: NotImplemented if call["reduction"] == reduction else value


def where(reduction: str, value: Any) -> Callable[[Call], Any]:
    return lambda call: value if call["reduction"] == reduction else NotImplemented


NAN, INF = math.nan, math.inf
NO_NUMBERS = ["1", None, True, np.True_, 1j, [1.0], np.array([1.0]), ...]
MISTAKES: list[Mistake] = [
    *spoilt("logits"),
    *constants("logits", TypeError, None, [[1.0, 2.0], [3.0, None]]),
    *constants("logits", ValueError, 1.0, np.float32(1), np.array(3), [[1.0, 2.0], [3.0]]),
    *spoilt("targets"),
    *constants("targets", TypeError, None, [[0.0, 1.0, 2.0]] * 2),
    *constants("targets", ValueError, 0, [0, 1, 2], [[0, 1], [2, 3], [4, 0]], [[[0, 1, 2]] * 2]),
    *constants("targets", ValueError, np.zeros((2, 4), int), np.zeros((0, 3), int), []),
    *out_of_range(),
    *constants("axis", AxisError, 3, -4, 2**31, -(2**63), 2**70),
    *constants("axis", TypeError, None, "0", 1.0, True, (0, 1), [0]),
    *constants("temperature", ValueError, 0, 0.0, -1, NAN, INF, -INF, np.float32(0), 10**400),
    *constants("temperature", TypeError, *NO_NUMBERS),
    *changes(
        "normalizer",
        ValueError,
        **{
            f"{value:.0f}" if value == value else "NaN": where("mean", value)
            for value in (0, -1, NAN, INF, -INF)
        },
        unused=where_not("mean", 3.0),
    ),
    *changes(
        "normalizer",
        TypeError,
        **{label(value): where("mean", value) for value in NO_NUMBERS if value is not None},
    ),
    *constants("ignore_index", TypeError, True, np.True_, 1.0, NAN, "1", "12", 1j, ...),
    *constants("ignore_index", TypeError, [1.0], [[1]], [None], ["1"], [True], np.array([1.0])),
    *constants("reduction", ValueError, "Mean", "average", "", None, 0, True, b"mean", ["mean"]),
    *constants("on_empty", ValueError, "NaN", "skip", "", None, 0, b"nan"),
    *changes(
        "offsets",
        ValueError,
        **{
            name: where("sequence_mean", value)
            for name, value in {
                "falling": [0, 3, 2, 6],
                "starting_late": [1, 6],
                "ending_early": [0, 5],
                "ending_late": [0, 7],
                "negative": [-1, 6],
                "of_nothing": [],
                "a_start_only": [0],
                "two_dimensions": [[0, 6]],
                "a_number": 6,
                "beyond_int64": np.array([0, 2**63], np.uint64),
            }.items()
        },
        unused=where_not("sequence_mean", [0, 6]),
    ),
    *changes(
        "offsets",
        TypeError,
        **{
            f"{value!r:.30}": where("sequence_mean", value)
            for value in ([0.0, 6.0], [False, True], "06", ["0", "6"], [0j, 6j], [0, None])
        },
        masked_array=where("sequence_mean", np.ma.array([0, 6])),
        longdouble=where("sequence_mean", np.zeros(2, np.longdouble)),
    ),
    *constants("dtype", TypeError, int, bool, complex, object, "x", "U3", 5, np.longdouble, ">f4"),
    *constants("dtype", TypeError, "i4", "M8[s]", ml_dtypes.float8_e5m2, [("x", "f4")]),
    *constants("threads", ValueError, 0, -1, np.int8(-3), -(2**63), -(2**70)),
    *constants("threads", TypeError, True, np.True_, "2", 1.5, 2.0, [1], ...),
    *constants("keepdims", TypeError, "yes", None, [], 0.5),
    *constants("out", TypeError, [[0.0] * 5] * 3, "out", 0.0, ..., (np.zeros(SHAPE),)),
    *changes(
        "out",
        TypeError,
        dtype_int32=like_logits(lambda a: a.astype(np.int32)),
        dtype_bool=like_logits(lambda a: a.astype(bool)),
        dtype_object=like_logits(lambda a: a.astype(object)),
        dtype_complex=like_logits(lambda a: a.astype(complex)),
        another_float=like_logits(lambda a: a.astype("f4" if a.dtype != np.float32 else "f8")),
        other_16_bits=like_logits(
            lambda a: a.view("i2" if a.dtype.itemsize == 2 else a.dtype.str.replace("f", "i"))
        ),
        byte_order=like_logits(swapped),
        masked_array=like_logits(np.ma.array),
    ),
    *changes(
        "out",
        ValueError,
        read_only=like_logits(read_only),
        transposed=like_logits(lambda a: a.T),
        another_length=like_logits(lambda a: np.zeros((2, 3, 6), a.dtype)),
        another_rank=like_logits(lambda a: a.reshape(6, 5)),
        broadcastable=like_logits(lambda a: a[:1]),
        zero_strides=like_logits(with_strides(0, 5, 1)),
        overlapping_rows=like_logits(with_strides(15, 4, 1)),
        overlapping_strides=like_logits(with_strides(100, 2, 3)),
        one_element_beside_the_logits=of_logits(shifted),
        logits_backwards=of_logits(lambda a: a[::-1]),
        logits_transposed_twice=of_logits(lambda a: a[:, ::-1]),
        memory_of_targets=over("targets", np.int64),
        memory_of_16_bit_targets=over("targets", np.int16),
        memory_of_offsets=over("offsets", np.int64),
        memory_of_grad_output=over("grad_output", np.float64),
    ),
    *spoilt("grad_output"),
    *constants("grad_output", TypeError, True, "1", 1j, [None]),
    *constants("grad_output", ValueError, [1.0], np.ones((3, 2)), np.ones(SHAPE), [], np.ones(6)),
    *changes("grad_output", ValueError, per_row=per_row_only(np.ones(SHAPE[:-1]))),
]


def cases(mistake: Mistake) -> Iterator[tuple[str, str, Call]]:
    """Every call that the mistake can be made in: a description, the function, the arguments."""
    for name, parameters in PARAMETERS.items():
        for call in right_calls(name) if mistake.argument in parameters else ():
            bad = mistake.make_in(call)
            if bad is not None:
                place = "in place" if call.get("out") is call["logits"] else "elsewhere"
                how = f"{call['logits'].dtype}, {call.get('reduction')}, {place}"
                yield f"{name} ({how})", name, bad


def outcome(name: str, call: Call) -> Any:
    """What the call raises or returns."""
    try:
        return getattr(sx, name)(**call)
    except Exception as error:
        return error


def test_the_calls_without_a_mistake_are_right() -> None:
    for name in PARAMETERS:
        for call in right_calls(name):
            getattr(sx, name)(**call)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_refused_before_anything_is_written(mistake: Mistake) -> None:
    for description, name, call in cases(mistake):
        before = memory(call)
        problem = outcome(name, call)
        if type(problem) is not mistake.error:
            pytest.fail(f"{description}: expected {mistake.error.__name__}, got {problem!r}")
        if mistake.argument not in str(problem):
            pytest.fail(f"{description}: names no {mistake.argument}: {problem}")
        if memory(call) != before:
            pytest.fail(f"{description}: something was written")


def test_thousands_of_mistakes_are_made_with_every_argument() -> None:
    assert {mistake.argument for mistake in MISTAKES} == set().union(*PARAMETERS.values())
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    assert sum(1 for mistake in MISTAKES for _ in cases(mistake)) >= 2000


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_argument_that_does_not_exist_is_refused(name: str) -> None:
    call = right_call(name, np.dtype(np.float32), "none", in_place=True)
    before = memory(call)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lables'"):
        getattr(sx, name)(**call, lables=1)
    with pytest.raises(TypeError, match="positional argument"):
        getattr(sx, name)(call["logits"], call.get("targets", -1), 1.0)
    with pytest.raises(TypeError, match=r"missing .*'logits'"):
        getattr(sx, name)()
    assert memory(call) == before


# The words.

L, Y = np.zeros((4, 5), np.float32), np.array([0, 1, 2, 3])
TAIL = "to match logits (4, 5)"
MESSAGES: list[tuple[str, type[Exception], Callable[[], Any]]] = [
    (
        "targets[3] = 50257 is outside [0, 50257)",
        IndexError,
        lambda: sx.cross_entropy(np.zeros((4, 50257), np.float32), [0, 1, 2, 50257]),
    ),
    (
        "targets[1, 2] = -1 is outside [0, 5)",
        IndexError,
        lambda: sx.cross_entropy(np.zeros(SHAPE), [[0, 1, 2], [3, 4, -1]]),
    ),
    (
        "targets[0] = 18446744073709551615 is outside [0, 5)",
        IndexError,
        lambda: sx.cross_entropy(L, np.array([2**64 - 1, 9, 9, 9], np.uint64)),
    ),
    ("targets = 7 is outside [0, 5)", IndexError, lambda: sx.cross_entropy(L[0], 7)),
    (
        f"targets: expected shape (4,) {TAIL}, got (5,)",
        ValueError,
        lambda: sx.cross_entropy(L, [0] * 5),
    ),
    (
        f"targets: expected shape (4,) {TAIL}, got (1, 4)",
        ValueError,
        lambda: sx.cross_entropy(L, Y[np.newaxis]),
    ),
    (
        "targets: expected class ids of an integer dtype, not a mask, got bool",
        TypeError,
        lambda: sx.cross_entropy(L, Y > 0),
    ),
    (
        "targets: expected a row that is not ignored, got none",
        ValueError,
        lambda: sx.cross_entropy(L, [-100] * 4, on_empty="raise"),
    ),
    (
        "logits: expected at least one class, got (4, 0)",
        ValueError,
        lambda: sx.cross_entropy(L[:, :0], Y),
    ),
    (
        "logits: expected at least one dimension, got a 0-d array",
        ValueError,
        lambda: sx.softmax(1.0),
    ),
    (
        "logits: expected numbers (use .astype(np.float32)), got bool",
        TypeError,
        lambda: sx.softmax(L > 0),
    ),
    (
        "logits: expected real numbers (use .real), got complex64",
        TypeError,
        lambda: sx.logsumexp(L.astype("F")),
    ),
    (
        'reduction: expected "mean", "sum", "none", "sequence_mean", got \'avg\'',
        ValueError,
        lambda: sx.cross_entropy(L, Y, reduction="avg"),  # type: ignore[arg-type]
    ),
    (
        "temperature: expected a positive finite number, got -1",
        ValueError,
        lambda: sx.log_softmax(L, temperature=-1.0),
    ),
    ("threads: expected a number >= 1, got 0", ValueError, lambda: sx.softmax(L, threads=0)),
    ("threads: expected a number >= 1, got 0", ValueError, lambda: sx.set_threads(0)),
    (
        "axis 2 is out of bounds for array of dimension 2",
        AxisError,
        lambda: sx.softmax(L, axis=2),
    ),
    (
        "out: expected dtype float32, got float64",
        TypeError,
        lambda: sx.softmax(L, out=np.zeros((4, 5))),
    ),
    (
        "out: expected shape (4, 5) like logits, got (5, 4)",
        ValueError,
        lambda: sx.softmax(L, out=L.T),
    ),
    (
        "out: expected logits itself, or no memory in common, got a part of it",
        ValueError,
        lambda: sx.softmax(L, out=L[::-1]),
    ),
    (
        "grad_output: expected a scalar, got (4,)",
        ValueError,
        lambda: sx.cross_entropy_with_grad(L, Y, grad_output=np.ones(4)),
    ),
    (
        "grad_output: expected a scalar or shape (4,), got (5,)",
        ValueError,
        lambda: sx.cross_entropy_with_grad(L, Y, reduction="none", grad_output=np.ones(5)),
    ),
    (
        "offsets: expected numbers that rise from 0 to 4, the number of rows, got [0 3]",
        ValueError,
        lambda: sx.cross_entropy(L, Y, reduction="sequence_mean", offsets=[0, 3]),
    ),
    (
        'logits: expected shape (B, T, V) for reduction "sequence_mean" without offsets, '
        "got (4, 5)",
        ValueError,
        lambda: sx.cross_entropy(L, Y, reduction="sequence_mean"),
    ),
]


@pytest.mark.parametrize(("message", "error", "call"), MESSAGES, ids=[m[0] for m in MESSAGES])
def test_a_message_says_what_came_and_what_was_wanted(
    message: str, error: type[Exception], call: Callable[[], Any]
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_type_error_says_what_to_do_instead() -> None:
    for mistake in (
        np.ma.array(L),
        sparse.csr_array(L),
        L.astype("F"),
        L > 0,
        matrix(L),
    ):
        with pytest.raises(TypeError, match=r"\(.+\)"):
            sx.softmax(mistake)
    with pytest.raises(TypeError, match="astype"):
        sx.cross_entropy(L, Y.astype(float))


def test_set_threads_refuses_what_a_call_refuses() -> None:
    sx.set_threads(3)
    refused = [m for m in MISTAKES if m.argument == "threads"]
    for mistake in refused:
        with pytest.raises(mistake.error, match="threads"):
            sx.set_threads(mistake.value({}))
    assert sx.get_threads() == 3
    sx.set_threads(None)


# What looks bad and is welcome.


@pytest.mark.parametrize("threads", [1, 2**20, np.uint8(2), np.int64(3), 2**62, 2**70])
def test_any_number_of_threads_is_welcome(threads: Any) -> None:
    # Large enough for threads, with too few rows to wake many.
    logits = np.zeros((5, 20_000), np.float32)
    assert sx.logsumexp(logits, threads=threads).tolist() == [pytest.approx(math.log(20_000))] * 5


IGNORED: list[tuple[Any, list[int]]] = [
    (3, [3]),
    (np.int8(3), [3]),
    (np.array(3), [3]),
    ([3], [3]),
    ((3, 3), [3]),
    ({3}, [3]),
    (range(1, 3), [1, 2]),
    (np.array([3], np.uint64), [3]),
    (iter([3]), [3]),
    ([-7, 3, 99], [3]),
    (-7, []),
    (2**64, []),
    (-(2**200), []),
    ([], []),
    (None, []),
]


@pytest.mark.parametrize(("ignore_index", "ignored"), IGNORED, ids=repr)
def test_any_integers_can_be_ignored(ignore_index: Any, ignored: list[int]) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4))
    targets = [0, 1, 2, 3, 0]
    losses = sx.cross_entropy(logits, targets, reduction="none", ignore_index=None)
    expected = [0.0 if y in ignored else loss for y, loss in zip(targets, losses, strict=True)]
    found = sx.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_class_may_lie_outside_of_the_classes(name: str, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    for outside in {limits.min or CLASSES, limits.max}:
        targets = np.array([1, outside, 2], dtype)
        logits = np.zeros((3, CLASSES))
        logits[1] = math.nan
        result = getattr(sx, name)(logits, targets, ignore_index=int(outside))
        loss = result[0] if isinstance(result, tuple) else result
        assert loss == pytest.approx(math.log(CLASSES))
        with pytest.raises(IndexError):
            getattr(sx, name)(logits, targets, ignore_index=0)


ROWS: dict[str, tuple[Callable[[Array], None], float, bool]] = {
    "NaN": (lambda x: x.put(3, NAN), NAN, False),
    "-inf everywhere": (lambda x: x.fill(-INF), -INF, False),
    "+inf": (lambda x: x.put(3, INF), INF, False),
    "+inf and NaN": (lambda x: x.put([2, 3], [INF, NAN]), NAN, False),
    "+inf and -inf": (lambda x: x.put([2, 3], [INF, -INF]), INF, False),
    "some -inf": (lambda x: x.put([2, 3], -INF), math.log(3), True),
    "-inf at the target": (lambda x: x.put(0, -INF), math.log(4), True),
}


@pytest.mark.parametrize("dtype", [*FLOATS], ids=str)
@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_infinities_or_nan_keeps_to_itself(row: str, dtype: np.dtype[Any]) -> None:
    spoil, lse, defined = ROWS[row]
    logits = np.zeros((3, CLASSES), dtype)
    spoil(logits[1])
    targets = [0, 0, 0]
    assert sx.logsumexp(logits)[1] == pytest.approx(lse, rel=1e-6, nan_ok=True)
    loss = sx.cross_entropy(logits, targets, reduction="none")
    expected = INF if row == "-inf at the target" else lse if defined else NAN
    assert loss[1] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    outputs = [sx.softmax(logits), sx.log_softmax(logits)]
    for reduction in REDUCTIONS:
        options: Call = {"reduction": reduction}
        options |= {"offsets": [0, 1, 3]} if reduction == "sequence_mean" else {}
        total, grad = sx.cross_entropy_with_grad(logits, targets, **options)
        assert np.isfinite(total).tolist() == (
            [True, math.isfinite(expected), True]
            if reduction == "none"
            else math.isfinite(expected)
        )
        outputs.append(grad)
    for output in outputs:
        alone = np.isnan(output)
        assert not alone[[0, 2]].any()
        assert alone[1].all() == (not defined)
        assert alone[1].any() == (not defined)
        assert output[0].tobytes() == output[2].tobytes()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_nothing_is_what_on_empty_says(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    logits = np.full(shape, NAN, dtype)
    targets = np.full(shape[:-1], -100)
    values = {"nan": NAN, "zero": 0.0}
    for reduction, on_empty in itertools.product(REDUCTIONS, ["nan", "zero", "raise"]):
        nothing = reduction == "mean" or (reduction == "sequence_mean" and shape[0] == 0)

        def loss_and_grad(reduction: str = reduction, on_empty: str = on_empty) -> tuple[Any, Any]:
            result = getattr(sx, name)(logits, targets, reduction=reduction, on_empty=on_empty)
            return result if isinstance(result, tuple) else (result, np.zeros_like(logits))

        if nothing and on_empty == "raise":
            with pytest.raises(ValueError, match="targets"):
                loss_and_grad()
            continue
        loss, grad = loss_and_grad()
        if reduction == "none":
            assert loss.tolist() == np.zeros(shape[:-1]).tolist()
        else:
            expected = values[on_empty] if nothing else 0.0
            assert loss == pytest.approx(expected, nan_ok=True)
        assert grad.dtype == dtype
        assert grad.tolist() == np.zeros(shape).tolist()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_no_classes_have_no_probabilities_and_no_loss(dtype: np.dtype[Any]) -> None:
    logits = np.zeros((2, 3, 0), dtype)
    assert sx.logsumexp(logits).tolist() == [[-INF] * 3] * 2
    for function in (sx.softmax, sx.log_softmax):
        assert function(logits).shape == (2, 3, 0)
    for name, reduction in itertools.product(LOSSES, REDUCTIONS):
        with pytest.raises(ValueError, match="at least one class"):
            getattr(sx, name)(logits, np.zeros((2, 3), int), reduction=reduction)


# What changes meanwhile, and what is large.


def test_targets_that_another_thread_changes_do_no_harm() -> None:
    logits = np.zeros((3000, 7), np.float32)
    targets = np.zeros(3000, np.int64)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            targets[::2] = 2**62
            targets[::2] = 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            result = outcome("cross_entropy_with_grad", {"logits": logits, "targets": targets})
            if isinstance(result, IndexError):
                assert "4611686018427387904 is outside [0, 7)" in str(result)
            else:
                loss, grad = result
                assert loss == pytest.approx(math.log(7))
                assert np.isfinite(grad).all()
    finally:
        stop.set()
        thread.join()


def test_more_than_two_billion_elements_are_right() -> None:
    row = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    logits = np.broadcast_to(row, (70_000, 40_000))
    assert logits.size > 2**31
    lse = sx.logsumexp(logits)
    assert lse.shape == (70_000,)
    assert (lse == sx.logsumexp(row)).all()
    targets = np.full(70_000, -100)
    targets[-1] = 39_999  # the last element of all
    assert sx.cross_entropy(logits, targets) == sx.cross_entropy(row, 39_999)


def test_more_than_two_billion_classes_are_right() -> None:
    logits = np.broadcast_to(np.float64(1), (2**31 + 5,))
    assert sx.cross_entropy(logits, 2**31 + 4) == pytest.approx(math.log(2**31 + 5), rel=1e-15)
    with pytest.raises(IndexError, match=r"targets = 2147483653 is outside \[0, 2147483653\)"):
        sx.cross_entropy(logits, 2**31 + 5)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_strides_of_more_than_two_billion_bytes_are_right(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.truncate(3 * 2**32 + 4096)  # takes no room on the disk
    mapped = np.memmap(path, dtype, "r+")
    far_apart = as_strided(mapped, (4, 3), (2**32, mapped.itemsize), writeable=True)
    close = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    far_apart[...] = close
    views: list[Callable[[Array], Array]]
    views = [lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: a[::-1, ::-1].T]
    for view in views:
        far, near = view(far_apart), np.ascontiguousarray(view(close))
        assert max(map(abs, far.strides)) > 2**31
        assert sx.softmax(far).tobytes() == sx.softmax(near).tobytes()
        targets = np.arange(len(near)) % near.shape[1]
        loss, grad = sx.cross_entropy_with_grad(far, targets, reduction="none")
        near_loss, near_grad = sx.cross_entropy_with_grad(near, targets, reduction="none")
        assert loss.tobytes() == near_loss.tobytes()
        assert grad.tobytes() == near_grad.tobytes()
    sx.softmax(far_apart, out=far_apart)
    assert far_apart.tobytes() == sx.softmax(close).tobytes()
    del far_apart, far, mapped
    path.unlink()

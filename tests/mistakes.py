"""What can be wrong with an argument, and what it is then refused with.

One table over all public functions. Makes no call itself.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.exceptions import AxisError
from numpy.lib.stride_tricks import as_strided
from right_calls import CLASSES, FLOATS, INTEGERS, SHAPE, Array, Call, sparse

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


NO_NUMBER: list[Any] = ["?", "D", "F", "g", "O", "U", "S", "M8[s]", "m8[s]", "V8", [("x", "f4")]]
NO_NUMBER += [np.dtypes.StringDType(), ml_dtypes.int4]
NO_BOOL: list[Any] = [*NO_NUMBER[1:], *FLOATS, *INTEGERS]


def spoilt(argument: str, kinds: list[Any] = NO_NUMBER) -> list[Mistake]:
    """An array argument of every dtype and container that is not a plain array of such numbers."""

    def made_by(convert: Callable[[Array], Any]) -> Callable[[Call], Any]:
        return lambda call: convert(np.asarray(call.get(argument, np.ones(SHAPE[:-1], int))))

    def flat(array: Array) -> Array:  # as wide as SciPy wants it
        return array.astype(np.result_type(array.dtype, np.float32)).reshape(len(array), -1)

    def of_dtype(kind: Any) -> Callable[[Call], Any]:
        return made_by(lambda array: np.zeros(array.shape, kind))

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


def with_class_id(value: int, dtype: np.dtype[Any]) -> Array:
    ids = np.zeros(SHAPE[:-1], dtype)
    ids[1, 2] = value
    return ids


def out_of_range(argument: str) -> Iterator[Mistake]:
    """Class ids below 0 and from V on, in every integer dtype and byte order."""
    for dtype, order in itertools.product(INTEGERS, "<>"):
        limits = np.iinfo(dtype)
        values = {CLASSES, limits.max, limits.max - 1, limits.max // 2 + 1}
        values |= {-1, limits.min} if limits.min else set()
        for value in sorted(values):
            ids = with_class_id(value, dtype.newbyteorder(order))
            name = f"{argument}: {value} of dtype {order}{dtype}"
            yield Mistake(name, argument, IndexError, always(ids))


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
        kind = np.dtype(dtype or call["logits"].dtype)
        inside = room[: np.asarray(given).size * kind.itemsize].view(kind)
        call[argument] = inside.reshape(np.shape(given))
        call[argument][...] = given
        call["logits"] = call["logits"].copy()
        return room[: call["logits"].nbytes].view(call["logits"].dtype).reshape(SHAPE)

    return value


def beside_probabilities(value: Any) -> Callable[[Call], Any]:
    """An argument that is wrong if the targets are probabilities."""

    def change(call: Call) -> Any:
        if "label_smoothing" not in call or "merged" in call:
            return NotImplemented
        call["targets"] = np.full(SHAPE, 0.2)
        return value

    return change


def over_probabilities(dtype: Any) -> Callable[[Call], Any]:
    """An `out` whose memory is that of targets that are probabilities."""

    def value(call: Call) -> Any:
        if "label_smoothing" not in call or "merged" in call:
            return NotImplemented
        room = np.zeros(1000, np.uint8)
        kind = np.dtype(dtype or call["logits"].dtype)
        call["targets"] = room[: math.prod(SHAPE) * kind.itemsize].view(kind).reshape(SHAPE)
        call["logits"] = call["logits"].copy()
        return room[: call["logits"].nbytes].view(call["logits"].dtype).reshape(SHAPE)

    return value


def with_ids(value: int) -> Array:
    """Two class ids for each row, one of which is this in a row that is not ignored."""
    ids = np.broadcast_to(np.array([0, 3]), (2, 3, 2)).copy()
    ids[1, 2, 0] = value
    return ids


def beside_two(ids: Any) -> Callable[[Call], Any]:
    """Class ids of a teacher that knows two classes of each row."""

    def change(call: Call) -> Any:
        call["teacher_logits"] = np.full((2, 3, 2), -1.0)
        return ids

    return change


def probabilities_beside_ids(call: Call) -> str:
    beside_two(None)(call)
    call["teacher_ids"] = with_ids(1)
    return "probabilities"


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
    *out_of_range("targets"),
    *changes(
        "targets",
        TypeError,
        **{
            f"of_the_shape_of_logits_but_{np.dtype(kind)}": beside_probabilities(
                np.zeros(SHAPE, kind)
            )
            for kind in ("?", "D", "g", "O", "U")
        },
        masked_probabilities=beside_probabilities(np.ma.array(np.zeros(SHAPE))),
        probabilities_of_fewer_classes=beside_probabilities(np.zeros((2, 3, 4))),
        probabilities_of_more_classes=beside_probabilities(np.zeros((2, 3, 6))),
        probabilities_that_broadcast=beside_probabilities(np.zeros((1, 3, 5))),
        probabilities_for_one_row=beside_probabilities(np.zeros(5)),
        float_ids_of_the_rows=beside_probabilities(np.zeros((2, 3))),
        a_float=beside_probabilities(0.0),
    ),
    *changes(
        "targets", ValueError, ids_of_the_shape_of_logits=beside_probabilities(np.zeros(SHAPE, int))
    ),
    *spoilt("tokens", [*NO_NUMBER, *FLOATS]),
    *constants("tokens", TypeError, None, 0.0, [[0.0, 1.0, 2.0]] * 2),
    *constants("tokens", ValueError, 0, [0, 1, 2], [[0, 1], [2, 3], [4, 0]], []),
    *constants("tokens", ValueError, np.zeros((2, 4), int), np.zeros((2, 3, 5, 1), int)),
    *constants("tokens", ValueError, np.zeros((2, 1, 3), int)),
    *out_of_range("tokens"),
    *spoilt("weight"),
    *constants("weight", TypeError, "1", [None] * 5, [True] * 5, [1j] * 5, {1: 2.0}),
    *constants("weight", ValueError, 1.0, [], [1.0], np.ones(4), np.ones(6), np.ones((1, 5))),
    *constants("weight", ValueError, np.ones(SHAPE[:-1]), np.ones(SHAPE), [[1.0], [1.0, 2.0]]),
    *spoilt("sample_weight"),
    *constants("sample_weight", TypeError, "1", [[None] * 3] * 2, [[True] * 3] * 2, {1: 2.0}),
    *constants("sample_weight", ValueError, 1.0, [], [1.0], np.ones(6), np.ones(3), np.ones(5)),
    *constants("sample_weight", ValueError, np.ones((3, 2)), np.ones((1, 3)), np.ones((2, 3, 1))),
    *constants("sample_weight", ValueError, np.ones(SHAPE)),
    *constants("label_smoothing", ValueError, -0.1, -1e-300, 1.1, 2, np.float32(1.5)),
    *constants("label_smoothing", ValueError, NAN, INF, -INF, 10**400),
    *constants("label_smoothing", TypeError, *NO_NUMBERS),
    *constants("z_loss", ValueError, -1, -1e-300, np.float16(-1), NAN, INF, -INF, 10**400),
    *constants("z_loss", TypeError, *NO_NUMBERS),
    *constants("softcap", ValueError, 0, 0.0, -1, NAN, INF, -INF, np.float32(0), 10**400),
    *constants("softcap", TypeError, *(value for value in NO_NUMBERS if value is not None)),
    *constants("valid_classes", ValueError, 0, -1, CLASSES + 1, np.int8(-3), 2**31, 2**63),
    *constants("valid_classes", ValueError, 2**70, -(2**70)),
    *constants("valid_classes", TypeError, True, np.True_, "3", 3.0, NAN, 1j, [3], np.ones(1), ...),
    *spoilt("class_mask", NO_BOOL),
    *constants("class_mask", TypeError, 1, 0.0, "yes", "True", [], [1, 1, 0, 1, 1], [1.0] * 5),
    *constants("class_mask", TypeError, [True, None, True, True, True], np.ones(SHAPE, "u1")),
    *constants("class_mask", ValueError, np.ones(4, bool), np.ones(6, bool), np.ones(0, bool)),
    *constants("class_mask", ValueError, np.ones((2, 5), bool), np.ones((3, 2, 5), bool)),
    *constants("class_mask", ValueError, np.ones((1, *SHAPE), bool), [[True], [True, False]]),
    *constants("top_k", ValueError, 0, -1, [1, 0], (5, -(2**70))),
    *constants("top_k", TypeError, None, True, 1.0, "1", [1.0], [None], 1j, ...),
    *spoilt("teacher_logits"),
    *constants("teacher_logits", TypeError, None, "1", 1j),
    *constants("teacher_logits", ValueError, 1.0, [1.0], np.ones(5), np.ones((2, 3, 6))),
    *constants("teacher_logits", ValueError, np.ones((2, 5, 3)), [[1.0, 2.0], [3.0]]),
    *changes(
        "teacher_ids",
        IndexError,
        beyond=beside_two(with_ids(5)),
        negative=beside_two(with_ids(-1)),
        far_beyond=beside_two(with_ids(2**62)),
    ),
    *changes(
        "teacher_ids",
        ValueError,
        twice=beside_two(np.ones((2, 3, 2), int)),
        of_the_rows=beside_two(np.ones((2, 3), int)),
        of_fewer_rows=beside_two(np.ones((2, 2, 2), int)),
        a_number=beside_two(3),
        one_more_axis=beside_two(np.ones((2, 3, 2, 1), int)),
    ),
    *changes(
        "teacher_ids",
        TypeError,
        floats=beside_two(np.ones((2, 3, 2))),
        bools=beside_two(np.ones((2, 3, 2), bool)),
        objects=beside_two(np.ones((2, 3, 2), object)),
        text=beside_two("ids"),
    ),
    *constants("teacher", ValueError, "Logits", "", None, 0, b"logits", ["logits"]),
    *changes("teacher", ValueError, probabilities_beside_ids=probabilities_beside_ids),
    *constants("direction", ValueError, "Forward", "both", "", None, 0, True, b"forward"),
    *constants("beta", ValueError, -0.1, -1e-300, 1.1, 2, NAN, INF, -INF, 10**400),
    *constants("beta", TypeError, *NO_NUMBERS),
    *spoilt("ignore_rows", NO_BOOL),
    *constants("ignore_rows", TypeError, 1, 0.0, "yes", [], [[1, 0, 1]] * 2),
    *constants("ignore_rows", ValueError, True, np.ones(3, bool), np.ones((3, 2), bool)),
    *constants("ignore_rows", ValueError, np.ones(SHAPE, bool), np.ones((1, 3), bool)),
    *constants("class_offset", ValueError, -1, -(2**70), 2**53, 2**70),
    *constants("class_offset", TypeError, None, "0", 1.0, True, [0], 1j),
    *constants("parts", TypeError, None, 1, [1], [None], ["part"], [np.ones(3)], "part"),
    *constants("parts", ValueError, [], ()),
    *constants("merged", TypeError, None, 1, [1], "merged", np.ones((1, 2, 3))),
    *changes(
        "merged",
        ValueError,
        no_piece=lambda call: call["merged"][:0],
        other_rows=lambda call: call["merged"][:, :1] if "logits" in call else NotImplemented,
    ),
    *spoilt("hidden"),
    *constants("hidden", ValueError, 1.0, np.float32(1), [[1.0], [1.0, 2.0]]),
    *constants("hidden", ValueError, np.ones((2, 3, 4)), np.ones((2, 3, 0))),
    *spoilt("linear_weight"),
    *constants("linear_weight", ValueError, 1.0, np.ones(5), np.ones((5, 4)), np.ones((0, 5))),
    *constants("linear_weight", ValueError, np.ones((1, 5, 5)), [[1.0], [1.0, 2.0]]),
    *spoilt("linear_bias"),
    *constants("linear_bias", ValueError, 1.0, np.ones(4), np.ones((1, 5)), np.ones((5, 1)), []),
    *constants("grads", TypeError, None, 1, "hidden", True, [1], [None], [b"hidden"], [["hidden"]]),
    *constants("grads", ValueError, ["weight"], [""], ("hidden", "Hidden"), {"bias": 1}),
    *constants("accumulate", TypeError, None, 1, 0.0, "yes", [], np.True_),
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
    *changes(
        "ignore_index",
        ValueError,
        beside_probabilities=beside_probabilities(3),
        several_beside_probabilities=beside_probabilities([-100, 1]),
    ),
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
        memory_of_teacher_logits=over("teacher_logits", np.float64),
        memory_of_teacher_logits_alike=over("teacher_logits", None),
        memory_of_targets=over("targets", np.int64),
        memory_of_16_bit_targets=over("targets", np.int16),
        memory_of_offsets=over("offsets", np.int64),
        memory_of_grad_output=over("grad_output", np.float64),
        memory_of_weight=over("weight", np.float64),
        memory_of_16_bit_weight=over("weight", np.float16),
        memory_of_sample_weight=over("sample_weight", np.float32),
        memory_of_class_mask=over("class_mask", np.bool_),
        memory_of_probabilities=over_probabilities(np.float64),
        memory_of_probabilities_alike=over_probabilities(None),
    ),
    *spoilt("grad_output"),
    *constants("grad_output", TypeError, True, "1", 1j, [None]),
    *constants("grad_output", ValueError, [1.0], np.ones((3, 2)), np.ones(SHAPE), [], np.ones(6)),
    *changes("grad_output", ValueError, per_row=per_row_only(np.ones(SHAPE[:-1]))),
]

"""Calls that are right, of every public function: what the tests of bad input then spoil."""

import importlib
import inspect
import itertools
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import softxent as sx
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = dict[str, Any]

FLOATS = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
INTEGERS = [np.dtype(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
REDUCTIONS = ["mean", "sum", "none", "sequence_mean"]
NOT_MATHEMATICS = {"get_threads", "release_memory", "set_threads", "show_runtime"}
PARAMETERS = {
    name: list(inspect.signature(getattr(sx, name)).parameters)
    for name in sx.__all__
    if name not in NOT_MATHEMATICS and inspect.isfunction(getattr(sx, name))
}
SHAPE, CLASSES = (2, 3, 5), 5
LOGITS = ("logits", "student_logits", "logits_shard")
# To them a class id from V on is one of another shard.
SHARDS = ("partial_cross_entropy", "shard_grad")
sparse = importlib.import_module("scipy.sparse")


# Calls that are right, and what they may write to.


def right_call(name: str, dtype: np.dtype[Any], reduction: str, in_place: bool) -> Call:
    """The arguments of a call of that function, all of its kind and shape."""
    logits = np.linspace(-2, 2, math.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    everything: Call = {
        **dict.fromkeys(LOGITS, logits),
        "teacher_logits": np.linspace(3, -1, math.prod(SHAPE)).reshape(SHAPE).astype(dtype),
        "direction": "reverse",
        "beta": 0.25,
        "teacher": "logits",
        "ignore_rows": np.array([[True, False, False], [False, False, False]]),
        "class_offset": 0,
        "hidden": logits,
        "linear_weight": np.linspace(1, -1, CLASSES**2).reshape(CLASSES, CLASSES).astype(dtype),
        "linear_bias": np.linspace(-1, 1, CLASSES).astype(dtype),
        "grads": ["linear_bias", "hidden", "linear_weight"],
        "accumulate": False,
        "targets": np.array([[0, 4, 2], [3, -100, 1]]),
        "tokens": np.array([[0, 4, 2], [3, -100, 1]]),
        "weight": np.array([1.0, 0.5, 2.0, 1.0, 0.0]),
        "sample_weight": np.array([[1.0, 0.0, 2.0], [1.0, 1.0, -0.5]]),
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "softcap": 30.0,
        "valid_classes": CLASSES,
        "class_mask": np.array([True, True, True, False, True]),
        "top_k": (1, 3),
        "reduction": reduction,
        "out": outputs(name, logits if in_place else np.full(SHAPE, 7, dtype), dtype),
        "offsets": [0, 2, 6] if reduction == "sequence_mean" else None,
        "normalizer": 3.0 if reduction == "mean" else None,
    }
    if {"merged", "parts"} & set(PARAMETERS[name]):
        of_shard = {
            a: everything[a] for a in PARAMETERS["partial_cross_entropy"] if a in everything
        }
        everything["merged"] = sx.partial_cross_entropy(**of_shard)
        everything["parts"] = [everything["merged"]]
    return {
        argument: everything[argument] for argument in PARAMETERS[name] if argument in everything
    }


def logits_of(name: str) -> str | None:
    """What a function calls its logits, if it takes any."""
    return next((argument for argument in PARAMETERS[name] if argument in LOGITS), None)


def outputs(name: str, first: Any, dtype: np.dtype[Any]) -> Any:
    """What `out` has to be: that array, or several of which it is the first."""
    if name == "softmax_grad_hess":
        return first, np.full(SHAPE, 7, dtype)
    if name == "linear_cross_entropy_with_grad":
        return first, np.full((CLASSES, CLASSES), 7, dtype), np.full(CLASSES, 7, dtype)
    return first


def right_calls(name: str) -> Iterator[Call]:
    reductions = REDUCTIONS if "reduction" in PARAMETERS[name] else ["none"]
    places = [False, True] if "out" in PARAMETERS[name] and logits_of(name) else [False]
    for dtype, reduction, in_place in itertools.product(FLOATS, reductions, places):
        yield right_call(name, dtype, reduction, in_place)


def memory(call: Call) -> list[bytes]:
    """The bytes of every array of a call, whatever lies in between its elements."""

    def owner(array: Array) -> Array:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    values = [
        part
        for value in call.values()
        for part in (value if isinstance(value, tuple) else (value,))
    ]
    return [
        owner(value).view(np.ndarray).tobytes()
        for value in values
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OT"
    ]

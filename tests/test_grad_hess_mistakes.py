"""Bad input of `softmax_grad_hess`: the exception, what its message names, and nothing written."""

from typing import Any

import numpy as np
import pytest
import softxent as sx
from conftest import LAYOUTS

LOGITS = np.zeros((2, 3))
MEMORY = np.zeros(12)
READ_ONLY = LAYOUTS["read-only"](np.zeros((2, 3)))


def pair(first: Any = None, second: Any = None) -> tuple[Any, Any]:
    new = np.full((2, 3), 5.0), np.full((2, 3), 5.0)
    return (new[0] if first is None else first, new[1] if second is None else second)


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "probabilities": ({"targets": np.full((2, 3), 1 / 3)}, TypeError, r"targets: .*integer"),
    "floats": ({"targets": [0.0, 1.0]}, TypeError, r"targets: .*astype"),
    "bools": ({"targets": [True, False]}, TypeError, r"targets: .*mask"),
    "too few targets": ({"targets": [0]}, ValueError, r"targets: .*\(2,\).*\(1,\)"),
    "a class too many": ({"targets": [0, 3]}, IndexError, r"targets\[1\] = 3 is outside \[0, 3\)"),
    "a negative class": ({"targets": [-1, 0]}, IndexError, r"targets\[0\] = -1"),
    "an axis too many": ({"axis": 2}, np.exceptions.AxisError, "axis 2"),
    "an axis that is none": ({"axis": 1.5}, TypeError, "axis"),
    "no logits": ({"logits": "ab"}, TypeError, "logits"),
    "no axis at all": ({"logits": 1.0, "targets": 0}, ValueError, "logits"),
    "no classes": ({"logits": np.zeros((2, 0))}, ValueError, r"logits: .*one class"),
    "weights of other classes": ({"weight": [1.0, 2.0]}, ValueError, r"weight: .*\(3,\).*\(2,\)"),
    "complex weights": ({"weight": [1j, 1, 1]}, TypeError, "weight"),
    "bool weights": ({"weight": [True, True, True]}, TypeError, "weight"),
    "weights of other rows": ({"sample_weight": [1.0]}, ValueError, r"sample_weight: .*\(2,\)"),
    "one weight for all rows": ({"sample_weight": 1.0}, ValueError, "sample_weight"),
    "words as weights": ({"sample_weight": ["a", "b"]}, TypeError, "sample_weight"),
    "a word to ignore": ({"ignore_index": "a"}, TypeError, "ignore_index"),
    "no threads": ({"threads": 0}, ValueError, "threads"),
    "half a thread": ({"threads": 0.5}, TypeError, "threads"),
    "a single out": ({"out": np.zeros((2, 3))}, TypeError, r"out: expected a pair"),
    "an array of two": ({"out": np.zeros((2, 2, 3))}, TypeError, r"out: expected a pair"),
    "one of a pair": ({"out": (np.zeros((2, 3)),)}, ValueError, r"out: expected a pair.*got 1"),
    "three of a pair": ({"out": (np.zeros((2, 3)),) * 3}, ValueError, "out: expected a pair"),
    "half a pair": ({"out": (np.zeros((2, 3)), None)}, TypeError, r"out\[1\]: .*NoneType"),
    "a list as out": ({"out": pair([[0.0] * 3] * 2)}, TypeError, r"out\[0\]: .*list"),
    "a narrow grad": (
        {"out": pair(np.zeros((2, 3), np.float32))},
        TypeError,
        r"out\[0\]: .*float64",
    ),
    "a narrow hess": (
        {"out": pair(None, np.zeros((2, 3), "f4"))},
        TypeError,
        r"out\[1\]: .*float64",
    ),
    "a swapped hess": ({"out": pair(None, np.zeros((2, 3), ">f8"))}, TypeError, r"out\[1\]"),
    "a grad of another shape": (
        {"out": pair(np.zeros((3, 2)))},
        ValueError,
        r"out\[0\]: .*\(3, 2\)",
    ),
    "a hess of another shape": (
        {"out": pair(None, np.zeros(3))},
        ValueError,
        r"out\[1\]: .*\(3,\)",
    ),
    "a read-only hess": ({"out": pair(None, READ_ONLY)}, ValueError, r"out\[1\]: .*read-only"),
    "a hess that is one element": (
        {"out": pair(None, np.lib.stride_tricks.as_strided(MEMORY, (2, 3), (0, 0)))},
        ValueError,
        r"out\[1\]: .*each element",
    ),
    "twice the same": ({"out": (LOGITS, LOGITS)}, ValueError, r"out: .*in common"),
    "two that share a row": (
        {"out": (MEMORY[:6].reshape(2, 3), MEMORY[3:9].reshape(2, 3))},
        ValueError,
        r"out: .*in common",
    ),
    "a hess that shares with the logits": (
        {"logits": MEMORY[:6].reshape(2, 3), "out": pair(None, MEMORY[3:9].reshape(2, 3))},
        ValueError,
        r"out\[1\]: .*logits",
    ),
    "a hess that is the weights": (
        {"weight": MEMORY[:3], "out": pair(None, MEMORY[:6].reshape(2, 3))},
        ValueError,
        r"out\[1\]: .*input",
    ),
    "a grad that is the sample weights": (
        {"sample_weight": MEMORY[:2], "out": pair(MEMORY[:6].reshape(2, 3))},
        ValueError,
        r"out\[0\]: .*input",
    ),
    "a hess that is the targets": (
        {"targets": MEMORY[:2].view(np.int64), "out": pair(None, MEMORY[:6].reshape(2, 3))},
        ValueError,
        r"out\[1\]: .*input",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_argument_and_nothing_is_written(mistake: str) -> None:
    given, exception, message = MISTAKES[mistake]
    out = given.get("out", pair())
    arrays = [array for array in out if isinstance(array, np.ndarray)]
    before = [array.copy() for array in arrays]
    arguments: dict[str, Any] = {"logits": LOGITS, "targets": [0, 1], "out": out, **given}
    with pytest.raises(exception, match=message):
        sx.softmax_grad_hess(arguments.pop("logits"), arguments.pop("targets"), **arguments)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)

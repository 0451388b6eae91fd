"""What the package says of bad input, word for word.

A message names the argument, what was wanted and what came. That every kind of bad input is refused
is for `test_inputs` to test.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import softxent as sx
from numpy.exceptions import AxisError
from numpy.typing import NDArray

sparse = importlib.import_module("scipy.sparse")

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
        lambda: sx.cross_entropy(np.zeros((2, 3, 5)), [[0, 1, 2], [3, 4, -1]]),
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
        "targets: expected an integer dtype, not a mask, or probabilities, got bool",
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
        "targets: expected class ids of an integer dtype (use .astype(np.int64)), or probabilities "
        "of shape (4, 5), got float64 of shape (4,)",
        TypeError,
        lambda: sx.cross_entropy(L, Y.astype(float)),
    ),
    (
        "ignore_index: expected None with probability targets (use sample_weight=0), got class ids",
        ValueError,
        lambda: sx.cross_entropy(L, L, ignore_index=3),
    ),
    (
        "weight: expected shape (5,) to match logits (4, 5), got (4,)",
        ValueError,
        lambda: sx.cross_entropy(L, Y, weight=np.ones(4)),
    ),
    (
        "sample_weight: expected shape (4,) to match logits (4, 5), got (5,)",
        ValueError,
        lambda: sx.cross_entropy(L, Y, sample_weight=np.ones(5)),
    ),
    (
        "weight: expected numbers (use .astype(np.float32)), got bool",
        TypeError,
        lambda: sx.cross_entropy(L, Y, weight=np.ones(5, bool)),
    ),
    (
        "label_smoothing: expected a number from 0 to 1, got 1.5",
        ValueError,
        lambda: sx.cross_entropy(L, Y, label_smoothing=1.5),
    ),
    (
        "z_loss: expected a finite number >= 0, got -1",
        ValueError,
        lambda: sx.cross_entropy(L, Y, z_loss=-1.0),
    ),
    (
        "softcap: expected a positive finite number, got 0",
        ValueError,
        lambda: sx.softmax(L, softcap=0.0),
    ),
    (
        "valid_classes: expected a number of classes from 1 to 5, got 6",
        ValueError,
        lambda: sx.softmax(L, valid_classes=6),
    ),
    (
        "class_mask: expected shape (5,), or one that broadcasts to the (4, 5) of logits, got (4,)",
        ValueError,
        lambda: sx.softmax(L, class_mask=Y > 0),
    ),
    (
        "class_mask: expected a bool dtype, True for the classes that take part, got int64",
        TypeError,
        lambda: sx.softmax(L, class_mask=np.ones(5, int)),
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
        'reduction: expected another, or offsets, for rows of shape (4,), got "sequence_mean"',
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


def as_matrix(array: NDArray[Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(array)


def test_a_type_error_says_what_to_do_instead() -> None:
    for mistake in (
        np.ma.array(L),
        sparse.csr_array(L),
        L.astype("F"),
        L > 0,
        as_matrix(L),
    ):
        with pytest.raises(TypeError, match=r"\(.+\)"):
            sx.softmax(mistake)
    with pytest.raises(TypeError, match="astype"):
        sx.cross_entropy(L, Y.astype(float))

"""Bad input to the reference's softmax and cross-entropy: the message names the argument.

Each case is what is wrong, the exception, and the beginning of its message. Evaluations, shards and
divergences have theirs in their own files.
"""

import math
from typing import Any

import pytest
from softxent import reference

INF, NAN = math.inf, math.nan
ALL = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad"]
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
TO_MATCH = "targets: expected shape (2,) to match logits (2, 3), got "
NUMBERS = "logits: expected numbers or lists of them, got "


def call(name: str, logits: Any, targets: Any, **options: Any) -> Any:
    """Any of the functions, those of logits alone without the targets."""
    arguments = (logits, targets) if name.startswith("cross_entropy") else (logits,)
    return getattr(reference, name)(*arguments, **options)


# Arrays, and the options of a plain loss.

BAD_ARRAYS: list[tuple[Any, Any, type[Exception], str]] = [
    (ROWS, [0, 3], IndexError, "targets[1] = 3 is outside [0, 3)"),
    (ROWS, [-1, 0], IndexError, "targets[0] = -1 is outside [0, 3)"),
    (ROWS, [-100, 9], IndexError, "targets[1] = 9 is outside [0, 3)"),
    ([ROWS], [[0, 50257]], IndexError, "targets[0, 1] = 50257 is outside [0, 3)"),
    ([1.0, 2.0], 2, IndexError, "targets = 2 is outside [0, 2)"),
    (ROWS, [0, 1, 2], ValueError, TO_MATCH + "(3,)"),
    (ROWS, [[0, 1]], ValueError, TO_MATCH + "(1, 2)"),
    (ROWS, 0, ValueError, TO_MATCH + "()"),
    (ROWS, [0.0, 1.0], TypeError, "targets: expected integers, got float"),
    (ROWS, [True, False], TypeError, "targets: expected integers, got bool"),
    (ROWS, ["0", "1"], TypeError, "targets: expected integers, got str"),
    (1.0, 0, ValueError, "logits: expected at least one axis, got a number"),
    ([[1.0], [1.0, 2.0]], [0, 0], ValueError, "logits: expected one shape side by side, got ["),
    (["a", "b"], 0, TypeError, NUMBERS + "str"),
    ([True, False], 0, TypeError, NUMBERS + "bool"),
    ([1j], 0, TypeError, NUMBERS + "complex"),
    ([None], 0, TypeError, NUMBERS + "NoneType"),
]


@pytest.mark.parametrize(("logits", "targets", "error", "message"), BAD_ARRAYS)
def test_bad_arrays_are_named(
    logits: Any, targets: Any, error: type[Exception], message: str
) -> None:
    for reduction in ("mean", "none"):
        with pytest.raises(error) as caught:
            reference.cross_entropy_with_grad(logits, targets, reduction=reduction)
        assert str(caught.value).startswith(message)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"axis": 2}, ValueError, "axis: expected -2 to 1 for logits (2, 3), got 2"),
    ({"axis": -3}, IndexError, "axis: expected -2 to 1 for logits (2, 3), got -3"),
    ({"axis": 0}, ValueError, "targets: expected shape (3,) to match logits (2, 3), got (2,)"),
    ({"ignore_index": 1.5}, TypeError, "ignore_index: expected integers, got float"),
    ({"ignore_index": True}, TypeError, "ignore_index: expected integers, got bool"),
    ({"ignore_index": "1"}, TypeError, "ignore_index: expected integers, got str"),
    ({"ignore_index": [None]}, TypeError, "ignore_index: expected integers, got NoneType"),
    ({"temperature": "1"}, TypeError, "temperature: expected numbers"),
    ({"reduction": "avg"}, ValueError, "reduction: expected one of ('mean', "),
    ({"on_empty": "zeros"}, ValueError, "on_empty: expected one of ('nan', "),
    ({"reduction": "sequence_mean"}, ValueError, "reduction: expected logits of three axes, or"),
    ({"offsets": [0, 2]}, ValueError, "offsets: expected None with 'mean', got [0, 2]"),
    ({"reduction": "sum", "normalizer": 2}, ValueError, "normalizer: expected None with 'sum'"),
    ({"grad_output": [1.0, 1.0]}, ValueError, "grad_output: expected a number or, with 'none'"),
    ({"grad_output": [1.0], "reduction": "none"}, ValueError, "grad_output: expected a number"),
    ({"grad_output": "1"}, TypeError, "grad_output: expected numbers"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        reference.cross_entropy_with_grad(ROWS, [0, 1], **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, INF, NAN])
@pytest.mark.parametrize("name", ["temperature", "normalizer"])
def test_divisors_are_positive_and_finite(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name}: expected a finite number above 0, got {value}"):
        reference.cross_entropy(ROWS, [0, 1], **options)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_functions_of_logits_alone_check_their_options(name: str) -> None:
    function = getattr(reference, name)
    with pytest.raises(ValueError, match=r"^temperature: expected a finite number above 0"):
        function(ROWS, temperature=0.0)
    for kind in (ValueError, IndexError):
        with pytest.raises(kind, match=r"^axis: expected -2 to 1"):
            function(ROWS, 2)


@pytest.mark.parametrize(
    ("offsets", "error", "wanted"),
    [
        ([], ValueError, r"shape \(S \+ 1,\), got \(0,\)"),
        (2, ValueError, r"shape \(S \+ 1,\), got \(\)"),
        ([[0, 2]], ValueError, r"shape \(S \+ 1,\), got \(1, 2\)"),
        ([0], ValueError, r"to rise from 0 to 2, got \[0\]"),
        ([1, 2], ValueError, r"to rise from 0 to 2, got \[1, 2\]"),
        ([0, 1], ValueError, r"to rise from 0 to 2, got \[0, 1\]"),
        ([0, 2, 1, 2], ValueError, r"to rise from 0 to 2, got \[0, 2, 1, 2\]"),
        ([0.0, 2.0], TypeError, r"integers, got float"),
    ],
)
def test_offsets_cut_all_rows(offsets: Any, error: type[Exception], wanted: str) -> None:
    with pytest.raises(error, match=f"^offsets: expected {wanted}$"):
        reference.cross_entropy(ROWS, [0, 1], reduction="sequence_mean", offsets=offsets)


# The options that transform logits, and the terms of a loss.

BAD_TRANSFORMATIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"softcap": "1"}, TypeError, "softcap: expected numbers"),
    ({"softcap": 0}, ValueError, "softcap: expected a finite number above 0, got 0"),
    ({"softcap": -1.0}, ValueError, "softcap: expected a finite number above 0"),
    ({"softcap": INF}, ValueError, "softcap: expected a finite number above 0"),
    ({"softcap": NAN}, ValueError, "softcap: expected a finite number above 0"),
    ({"valid_classes": 0}, ValueError, "valid_classes: expected 1 to 3, got 0"),
    ({"valid_classes": 4}, ValueError, "valid_classes: expected 1 to 3, got 4"),
    ({"valid_classes": 2.0}, TypeError, "valid_classes: expected integers, got float"),
    ({"valid_classes": True}, TypeError, "valid_classes: expected integers, got bool"),
    ({"class_mask": [1, 0, 1]}, TypeError, "class_mask: expected True or False, got int"),
    ({"class_mask": [True, False]}, ValueError, "class_mask: expected shape (3,) or one that"),
    ({"class_mask": [[True] * 3] * 3}, ValueError, "class_mask: expected shape (3,) or one that"),
    ({"class_mask": [[[True] * 3]]}, ValueError, "class_mask: expected shape (3,) or one that"),
    ({"class_mask": [[True], [True, False]]}, ValueError, "class_mask: expected one shape side"),
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("options", "error", "message"), BAD_TRANSFORMATIONS)
def test_bad_transformations_are_named(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        call(name, ROWS, [0, 1], **options)
    assert str(caught.value).startswith(message)


BAD_LOSSES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"weight": [1.0, 1.0]}, ValueError, "weight: expected shape (3,) to match logits (2, 3), got"),
    ({"weight": 1.0}, ValueError, "weight: expected shape (3,) to match logits (2, 3), got ()"),
    ({"weight": [True] * 3}, TypeError, "weight: expected numbers or lists of them, got bool"),
    ({"sample_weight": 1.0}, ValueError, "sample_weight: expected shape (2,) to match logits"),
    ({"sample_weight": [1.0]}, ValueError, "sample_weight: expected shape (2,) to match logits"),
    ({"sample_weight": ["1", "2"]}, TypeError, "sample_weight: expected numbers"),
    ({"label_smoothing": -0.1}, ValueError, "label_smoothing: expected a number from 0 to 1"),
    ({"label_smoothing": 1.1}, ValueError, "label_smoothing: expected a number from 0 to 1"),
    ({"label_smoothing": NAN}, ValueError, "label_smoothing: expected a number from 0 to 1"),
    ({"label_smoothing": None}, TypeError, "label_smoothing: expected numbers"),
    ({"z_loss": -1e-9}, ValueError, "z_loss: expected a finite number from 0, got -1e-09"),
    ({"z_loss": INF}, ValueError, "z_loss: expected a finite number from 0, got inf"),
    ({"z_loss": NAN}, ValueError, "z_loss: expected a finite number from 0, got nan"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_LOSSES)
def test_bad_losses_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        reference.cross_entropy_with_grad(ROWS, [0, 1], **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        ([0.5, 0.5], {}, TypeError, "targets: expected integers, got float; probabilities for"),
        ([[0.5, 0.5]] * 2, {}, TypeError, "targets: expected integers, got float; probabilities"),
        (0.5, {}, TypeError, "targets: expected integers, got float"),
        ([[1, 0, 0], [0, 0, 1]], {}, ValueError, "targets: expected shape (2,) to match logits"),
        (ROWS, {"ignore_index": 1}, ValueError, "ignore_index: expected None with probabilities"),
        (ROWS, {"ignore_index": "no"}, TypeError, "ignore_index: expected integers, got str"),
    ],
)
def test_the_type_of_targets_decides_not_their_shape(
    targets: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        reference.cross_entropy(ROWS, targets, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("ignore_index", [-100, None, ()])
def test_probabilities_leave_ignore_index_alone(ignore_index: Any) -> None:
    ones = [[1.0, 0.0, 0.0]] * 2
    loss = reference.cross_entropy(ROWS, ones, ignore_index=ignore_index)
    assert loss == reference.cross_entropy(ROWS, [0, 0])

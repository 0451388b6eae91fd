"""Shards of the classes in the reference: together they are the cross-entropy of whole rows.

`test_reference_losses.py` holds what that is; here it is cut apart, at every place, and put together
in any order. Nothing here knows the compiled core.
"""

import functools
import itertools
import math
import pickle
import random
import re
import sys
from collections.abc import Callable
from typing import Any

import common
import mpmath
import pytest
from softxent import reference

INF, NAN = math.inf, math.nan
LN2 = 0.6931471805599453
EPSILON = sys.float_info.epsilon
# By whom an option is needed.
OF_PIECES = ("temperature", "softcap", "ignore_index")
OF_CLASSES = ("weight", "class_mask")
OF_LOSS = ("sample_weight", "label_smoothing", "z_loss", "reduction", "offsets", "normalizer")


near = functools.partial(common.near, tolerance=4e-15)


def in_shards(
    logits: list[list[float]], targets: list[int], cuts: list[int], **options: Any
) -> tuple[Any, list[list[float]]]:
    """Loss and gradient of rows whose classes are cut apart."""
    grad_output = options.pop("grad_output", None)
    of_loss = {key: value for key, value in options.items() if key in OF_LOSS}
    pieces, calls = [], []
    for start, end in itertools.pairwise([0, *cuts, len(logits[0])]):
        of_shard = {key: value for key, value in options.items() if key in OF_PIECES}
        for key in OF_CLASSES:
            if key in options:
                of_shard[key] = options[key][start:end]
        if "valid_classes" in options:
            valid = options["valid_classes"] - start
            if valid <= 0:
                of_shard["class_mask"] = [False] * (end - start)
            elif valid < end - start:
                of_shard["valid_classes"] = valid
        shard = [row[start:end] for row in logits]
        of_shard["class_offset"] = start
        pieces.append(reference.partial_cross_entropy(shard, targets, **of_shard))
        calls.append((shard, of_shard))
    random.Random(len(cuts)).shuffle(pieces)
    merged = reference.merge_partials([pickle.loads(pickle.dumps(piece)) for piece in pieces])
    loss = reference.finish_cross_entropy(merged, **of_loss)
    grads = [
        reference.shard_grad(shard, targets, merged, **of_shard, **of_loss, grad_output=grad_output)
        for shard, of_shard in calls
    ]
    return loss, [list(itertools.chain(*rows)) for rows in zip(*grads, strict=True)]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"softcap": 4.0, "temperature": 1.7},
    {"weight": [0.5, 2.0, 1.0, 0.0, 3.0, 1.5]},
    {"class_mask": [True, False, True, True, True, False], "reduction": "none"},
    {"valid_classes": 5, "reduction": "sum", "grad_output": -2.0},
    {"valid_classes": 2, "weight": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]},
    {"label_smoothing": 0.2},
    {"label_smoothing": 1.0, "weight": [0.5, 2.0, 1.0, 0.0, 3.0, 1.5]},
    {"z_loss": 1e-2, "normalizer": 7.0},
    {"sample_weight": [1.0, 0.0, -2.0, 0.5], "reduction": "sequence_mean", "offsets": [0, 1, 4]},
    {"ignore_index": (4, 1), "reduction": "none", "grad_output": [1.0, 2.0, 3.0, 4.0]},
    {
        "temperature": 0.9,
        "softcap": 30.0,
        "weight": [0.5, 2.0, 1.0, 0.0, 3.0, 1.5],
        "class_mask": [False, True, True, True, True, True],
        "valid_classes": 5,
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "sample_weight": [1.0, 2.0, 0.0, 0.5],
    },
]


@pytest.mark.parametrize("cuts", [[], [3], [1, 5], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_shards_give_the_loss_and_gradient_of_the_whole(
    options: dict[str, Any], cuts: list[int], scale: float
) -> None:
    generator = random.Random(scale)
    logits = [[generator.gauss(0.0, scale) for _ in range(6)] for _ in range(4)]
    targets = [4, -100, 0, 1] if "ignore_index" not in options else [4, 2, 0, 1]
    loss, grad = in_shards(logits, targets, cuts, **options)
    whole, whole_grad = reference.cross_entropy_with_grad(logits, targets, **options)
    assert loss == near(whole, tolerance=1e-13)
    for row, whole_row in zip(grad, whole_grad, strict=True):
        # A difference of terms that may all but cancel.
        largest = max(map(abs, whole_row))
        assert row == pytest.approx(whole_row, rel=1e-13, abs=1e-14 * largest)


def special_rows() -> list[tuple[list[float], int]]:
    """Rows of four, with a target: everything that is not a number, in either half."""
    values = [0.0, 1.0, NAN, INF, -INF]
    rows = list(itertools.product(values, repeat=4))
    return [(list(row), target) for row in rows for target in (0, 3)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"softcap": 2.0},
        {"class_mask": [True, False, False, True]},
        {"class_mask": [False, False, True, True]},
        {"class_mask": [False] * 4},
        {"class_mask": [False, False, True, True], "softcap": 2.0},
        {"class_mask": [False] * 4, "softcap": 2.0},
        {"label_smoothing": 0.5, "weight": [1.0, 0.0, 2.0, 1.0]},
        {"label_smoothing": 0.5, "weight": [1.0, -1.0, 2.0, 1.0], "z_loss": 0.1},
    ],
)
def test_special_values_do_in_shards_what_they_do_in_the_whole(options: dict[str, Any]) -> None:
    rows, targets = map(list, zip(*special_rows(), strict=True))
    whole, whole_grad = reference.cross_entropy_with_grad(
        rows, targets, reduction="none", **options
    )
    for cuts in ([2], [1, 3]):
        loss, grad = in_shards(rows, targets, cuts, reduction="none", **options)
        assert loss == near(whole)
        assert grad == [near(row) for row in whole_grad]


def test_confident_row_keeps_its_digits_in_shards() -> None:
    row = [31.0, 0.5, 1.0, -2.0]
    with mpmath.workdps(60):
        total = mpmath.fsum(mpmath.exp(mpmath.mpf(x) - 31) for x in row[1:])
        loss, slope = float(mpmath.log1p(total)), float(-total / (1 + total))
    for cuts in ([1], [2], [1, 2, 3]):
        got, grad = in_shards([row], [0], cuts)
        assert got == near(loss, tolerance=32 * EPSILON)
        assert grad[0][0] == near(slope, tolerance=64 * EPSILON)
    # Shards of huge logits, whose difference counts.
    loss, grad = in_shards([[1e15, 1e15 + 1]], [0], [1])
    p = math.e / (1 + math.e)
    assert (loss, grad) == (near(math.log1p(math.e)), [near([-p, p])])


def test_pieces_are_merged_in_any_order_and_in_any_groups() -> None:
    logits, targets = [[0.3, -1.0, 2.0, 7.0], [0.0, 0.1, 0.2, 0.3]], [2, 0]
    parts = [
        reference.partial_cross_entropy([[row[i]] for row in logits], targets, class_offset=i)
        for i in range(4)
    ]
    merged = reference.merge_partials(parts)
    for order in itertools.permutations(parts):
        assert reference.merge_partials(order) == merged
    halves = [reference.merge_partials(parts[2:]), reference.merge_partials(parts[:2])]
    assert reference.merge_partials(halves) == merged
    assert reference.merge_partials([merged]) == merged


def test_one_shard_is_a_merge_of_its_own() -> None:
    part = reference.partial_cross_entropy([[0.0, 0.0]], [5], class_offset=4)
    assert len(part) == 1
    assert reference.finish_cross_entropy(part) == near(LN2)
    assert reference.shard_grad([[0.0, 0.0]], [5], part, class_offset=4) == [near([0.5, -0.5])]


def test_rows_of_any_axis() -> None:
    cube = [[[1.0, 2.0], [0.0, 5.0], [1.0, -1.0]], [[3.0, 3.0], [2.0, 4.0], [1.0, 0.0]]]
    targets = [[2, 1], [0, -100]]
    first, second = [[b[0]] for b in cube], [b[1:] for b in cube]
    parts = [
        reference.partial_cross_entropy(second, targets, axis=1, class_offset=1),
        reference.partial_cross_entropy(first, targets, axis=1, class_offset=0),
    ]
    merged = reference.merge_partials(parts)
    whole, whole_grad = reference.cross_entropy_with_grad(
        cube, targets, axis=1, reduction="sequence_mean"
    )
    assert reference.finish_cross_entropy(merged, reduction="sequence_mean") == near(whole)
    losses = reference.finish_cross_entropy(merged, reduction="none")
    assert losses[1][1] == 0.0
    grad = reference.shard_grad(
        second, targets, merged, axis=-2, class_offset=1, reduction="sequence_mean"
    )
    for b in range(2):
        assert grad[b] == [near(row) for row in whole_grad[b][1:]]


@pytest.mark.parametrize("junk", [NAN, INF])
def test_ignored_row_is_not_read(junk: float) -> None:
    loss, grad = in_shards([[junk, junk], [0.0, 0.0]], [-100, 1], [1])
    assert (loss, grad) == (near(LN2), [[0.0, 0.0], near([0.5, -0.5])])


def test_on_empty_decides_the_mean_of_nothing() -> None:
    part = reference.partial_cross_entropy([[NAN, 1.0]], [-100], class_offset=0)
    assert math.isnan(reference.finish_cross_entropy(part))
    assert reference.finish_cross_entropy(part, on_empty="zero") == 0.0
    with pytest.raises(ValueError, match=r"^reduction: expected something to take the mean of"):
        reference.finish_cross_entropy(part, on_empty="raise")
    assert reference.shard_grad([[NAN, 1.0]], [-100], part, class_offset=0) == [[0.0, 0.0]]


# Bad input.


def piece(offset: int = 0, targets: Any = (0, 1), **options: Any) -> Any:
    rows = [[1.0, 2.0, 3.0] for _ in targets]
    return reference.partial_cross_entropy(rows, list(targets), class_offset=offset, **options)


@pytest.mark.parametrize("targets", [(0, 6), (-1, 2), (4, 1)])
def test_target_that_no_shard_holds(targets: tuple[int, int]) -> None:
    merged = reference.merge_partials([piece(0, targets), piece(7, targets)])
    bad = next(i for i, y in enumerate(targets) if not 0 <= y < 3)
    message = rf"^targets\[{bad}\] = {targets[bad]} is in none of the shards$"
    with pytest.raises(IndexError, match=message):
        reference.finish_cross_entropy(merged)
    with pytest.raises(IndexError, match=message):
        reference.shard_grad([[1.0, 2.0, 3.0]] * 2, list(targets), merged, class_offset=0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts: expected at least one, got none"),
        ([piece(0), piece(2)], "parts: expected each class once, got classes 0 to 3 and 2 to 5"),
        ([piece(3), piece(3)], "parts: expected each class once, got classes 3 to 6 and 3 to 6"),
        ([piece(0), piece(3, (0,))], "parts: expected the same rows, got (2,) and (1,)"),
        ([piece(0), piece(3, (0, 2))], "parts: expected the same targets, got 1 and 2 at [1]"),
        ([piece(0), piece(3, temperature=2.0)], "parts: expected the same temperature and softcap"),
        ([piece(0), piece(3, softcap=2.0)], "parts: expected the same temperature and softcap"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^parts: ") as caught:
        reference.merge_partials(parts)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("offset", "error", "message"),
    [
        (-1, ValueError, "class_offset: expected a number from 0, got -1"),
        (0.0, TypeError, "class_offset: expected integers, got float"),
        (
            1,
            ValueError,
            "merged: expected classes 1 to 4 among its pieces, got ['0 to 3', '3 to 6'",
        ),
    ],
)
def test_bad_class_offsets_are_named(offset: Any, error: type[Exception], message: str) -> None:
    merged = reference.merge_partials([piece(0), piece(3)])
    with pytest.raises(error) as caught:
        reference.shard_grad([[1.0, 2.0, 3.0]] * 2, [0, 1], merged, class_offset=offset)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("targets", "options"),
    [([0, 2], {}), ([0, 1], {"temperature": 2.0}), ([0, 1], {"softcap": 9.0}), ([0], {})],
)
def test_gradient_is_of_the_rows_that_were_merged(targets: Any, options: dict[str, Any]) -> None:
    rows = [[1.0, 2.0, 3.0] for _ in targets]
    with pytest.raises(ValueError, match=r"^merged: expected the rows, targets, temperature and"):
        reference.shard_grad(rows, targets, piece(0), class_offset=0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": [1.0]}, "sample_weight: expected the shape of the rows, (2,), got (1,)"),
        ({"label_smoothing": 2.0}, "label_smoothing: expected a number from 0 to 1"),
        ({"z_loss": -1.0}, "z_loss: expected a finite number from 0"),
        ({"reduction": "avg"}, "reduction: expected one of"),
        ({"offsets": [0, 2]}, "offsets: expected None with 'mean'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (reference.finish_cross_entropy, (piece(),), {}),
        (reference.shard_grad, ([[1.0, 2.0, 3.0]] * 2, [0, 1], piece()), {"class_offset": 0}),
    ]
    for function, arguments, needed in calls:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            function(*arguments, **needed, **options)


def test_nothing_merged_is_named() -> None:
    with pytest.raises(ValueError, match=r"^merged: expected at least one piece, got none$"):
        reference.finish_cross_entropy([])


def test_shards_have_classes() -> None:
    with pytest.raises(ValueError, match=r"^logits_shard: expected at least one class"):
        reference.partial_cross_entropy([[]], [0], class_offset=0)

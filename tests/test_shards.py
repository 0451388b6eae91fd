"""The cross-entropy over shards of the classes: that of whole rows, however cut and in whatever order.

The whole rows are the reference's and our own; what a partial is made of is no part of the interface and is
not looked at here.
"""

import itertools
import pickle
import re
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import softxent as sx
from common import (
    DTYPES,
    Array,
    Options,
    drawn,
    lists,
)
from hypothesis import given, settings
from softxent import reference

# Of the largest term; the whole rows' own bounds are for other tests.
NEAR = {DTYPES[0]: 2e-3, DTYPES[1]: 2e-2, DTYPES[2]: 4e-6, DTYPES[3]: 1e-13}
# What a shard is told of its own classes, what it is told of the rows, and what the end is told.
OF_CLASSES = ("weight", "class_mask")
OF_SHARDS = ("ignore_index", "temperature", "softcap")
OF_ENDS = ("label_smoothing", "z_loss", "sample_weight", "reduction", "normalizer", "offsets")


class Shards:
    """Rows whose classes are cut at some places; the classes are the last axis."""

    def __init__(self, logits: Array, targets: Array, cuts: list[int], options: Options) -> None:
        self.logits, self.targets, self.options = logits, targets, options
        self.bounds = list(itertools.pairwise([0, *sorted(cuts), logits.shape[-1]]))

    def shard(self, start: int, end: int) -> Options:
        """The arguments of one shard."""
        told = {name: self.options[name] for name in OF_SHARDS if name in self.options}
        own = {
            name: self.options[name][..., start:end] for name in OF_CLASSES if name in self.options
        }
        return {"class_offset": start, **told, **own}

    @property
    def ends(self) -> Options:
        return {name: self.options[name] for name in OF_ENDS if name in self.options}

    def partials(self) -> list[Array]:
        return [
            sx.partial_cross_entropy(self.logits[..., a:b], self.targets, **self.shard(a, b))
            for a, b in self.bounds
        ]

    def gradient(self, merged: Array, **more: Any) -> Array:
        parts = [
            sx.shard_grad(
                self.logits[..., a:b], self.targets, merged, **self.shard(a, b), **self.ends, **more
            )
            for a, b in self.bounds
        ]
        return np.concatenate(parts, axis=-1)


def close(got: Any, expected: Any, dtype: np.dtype[Any]) -> None:
    got, expected = np.asarray(got).astype(np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    size = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(got, expected, rtol=NEAR[dtype], atol=NEAR[dtype] * size)


@st.composite
def sharded(draw: st.DrawFn) -> Shards:
    classes = draw(st.integers(1, 30))
    rows = draw(st.sampled_from([(), (1,), (4,), (2, 3)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = draw(st.sampled_from([1.0, 5.0, 30.0])) * random.standard_normal((*rows, classes))
    special = draw(st.sampled_from([None, None, None, -np.inf, np.inf, np.nan]))
    if special is not None:
        logits[random.random(logits.shape) < 0.1] = special
    targets = np.asarray(random.integers(classes, size=rows))
    targets = np.where(random.random(rows) < 0.2, -100, targets)
    options: Options = {
        "temperature": draw(st.sampled_from([1.0, 0.5, 3.0])),
        "softcap": draw(st.sampled_from([None, None, 5.0])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "z_loss": draw(st.sampled_from([0.0, 0.01])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    if draw(st.booleans()):
        options["weight"] = random.choice([0.0, 0.5, 1.0, 2.0], classes)
    if draw(st.booleans()):
        options["sample_weight"] = np.asarray(random.choice([0.0, 0.5, 1.0, -1.0], rows))
    if draw(st.booleans()):
        options["class_mask"] = random.random(classes) < 0.7
    valid = targets != -100
    counts = np.broadcast_to(options.get("sample_weight", 1.0), rows) * valid
    counts = counts * options.get("weight", np.ones(classes))[np.where(valid, targets, 0)]
    if counts.sum() == 0:
        options["reduction"] = "sum"  # over 0 what is lost below the smallest number counts
    cuts = draw(st.lists(st.integers(1, max(classes - 1, 1)), unique=True, max_size=4))
    cuts = [cut for cut in cuts if cut < classes]
    return Shards(logits.astype(draw(st.sampled_from(DTYPES))), targets, cuts, options)


@settings(drawn, max_examples=400)
@given(sharded(), st.randoms(use_true_random=False))
def test_the_shards_give_the_loss_and_gradient_of_whole_rows(shards: Shards, random: Any) -> None:
    logits, options = shards.logits, shards.options
    parts = shards.partials()
    merged = sx.merge_partials(parts)
    random.shuffle(parts)
    half = len(parts) // 2
    groups = [group for group in (parts[:half], parts[half:]) if group]
    again = sx.merge_partials(pickle.loads(pickle.dumps(list(map(sx.merge_partials, groups)))))
    assert again.tobytes() == merged.tobytes()
    loss = sx.finish_cross_entropy(merged, **shards.ends)
    grad = shards.gradient(merged)
    exact = {name: lists(value) for name, value in options.items()}
    expected, slopes = reference.cross_entropy_with_grad(
        lists(logits), lists(shards.targets), **exact
    )
    double = logits.dtype == np.float64
    assert np.asarray(loss).dtype == (np.float64 if double else np.float32)
    assert grad.dtype == logits.dtype
    close(loss, expected, DTYPES[3] if double else DTYPES[2])
    close(grad, np.reshape(slopes, logits.shape), logits.dtype)


def test_a_single_shard_gives_the_bits_of_whole_rows() -> None:
    random = np.random.default_rng(1)
    logits = random.standard_normal((6, 70_001), dtype=np.float32) * 4
    targets = random.integers(70_001, size=6)
    several: list[Options] = [{}, {"label_smoothing": 0.1, "z_loss": 1e-3}]
    for options in several:
        shards = Shards(logits, targets, [], options)
        merged = sx.merge_partials(shards.partials())
        loss, grad = sx.cross_entropy_with_grad(logits, targets, **options)
        assert sx.finish_cross_entropy(merged, **options) == loss
        assert shards.gradient(merged).tobytes() == grad.tobytes()


def test_a_confident_row_keeps_its_digits_across_shards() -> None:
    logits = np.array([[0.0, 40.0, -3.0, 1.0]])
    exact = np.log1p(np.exp(-40.0) + np.exp(-43.0) + np.exp(-39.0))
    for cuts in ([], [1], [2], [1, 2, 3]):
        shards = Shards(logits, np.array([1]), cuts, {})
        merged = sx.merge_partials(shards.partials())
        assert sx.finish_cross_entropy(merged) == pytest.approx(exact, rel=1e-14)
        assert shards.gradient(merged)[0, 1] == pytest.approx(-exact, rel=1e-14)


def test_a_gradient_goes_to_where_it_is_asked_for() -> None:
    logits = np.random.default_rng(2).standard_normal((3, 8))
    shards = Shards(logits, np.array([0, 5, -100]), [3], {})
    merged = sx.merge_partials(shards.partials())
    expected = shards.gradient(merged, grad_output=2.0)
    place = logits[:, 3:].copy()
    result = sx.shard_grad(
        place, shards.targets, merged, class_offset=3, grad_output=2.0, out=place
    )
    assert result is place
    np.testing.assert_array_equal(place, expected[:, 3:])


def test_no_rows_are_the_mean_of_nothing() -> None:
    empty = Shards(np.zeros((0, 4)), np.zeros(0, int), [2], {})
    merged = sx.merge_partials(empty.partials())
    assert np.isnan(sx.finish_cross_entropy(merged))
    assert sx.finish_cross_entropy(merged, on_empty="zero") == 0.0
    with pytest.raises(ValueError, match="expected a row that is not ignored"):
        sx.finish_cross_entropy(merged, on_empty="raise")


# What is refused.

LOGITS = np.arange(12.0).reshape(2, 6)
TARGETS = np.array([1, 4])


def piece(start: int, end: int, **options: Any) -> Array:
    targets = options.pop("targets", TARGETS)
    return sx.partial_cross_entropy(LOGITS[:, start:end], targets, class_offset=start, **options)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("parts: expected at least one, got none", list),
        (
            "parts: expected each class once, got classes 0 to 4 and 3 to 6",
            lambda: [piece(3, 6), piece(0, 4)],
        ),
        (
            "parts: expected the same rows, got rows of shapes [(1,), (2,)]",
            lambda: [piece(0, 3), piece(3, 6)[:, :1]],
        ),
        (
            "parts: expected the same targets, got 1 and 2 at [0]",
            lambda: [piece(0, 3), piece(3, 6, targets=[2, 4])],
        ),
        (
            "parts: expected the same temperature and softcap, got",
            lambda: [piece(0, 3), piece(3, 6, temperature=2.0)],
        ),
        (
            "parts: expected the same temperature and softcap, got",
            lambda: [piece(0, 3), piece(3, 6, softcap=2.0)],
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(message: str, parts: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        sx.merge_partials(parts())


def test_what_is_no_partial_is_refused() -> None:
    others: list[Any] = [LOGITS, [1], None, "part"]
    for other in others:
        with pytest.raises(TypeError, match="parts: expected an array that partial_cross_entropy"):
            sx.merge_partials([other])
        with pytest.raises(TypeError, match="merged: expected an array that partial_cross_entropy"):
            sx.finish_cross_entropy(other)
    with pytest.raises(ValueError, match="merged: expected at least one piece, got none"):
        sx.finish_cross_entropy(piece(0, 3)[:0])


def test_a_target_that_no_shard_holds_is_named() -> None:
    merged = sx.merge_partials([piece(0, 3)])
    for call in (
        lambda: sx.finish_cross_entropy(merged),
        lambda: sx.shard_grad(LOGITS[:, :3], TARGETS, merged, class_offset=0),
    ):
        with pytest.raises(IndexError, match=r"targets\[1\] = 4 is in none of the shards"):
            call()
    with pytest.raises(IndexError, match=r"targets\[0\] = -1 is outside \[0, "):
        piece(0, 3, targets=[-1, 2])


def test_a_shard_that_is_none_of_the_pieces_is_refused() -> None:
    merged = sx.merge_partials([piece(0, 3), piece(3, 6)])
    right: Options = {"class_offset": 3}
    for wrong, message in (
        ({"class_offset": 2}, "merged: expected the classes 2 to 5 among its pieces"),
        ({**right, "temperature": 2.0}, "merged: expected the targets, temperature and softcap"),
        ({**right, "softcap": 2.0}, "merged: expected the targets, temperature and softcap"),
    ):
        with pytest.raises(ValueError, match=message):
            sx.shard_grad(LOGITS[:, 3:], TARGETS, merged, **wrong)
    with pytest.raises(ValueError, match="merged: expected the targets"):
        sx.shard_grad(LOGITS[:, 3:], [1, 5], merged, **right)
    with pytest.raises(ValueError, match=r"merged: expected rows of shape \(1,\)"):
        sx.shard_grad(LOGITS[:1, 3:], TARGETS[:1], merged, **right)
    with pytest.raises(ValueError, match="class_offset: expected a number from 0 to "):
        sx.shard_grad(LOGITS[:, 3:], TARGETS, merged, class_offset=-1)

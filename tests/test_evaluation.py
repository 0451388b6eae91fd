"""What an evaluation says: against plain NumPy in double precision, and the promises about batches.

The chosen tokens' log-probabilities are here too: they are the same reading of a row.
"""

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from conftest import LAYOUTS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from softxent import reference

Array: TypeAlias = NDArray[Any]

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
TOLERANCE = {"float16": 1e-6, "bfloat16": 1e-6, "float32": 1e-6, "float64": 1e-13}
ROW_FIELDS = ["nll", "lse", "entropy", "predicted", "confidence", "correct", "rank"]
TOTALS = [name for name in sx.Totals.__annotations__ if name != "top_k_accuracy"]


def expected_rows(
    logits: Array, targets: Array, mask: Any = True, cap: Any = None
) -> dict[str, Array]:
    """Each row on its own, as the definitions say, for logits (N, V)."""
    x = logits.astype(np.float64)
    x = x if cap is None else cap * np.tanh(x / cap)
    x = np.where(mask, x, -np.inf)
    largest = x.max(axis=-1, keepdims=True)
    e = np.exp(x - largest)
    lse = (largest + np.log(e.sum(axis=-1, keepdims=True)))[:, 0]
    p = np.exp(x - lse[:, np.newaxis])
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(axis=-1)
    at_target = x[np.arange(len(targets)), targets]
    return {
        "nll": lse - at_target,
        "lse": lse,
        "entropy": entropy,
        "predicted": x.argmax(axis=-1),
        "confidence": p.max(axis=-1),
        "correct": x.argmax(axis=-1) == targets,
        "rank": (x > at_target[:, np.newaxis]).sum(axis=-1),
    }


def same_bits(a: Any, b: Any, names: list[str]) -> bool:
    return all(
        np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes()
        for name in names
    )


def batch(rows: int, classes: int, dtype: Any = np.float32, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((rows, classes)) * 3).astype(dtype)
    return logits, random.integers(0, classes, rows)


# Rows.


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("classes", [1, 2, 17, 1000, 33000, 70001])
def test_rows_are_as_defined(dtype: Any, classes: int) -> None:
    logits, targets = batch(5, classes, dtype)
    result = sx.evaluate(logits, targets)
    name = np.dtype(dtype).name
    for field, expected in expected_rows(logits, targets).items():
        found = getattr(result, field)
        if field in ("predicted", "correct", "rank"):
            assert found.dtype == (np.bool_ if field == "correct" else np.int64)
            assert np.array_equal(found, expected)
        else:
            assert found.dtype == (np.float64 if name == "float64" else np.float32)
            np.testing.assert_allclose(found, expected, rtol=TOLERANCE[name], atol=1e-6)


def test_the_loss_is_that_of_cross_entropy_bit_for_bit() -> None:
    logits, targets = batch(40, 5000)
    targets[::7] = -100
    result = sx.evaluate(logits, targets, temperature=1.5)
    loss = sx.cross_entropy(logits, targets, temperature=1.5, reduction="none")
    assert same_bits(result, sx.evaluate(logits, targets, temperature=1.5), ROW_FIELDS)
    assert np.array_equal(result.nll, loss)
    assert np.float32(result.loss) == sx.cross_entropy(logits, targets, temperature=1.5)
    valid = targets != -100
    lse = sx.logsumexp(logits, temperature=1.5)
    np.testing.assert_allclose(result.lse[valid], lse[valid], rtol=2e-7)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_masks_caps_and_ties_on_small_integers(data: st.DataObject) -> None:
    """Small integers tie often, and every float holds them."""
    rows, classes = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 80))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = random.integers(-3, 4, (rows, classes)).astype(data.draw(st.sampled_from(FLOATS)))
    targets = random.integers(0, classes, rows)
    shape = data.draw(st.sampled_from([(classes,), (rows, classes), (rows, 1)]))
    mask = random.random(shape) < data.draw(st.sampled_from([0.2, 0.8, 1.0]))
    mask = mask | (np.arange(classes) == targets[:, np.newaxis])
    expected = expected_rows(logits, targets, mask)
    result = sx.evaluate(logits, targets, class_mask=mask)
    assert np.array_equal(result.predicted, expected["predicted"])
    assert np.array_equal(result.rank, expected["rank"])
    np.testing.assert_allclose(result.entropy, expected["entropy"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.confidence, expected["confidence"], rtol=1e-6)
    assert np.array_equal(result.correct, expected["correct"])
    np.testing.assert_allclose(result.nll, expected["nll"], rtol=1e-6, atol=1e-6)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_all_options_together_are_as_the_reference_says(data: st.DataObject) -> None:
    rows, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = random.standard_normal((rows, classes)) * 5
    targets = random.integers(0, classes, rows)
    targets[random.random(rows) < 0.2] = -100
    options: dict[str, Any] = {
        "sample_weight": (random.random(rows) * (random.random(rows) < 0.8)).tolist(),
        "temperature": data.draw(st.sampled_from([0.5, 1.0, 3.0])),
        "softcap": data.draw(st.sampled_from([None, 4.0])),
        "valid_classes": data.draw(st.none() | st.integers(1, classes)),
        "class_mask": (random.random((rows, classes)) < 0.7).tolist(),
        "top_k": (1, 4),
    }
    ours = sx.evaluate(logits, targets, **options)
    theirs = reference.evaluate(logits.tolist(), targets.tolist(), **options)
    for name in [*ROW_FIELDS, *TOTALS]:
        # A standard error is the root of a difference of sums, in which digits may cancel.
        close = 1e-6 if name.endswith("standard_error") else 1e-11
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=close, atol=1e-13, err_msg=name
        )
    assert ours.top_k_accuracy == pytest.approx(theirs.top_k_accuracy, nan_ok=True)
    tokens = random.integers(0, classes, (rows, 3)).tolist()
    logit_options = {
        k: options[k] for k in ("temperature", "softcap", "valid_classes", "class_mask")
    }
    np.testing.assert_allclose(
        sx.token_logprobs(logits, tokens, **logit_options),
        reference.token_logprobs(logits.tolist(), tokens, **logit_options),
        rtol=1e-12,
    )


def test_of_equal_logits_the_first_is_predicted_wherever_the_target_is() -> None:
    for classes, target in itertools.product([3, 100, 40000], [0, 1, -1]):
        logits = np.zeros((1, classes), np.float32)
        result = sx.evaluate(logits, [target % classes])
        assert result.predicted.tolist() == [0]
        assert result.rank.tolist() == [0]
        assert result.entropy[0] == pytest.approx(math.log(classes), rel=1e-6)
    late = np.zeros((1, 100000), np.float32)
    late[0, [40000, 70000, 99999]] = 5
    for target in (0, 40000, 70000, 99999):
        assert sx.evaluate(late, [target]).predicted.tolist() == [40000]


def test_a_masked_target_is_never_right_and_has_an_infinite_loss() -> None:
    result = sx.evaluate([[1.0, 2.0, -np.inf, 3.0]], [3], valid_classes=3, top_k=5)
    assert result.nll.tolist() == [np.inf]
    assert result.predicted.tolist() == [1]
    assert result.rank.tolist() == [2]
    assert result.accuracy == 0
    assert result.perplexity == np.inf


def test_rows_without_probabilities_say_so() -> None:
    logits = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 1, 2], [-np.inf] * 3, [1, 2, 3]])
    result = sx.evaluate(logits, [2, 2, 0, 1, -100], top_k=3)
    assert result.predicted.tolist() == [2, -1, -1, -1, -1]
    assert result.rank.tolist() == [0, -1, -1, -1, -1]
    assert np.isnan(result.nll).tolist() == [False, True, True, True, False]
    assert result.nll[4] == 0
    np.testing.assert_array_equal(result.lse[1:], [np.nan, np.inf, -np.inf, np.nan])
    assert np.isnan(result.entropy[1:]).all()
    assert np.isnan(result.confidence[1:]).all()
    assert result.correct.tolist() == [True, False, False, False, False]
    assert np.isnan(result.loss)
    assert result.accuracy == 0.25
    assert result.top_k_accuracy == {3: 0.25}


def test_a_confident_row_keeps_its_digits() -> None:
    result = sx.evaluate([[30.0, 0.0, 0.0]], [0])
    assert result.nll[0] == pytest.approx(2 * math.exp(-30), rel=1e-14)
    assert result.entropy[0] == pytest.approx(62 * math.exp(-30), rel=1e-12)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_threads_and_place_in_the_batch_leave_no_trace(name: str) -> None:
    logits, targets = batch(7, 66000)
    whole = sx.evaluate(logits, targets, threads=1)
    for threads in (1, 2, 7):
        again = sx.evaluate(LAYOUTS[name](logits), targets, threads=threads)
        assert same_bits(whole, again, [*ROW_FIELDS, *TOTALS])
    turned = sx.evaluate(LAYOUTS[name](np.ascontiguousarray(logits.T)), targets, axis=0)
    assert same_bits(whole, turned, ROW_FIELDS)
    alone = sx.evaluate(logits[3], targets[3])
    assert all(getattr(alone, field) == getattr(whole, field)[3] for field in ROW_FIELDS)
    assert isinstance(alone.predicted, np.int64)


# Totals.


def test_totals_are_as_defined() -> None:
    logits, targets = batch(200, 50, np.float64)
    weights = np.random.default_rng(1).random(200)
    weights[::10], targets[::11] = 0, -100
    result = sx.evaluate(logits, targets, sample_weight=weights, top_k=[1, 5])
    valid = (weights != 0) & (targets != -100)
    rows = expected_rows(logits[valid], targets[valid])
    u, n = weights[valid], valid.sum()
    loss = np.average(rows["nll"], weights=u)
    error = np.sqrt(n / (n - 1) * (u**2 * (rows["nll"] - loss) ** 2).sum()) / u.sum()
    expected = {
        "rows": 200,
        "ignored": 200 - n,
        "weight": u.sum(),
        "loss": loss,
        "loss_standard_error": error,
        "perplexity": np.exp(loss),
        "perplexity_standard_error": np.exp(loss) * error,
        "bits_per_token": loss / np.log(2),
        "accuracy": np.average(rows["rank"] == 0, weights=u),
    }
    assert {name: getattr(result, name) for name in expected} == pytest.approx(expected, rel=1e-12)
    top = {k: np.average(rows["rank"] < k, weights=u) for k in (1, 5)}
    assert result.top_k_accuracy == pytest.approx(top)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_a_single_row(count: int) -> None:
    result = sx.evaluate(np.zeros((count, 4)), np.zeros(count, int), top_k=2)
    assert (result.rows, result.ignored, result.weight) == (count, 0, count)
    assert math.isnan(result.loss_standard_error)
    if count:
        assert result.loss == pytest.approx(math.log(4))
        assert result.top_k_accuracy == {2: 1.0}
    else:
        assert math.isnan(result.loss)
        assert math.isnan(result.perplexity)
        assert math.isnan(result.accuracy)


@given(st.lists(st.integers(0, 60), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_totals_are_the_same_bits_whatever_the_cut_and_the_order(cuts: Any, random: Any) -> None:
    logits, targets = batch(60, 30)
    logits[5] *= 1e30
    weights = np.random.default_rng(2).standard_normal(60) ** 9
    whole = sx.Evaluator(top_k=(1, 3))
    whole.update(logits, targets, sample_weight=weights)
    edges = [0, *sorted(cuts), 60]
    pieces = list(itertools.pairwise(edges))
    random.shuffle(pieces)
    evaluators = [sx.Evaluator(top_k=(1, 3)) for _ in range(3)]
    for start, end in pieces:
        rows = slice(start, end)
        random.choice(evaluators).update(logits[rows], targets[rows], sample_weight=weights[rows])
    first, second, third = (pickle.loads(pickle.dumps(evaluator)) for evaluator in evaluators)
    merged = third.merge(first).merge(second).result()
    assert same_bits(merged, whole.result(), TOTALS)
    assert merged.top_k_accuracy == whole.result().top_k_accuracy


def test_an_evaluator_returns_each_batch_as_evaluate_does() -> None:
    logits, targets = batch(10, 20)
    evaluator = sx.Evaluator(temperature=2.0, ignore_index=iter([3, 4]), top_k=2)
    for _ in range(2):  # the ids to ignore serve every batch
        result = evaluator.update(logits, targets)
        alone = sx.evaluate(logits, targets, temperature=2.0, ignore_index=[3, 4], top_k=2)
        assert same_bits(result, alone, [*ROW_FIELDS, *TOTALS])
    assert evaluator.result().rows == 20


def test_a_refused_batch_leaves_no_trace() -> None:
    evaluator = sx.Evaluator()
    evaluator.update(*batch(3, 5))
    before = copy.deepcopy(evaluator).result()
    with pytest.raises(IndexError):
        evaluator.update(np.zeros((2, 5)), [0, 5])
    assert same_bits(evaluator.result(), before, TOTALS)


def test_infinite_and_undefined_losses_stay_in_the_totals() -> None:
    evaluator = sx.Evaluator()
    evaluator.update([[0.0, -np.inf]], [1])
    assert evaluator.result().loss == np.inf
    assert evaluator.result().perplexity == np.inf
    evaluator.update([[0.0, np.nan]], [1])
    evaluator.update([[0.0, 1.0]], [1])
    assert math.isnan(evaluator.result().loss)
    assert evaluator.result().accuracy == pytest.approx(1 / 3)


def test_evaluators_of_other_ranks_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"other: expected top_k \(1,\), got \(2,\)"):
        sx.Evaluator(top_k=1).merge(sx.Evaluator(top_k=2))


# Chosen tokens.


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("classes", [1, 3, 1000, 70001])
@pytest.mark.parametrize("each", [None, 0, 1, 4])
def test_chosen_tokens_have_the_log_probabilities_of_log_softmax(
    dtype: Any, classes: int, each: int | None
) -> None:
    logits, _ = batch(6, classes, dtype)
    random = np.random.default_rng(3)
    tokens = random.integers(0, classes, (6,) if each is None else (6, each))
    found = sx.token_logprobs(logits, tokens, temperature=0.7)
    assert found.shape == tokens.shape
    wide = sx.log_softmax(logits.astype(np.float64), temperature=0.7)
    expected = np.take_along_axis(wide, tokens.reshape(6, -1), axis=-1).reshape(tokens.shape)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[np.dtype(dtype).name], atol=1e-6)


def test_a_single_token_is_minus_the_loss_bit_for_bit() -> None:
    logits, targets = batch(30, 2000)
    targets[::4] = -100
    loss = sx.cross_entropy(logits, targets, reduction="none", softcap=20.0)
    assert np.array_equal(sx.token_logprobs(logits, targets, softcap=20.0), -loss)


def test_tokens_of_a_confident_row_keep_their_digits() -> None:
    found = sx.token_logprobs([[0.0, 30.0, 0.0]], [[1, 0, -100, 1]])
    assert found[0, 0] == pytest.approx(-2 * math.exp(-30), rel=1e-14)
    assert found[0, 1] == pytest.approx(-30, rel=1e-14)
    assert found[0, 2] == 0
    assert found[0, 3] == found[0, 0]


def test_masked_tokens_are_impossible_and_ignored_rows_are_not_read() -> None:
    logits = np.array([[1.0, 2.0, 9.0], [np.nan, np.nan, np.nan]])
    found = sx.token_logprobs(logits, [[2, 1], [-100, 7]], valid_classes=2, ignore_index=[-100, 7])
    assert found[0, 0] == -np.inf
    assert found[0, 1] == pytest.approx(-math.log1p(math.exp(-1)))
    assert found[1].tolist() == [0, 0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_and_threads_leave_no_trace_in_tokens(name: str) -> None:
    logits, _ = batch(4, 66000)
    tokens = np.random.default_rng(0).integers(0, 66000, (4, 3))
    expected = sx.token_logprobs(logits, tokens, threads=1)
    for threads in (2, 7):
        again = sx.token_logprobs(LAYOUTS[name](logits), LAYOUTS[name](tokens), threads=threads)
        assert again.tobytes() == expected.tobytes()


# What is refused.

MISTAKES: list[tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = [
    (sx.evaluate, {"targets": [0, 3]}, IndexError, r"targets\[1\] = 3 is outside \[0, 3\)"),
    (sx.evaluate, {"targets": [0]}, ValueError, "targets"),
    (sx.evaluate, {"targets": np.ones((2, 3))}, TypeError, "targets"),
    (sx.evaluate, {"sample_weight": [1.0]}, ValueError, "sample_weight"),
    (sx.evaluate, {"sample_weight": ["1", "2"]}, TypeError, "sample_weight"),
    (sx.evaluate, {"top_k": 0}, ValueError, "top_k"),
    (sx.evaluate, {"top_k": [1, -2]}, ValueError, "top_k"),
    (sx.evaluate, {"top_k": 1.5}, TypeError, "top_k"),
    (sx.evaluate, {"top_k": True}, TypeError, "top_k"),
    (sx.evaluate, {"logits": np.zeros((2, 0))}, ValueError, "logits"),
    (sx.token_logprobs, {"tokens": [[0], [3]]}, IndexError, r"tokens\[1, 0\] = 3"),
    (sx.token_logprobs, {"tokens": [0]}, ValueError, "tokens"),
    (sx.token_logprobs, {"tokens": [[[0]], [[1]]]}, ValueError, "tokens"),
    (sx.token_logprobs, {"tokens": [0.0, 1.0]}, TypeError, "tokens"),
    (sx.token_logprobs, {"tokens": [True, False]}, TypeError, "tokens"),
    (sx.token_logprobs, {"logits": np.zeros((2, 0))}, ValueError, "logits"),
]


@pytest.mark.parametrize(("function", "mistake", "error", "message"), MISTAKES)
def test_a_mistake_is_named(
    function: Callable[..., Any], mistake: dict[str, Any], error: type[Exception], message: str
) -> None:
    key = "targets" if function is sx.evaluate else "tokens"
    call = {"logits": np.zeros((2, 3)), key: [0, 1]} | mistake
    with pytest.raises(error, match=message):
        function(call.pop("logits"), call.pop(key), **call)

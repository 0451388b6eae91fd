"""Chosen log-probabilities, and evaluations, of the reference: rows, totals, and totals of totals.

The expected numbers are literals worked by hand, the standard library's statistics, and mpmath at
80 digits. Nothing here knows the compiled core.
"""

import dataclasses
import math
import pickle
import random
import statistics
import sys
from typing import Any

import mpmath
import pytest
from common import near
from softxent import reference

INF, NAN = math.inf, math.nan
LN2, LN3 = 0.6931471805599453, 1.0986122886681098
EPSILON = sys.float_info.epsilon
MEANS = [
    "loss",
    "loss_standard_error",
    "perplexity",
    "perplexity_standard_error",
    "bits_per_token",
    "accuracy",
]
COUNTS = ["rows", "ignored", "weight"]
ONE_BIT, TWO_BITS = [0.0, 0.0, -INF, -INF], [5.0, 5.0, 5.0, 5.0]


def bits(totals: Any) -> dict[str, str]:
    """The totals, each bit of them, and NaN equal to NaN."""
    return {name: repr(getattr(totals, name)) for name in (*COUNTS, *MEANS, "top_k_accuracy")}


# token_logprobs.


def test_token_logprobs_are_those_of_log_softmax() -> None:
    logits = [[0.0, LN2], [3.0, 3.0]]
    assert reference.token_logprobs(logits, [1, 0]) == near([LN2 - LN3, -LN2])
    several = reference.token_logprobs(logits, [[1, 0, 1], [0, 0, -100]])
    assert several == [near([LN2 - LN3, -LN3, LN2 - LN3]), [near(-LN2), near(-LN2), 0.0]]
    assert reference.token_logprobs(logits, [[], []]) == [[], []]
    assert reference.token_logprobs([0.0, 0.0], 1) == near(-LN2)
    assert reference.token_logprobs([0.0, 0.0], [1, 0, 1]) == near([-LN2] * 3)
    # (V, T): the tokens of a row still come last.
    columns = [[0.0, 3.0], [LN2, 3.0]]
    assert reference.token_logprobs(columns, [[1], [0]], axis=0) == [
        near([LN2 - LN3]),
        near([-LN2]),
    ]
    assert reference.token_logprobs([[], []], [], axis=0) == []


def test_token_logprobs_of_ignored_masked_and_nan() -> None:
    logits = [[NAN, 1.0, NAN], [1.0, 1.0, NAN], [1.0, -INF, INF]]
    tokens = [[-100, 7, 7], [2, 1, 7], [0, 1, 2]]
    answer = reference.token_logprobs(logits, tokens, ignore_index=[-100, 7], valid_classes=2)
    assert answer == [[0.0, 0.0, 0.0], [-INF, near(-LN2), 0.0], [0.0, -INF, -INF]]
    assert reference.token_logprobs([NAN, 1.0], [0, 1, -100]) == near([NAN, NAN, 0.0])
    assert reference.token_logprobs([NAN], [0], class_mask=[False]) == [-INF]


def test_token_logprobs_keep_the_digits_of_a_confident_row() -> None:
    assert reference.token_logprobs([27.631021115928547, 0.0], 0) == near(-1e-12, 1e-11)
    got = reference.token_logprobs(
        [28.0, 0.0, NAN], 0, softcap=100.0, temperature=0.9, class_mask=[True, True, False]
    )
    with mpmath.workdps(60):
        exact = -mpmath.log1p(mpmath.exp(-100 * mpmath.tanh(mpmath.mpf(28) / 100) / 0.9))
        assert abs(got - exact) <= 64 * EPSILON * abs(exact)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([0], ValueError, "tokens: expected shape (2,), or that and one more axis, for logits (2,"),
        ([[[0]], [[0]]], ValueError, "tokens: expected shape (2,), or that and one more axis"),
        ([[0]], ValueError, "tokens: expected shape (2,), or that and one more axis"),
        ([0, 3], IndexError, "tokens[1] = 3 is outside [0, 3)"),
        ([[0, 1], [2, -1]], IndexError, "tokens[1, 1] = -1 is outside [0, 3)"),
        ([0.0, 1.0], TypeError, "tokens: expected integers, got float"),
    ],
)
def test_bad_tokens_are_named(tokens: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        reference.token_logprobs([[1.0, 2.0, 3.0]] * 2, tokens)
    assert str(caught.value).startswith(message)


# Rows of an evaluation.


def test_each_row_is_measured() -> None:
    logits = [[0.0, LN2, 0.0], [1.0, 1.0, 1.0], [NAN, 1.0, 2.0]]
    found = reference.evaluate(logits, [0, 1, -100])
    assert found.nll == [near(2 * LN2), near(LN3), 0.0]
    assert found.lse == near([2 * LN2, 1 + LN3, NAN])
    assert found.entropy == near([1.5 * LN2, LN3, NAN])
    assert found.predicted == [1, 0, -1]
    assert found.rank == [1, 0, -1]
    assert all(isinstance(number, int) for number in found.predicted + found.rank)


def test_rows_have_the_shape_of_the_targets() -> None:
    logits = [[[0.0, 9.0], [1.0, 2.0]], [[3.0, 3.0], [4.0, 3.0]]]
    found = reference.evaluate(logits, [[1, 0], [0, 1]], axis=1)
    assert found.predicted == [[1, 0], [1, 0]]
    assert found.rank == [[0, 0], [1, 0]]
    single = reference.evaluate([1.0, 3.0, 2.0], 0)
    assert (single.predicted, single.rank, single.rows) == (1, 2, 1)


def test_entropy_is_the_mean_surprise() -> None:
    assert reference.evaluate([5.0], 0).entropy == 0.0
    assert reference.evaluate([0.0, -INF], 0).entropy == 0.0
    generator = random.Random(5)
    for scale in (0.1, 1.0, 40.0):
        row = [generator.gauss(0.0, scale) for _ in range(30)]
        with mpmath.workdps(60):
            s = [mpmath.mpf(x) / 2 for x in row]
            total = mpmath.fsum(map(mpmath.exp, s))
            exact = -mpmath.fsum(
                mpmath.exp(x) / total * mpmath.log(mpmath.exp(x) / total) for x in s
            )
            assert abs(reference.evaluate(row, 0, temperature=2.0).entropy - exact) <= 1e-13 * exact
    # p = 1 - 1e-12: both terms are of that size.
    p = mpmath.mpf("1e-12") / (1 + mpmath.mpf("1e-12"))
    expected = float(-p * mpmath.log(p) - (1 - p) * mpmath.log1p(-p))
    assert reference.evaluate([27.631021115928547, 0.0], 0).entropy == near(expected, 1e-11)


def test_predicted_is_the_first_of_equals_after_softcap_and_masks() -> None:
    assert reference.evaluate([1.0, 3.0, 3.0], 2).predicted == 1
    assert reference.evaluate([1.0, 3.0, 3.0], 2).rank == 0
    logits = [NAN, 1.0, 5.0, INF]
    found = reference.evaluate(logits, 1, valid_classes=3, class_mask=[False, True, True, True])
    assert (found.predicted, found.rank) == (2, 1)
    # Both have 30.0 after the softcap.
    capped = reference.evaluate([0.0, 3000.0, INF], 2, softcap=30.0)
    assert (capped.predicted, capped.rank) == (1, 0)


@pytest.mark.parametrize(
    ("row", "target", "nll", "lse", "predicted", "rank"),
    [
        ([NAN, 1.0, 2.0], 1, NAN, NAN, -1, -1),
        ([INF, 1.0, 2.0], 1, NAN, INF, -1, -1),
        ([-INF, -INF, 2.0], 1, NAN, -INF, -1, -1),
        ([-INF, 0.0, 2.0], 0, INF, 0.0, 1, 1),
        ([-INF, 0.0, 2.0], 2, INF, 0.0, 1, 1),
        ([1.0, 1.0, 2.0], 2, INF, 1 + LN2, 0, 2),
    ],
)
def test_rows_at_the_edge(
    row: list[float], target: int, nll: float, lse: float, predicted: int, rank: int
) -> None:
    found = reference.evaluate(row, target, valid_classes=2)
    assert (found.nll, found.lse) == (near(nll), near(lse))
    assert (found.predicted, found.rank) == (predicted, rank)
    assert math.isnan(found.entropy) == math.isnan(nll)
    assert found.accuracy == 0.0


def test_row_with_every_class_masked() -> None:
    found = reference.evaluate([1.0, 2.0], 0, class_mask=[False, False])
    assert (found.nll, found.lse, found.predicted, found.rank) == (near(NAN), -INF, -1, -1)


# Totals.


def test_totals_of_known_rows() -> None:
    logits, targets = [ONE_BIT, TWO_BITS, TWO_BITS, ONE_BIT], [1, 3, -100, 0]
    found = reference.evaluate(logits, targets, top_k=(1, 2, 4))
    assert (found.rows, found.ignored, found.weight) == (4, 1, 3.0)
    assert found.loss == near(4 / 3 * LN2)
    assert found.bits_per_token == near(4 / 3)
    assert found.perplexity == near(2 ** (4 / 3))
    # Deviations of -1, 2, -1 thirds of ln 2: 3/2 * 6/9 / 9 = 1/9.
    assert found.loss_standard_error == near(LN2 / 3)
    assert found.perplexity_standard_error == near(2 ** (4 / 3) * LN2 / 3)
    assert found.accuracy == near(1 / 3)
    assert found.top_k_accuracy == {1: 1.0, 2: 1.0, 4: 1.0}


def test_totals_of_weighted_rows() -> None:
    logits = [ONE_BIT, TWO_BITS, [0.0, 9.0, 5.0, 0.0], [NAN] * 4]
    weights, targets = [3.0, 1.0, -2.0, 0.0], [0, 3, 2, 1]
    found = reference.evaluate(logits, targets, sample_weight=weights, top_k=[2, 1])
    nll = found.nll
    assert (found.rows, found.ignored, found.weight) == (4, 1, 2.0)
    assert nll[:2] == near([LN2, 2 * LN2])
    assert (nll[3], found.predicted[3], found.rank[3]) == (0.0, -1, -1)
    loss = (3 * nll[0] + nll[1] - 2 * nll[2]) / 2
    assert found.loss == near(loss, 1e-14)
    squares = sum((u * (x - loss)) ** 2 for u, x in zip(weights[:3], nll, strict=False))
    assert found.loss_standard_error == near(math.sqrt(1.5 * squares / 4), 1e-14)
    assert found.accuracy == 1.5
    assert found.top_k_accuracy == {1: (3 + 1) / 2, 2: (3 + 1 - 2) / 2}


def test_standard_error_is_that_of_a_mean() -> None:
    generator = random.Random(11)
    logits = [[generator.gauss(0.0, 3.0) for _ in range(7)] for _ in range(200)]
    found = reference.evaluate(logits, [generator.randrange(7) for _ in logits])
    assert found.loss == near(statistics.fmean(found.nll))
    expected = statistics.stdev(found.nll) / math.sqrt(200)
    assert found.loss_standard_error == near(expected, 1e-14)


def test_standard_error_keeps_its_digits_among_almost_equal_rows() -> None:
    # nll of 1e6 with differences of 1e-9: a difference of squares in doubles would be noise.
    logits = [[0.0, -1e6 - i * 2.0**-30] for i in range(4)]
    found = reference.evaluate(logits, [1] * 4)
    assert found.loss_standard_error == near(math.sqrt(5 / 12) * 2.0**-30, 1e-14)
    assert reference.evaluate(logits[:1] * 3, [1] * 3).loss_standard_error == 0.0
    # And among rows whose squares no double holds.
    found = reference.evaluate([[0.0, -1e300], [0.0, -3e300]], [1, 1])
    assert (found.loss, found.loss_standard_error) == (near(2e300), near(1e300))
    assert (found.perplexity, found.perplexity_standard_error) == (INF, INF)


@pytest.mark.parametrize(
    ("logits", "targets", "counts"),
    [
        ([[1.0, NAN]], [-100], (1, 1, 0.0)),
        ([[], []], [], (0, 0, 0.0)),
    ],
)
def test_totals_of_nothing_are_nan(logits: Any, targets: Any, counts: Any) -> None:
    axis = 0 if not targets else -1
    found = reference.evaluate(logits, targets, axis=axis, top_k=3)
    assert (found.rows, found.ignored, found.weight) == counts
    assert all(math.isnan(getattr(found, name)) for name in MEANS)
    assert found.top_k_accuracy == {3: near(NAN)}
    assert bits(reference.Evaluator(top_k=3).result()) == {
        **bits(found),
        "rows": "0",
        "ignored": "0",
    }


def test_one_row_has_no_standard_error() -> None:
    found = reference.evaluate([0.0, 0.0], 0)
    assert found.loss == near(LN2)
    assert math.isnan(found.loss_standard_error)
    assert math.isnan(found.perplexity_standard_error)


def test_totals_with_rows_that_have_no_finite_loss() -> None:
    good = [[0.0, 0.0], [0.0, 0.0]]
    infinite = reference.evaluate([*good, [0.0, -INF]], [0, 1, 1])
    assert (infinite.loss, infinite.perplexity, infinite.bits_per_token) == (INF, INF, INF)
    assert infinite.accuracy == near(1 / 3)
    assert math.isnan(infinite.loss_standard_error)
    nan = reference.evaluate([*good, [0.0, NAN]], [0, 1, 0], top_k=2)
    assert all(math.isnan(getattr(nan, name)) for name in MEANS[:5])
    assert (nan.accuracy, nan.top_k_accuracy) == (near(1 / 3), {2: near(2 / 3)})
    both = reference.evaluate([*good, [0.0, -INF]], [0, 1, 1], sample_weight=[1.0, 1.0, -1.0])
    assert both.loss == -INF
    sign = reference.evaluate([[0.0, -INF]] * 2, [1, 1], sample_weight=[1.0, -2.0])
    assert math.isnan(sign.loss)


def test_weights_that_add_up_to_zero_divide_as_ieee_says() -> None:
    rows, targets = [[0.0, 0.0], [0.0, LN3]], [0, 0]
    found = reference.evaluate(rows, targets, sample_weight=[1.0, -1.0])
    assert (found.weight, found.loss) == (0.0, -INF)  # (ln 2 - ln 4) / 0
    assert found.accuracy == INF
    equal = reference.evaluate(rows[:1] * 2, targets, sample_weight=[1.0, -1.0])
    assert math.isnan(equal.loss)


def test_ignored_rows_are_not_predictions() -> None:
    found = reference.evaluate([[5.0, 0.0]] * 3, [0, 1, 9], ignore_index=(9, 1), top_k=1)
    assert (found.ignored, found.accuracy, found.top_k_accuracy) == (2, 1.0, {1: 1.0})


# Evaluators.


def some_batches() -> tuple[list[Any], list[Any], list[Any]]:
    """Rows whose sums are rounded, in doubles, otherwise in every other order."""
    generator = random.Random(2)
    scales = [10.0 ** generator.randrange(4) for _ in range(60)]
    logits = [[generator.gauss(0.0, scale) for _ in range(5)] for scale in scales]
    targets = [generator.choice([0, 1, 2, 3, 4, -100]) for _ in logits]
    weights = [generator.choice([0.0, 0.1, 1.0, 1e8, -3.3]) for _ in logits]
    return logits, targets, weights


@pytest.mark.parametrize("size", [1, 7, 59])
def test_totals_have_the_same_bits_however_the_rows_are_cut(size: int) -> None:
    logits, targets, weights = some_batches()
    options: dict[str, Any] = {"top_k": (1, 3), "temperature": 0.9, "softcap": 50.0}
    whole = reference.evaluate(logits, targets, sample_weight=weights, **options)
    parts = []
    evaluator = reference.Evaluator(**options)
    for start in range(0, len(logits), size):
        cut = slice(start, start + size)
        part = evaluator.update(logits[cut], targets[cut], sample_weight=weights[cut])
        alone = reference.evaluate(logits[cut], targets[cut], sample_weight=weights[cut], **options)
        assert repr(part) == repr(alone)
        assert repr(part.nll) == repr(whole.nll[cut])
        parts.append(reference.Evaluator(**options))
        parts[-1].update(logits[cut], targets[cut], sample_weight=weights[cut])
    assert bits(evaluator.result()) == bits(whole)
    random.Random(size).shuffle(parts)
    merged = reference.Evaluator(**options)
    for each in parts:
        assert merged.merge(pickle.loads(pickle.dumps(each))) is merged
    assert bits(merged.result()) == bits(whole)


def test_totals_are_rounded_once() -> None:
    # Doubles near 1e17 are 16 apart: a running sum loses each ln 2, while 20 of them are 13.9.
    logits = [[0.0, -1e17]] + [[0.0, 0.0]] * 20
    found = reference.evaluate(logits, [1] * 21)
    with mpmath.workdps(60):
        exact = (mpmath.mpf(10) ** 17 + 20 * mpmath.mpf(found.nll[1])) / 21
        assert found.loss == float(exact)


def test_evaluator_takes_batches_of_any_shape() -> None:
    evaluator = reference.Evaluator(axis=1, ignore_index=None)
    evaluator.update([[0.0, 0.0]], [0])
    evaluator.update([[[0.0, 0.0], [0.0, 0.0]]], [[0, 1]])
    assert (evaluator.result().rows, evaluator.result().loss) == (3, near(LN2))
    assert not hasattr(evaluator.result(), "nll")
    with pytest.raises(IndexError):
        evaluator.update([[0.0, 0.0], [1.0, 1.0]], [0, -100])
    assert evaluator.result().rows == 3


def test_an_evaluation_is_totals_and_rows() -> None:
    found = reference.evaluate([[0.0, 1.0]], [1], top_k=1)
    names = {field.name for field in dataclasses.fields(found)}
    rows = {"nll", "lse", "entropy", "predicted", "confidence", "correct", "rank"}
    assert names == {*COUNTS, *MEANS, "top_k_accuracy", *rows}
    totals = {field.name for field in dataclasses.fields(reference.Evaluator().result())}
    assert names - totals == rows


@pytest.mark.parametrize("others", [(), 1, [1, 2], (2, 5)])
def test_evaluators_merge_only_with_equal_top_k(others: Any) -> None:
    evaluator = reference.Evaluator(top_k=[5, 1, 5])
    assert evaluator.merge(reference.Evaluator(top_k=(1, 5))) is evaluator
    with pytest.raises(ValueError, match=r"^other: expected top_k \[1, 5\], got "):
        evaluator.merge(reference.Evaluator(top_k=others))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k: expected numbers from 1, got 0"),
        ({"top_k": (1, -2)}, ValueError, "top_k: expected numbers from 1, got -2"),
        ({"top_k": 1.5}, TypeError, "top_k: expected integers, got float"),
        ({"top_k": [True]}, TypeError, "top_k: expected integers, got bool"),
        ({"ignore_index": "no"}, TypeError, "ignore_index: expected integers, got str"),
        ({"temperature": 0.0}, ValueError, "temperature: expected a finite number above 0"),
        ({"softcap": -1.0}, ValueError, "softcap: expected a finite number above 0"),
    ],
)
def test_bad_options_of_an_evaluator_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for make in (reference.Evaluator, lambda **o: reference.evaluate([1.0, 2.0], 0, **o)):
        with pytest.raises(error) as caught:
            make(**options)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        ([0, 2], {}, IndexError, "targets[1] = 2 is outside [0, 2)"),
        ([[1.0, 0.0]] * 2, {}, TypeError, "targets: expected integers, got float"),
        ([0], {}, ValueError, "targets: expected shape (2,) to match logits (2, 2), got (1,)"),
        ([0, 1], {"sample_weight": 1.0}, ValueError, "sample_weight: expected shape (2,)"),
        ([0, 1], {"valid_classes": 3}, ValueError, "valid_classes: expected 1 to 2, got 3"),
        ([0, 1], {"axis": 2}, IndexError, "axis: expected -2 to 1"),
    ],
)
def test_bad_batches_are_named(
    targets: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        reference.evaluate([[1.0, 2.0]] * 2, targets, **options)
    assert str(caught.value).startswith(message)

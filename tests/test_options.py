"""The options of the losses and of the softmax, in all their combinations, against the reference.

Hypothesis draws the shape, the dtypes, the layouts and the options; the numbers come from a drawn
seed. What is expected comes from `softxent.reference`, in double precision from the very same
numbers; then follow rows with known answers. Derivatives are in `test_options_gradients`; how many
digits are right is `test_accuracy`'s question.

The one idea: what is allowed is counted in roundings of the terms that a result is the sum of, since
weights of both signs may cancel. `Row` knows how large those terms are, and nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import softxent as sx
from common import (
    BFLOAT16,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INF,
    LOST,
    NAN,
    ROUNDING,
    THRESHOLDS,
    Array,
    Dtype,
    Options,
    Thresholds,
    close,
    drawn,
    lists,
    loss_dtype,
    same_bits,
)
from conftest import LAYOUTS, thresholds
from hypothesis import Phase, given, settings
from softxent import reference

# How large the terms are.


@dataclass(frozen=True)
class Row:
    """What a row's results are the sum of: absolute values, in double precision, to a few digits."""

    logits: Array
    allowed: Array
    temperature: float
    softcap: float | None
    precision: float

    @cached_property
    def s(self) -> Array:
        x, c = self.logits, self.softcap
        capped = x if c is None else c * np.tanh(x / c)
        s: Array = np.where(self.allowed, capped / self.temperature, -INF)
        return np.where(np.isfinite(s), s, -1e300)

    @property
    def top(self) -> float:
        return float(self.s.max(initial=-1e300))

    @property
    def gaps(self) -> Array:
        return np.minimum(self.top - self.s, 1e6)

    @property
    def lse(self) -> float:
        return self.top + math.log(max(float(np.exp(-self.gaps).sum()), 1.0))

    @property
    def lse_terms(self) -> float:
        return 1 + max(abs(self.lse), abs(self.top)) if self.top > -1e300 else 0.0

    @property
    def p(self) -> Array:
        return np.exp(-self.gaps - (self.lse - self.top))

    @property
    def nll(self) -> Array:
        return np.where(self.allowed & (self.gaps < 1e6), self.gaps + self.lse - self.top, 0.0)

    @property
    def of_softcap(self) -> float:
        """The error of any s_i that the softcap makes, in roundings."""
        if self.softcap is None:
            return 0.0
        finite = self.logits[~np.isnan(self.logits) & self.allowed]
        largest = float(np.abs(finite).max(initial=0.0))
        return 12 * min(self.softcap, largest) / self.temperature

    @property
    def of_exponents(self) -> Array:
        """The error of exp(s_i - top) in roundings: that of the difference, and of the softcap."""
        return 16 + 4 * self.gaps + self.of_softcap

    @property
    def of_nll(self) -> Array:
        """The error of each -log p, in roundings."""
        weighted = float((self.p * self.of_exponents).sum())
        return 16 * self.nll + weighted + self.of_softcap

    @property
    def slope(self) -> Array:
        """d s_i / d x_i and, for its own error, a little more for each nat beyond the cap."""
        if self.softcap is None:
            return np.full(len(self.logits), 1 / self.temperature)
        far = np.minimum(np.abs(self.logits / self.softcap), 350)
        far = np.where(np.isnan(far), 0.0, far)
        slopes: Array = (1 + far) / np.cosh(far) ** 2 / self.temperature
        return slopes


# What is drawn.


@dataclass(frozen=True)
class Batch:
    """The arguments of a call, contiguous; and the way in which it is made."""

    logits: Array
    axis: int
    options: Options
    layout: str
    thresholds: Thresholds
    threads: int

    @property
    def rows_shape(self) -> tuple[int, ...]:
        axis = self.axis % self.logits.ndim
        return self.logits.shape[:axis] + self.logits.shape[axis + 1 :]

    @property
    def given(self) -> Options:
        """The options, each array in the layout."""
        laid_out = {
            name: LAYOUTS[self.layout](value) if isinstance(value, np.ndarray) else value
            for name, value in self.options.items()
        }
        return laid_out | {"axis": self.axis, "threads": self.threads}

    @property
    def exact(self) -> Options:
        """The options as the reference takes them."""
        plain = {
            name: lists(value) if isinstance(value, np.ndarray) else value
            for name, value in self.options.items()
        }
        return plain | {"axis": self.axis}

    def run(self, function: Callable[..., Any], *arrays: Array, **more: Any) -> Any:
        """The function on arrays of that layout, on that many threads, cut in that way."""
        with thresholds(*self.thresholds):
            return function(*map(LAYOUTS[self.layout], arrays), **self.given, **more)

    def in_place(self, function: Callable[..., Any], *arrays: Array, **more: Any) -> Array:
        """What the function makes of the logits, in their own place."""
        logits = self.logits.copy()
        function(logits, *arrays, axis=self.axis, out=logits, **self.options, **more)
        return logits

    def rows(self) -> list[Row]:
        classes = self.logits.shape[self.axis]
        allowed: Array = np.ones(self.logits.shape, bool)
        mask = self.options.get("class_mask")
        if mask is not None:
            if mask.shape == (classes,):
                mask = mask.reshape(
                    [-1 if i == self.axis % allowed.ndim else 1 for i in range(allowed.ndim)]
                )
            allowed &= mask
        allowed = np.moveaxis(allowed, self.axis, -1).reshape(-1, classes)
        allowed &= np.arange(classes) < (self.options.get("valid_classes") or classes)
        logits = np.moveaxis(self.logits, self.axis, -1).reshape(-1, classes).astype(np.float64)
        temperature = self.options.get("temperature", 1.0)
        softcap = self.options.get("softcap")
        precision = ROUNDING[loss_dtype(self.logits.dtype)]
        return [
            Row(x, a, temperature, softcap, precision) for x, a in zip(logits, allowed, strict=True)
        ]

    def joined(self, rows: list[Array]) -> Array:
        """Rows as an array of the shape of the logits."""
        classes = self.logits.shape[self.axis]
        together = np.array(rows).reshape(*self.rows_shape, classes)
        return np.moveaxis(together, -1, self.axis)


def maybe(draw: st.DrawFn, *values: Any) -> Any:
    """None half of the time."""
    return draw(st.sampled_from([*values, *[None] * len(values)]))


SHORT = st.integers(1, 40) | st.integers(1, 200)
OTHERS = st.sampled_from([(), (1,), (3,), (2,), (5,), (2, 3), (1, 2)])


@st.composite
def batches(draw: st.DrawFn, *, classes: Any = SHORT, others: Any = OTHERS) -> Batch:
    """Logits, and the options that say how they are read."""
    size, shape = draw(classes), list(draw(others))
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, size)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = draw(st.sampled_from([1.0, 4.0, 30.0])) * random.standard_normal(shape)
    special = draw(st.sampled_from([None, None, None, -INF, -INF, INF, NAN]))
    if special is not None:
        logits[random.random(shape) < draw(st.sampled_from([0.5, 2 / size]))] = special
    options: Options = {
        "temperature": draw(st.sampled_from([1.0, 1.0, 0.5, 3.0])),
        "softcap": maybe(draw, 1.0, 5.0, 30.0, 1e4),
        "valid_classes": draw(st.none() | st.integers(1, size)),
        "class_mask": maybe(draw, "classes", "all", "broadcast", "one"),
    }
    if options["class_mask"] is not None:
        of = {
            "classes": (size,),
            "all": tuple(shape),
            "broadcast": tuple(n if draw(st.booleans()) else 1 for n in shape),
            "one": (),
        }[options["class_mask"]]
        options["class_mask"] = random.random(of) < draw(st.sampled_from([0.2, 0.7, 0.95]))
        options["class_mask"] = np.asarray(options["class_mask"])
    options = {name: value for name, value in options.items() if value is not None}
    return Batch(
        logits=logits.astype(draw(st.sampled_from(DTYPES))),
        axis=axis - draw(st.sampled_from([0, len(shape)])),
        options=options,
        layout=draw(st.sampled_from(list(LAYOUTS))),
        thresholds=draw(st.sampled_from(THRESHOLDS)),
        threads=draw(st.sampled_from([1, 2])),
    )


WEIGHTS = [0.0, 0.25, 1.0, 1.0, 2.0, 3.5]


@st.composite
def losses(draw: st.DrawFn, /, **sizes: Any) -> tuple[Batch, Array]:
    """A batch with all the options of a loss, and its targets."""
    batch = draw(batches(**sizes))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits, rows, options = batch.logits, batch.rows_shape, batch.options
    size = logits.shape[batch.axis]
    signs = draw(st.sampled_from([[], [], [-1.0, -2.0]]))
    if draw(st.booleans()):
        options["weight"] = random.choice(WEIGHTS + signs, size).astype(
            draw(st.sampled_from(DTYPES))
        )
    if draw(st.booleans()):
        weights = np.asarray(random.choice(WEIGHTS + signs, rows))
        options["sample_weight"] = weights.astype(draw(st.sampled_from(DTYPES)))
    options["label_smoothing"] = draw(st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1))
    options["z_loss"] = draw(st.sampled_from([0.0, 0.0, 1e-4, 0.5, 2.0]))
    options["reduction"] = draw(st.sampled_from(["mean", "mean", "sum", "none", "sequence_mean"]))
    count = math.prod(rows)
    if options["reduction"] == "mean":
        options["on_empty"] = draw(st.sampled_from(["nan", "zero"]))
        normalizer = maybe(draw, 3.5)
        options |= {} if normalizer is None else {"normalizer": normalizer}
    elif options["reduction"] == "sequence_mean" and (len(rows) != 2 or draw(st.booleans())):
        cuts = draw(st.lists(st.integers(0, count), max_size=3))
        options["offsets"] = np.array([0, *sorted(cuts), count])
    if draw(st.booleans()):
        targets = random.standard_exponential(logits.shape)
        targets /= targets.sum(axis=batch.axis, keepdims=True)
        targets[random.random(logits.shape) < draw(st.sampled_from([0.0, 0.5]))] = 0.0
        odd = draw(st.sampled_from([None, None, None, "signs", "NaN"]))
        if odd == "signs":
            # With those, smoothing may add an infinity to another.
            options["label_smoothing"] = 0.0
            targets *= random.choice([2.0, -1.0], logits.shape)
        elif odd == "NaN" and targets.size:
            targets.flat[random.integers(targets.size)] = NAN
        return batch, targets.astype(draw(st.sampled_from(DTYPES)))
    ids = np.asarray(random.integers(size, size=rows))
    ids = np.where(random.random(rows) < 0.2, -100, ids)
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([[-100, 0], {-100, 7}, (-100, size)]))
    return batch, ids.astype(draw(st.sampled_from(["i4", "i8"] if size > 2**15 else ["i2", "i8"])))


# Softmax, its logarithm, log-sum-exp.


@settings(drawn, max_examples=700)
@given(batches())
def test_functions_of_logits_alone_agree_with_the_reference(batch: Batch) -> None:
    exact, dtype = lists(batch.logits), batch.logits.dtype
    rows = batch.rows()
    for name, allowed in (
        ("softmax", [row.precision * row.p * row.of_exponents for row in rows]),
        ("log_softmax", [row.precision * row.of_nll for row in rows]),
    ):
        got = batch.run(getattr(sx, name), batch.logits)
        expected = np.reshape(getattr(reference, name)(exact, **batch.exact), batch.logits.shape)
        close(got, expected, dtype, batch.joined(allowed))
        assert same_bits(batch.in_place(getattr(sx, name)), got)
    expected = np.reshape(reference.logsumexp(exact, **batch.exact), batch.rows_shape)
    sizes = [row.precision * (16 * row.lse_terms + row.of_softcap) for row in rows]
    got = batch.run(sx.logsumexp, batch.logits)
    close(got, expected, loss_dtype(dtype), np.reshape(sizes, batch.rows_shape))


# The losses.


@dataclass(frozen=True)
class Terms:
    """How large the errors of the loss of a row and of its slopes may be."""

    row: Row
    coefficients: Array  # of each -log p, absolute
    z_loss: float

    @property
    def of_lse(self) -> float:
        return 16 * self.row.lse_terms + self.row.of_softcap

    @property
    def of_loss(self) -> float:
        surprise = float((self.coefficients * self.row.of_nll).sum())
        lse = abs(self.row.lse) if self.row.top > -1e300 else 0.0
        return self.row.precision * (
            surprise + self.z_loss * (16 * lse * lse + 2 * lse * self.of_lse)
        )

    @property
    def of_slopes(self) -> Array:
        row = self.row
        lse = abs(row.lse) if row.top > -1e300 else 0.0
        weighted = float((row.p * row.of_exponents).sum())
        errors = row.of_exponents + weighted
        of_p = row.p * errors * (self.coefficients.sum() + 2 * self.z_loss * lse)
        of_own = self.coefficients * (16 + weighted)
        of_square = 2 * self.z_loss * row.p * self.of_lse
        # A probability may be lost before it is multiplied. And where the softcap is flat, from 40 or
        # 350 caps on, its derivative stays what it is there.
        double = row.precision == ROUNDING[FLOAT64]
        flat = 0.0 if row.softcap is None else 8 * math.exp(-700 if double else -80)
        pulled = self.coefficients.sum() + 2 * self.z_loss * lse
        lost = pulled * LOST[FLOAT64 if double else FLOAT32] * row.slope
        lost += flat * (row.p * pulled + self.coefficients) / row.temperature
        slopes: Array = row.precision * row.slope * (of_p + of_own + of_square) + lost
        return np.where(row.allowed, slopes, 0.0)


def terms_of(batch: Batch, targets: Array) -> list[Terms]:
    options, classes = batch.options, batch.logits.shape[batch.axis]
    weight = np.abs(np.asarray(options.get("weight", np.ones(classes))).astype(np.float64))
    e = options["label_smoothing"]
    if targets.dtype.kind == "i":
        ids = targets.ravel()[:, np.newaxis]
        wanted = (ids == np.arange(classes)).astype(np.float64)
    else:
        wanted = np.moveaxis(np.abs(targets.astype(np.float64)), batch.axis, -1)
        wanted = wanted.reshape(-1, classes)
    return [
        Terms(
            row,
            np.nan_to_num((1 - e) * t + e * row.allowed / max(row.allowed.sum(), 1)) * weight,
            options["z_loss"],
        )
        for row, t in zip(batch.rows(), wanted, strict=True)
    ]


def denominator_of(batch: Batch, targets: Array) -> float:
    """What the sum of the rows is divided by; 1 for nothing."""
    options, rows = batch.options, batch.rows_shape
    if options["reduction"] == "sequence_mean":
        return (len(options["offsets"]) - 1 if "offsets" in options else rows[0]) or 1
    if options["reduction"] != "mean" or "normalizer" in options:
        return float(options.get("normalizer", 1.0))
    weights = np.broadcast_to(options.get("sample_weight", 1.0), rows).astype(np.float64)
    if targets.dtype.kind == "i":
        ignored = np.isin(targets, list(options.get("ignore_index", [-100])))
        of_class = np.asarray(options.get("weight", np.ones(batch.logits.shape[batch.axis])))
        weights = np.where(
            ignored, 0.0, weights * of_class.astype(np.float64)[np.where(ignored, 0, targets)]
        )
    return float(weights.sum())


@settings(drawn, max_examples=1200)
@given(losses(), st.data())
def test_loss_and_gradient_agree_with_the_reference(given: tuple[Batch, Array], data: Any) -> None:
    batch, targets = given
    check_loss_and_gradient(batch, targets, data.draw(st.sampled_from([None, 1, -2.5, "rows"])))


def check_loss_and_gradient(batch: Batch, targets: Array, upstream: Any) -> None:
    dtype = batch.logits.dtype
    per_row = batch.options["reduction"] == "none"
    if upstream == "rows":
        upstream = np.linspace(-2, 3, math.prod(batch.rows_shape)).reshape(batch.rows_shape)
        upstream = upstream if per_row else 0.5
    terms = terms_of(batch, targets)
    denominator = denominator_of(batch, targets)
    loss, grad = batch.run(sx.cross_entropy_with_grad, batch.logits, targets, grad_output=upstream)
    expected, expected_grad = reference.cross_entropy_with_grad(
        lists(batch.logits),
        lists(targets),
        grad_output=lists(upstream) if isinstance(upstream, np.ndarray) else upstream,
        **batch.exact,
    )
    u = np.broadcast_to(batch.options.get("sample_weight", 1.0), batch.rows_shape)
    u = np.abs(u.astype(np.float64)).ravel()
    of_rows = u * [t.of_loss for t in terms]
    share = 1 / abs(denominator) if denominator else 1.0
    allowed = of_rows.reshape(batch.rows_shape) if per_row else of_rows.sum() * share
    close(loss, expected, loss_dtype(dtype), allowed)
    scales = (
        u * np.abs(np.broadcast_to(1.0 if upstream is None else upstream, batch.rows_shape)).ravel()
    )
    of_slopes = batch.joined(
        [share * scale * t.of_slopes for scale, t in zip(scales, terms, strict=True)]
    )
    close(grad, np.reshape(expected_grad, batch.logits.shape), dtype, of_slopes)
    # The loss alone, and the gradient in place of the logits.
    assert same_bits(batch.run(sx.cross_entropy, batch.logits, targets), loss)
    assert same_bits(
        batch.in_place(sx.cross_entropy_with_grad, targets, grad_output=upstream), grad
    )


# A block has 1024 columns; to shrink such rows would take minutes.
@settings(drawn, max_examples=15, phases=[Phase.generate])
@given(losses(classes=st.integers(300, 2500), others=st.sampled_from([(), (1,)])))
def test_loss_and_gradient_of_long_rows_agree_with_the_reference(
    given: tuple[Batch, Array],
) -> None:
    check_loss_and_gradient(*given, upstream=None)


def formulas(row: Row, wanted: Array, weight: Array, e: float, z: float) -> tuple[Array, Array]:
    """The loss of a long row and its gradient, as they are written, in extended precision."""
    x = np.where(row.allowed, row.logits, 0).astype(np.longdouble)
    c, t = np.longdouble(row.softcap or INF), np.longdouble(row.temperature)
    s, slope = (x / t, 1 / t) if c == INF else (c * np.tanh(x / c) / t, 1 / np.cosh(x / c) ** 2 / t)
    top = s[row.allowed].max()
    exps = np.where(row.allowed, np.exp(s - top), 0)
    p, log_total = exps / exps.sum(), np.log(exps.sum())
    a = ((1 - e) * wanted + e * row.allowed / row.allowed.sum()) * weight
    lse = top + log_total
    loss = (a * (log_total - (s - top)))[row.allowed].sum() + z * lse**2
    return loss, np.where(row.allowed, (p * (a.sum() + 2 * z * lse) - a) * slope, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [33001, 70000])
def test_loss_and_gradient_of_rows_in_chunks_agree_with_the_formulas(
    classes: int, dtype: Dtype
) -> None:
    random = np.random.default_rng(classes)
    for number, layout in enumerate(LAYOUTS):
        thresholds = THRESHOLDS[number // 3]
        logits = (3 * random.standard_normal((2, classes))).astype(dtype)
        options: Options = {
            "weight": random.random(classes).astype(random.choice(["f2", "f4", "f8"])),
            "sample_weight": np.array([1.5, -2.0]),
            "label_smoothing": [0.0, 0.1, 1.0][number % 3],
            "z_loss": 0.01,
            "temperature": 1.3,
            "class_mask": random.random([(classes,), (2, classes)][number % 2]) < 0.8,
            "valid_classes": classes - 9 * number,
            "reduction": "none",
        }
        if number % 4 < 2:
            options["softcap"] = 5.0
        # The probabilities, or the class ids, of classes that take part.
        allowed = Batch(logits, 1, options, "C", thresholds, 1).rows()[0].allowed
        ids = random.choice(np.flatnonzero(allowed), 2)
        if number % 2:
            options["class_mask"][1] = options["class_mask"][0]
        targets = ids
        wanted = ids[:, np.newaxis] == np.arange(classes)
        if number % 3:
            targets = np.where(allowed, random.random(logits.shape) / classes, 0.0)
            wanted = targets.astype(np.float64)
        batch = Batch(logits, 1, options, layout, thresholds, threads=2)
        loss, grad = batch.run(sx.cross_entropy_with_grad, logits, targets)
        weight = options["weight"].astype(np.float64)
        e, z = options["label_smoothing"], options["z_loss"]
        for i, terms in enumerate(terms_of(batch, targets)):
            u = options["sample_weight"][i]
            row_loss, slopes = formulas(terms.row, wanted[i], weight, e, z)
            close(loss[i], float(u * row_loss), loss_dtype(dtype), abs(u) * terms.of_loss)
            expected = (u * slopes).astype(np.float64)
            close(grad[i], expected, dtype, abs(u) * terms.of_slopes)


# Rows with known answers.

LN2, LN3 = 0.6931471805599453, 1.0986122886681098
NEAR = {FLOAT16: 1e-3, BFLOAT16: 4e-3, FLOAT32: 3e-7, FLOAT64: 2e-15}
of_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def assert_near(got: Any, expected: Any) -> None:
    """NaN, infinities and zeros where expected, other values as the dtype of `got` has them."""
    assert isinstance(got, np.ndarray | np.generic)
    values, wanted = np.asarray(got).astype(np.float64), np.array(expected, np.float64)
    assert values.shape == wanted.shape
    exact = ~np.isfinite(wanted) | (wanted == 0)
    np.testing.assert_array_equal(values[exact], wanted[exact])
    np.testing.assert_allclose(values[~exact], wanted[~exact], NEAR[np.dtype(got.dtype)])


def assert_loss(logits: Any, targets: Any, loss: Any, grad: Any, **options: Any) -> None:
    """That loss and that gradient; also in place, and when the loss alone is asked for."""
    got, slopes = sx.cross_entropy_with_grad(logits, targets, **options)
    assert_near(got, loss)
    assert_near(slopes, grad)
    assert_near(sx.cross_entropy(logits, targets, **options), loss)
    again = np.array(logits)
    sx.cross_entropy_with_grad(again, targets, out=again, **options)
    assert same_bits(again, slopes)


# Two ways to say that only the first three of four classes take part.
FIRST_THREE: list[Options] = [{"valid_classes": 3}, {"class_mask": [True, True, True, False]}]


@of_every_dtype
@pytest.mark.parametrize("mask", FIRST_THREE, ids=str)
def test_a_masked_target_has_infinite_loss_and_pulls_nothing(mask: Options, dtype: Dtype) -> None:
    logits = np.array([5.0, 5.0, 5.0, 7.0], dtype)
    third = 1 / 3
    for target in (3, [0.0, 0.0, 0.0, 1.0]):
        assert_loss(logits, target, INF, [third, third, third, 0.0], **mask)
        # Half of the loss is that of the target, half of it is smoothing.
        sixth = third / 2
        assert_loss(logits, target, INF, [sixth, sixth, sixth, 0.0], label_smoothing=0.5, **mask)
        # Where nothing is left of the target's term it is not infinite.
        no_pull = [0.0, 0.0, 0.0, 0.0]
        loss, grad = sx.cross_entropy_with_grad(logits, target, label_smoothing=1.0, **mask)
        assert_near(loss, LN3)
        np.testing.assert_allclose(grad.astype(float), no_pull, atol=NEAR[dtype])
        weight = [1.0, 1.0, 1.0, 0.0]
        assert_loss(logits, target, 0.0, no_pull, weight=weight, reduction="sum", **mask)


@of_every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask", [False, [False] * 3, [[False] * 3, [False] * 3]], ids=str)
def test_nothing_is_left_where_every_class_is_masked(mask: Any, layout: str, dtype: Dtype) -> None:
    for value in (1.0, NAN, INF, -INF):
        logits = LAYOUTS[layout](np.full((2, 3), value, dtype))
        zeros, class_mask = np.zeros((2, 3)), np.array(mask)
        assert_near(sx.softmax(logits, class_mask=class_mask), zeros)
        assert_near(sx.log_softmax(logits, class_mask=class_mask), zeros - INF)
        assert_near(sx.logsumexp(logits, class_mask=class_mask), [-INF, -INF])
        several: list[Options] = [{}, {"label_smoothing": 0.5, "z_loss": 1.0, "softcap": 2.0}]
        for targets in ([0, 2], [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]):
            for options in several:
                loss, grad = sx.cross_entropy_with_grad(
                    logits, targets, class_mask=class_mask, reduction="none", **options
                )
                assert_near(loss, [NAN, NAN])
                assert_near(grad, zeros)


@of_every_dtype
def test_a_row_without_a_class_does_not_touch_the_others(dtype: Dtype) -> None:
    mask = np.array([[True, True, False], [False, False, False], [False, True, True]])
    logits = np.zeros((3, 3), dtype)
    logits[~mask] = NAN
    p = [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    assert_near(sx.softmax(logits, class_mask=mask), p)
    assert_near(sx.logsumexp(logits, class_mask=mask), [LN2, -INF, LN2])
    grad = [[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, -0.5]]
    assert_loss(logits, [0, 1, 2], [LN2, NAN, LN2], grad, class_mask=mask, reduction="none")


@of_every_dtype
@pytest.mark.parametrize("harm", [NAN, INF, -INF])
@pytest.mark.parametrize("classes", [4, 77, 1100, 33001])
def test_what_a_masked_class_holds_does_no_harm(classes: int, harm: float, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    logits = random.standard_normal((3, classes)).astype(dtype)
    mask = random.random((3, classes)) < 0.6
    mask[:, [0, 1]] = True
    harmed = np.where(mask, logits, np.array(harm, dtype))
    # Nor does what the target's probability or the weight of such a class is, unless it says to.
    weight = random.random(classes)
    probabilities = np.where(mask, 0.1, 0.0)
    options: Options = {"class_mask": mask, "temperature": 1.5}
    loss: Options = {"weight": weight, "label_smoothing": 0.2, "z_loss": 0.1, **options}
    for softcap in (None, 3.0):
        options["softcap"] = loss["softcap"] = softcap
        for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
            found = [function(x, **options) for x in (logits, harmed)]
            assert same_bits(*found)
        for targets in ([0, 1, 0], probabilities):
            expected, wanted = sx.cross_entropy_with_grad(logits, targets, **loss)
            got, grad = sx.cross_entropy_with_grad(harmed, targets, **loss)
            assert np.isfinite(got)
            assert same_bits(got, expected)
            assert same_bits(grad, wanted)
            assert not grad[~mask].any()


@of_every_dtype
def test_a_weight_of_zero_leaves_nothing_of_an_infinite_surprise(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, -INF], dtype)
    weight = [1.0, 1.0, 0.0]
    # Half of ln 2 is the target's; a sixth of it each class has of the smoothing.
    loss = (1 / 2 + 1 / 6 + 1 / 6) * LN2
    options: Options = {"label_smoothing": 0.5, "reduction": "sum"}
    # p times the weights 1/2 + 2 * 1/6 of all, less each class's own.
    grad = [5 / 12 - 2 / 3, 5 / 12 - 1 / 6, 0.0]
    assert_loss(logits, 0, loss, grad, weight=weight, **options)
    assert_loss(logits, [1.0, 0.0, 0.0], loss, grad, weight=weight, **options)
    assert_loss(logits, [0.5, 0.5, 0.0], LN2, [0.0, 0.0, 0.0])
    assert_loss(logits, [0.5, 0.5, 1.0], LN2, [0.0, 0.0, 0.0], weight=weight)
    assert_loss(logits, 2, 0.0, [0.0, 0.0, 0.0], weight=weight, reduction="sum")
    # Without that weight, or with a smaller share, it is infinite.
    slopes = [0.5 - 1 / 2 - 1 / 6, 0.5 - 1 / 6, -1 / 6]
    assert_loss(logits, 0, INF, slopes, **options)


@of_every_dtype
def test_smoothing_of_an_allowed_class_at_minus_infinity_is_infinite(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, -INF, NAN], dtype)
    options: Options = {"label_smoothing": 0.5, "class_mask": [True, True, True, False]}
    grad = [-1 / 6, 1 / 3, -1 / 6, 0.0]
    assert_loss(logits, 0, INF, grad, **options)
    assert_loss(logits, [1.0, 0.0, 0.0, 0.0], INF, grad, **options)
    # Masked, it has no part in the smoothing.
    options["valid_classes"] = 2
    assert_loss(logits, 0, LN2, [-0.25, 0.25, 0.0, 0.0], **options)


@of_every_dtype
def test_with_all_smoothing_the_target_does_not_matter(dtype: Dtype) -> None:
    logits = np.array([0.0, 0.0, 0.0, -INF], dtype)
    logits[1] = math.log(2)  # p = 1/4, 1/2, 1/4
    options: Options = {"label_smoothing": 1.0, "valid_classes": 3}
    loss = (2 * math.log(4) + LN2) / 3
    for target in (0, 1, 2, [0.0, 0.0, 1.0, 0.0], [7.0, -1.0, 0.0, 0.0]):
        got, grad = sx.cross_entropy_with_grad(logits, target, **options)
        np.testing.assert_allclose(got, loss, rtol=NEAR[dtype])
        expected = [1 / 4 - 1 / 3, 1 / 2 - 1 / 3, 1 / 4 - 1 / 3, 0.0]
        np.testing.assert_allclose(grad.astype(float), expected, rtol=4 * NEAR[dtype])


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_a_target_that_does_not_count_keeps_the_digits_of_its_slope(dtype: Dtype) -> None:
    # Its slope is that of any other class, 2 z lse p; p = 6e-16 and 1 - (1 - p) are not the same.
    logits = np.array([5.0, -30.0], dtype)
    p = math.exp(-35) / (1 + math.exp(-35))
    _, grad = sx.cross_entropy_with_grad(logits, 1, weight=[1.0, 0.0], z_loss=1.0, reduction="sum")
    np.testing.assert_allclose(grad, [10.0, 10 * p], rtol=40 * NEAR[dtype])
    _, grad = sx.cross_entropy_with_grad(
        logits, 1, label_smoothing=1.0, weight=[1.0, 0.0], reduction="sum"
    )
    np.testing.assert_allclose(grad[1], p / 2, rtol=40 * NEAR[dtype])
    # The other has nearly all of p, and is the difference of two halves.
    np.testing.assert_allclose(grad[0], -p / 2, atol=NEAR[dtype])


@of_every_dtype
def test_a_row_of_sample_weight_zero_is_not_read(dtype: Dtype) -> None:
    logits = np.array([[NAN, INF, 0.0], [0.0, 0.0, -INF], [-INF, -INF, -INF]], dtype)
    grad = [[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    probabilities = [[NAN, 1.0, INF], [1.0, 0.0, 0.0], [0.0, 0.0, NAN]]
    for targets in ([2, 0, 1], probabilities):
        for zero in (0.0, -0.0):
            options: Options = {"sample_weight": [zero, 1.0, zero], "z_loss": 0.0}
            assert_loss(logits, targets, LN2, grad, **options)
            assert_loss(logits, targets, [0.0, LN2, 0.0], grad, reduction="none", **options)
    # 3 times as heavy, it is 3 times as much in a sum, and no more in a mean.
    options = {"sample_weight": [0, 3, 0]}
    assert_loss(logits, [2, 0, 1], LN2, grad, **options)
    assert_loss(logits, [2, 0, 1], 3 * LN2, np.multiply(grad, 3), reduction="sum", **options)


@of_every_dtype
def test_weights_divide_the_mean_and_may_be_negative(dtype: Dtype) -> None:
    logits = np.zeros((2, 2), dtype)
    targets = [0, 1]
    options: Options = {"weight": [-1.0, 3.0]}
    grad = np.array([[0.5, -0.5], [1.5, -1.5]])
    assert_loss(logits, targets, [-LN2, 3 * LN2], grad, reduction="none", **options)
    assert_loss(logits, targets, 2 * LN2, grad, reduction="sum", **options)
    assert_loss(logits, targets, LN2, grad / 2, **options)
    assert_loss(logits, targets, LN2 / 4, grad / 8, normalizer=8, **options)
    options["sample_weight"] = [1.0, -2.0]
    grad[1] *= -2
    assert_loss(logits, targets, [-LN2, -6 * LN2], grad, reduction="none", **options)
    assert_loss(logits, targets, LN2, grad / -7, **options)
    # With probabilities the classes' weights do not divide.
    probabilities = np.eye(2)
    assert_loss(logits, probabilities, 7 * LN2, -grad, **options)


@of_every_dtype
def test_a_denominator_of_zero_divides_as_numbers_do(dtype: Dtype) -> None:
    logits = np.array([[0.0, 0.0], [0.0, 0.0]], dtype)
    logits[1, 1] = 2.0
    signs = [[-INF, INF], [-INF, INF]]
    for on_empty in ("nan", "zero", "raise"):
        options: Options = {"on_empty": on_empty}
        # 1 - 1 = 0, and the loss is not.
        assert_loss(logits, [0, 1], INF, signs, weight=[1, -1], **options)
        weight = {"sample_weight": [1.0, -1.0]}
        assert_loss(logits, [0, 1], INF, signs, **weight, **options)
        probabilities = [[1.0, 0.0], [0.0, 1.0]]
        assert_loss(logits, probabilities, INF, signs, **weight, **options)
        loss, grad = sx.cross_entropy_with_grad(logits, [0, 1], weight=[0, 0], **options)
        assert np.isnan(loss)
        assert np.isnan(grad).all()


@of_every_dtype
def test_a_gradient_divided_by_zero_is_infinite_also_for_the_other_terms(dtype: Dtype) -> None:
    logits = np.zeros((1, 2), dtype)
    options: Options = {"weight": [0.0, 1.0]}
    assert_loss(logits, [0], INF, [[INF, INF]], z_loss=1.0, **options)
    assert_loss(logits, [0], INF, [[INF, -INF]], label_smoothing=0.5, **options)


@of_every_dtype
@pytest.mark.parametrize("targets", [[0, 1], [[0.5, 0.5], [1.0, 0.0]]], ids=["ids", "floats"])
def test_no_weight_at_all_is_what_on_empty_says(targets: Any, dtype: Dtype) -> None:
    logits, zeros = np.full((2, 2), NAN, dtype), np.zeros((2, 2))
    options: Options = {"sample_weight": [0.0, 0.0]}
    assert_loss(logits, targets, NAN, zeros, **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="zero", **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="raise", reduction="sum", **options)
    assert_loss(logits, targets, 0.0, zeros, on_empty="raise", normalizer=2, **options)
    for function in (sx.cross_entropy, sx.cross_entropy_with_grad):
        with pytest.raises(ValueError, match="not ignored"):
            function(logits, targets, on_empty="raise", **options)


@of_every_dtype
@pytest.mark.parametrize("classes", [1, 5, 130, 33001])
def test_one_hot_probabilities_are_class_ids(classes: int, dtype: Dtype) -> None:
    random = np.random.default_rng(classes)
    logits = (4 * random.standard_normal((3, classes))).astype(dtype)
    ids = [0, classes // 2, classes - 1]
    one_hot = np.eye(classes)[ids] if classes < 1000 else np.zeros((3, classes))
    one_hot[[0, 1, 2], ids] = 1.0
    for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01, "temperature": 2.0}):
        keywords: Options = {"reduction": "none", "weight": random.random(classes) + 0.5, **options}
        loss, grad = sx.cross_entropy_with_grad(logits, ids, **keywords)
        same_loss, same_grad = sx.cross_entropy_with_grad(logits, one_hot, **keywords)
        near = 40 * ROUNDING[loss_dtype(dtype)]
        np.testing.assert_allclose(same_loss, loss, rtol=near, atol=near)
        wide, same_wide = grad.astype(float), same_grad.astype(float)
        near += 2 * ROUNDING[dtype]
        np.testing.assert_allclose(same_wide, wide, rtol=near, atol=near * np.abs(wide).max())


@of_every_dtype
def test_a_probability_of_one_is_the_surprise_of_the_class(dtype: Dtype) -> None:
    logits = np.log([0.80, 0.15, 0.05]).astype(dtype)
    loss = sx.cross_entropy(logits, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(loss, 0.22314355131420976, rtol=10 * NEAR[dtype])


@of_every_dtype
def test_probabilities_are_taken_as_given(dtype: Dtype) -> None:
    logits = np.zeros(4, dtype)
    assert_loss(logits, [2.0, 0.0, 0.0, 0.0], 4 * LN2, [-1.5, 0.5, 0.5, 0.5])
    assert_loss(logits, [-1.0, 0.0, 0.0, 0.0], -2 * LN2, [0.75, -0.25, -0.25, -0.25])
    assert_loss(logits, [0.0, 0.0, 0.0, 0.0], 0.0, [0.0, 0.0, 0.0, 0.0])
    assert_loss(logits, [0.0, 0.0, NAN, 0.0], NAN, [NAN] * 4)
    rows = np.zeros((2, 4), dtype)
    targets = [[0.0, NAN, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    grad = [[NAN] * 4, [-0.75, 0.25, 0.25, 0.25]]
    assert_loss(rows, targets, [NAN, 2 * LN2], grad, reduction="none")


@of_every_dtype
@pytest.mark.parametrize("mask", FIRST_THREE, ids=str)
def test_probabilities_of_masked_classes_are_infinitely_surprising(
    mask: Options, dtype: Dtype
) -> None:
    logits = np.array([0.0, 0.0, 0.0, NAN], dtype)
    # The three share what is expected of all four: 1/3 of it each, less their own.
    assert_loss(logits, [0.75, 0.0, 0.0, 0.25], INF, [-5 / 12, 1 / 3, 1 / 3, 0.0], **mask)
    assert_loss(logits, [1.5, 0.0, 0.0, -0.5], -INF, [-7 / 6, 1 / 3, 1 / 3, 0.0], **mask)
    # Nothing of it is left with the weight 0.
    assert_loss(
        logits, [0.75, 0.0, 0.0, 0.25], 0.75 * LN3, [-0.5, 0.25, 0.25, 0.0],
        weight=[1, 1, 1, 0], **mask,
    )  # fmt: skip


@of_every_dtype
def test_a_softcap_bounds_infinite_logits_and_leaves_nan(dtype: Dtype) -> None:
    logits = np.array([[INF, 0.0, -INF], [NAN, 0.0, 0.0], [-INF, -INF, -INF]], dtype)
    total = math.exp(2) + 1 + math.exp(-2)
    p = [math.exp(2) / total, 1 / total, math.exp(-2) / total]
    third = [1 / 3] * 3
    assert_near(sx.softmax(logits, softcap=2.0), [p, [NAN] * 3, third])
    assert_near(sx.logsumexp(logits, softcap=2.0), [math.log(total), NAN, LN3 - 2])
    logs = [[2 - math.log(total), -math.log(total), -2 - math.log(total)], [NAN] * 3, [-LN3] * 3]
    assert_near(sx.log_softmax(logits, softcap=2.0), logs)
    loss, grad = sx.cross_entropy_with_grad(logits, [2, 0, 0], softcap=2.0, reduction="none")
    assert_near(loss, [2 + math.log(total), NAN, LN3])
    # Nothing moves a logit that is infinite, up to what is as good as nothing.
    slopes = [[0.0, p[1], 0.0], [NAN] * 3, [0.0] * 3]
    np.testing.assert_allclose(grad.astype(float), slopes, rtol=NEAR[dtype], atol=1e-33)


@of_every_dtype
def test_softcap_comes_before_temperature(dtype: Dtype) -> None:
    logits = np.array([8.0, 0.0], dtype)
    # 2 tanh(8 / 2) = 1.99866: over T = 4 it is 0.49966, and not 2 tanh(2 / 2) = 1.52.
    capped = 2 * math.tanh(4.0) / 4
    p = 1 / (1 + math.exp(-capped))
    np.testing.assert_allclose(
        sx.softmax(logits, softcap=2.0, temperature=4.0).astype(float), [p, 1 - p], rtol=NEAR[dtype]
    )
    _, grad = sx.cross_entropy_with_grad(logits, 1, softcap=2.0, temperature=4.0)
    slope = p / 4 / math.cosh(4.0) ** 2
    np.testing.assert_allclose(grad.astype(float), [slope, -p / 4], rtol=4 * NEAR[dtype])


# The shapes of a mask.


@of_every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_a_class_mask_of_every_shape(axis: int, dtype: Dtype) -> None:
    random = np.random.default_rng(axis)
    logits = random.standard_normal((4, 6)).astype(dtype)
    of_classes: Array = np.asarray(random.random(logits.shape[axis]) < 0.6)
    along = np.expand_dims(of_classes, 1 - axis)
    of_rows = np.expand_dims(random.random(logits.shape[1 - axis]) < 0.6, axis)
    of_all = random.random(logits.shape) < 0.6
    one: Array = np.array(True)
    masks: list[Array] = [of_classes, along, of_rows, of_all, one, np.asarray(~one)]
    for mask in [*masks, one.reshape(1, 1), one.reshape(1)]:
        whole = np.array(np.broadcast_to(along if mask is of_classes else mask, logits.shape))
        for given_as in (mask, mask.tolist()):
            for function in (sx.softmax, sx.log_softmax, sx.logsumexp):
                found = [function(logits, axis, class_mask=m) for m in (given_as, whole)]
                assert same_bits(*found)
            ids = np.zeros(logits.shape[1 - axis], int)
            options: Options = {"axis": axis, "reduction": "none"}
            loss, grad = sx.cross_entropy_with_grad(logits, ids, class_mask=given_as, **options)
            wanted = sx.cross_entropy_with_grad(logits, ids, class_mask=whole, **options)
            assert same_bits(loss, wanted[0])
            assert same_bits(grad, wanted[1])
            assert not grad[~whole].any()


def test_a_mask_of_one_axis_lies_along_the_classes_also_where_both_would_fit() -> None:
    logits, mask = np.zeros((3, 3)), np.array([True, True, False])
    half, rows = [0.5, 0.5, 0.0], 3
    assert sx.softmax(logits, 0, class_mask=mask).T.tolist() == [half] * rows
    assert sx.softmax(logits, 1, class_mask=mask).tolist() == [half] * rows


def test_a_cap_that_only_doubles_hold_bounds_no_single() -> None:
    logits = np.array([[1.0, -3.0, 2.5]], np.float32)
    plain = sx.cross_entropy_with_grad(logits, [2])
    for cap in (1e39, 1e300):
        for found, wanted in zip(
            sx.cross_entropy_with_grad(logits, [2], softcap=cap), plain, strict=True
        ):
            assert same_bits(found, wanted)
        assert same_bits(sx.softmax(logits, softcap=cap), sx.softmax(logits))

"""The options of the losses and of the softmax, in all their combinations, against the reference.

Hypothesis draws the shape, the dtypes, the layouts and the options; the numbers come from a drawn
seed. What is expected comes from `softxent.reference`, in double precision from the very same
numbers. Rows with known answers are in `test_options_known`, derivatives in `test_options_gradients`; how
many digits are right is `test_accuracy`'s question.

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
    DTYPES,
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
from hypothesis import Phase, assume, given, settings
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
    # Not so small that a class's share of it is 0 in single precision: times an infinite surprise that is 0.
    options["label_smoothing"] = draw(
        st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]) | st.floats(1e-30, 1)
    )
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
    # Where weights cancel to 0 the last bit of what is divided says which infinity comes, or that none does.
    assume(weights.sum() != 0 or not weights.any())
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
    # Over a denominator of 0 a slope is infinite, or no number if it was 0: that hangs on its last bit.
    if denominator != 0:
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

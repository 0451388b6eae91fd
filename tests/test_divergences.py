"""Divergences from a teacher: against the reference over all options, and rows with known answers.

Hypothesis draws the shape, the dtypes, the layouts and the options; the numbers come from a drawn seed. The
reference computes in decimals of 80 digits, so what differs is our own error. It is counted in roundings of
the terms that are summed, none of which is negative.
"""

import math
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
    NAN,
    ROUNDING,
    THRESHOLDS,
    Array,
    Dtype,
    Options,
    close,
    drawn,
    lists,
    same_bits,
)
from conftest import LAYOUTS, thresholds
from hypothesis import given, settings
from softxent import reference

# Each with its gradient.
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "kl_divergence": (sx.kl_divergence, sx.kl_divergence_with_grad),
    "js_divergence": (sx.js_divergence, sx.js_divergence_with_grad),
}
MEASURES: list[tuple[str, Options]] = [
    ("kl_divergence", {"direction": "forward"}),
    ("kl_divergence", {"direction": "reverse"}),
    ("js_divergence", {"beta": 0.5}),
    ("js_divergence", {"beta": 0.03}),
    ("js_divergence", {"beta": 0.0}),
    ("js_divergence", {"beta": 1.0}),
]
each_measure = pytest.mark.parametrize(("name", "own"), MEASURES, ids=str)


# How large errors may be.


def log_softmax(s: Array) -> Array:
    """Along the last axis, in double precision; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        d = s - s.max(axis=-1, keepdims=True, initial=-INF)
        log_p: Array = d - np.log(np.exp(d).sum(axis=-1, keepdims=True))
    return log_p


def room(teacher: Array, student: Array) -> tuple[Array, Array]:
    """The error of each row's divergence, and of its slopes, in roundings, given logarithms of p and of q."""
    p, q = np.exp(teacher), np.exp(student)
    far = [np.where(np.isfinite(log), -log, 700.0) for log in (teacher, student)]
    with np.errstate(invalid="ignore"):
        one_sided = 1.0 * ((p > 0) != (q > 0))
        r = np.where((p > 0) & (q > 0), student - teacher, one_sided)
    roundings = 32 + 6 * far[0] + 6 * far[1]
    r = np.abs(r) + 1e-15  # as much as it is off by here
    near = np.abs(r) < 0.5
    size = np.where(near, (p + q) * r * r, (p + q) * (1 + np.abs(r)))
    of_loss = (size * roundings).sum(axis=-1)
    # What all classes have in common is off by as much of what it is made of.
    whole = (size.sum(axis=-1) + ((p + q) * r).sum(axis=-1))[..., np.newaxis]
    of_slopes = (p + q) * np.where(near, np.abs(r) + whole, 1 + np.abs(r) + whole) * roundings
    return of_loss, of_slopes


# What is drawn.


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array, int, Options]:
    """A teacher and a student, the axis, and options that hold for both."""
    size = draw(st.integers(1, 40) | st.integers(1, 200))
    shape = list(draw(st.sampled_from([(), (1,), (3,), (2, 3)])))
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, size)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    student = draw(st.sampled_from([1.0, 4.0, 30.0])) * random.standard_normal(shape)
    apart = draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 10.0]))
    teacher = student + apart * random.standard_normal(shape) + draw(st.sampled_from([0.0, 7.5]))
    for side in (teacher, student):
        special = draw(st.sampled_from([None, None, None, None, -INF, INF, NAN]))
        if special is not None:
            side[random.random(shape) < draw(st.sampled_from([0.5, 2 / size]))] = special
    options: Options = {"temperature": draw(st.sampled_from([1.0, 1.0, 0.5, 3.0]))}
    if draw(st.booleans()):
        options["valid_classes"] = draw(st.integers(1, size))
    of = draw(st.sampled_from([None, None, "classes", "all"]))
    if of is not None:
        options["class_mask"] = random.random((size,) if of == "classes" else shape) < 0.7
    rows = tuple(n for i, n in enumerate(shape) if i != axis)
    if draw(st.booleans()):
        options["ignore_rows"] = np.asarray(random.random(rows) < 0.3)
    options["reduction"] = draw(st.sampled_from(["mean", "sum", "none", "none"]))
    dtype = draw(st.sampled_from(DTYPES))
    other = draw(st.sampled_from([dtype, *DTYPES]))
    if dtype == FLOAT32:
        teacher = teacher.astype(np.float32)  # the precision in which a wider teacher is read
    elif dtype in (FLOAT16, BFLOAT16):
        teacher = teacher.astype(np.float32)
    return teacher.astype(other), student.astype(dtype), axis, options


def masked(x: Array, axis: int, options: Options) -> Array:
    """The logits over the temperature, rows last, -inf where they do not count."""
    classes = x.shape[axis]
    allowed = np.ones(x.shape, bool)
    mask = options.get("class_mask")
    if mask is not None:
        if mask.shape == (classes,):
            mask = mask.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        allowed &= mask
    s: Array = np.where(allowed, x.astype(np.float64), -INF) / options["temperature"]
    s = np.moveaxis(s, axis, -1)
    s[..., options.get("valid_classes", classes) :] = -INF
    return s


def check(name: str, own: Options, teacher: Array, student: Array, axis: int, given: Any) -> None:
    """The function and its gradient against the reference; drawn besides: layout, threads, upstream."""
    options, layout, way, threads, upstream = given
    dtype = student.dtype
    result = FLOAT64 if dtype == FLOAT64 else FLOAT32
    log_p = log_softmax(masked(teacher, axis, options))
    log_q = log_softmax(masked(student, axis, options))
    of_loss, of_slopes = room(log_p, log_q)
    count = of_loss.size
    if "ignore_rows" in options:
        count = int((~options["ignore_rows"]).sum())
    share = 1 / max(count, 1) if options["reduction"] == "mean" else 1.0
    exact = {key: lists(value) for key, value in options.items()}
    expected, expected_grad = getattr(reference, f"{name}_with_grad")(
        lists(teacher), lists(student), axis=axis, grad_output=upstream, **own, **exact
    )
    ours: Options = {
        key: LAYOUTS[layout](value) if isinstance(value, np.ndarray) else value
        for key, value in options.items()
    }
    arrays = [LAYOUTS[layout](side) for side in (teacher, student)]
    with thresholds(*way):
        more = own | ours | {"axis": axis, "threads": threads}
        loss, grad = FUNCTIONS[name][1](*arrays, grad_output=upstream, **more)
        assert same_bits(FUNCTIONS[name][0](*arrays, **more), loss)
        place = student.copy()
        FUNCTIONS[name][1](arrays[0], place, grad_output=upstream, out=place, **more)
        assert same_bits(place, grad)
    # A probability below the smallest number is 0, and 0 log 0 = 0, where the reference has an infinity.
    one_sided = np.isfinite(log_p) != np.isfinite(log_q)
    if (one_sided & (np.fmax(np.exp(log_p), np.exp(log_q)) < 1e-37)).any():
        return
    precision = ROUNDING[result]
    allowed = of_loss if options["reduction"] == "none" else np.nansum(of_loss) * share
    close(loss, expected, result, precision * allowed)
    assert not (np.asarray(loss) < 0).any()
    scale = abs(upstream or 1.0) * share / options["temperature"]
    slopes = np.moveaxis(of_slopes, -1, axis) * scale
    wanted = np.reshape(expected_grad, student.shape)
    if own.get("beta") in (None, 0.0, 1.0):
        # Of an infinite divergence the slopes are infinities times what may have been lost.
        lost = np.moveaxis(np.broadcast_to(one_sided.any(-1, keepdims=True), log_p.shape), -1, axis)
        grad, wanted = np.where(lost, dtype.type(0), grad), np.where(lost, 0.0, wanted)
    close(grad, wanted, dtype, precision * slopes)


WAYS = st.tuples(
    st.sampled_from(list(LAYOUTS)),
    st.sampled_from(THRESHOLDS),
    st.sampled_from([1, 2]),
    st.sampled_from([None, 1.0, -2.5]),
)


@settings(drawn, max_examples=400)
@given(pairs(), st.sampled_from(MEASURES), WAYS)
def test_divergences_of_logits_agree_with_the_reference(
    pair: tuple[Array, Array, int, Options], measure: tuple[str, Options], ways: Any
) -> None:
    teacher, student, axis, options = pair
    check(*measure, teacher, student, axis, (options, *ways))


@settings(drawn, max_examples=150)
@given(pairs(), st.sampled_from(MEASURES), WAYS)
def test_divergences_of_probabilities_agree_with_the_reference(
    pair: tuple[Array, Array, int, Options], measure: tuple[str, Options], ways: Any
) -> None:
    logs, student, axis, options = pair
    with np.errstate(over="ignore"):
        teacher = np.exp(np.minimum(logs.astype(np.float64), 5.0)).astype(np.float32)
    given: Options = options | {"teacher": "probabilities"}
    # The logarithms are the teacher's logits, rounded once more.
    of_logs = np.log(
        teacher.astype(np.float64), where=teacher > 0, out=np.full(teacher.shape, -INF)
    )
    of_logs[np.isnan(teacher)] = NAN
    name, own = measure
    dtype = student.dtype
    result = FLOAT64 if dtype == FLOAT64 else FLOAT32
    exact = {key: lists(value) for key, value in given.items()}
    expected, expected_grad = getattr(reference, f"{name}_with_grad")(
        lists(teacher), lists(student), axis=axis, **own, **exact
    )
    with thresholds(*ways[1]):
        loss, grad = FUNCTIONS[name][1](
            LAYOUTS[ways[0]](teacher), LAYOUTS[ways[0]](student), axis=axis, **own, **given
        )
    p = log_softmax(masked(of_logs, axis, options))
    q = log_softmax(masked(student, axis, options))
    if (np.isfinite(p) != np.isfinite(q)).any() and own.get("beta") in (None, 0.0, 1.0):
        return  # infinite slopes times what may have been lost
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isfinite(q - p), np.abs(q - p), 0.0)
    size = (np.exp(p) + np.exp(q)) * (1 + apart)
    far = sum(np.where(np.isfinite(log), -log, 700.0) for log in (p, q))
    precision = ROUNDING[result]
    of_loss = np.nansum(size * (24 + 8 * far), axis=-1)
    allowed = of_loss if options["reduction"] == "none" else of_loss.sum()
    close(loss, expected, result, precision * allowed)
    slopes = np.moveaxis(np.nan_to_num(size * (24 + 8 * far) * 3), -1, axis)
    slopes = slopes / options["temperature"]
    close(grad, np.reshape(expected_grad, student.shape), dtype, precision * slopes)


@settings(drawn, max_examples=150)
@given(pairs(), st.sampled_from(MEASURES), st.integers(0, 2**32), st.integers(0, 6))
def test_divergences_from_some_classes_agree_with_the_reference(
    pair: tuple[Array, Array, int, Options],
    measure: tuple[str, Options],
    seed: int,
    each: int,
) -> None:
    _, student, axis, options = pair
    name, own = measure
    random = np.random.default_rng(seed)
    classes = student.shape[axis]
    rows = tuple(n for i, n in enumerate(student.shape) if i != axis)
    each = min(each, classes)
    order = random.random((*rows, classes)).argsort(axis=-1)
    ids = order[..., :each]
    logs = np.log(random.dirichlet(np.ones(each + 1), rows))[..., :each]
    dtype = student.dtype
    result = FLOAT64 if dtype == FLOAT64 else FLOAT32
    exact = {key: lists(value) for key, value in options.items()}
    expected, expected_grad = getattr(reference, f"{name}_with_grad")(
        lists(logs), lists(student), teacher_ids=lists(ids), axis=axis, **own, **exact
    )
    loss, grad = FUNCTIONS[name][1](logs, student, teacher_ids=ids, axis=axis, **own, **options)
    assert same_bits(
        FUNCTIONS[name][0](logs, student, teacher_ids=ids, axis=axis, **own, **options), loss
    )
    if np.isinf(np.asarray(expected)).any():
        return  # as above
    q = log_softmax(masked(student, axis, options))
    far = np.where(np.isfinite(q), -q, 0.0).max(axis=-1, initial=0.0)
    sizes = np.abs(np.asarray(expected))
    size = sizes[np.isfinite(sizes)].max(initial=0.0)
    precision = ROUNDING[result]
    close(loss, expected, result, precision * (1 + size) * (64 + 16 * far.max(initial=0.0)))
    slopes = (1 + size) * (64 + 16 * far.max(initial=0.0)) / options["temperature"]
    close(grad, np.reshape(expected_grad, student.shape), dtype, precision * slopes)


# Known answers.

QUARTERS = np.log(np.array([0.25, 0.25, 0.25, 0.25]))


def test_a_divergence_of_rows_that_agree_is_0_and_pulls_nowhere() -> None:
    for name, own in MEASURES:
        for dtype in DTYPES:
            x = np.array([[1.0, -2.0, 7.5, 0.0], [3.0, 3.0, -INF, 3.0]]).astype(dtype)
            shifted = (x.astype(float) + 2.0).astype(dtype)
            for teacher in (x, shifted):
                loss, grad = FUNCTIONS[name][1](teacher, x, reduction="none", **own)
                assert loss.tolist() == [0.0, 0.0]
                assert not grad.astype(float).any()


def test_two_classes_by_hand() -> None:
    # p = 3/4, 1/4 and q = 1/4, 3/4, so m = 1/2, 1/2.
    teacher, student = [math.log(3.0), 0.0], [0.0, math.log(3.0)]
    kl, js = math.log(3.0) / 2, math.log(2.0) - 2 * math.log(2.0) + 0.75 * math.log(3.0)
    for direction in ("forward", "reverse"):
        assert sx.kl_divergence(teacher, student, direction=direction) == pytest.approx(kl)
    assert sx.js_divergence(teacher, student) == pytest.approx(js)
    _, grad = sx.kl_divergence_with_grad(teacher, student)
    np.testing.assert_allclose(grad, [-0.5, 0.5])
    # q (log q - log p - KL), and half of q (log(q / m) - KL(q || m)).
    _, grad = sx.kl_divergence_with_grad(teacher, student, direction="reverse")
    np.testing.assert_allclose(grad, [-0.375 * math.log(3.0), 0.375 * math.log(3.0)])
    _, grad = sx.js_divergence_with_grad(teacher, student)
    np.testing.assert_allclose(grad, [-3 / 32 * math.log(3.0), 3 / 32 * math.log(3.0)])


def test_a_divergence_of_one_part_in_a_billion_has_its_digits() -> None:
    student = np.zeros(2)
    teacher = np.array([1e-5, 0.0])
    # sinh and cosh by hand: KL = t^2/8 to first order, for logits t apart over two classes.
    exact = 1e-10 / 8
    for name, own in MEASURES[:2]:
        assert FUNCTIONS[name][0](teacher, student, **own) == pytest.approx(exact, rel=1e-9)
    assert sx.js_divergence(teacher, student) == pytest.approx(exact / 4, rel=1e-9)
    single = sx.kl_divergence(teacher.astype(np.float32), student.astype(np.float32))
    assert single == pytest.approx(float(np.float32(1e-5)) ** 2 / 8, rel=1e-6)


def test_what_only_one_side_excludes_is_infinite_or_nothing() -> None:
    teacher, student = np.array([0.0, -INF]), np.array([0.0, 0.0])
    assert sx.kl_divergence(teacher, student) == pytest.approx(math.log(2))
    assert sx.kl_divergence(teacher, student, direction="reverse") == INF
    assert sx.kl_divergence(student, teacher) == INF
    assert sx.kl_divergence(student, teacher, direction="reverse") == pytest.approx(math.log(2))
    middle = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert sx.js_divergence(teacher, student) == pytest.approx(middle)


@each_measure
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_row_that_either_side_spoils_is_nan_and_no_other(
    name: str, own: Options, bad: float
) -> None:
    good = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], np.float32)
    spoilt = good.copy()
    spoilt[0, 1] = bad
    for teacher, student in ((good, spoilt), (spoilt, good)):
        loss, grad = FUNCTIONS[name][1](teacher, student, reduction="none", **own)
        assert np.isnan(loss).tolist() == [True, False]
        assert np.isnan(grad).tolist() == [[True] * 3, [False] * 3]


@each_measure
def test_a_gradient_is_the_slope_of_the_divergence(name: str, own: Options) -> None:
    random = np.random.default_rng(5)
    teacher, student = random.standard_normal((2, 3, 9))
    options: Options = own | {"temperature": 1.7, "class_mask": np.arange(9) != 4}
    loss, grad = FUNCTIONS[name][1](teacher, student, **options)
    step = 1e-6
    for place in np.ndindex(student.shape):
        moved = [student.copy(), student.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (FUNCTIONS[name][0](teacher, x, **options) for x in moved)
        assert grad[place] == pytest.approx((up - down) / (2 * step), abs=1e-8)
    np.testing.assert_allclose(grad.sum(axis=-1), 0.0, atol=1e-15)
    assert loss > 0


def test_a_teacher_of_all_classes_but_one_is_the_whole_teacher() -> None:
    random = np.random.default_rng(6)
    teacher, student = random.standard_normal((2, 4, 6))
    logs = np.asarray(sx.log_softmax(teacher))
    ids = np.broadcast_to(np.arange(5), (4, 5))
    for name, own in MEASURES:
        whole = FUNCTIONS[name][1](teacher, student, **own)
        known = FUNCTIONS[name][1](logs[:, :5], student, teacher_ids=ids, **own)
        np.testing.assert_allclose(known[0], whole[0], rtol=1e-12)
        np.testing.assert_allclose(known[1], whole[1], atol=1e-14)


def test_rows_that_are_ignored_are_not_read() -> None:
    x = np.array([[0.0, 1.0], [NAN, NAN]])
    for name, own in MEASURES:
        loss, grad = FUNCTIONS[name][1](x, x, ignore_rows=[False, True], **own)
        assert loss == 0.0
        assert not grad.any()
        none = FUNCTIONS[name][0](x, x, ignore_rows=[True, True], on_empty="zero", **own)
        assert none == 0.0
    # Of those, ids may be anything.
    loss = sx.kl_divergence([[0.0], [0.0]], x, teacher_ids=[[1], [-7]], ignore_rows=[False, True])
    assert loss == pytest.approx(math.log(1 + math.exp(-1)))


def test_rows_that_are_cut_in_chunks_give_the_same_bits() -> None:
    random = np.random.default_rng(7)
    teacher, student = random.standard_normal((2, 3, 70_001), dtype=np.float32)
    for name, own in MEASURES:
        expected = FUNCTIONS[name][1](teacher, student, threads=1, **own)
        with thresholds(0, 0, 1):
            got = FUNCTIONS[name][1](teacher, student, threads=3, **own)
        assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_gradients_of_named_classes_are_rounded_once_wherever_they_go(dtype: Dtype) -> None:
    random = np.random.default_rng(0)
    rows, columns, named = 1000, 200, 50
    student = random.standard_normal((rows, columns)).astype(dtype)
    ids = np.argsort(random.random((rows, columns)), axis=1)[:, :named]
    logs = random.standard_normal((rows, named)) - 5
    options: Options = {"teacher_ids": ids, "reduction": "sum"}
    _, expected = sx.kl_divergence_with_grad(logs, student, **options)
    wide = np.zeros((rows, 2 * columns), dtype)
    _, found = sx.kl_divergence_with_grad(logs, student, out=wide[:, ::2], **options)
    assert same_bits(found, expected)


def test_an_id_out_of_range_or_twice_is_refused() -> None:
    x = np.zeros((2, 4))
    logs = np.full((2, 2), -2.0)
    with pytest.raises(IndexError, match=r"teacher_ids\[1, 0\] = 4 is outside \[0, 4\)"):
        sx.kl_divergence(logs, x, teacher_ids=[[0, 1], [4, 0]])
    with pytest.raises(
        ValueError, match="teacher_ids: expected each class once in a row, got 3 twice"
    ):
        sx.kl_divergence(logs, x, teacher_ids=[[0, 1], [3, 3]])
    with pytest.raises(ValueError, match=r"teacher_ids: expected shape \(2,\) and one axis more"):
        sx.kl_divergence(logs, x, teacher_ids=[0, 1])
    with pytest.raises(ValueError, match=r"teacher_logits: expected shape \(2, 2\) of teacher_ids"):
        sx.kl_divergence(x, x, teacher_ids=[[0, 1], [2, 3]])
    with pytest.raises(ValueError, match='teacher: expected "logits" with teacher_ids'):
        sx.kl_divergence(logs, x, teacher_ids=[[0, 1], [2, 3]], teacher="probabilities")

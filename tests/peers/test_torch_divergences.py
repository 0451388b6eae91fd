"""Divergences and their gradients from torch: `kl_div` of log-softmaxes, and the Jensen-Shannon formula.

Torch computes row by row on the classes that take part, so that none of it knows of masks, ignored rows or
reductions; those are written out here. Liger publishes the generalised Jensen-Shannon divergence as
`beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`, p of the teacher, q of the
student, and KL(p || q) and KL(q || p) at a `beta` of 0 and of 1. Nearly equal rows, where torch has no digits
left, are for test_accuracy_divergences.py.
"""

from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from comparison import DTYPES, REDUCTIONS, Array, random_logits, random_probabilities
from torch_comparison import check_calls, double, functional, torch

Options: TypeAlias = dict[str, Any]

MEASURES: list[tuple[str, Options]] = [
    ("kl_divergence", {"direction": "forward"}),
    ("kl_divergence", {"direction": "reverse"}),
    *[("js_divergence", {"beta": beta}) for beta in (0.0, 0.1, 0.5, 0.75, 1.0)],
]
CALLS: dict[str, tuple[Any, Any]] = {
    "kl_divergence": (sx.kl_divergence, sx.kl_divergence_with_grad),
    "js_divergence": (sx.js_divergence, sx.js_divergence_with_grad),
}
each_measure = pytest.mark.parametrize(("name", "own"), MEASURES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
TERMS = 1.0  # of a slope: two probabilities, times how many nats they are apart


def kl(log_p: Any, log_q: Any) -> Any:
    """KL(p || q) of one row."""
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def divergence(own: Options, log_p: Any, log_q: Any) -> Any:
    """Of a row, given the logarithms of the teacher's and the student's probabilities."""
    if own in ({"direction": "forward"}, {"beta": 0.0}):
        return kl(log_p, log_q)
    if own in ({"direction": "reverse"}, {"beta": 1.0}):
        return kl(log_q, log_p)
    beta = own["beta"]
    log_m = torch.log(beta * torch.exp(log_p) + (1 - beta) * torch.exp(log_q))
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def reduced(rows: list[Any], read: Array, reduction: str) -> Any:
    """The divergences of rows that are read, with zeros for the others, as the reduction has them."""
    every = iter(rows)
    losses = torch.stack([next(every) if here else torch.tensor(0.0).double() for here in read])
    if reduction == "none":
        return losses
    return losses.sum() / (read.sum() if reduction == "mean" else 1)


def compare(
    name: str,
    own: Options,
    teacher: Array,
    student: Array,
    /,
    *,
    reduction: str = "mean",
    grad_output: Any = None,
    **options: Any,
) -> None:
    """Loss and gradient of rows of two axes, the classes last, are those of torch."""
    mask = np.broadcast_to(options.get("class_mask", True), student.shape)
    mask = mask & (np.arange(student.shape[-1]) < options.get("valid_classes", np.inf))
    read = ~options.get("ignore_rows", np.zeros(len(student), bool))
    temperature = options.get("temperature", 1.0)
    logits = double(teacher)
    if options.get("teacher") == "probabilities":
        logits = torch.log(logits)

    def torch_loss(x: Any) -> Any:
        rows = []
        for row in np.flatnonzero(read):
            of_row = torch.from_numpy(np.flatnonzero(mask[row]))
            sides = (side[row][of_row] / temperature for side in (logits, x))
            log_p, log_q = (torch.log_softmax(side, -1) for side in sides)
            rows.append(divergence(own, log_p, log_q))
        return reduced(rows, read, reduction)

    more = {**own, **options, "reduction": reduction}
    alone, with_grad = CALLS[name]
    check_calls(
        student,
        torch_loss,
        lambda: alone(teacher, student, **more),
        lambda: with_grad(teacher, student, grad_output=grad_output, **more),
        grad_output=grad_output,
        terms=TERMS,
    )


@each_measure
@each_dtype
@pytest.mark.parametrize("classes", [1, 2, 17, 1000])
def test_divergences_and_ligers_published_jsd(
    name: str, own: Options, dtype: str, classes: int
) -> None:
    teacher, student = (random_logits((6, classes), dtype, seed) for seed in (0, 1))
    compare(name, own, teacher, student)


@each_measure
@each_dtype
def test_a_large_vocabulary(name: str, own: Options, dtype: str) -> None:
    teacher, student = (random_logits((3, 50257), dtype, seed) for seed in (0, 1))
    compare(name, own, teacher, student)


@each_measure
@each_dtype
@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_divides_both(
    name: str, own: Options, dtype: str, temperature: float
) -> None:
    teacher, student = (
        (random_logits((5, 300), seed=seed) * np.float32(temperature)).astype(DTYPES[dtype])
        for seed in (0, 1)
    )
    compare(name, own, teacher, student, temperature=temperature)


@each_measure
@each_dtype
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_over_rows_that_are_not_ignored(
    name: str, own: Options, dtype: str, reduction: str
) -> None:
    teacher, student = (random_logits((8, 40), dtype, seed) for seed in (0, 1))
    ignored = np.isin(np.arange(8), [0, 5])
    student[ignored], teacher[0] = np.nan, np.nan
    compare(name, own, teacher, student, reduction=reduction, ignore_rows=ignored)


@each_measure
@pytest.mark.parametrize(
    ("reduction", "grad_output"),
    [
        ("mean", 0.25),
        ("sum", -3.0),
        ("none", 2.0),
        ("none", np.array([1.0, -0.5, 0.0, 8.0, 0.125])),
    ],
)
def test_grad_output(name: str, own: Options, reduction: str, grad_output: Any) -> None:
    for dtype in DTYPES:
        teacher, student = (random_logits((5, 40), dtype, seed) for seed in (0, 1))
        compare(name, own, teacher, student, reduction=reduction, grad_output=grad_output)


@each_measure
@each_dtype
@pytest.mark.parametrize("of", ["classes", "every row"])
def test_masked_classes_are_left_out_of_both(name: str, own: Options, dtype: str, of: str) -> None:
    teacher, student = (random_logits((7, 60), dtype, seed) for seed in (0, 1))
    mask = np.random.default_rng(4).random(60 if of == "classes" else (7, 60)) < 0.7
    out_of_it = np.broadcast_to(~mask, (7, 60))
    student[out_of_it], teacher[out_of_it] = np.nan, np.inf
    compare(name, own, teacher, student, class_mask=mask, valid_classes=51, reduction="none")


@each_measure
@each_dtype
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_probabilities_of_the_teacher(
    name: str, own: Options, dtype: str, temperature: float
) -> None:
    # Not normalised.
    teacher = np.random.default_rng(3).uniform(0.01, 2.0, (6, 80)).astype(np.float32)
    compare(
        name,
        own,
        teacher,
        random_logits((6, 80), dtype),
        teacher="probabilities",
        temperature=temperature,
    )


@each_dtype
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_class_without_probability_adds_nothing_to_the_forward_divergence(
    dtype: str, reduction: str
) -> None:
    teacher = random_probabilities((6, 80)).astype(np.float32)
    assert (teacher == 0).any()
    student = random_logits((6, 80), dtype)
    logits = double(teacher)

    def torch_loss(x: Any) -> Any:
        p = logits / logits.sum(-1, keepdim=True)
        how = "batchmean" if reduction == "mean" else reduction
        loss = functional.kl_div(torch.log_softmax(x, -1), p, reduction=how)
        return loss.sum(-1) if reduction == "none" else loss

    options: Options = {"teacher": "probabilities", "reduction": reduction}
    check_calls(
        student,
        torch_loss,
        lambda: sx.kl_divergence(teacher, student, **options),
        lambda: sx.kl_divergence_with_grad(teacher, student, **options),
        terms=2.0,
    )


@each_measure
@each_dtype
def test_what_some_classes_leave_of_1_is_one_more_class(
    name: str, own: Options, dtype: str
) -> None:
    student = random_logits((6, 50), dtype)
    random = np.random.default_rng(6)
    ids = random.random((6, 50)).argsort(axis=-1)[:, :7]
    logs = np.log(0.9 * random.dirichlet(np.ones(7), 6)).astype(student.dtype)
    read = np.ones(6, bool)

    def torch_loss(x: Any) -> Any:
        rows = []
        for row in range(6):
            known, here = torch.from_numpy(ids[row]), double(logs)[row]
            log_q = torch.log_softmax(x[row], -1)
            others = torch.ones(50, dtype=torch.bool)
            others[known] = False
            rest = torch.log1p(-torch.exp(here).sum())
            log_p = torch.cat([here, rest[None]])
            log_q = torch.cat([log_q[known], torch.logsumexp(log_q[others], 0)[None]])
            rows.append(divergence(own, log_p, log_q))
        return reduced(rows, read, "mean")

    alone, with_grad = CALLS[name]
    check_calls(
        student,
        torch_loss,
        lambda: alone(logs, student, teacher_ids=ids, **own),
        lambda: with_grad(logs, student, teacher_ids=ids, **own),
        terms=2.0,
    )


@each_measure
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_classes_along_any_axis_of_tensors(name: str, own: Options, dtype: str) -> None:
    teacher, student = (random_logits((4, 11, 3), dtype, seed) for seed in (0, 1))
    rows = [np.moveaxis(side, 1, -1).reshape(12, 11) for side in (teacher, student)]
    expected_loss, expected_grad = CALLS[name][1](*rows, **own)
    tensors = [torch.from_numpy(side) for side in (teacher, student)]
    loss, grad = CALLS[name][1](*tensors, axis=1, **own)
    assert loss == expected_loss
    np.testing.assert_array_equal(np.moveaxis(grad, 1, -1).reshape(12, 11), expected_grad)

"""The options of the loss: as torch has them, and written out in the formulas that Liger publishes.

The formulas are those of the documentation of Liger's fused cross-entropy: rows of softcap, temperature,
smoothing and z-loss (`lse_square_scale`), and tokens that are scaled by their own probability.
"""

from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import (
    DTYPES,
    REDUCTIONS,
    assert_close,
    random_logits,
    random_probabilities,
    random_targets,
    random_weights,
)
from torch_comparison import check, double, functional, torch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_weight_smoothing_and_ignored_rows(
    dtype: str, reduction: str, label_smoothing: float, weighted: bool, ignore_index: int
) -> None:
    targets = random_targets((12,), 40)
    targets[[0, 5, 11]] = ignore_index
    weight = random_weights(40) if weighted else None
    check(
        random_logits((12, 40), dtype),
        targets,
        lambda x: functional.cross_entropy(
            x,
            torch.from_numpy(targets),
            weight=None if weight is None else double(weight),
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            reduction=reduction,
        ),
        weight=weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=reduction,
        terms=1.0,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(12, 40), (4, 11, 5), (2, 7, 3, 2)])
def test_probabilities_as_targets(
    dtype: str, reduction: str, label_smoothing: float, weighted: bool, shape: tuple[int, ...]
) -> None:
    targets = random_probabilities(shape, axis=1)
    weight = random_weights(shape[1]) if weighted else None

    def torch_loss(x: Any) -> Any:
        return functional.cross_entropy(
            x,
            double(targets),
            weight=None if weight is None else double(weight),
            label_smoothing=label_smoothing,
            reduction=reduction,
        )

    options: dict[str, Any] = {"weight": weight, "label_smoothing": label_smoothing}
    check(
        random_logits(shape, dtype),
        targets,
        torch_loss,
        axis=1,
        reduction=reduction,
        terms=2.0,
        **options,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_probabilities_of_every_dtype_as_tensors(kind: str, reduction: str) -> None:
    targets = torch.from_numpy(random_probabilities((6, 30))).to(getattr(torch, kind))
    check(
        random_logits((6, 30)),
        targets,
        lambda x: functional.cross_entropy(x, targets.double(), reduction=reduction),
        reduction=reduction,
        terms=1.0,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_masked_class_is_a_logit_of_minus_infinity(reduction: str) -> None:
    targets = random_targets((8,), 20)
    mask = np.random.default_rng(4).random((8, 24)) < 0.7
    mask[range(8), targets] = True
    allowed = torch.from_numpy(mask & (np.arange(24) < 20))
    logits = random_logits((8, 24))
    check(
        logits,
        targets,
        lambda x: functional.cross_entropy(
            x.masked_fill(~allowed, -torch.inf), torch.from_numpy(targets), reduction=reduction
        ),
        class_mask=mask,
        valid_classes=20,
        reduction=reduction,
    )
    x = double(logits).masked_fill(~allowed, -torch.inf)
    options: dict[str, Any] = {"class_mask": mask, "valid_classes": 20}
    assert_close(sx.softmax(logits, **options), torch.softmax(x, -1))
    assert_close(sx.log_softmax(logits, **options), torch.log_softmax(x, -1))
    assert_close(sx.logsumexp(logits, **options), torch.logsumexp(x, -1), absolute=1e-5)


# Liger's published formulas, of which torch has no option.


def liger_rows(x: Any, targets: Any, weight: Any, options: dict[str, Any]) -> Any:
    """The loss of each row, with autograd to differentiate it."""
    softcap, e = options["softcap"], options["label_smoothing"]
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    x = x / options["temperature"]
    lse = torch.logsumexp(x, -1)
    log_p = x - lse[:, None]
    ids = torch.from_numpy(np.where(targets == -100, 0, targets))
    nll = -log_p.gather(-1, ids[:, None])[:, 0] * weight[ids]
    smooth = -(log_p * weight).sum(-1) / x.shape[-1]
    rows = (1 - e) * nll + e * smooth + options["z_loss"] * lse**2
    return torch.where(torch.from_numpy(targets == -100), 0.0, rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("softcap", [None, 2.0, 30.0])
@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_softcap_smoothing_and_z_loss_are_ligers_published_formula(
    dtype: str, reduction: str, softcap: float | None, z_loss: float, label_smoothing: float
) -> None:
    targets = random_targets((7,), 50)
    targets[3] = -100
    weight, scale = random_weights(50), np.array([1.0, 2.0, 0.5, 1.0, 0.0, 4.0, 1.5])
    options: dict[str, Any] = {
        "softcap": softcap,
        "z_loss": z_loss,
        "label_smoothing": label_smoothing,
        "temperature": 1.25,
    }

    def torch_loss(x: Any) -> Any:
        rows = liger_rows(x, targets, double(weight), options) * double(scale)
        if reduction == "none":
            return rows
        weights = scale[targets != -100] * weight[targets[targets != -100]]
        return rows.sum() / (weights.sum() if reduction == "mean" else 1)

    check(
        random_logits((7, 50), dtype),
        targets,
        torch_loss,
        weight=weight,
        sample_weight=scale,
        reduction=reduction,
        terms=16.0,
        **options,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scaling_by_the_tokens_own_probability_is_ligers_published_formula(
    dtype: str, reduction: str
) -> None:
    """`use_token_scaling`: the probability is a constant to the gradient, the mean is over tokens."""
    logits, targets = random_logits((9, 30), dtype), random_targets((9,), 30)
    targets[[2, 7]] = -100
    valid = targets != -100
    ids = np.where(valid, targets, 0)
    scale = np.exp(sx.token_logprobs(logits.astype(np.float64), ids))

    def torch_loss(x: Any) -> Any:
        rows = functional.cross_entropy(x, torch.from_numpy(targets), reduction="none")
        p = torch.softmax(x, -1).gather(-1, torch.from_numpy(ids)[:, None])[:, 0].detach()
        rows = rows * p
        return {"none": rows, "sum": rows.sum(), "mean": rows.sum() / int(valid.sum())}[reduction]

    options: dict[str, Any] = {"reduction": reduction, "sample_weight": scale}
    if reduction == "mean":
        options["normalizer"] = int(valid.sum())
    check(logits, targets, torch_loss, terms=1.0, **options)

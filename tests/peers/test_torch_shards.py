"""The cross-entropy over shards of the classes beside torch's on the whole vocabulary.

Torch sees whole rows and nothing of the cuts. Where the classes are cut, and in which order the partials come
back, must not show.
"""

import itertools
from typing import Any, TypeAlias

import numpy as np
import pytest
import softxent as sx
from comparison import (
    DTYPES,
    REDUCTIONS,
    Array,
    random_logits,
    random_targets,
    random_weights,
)
from torch_comparison import check_calls, double, functional, torch

Options: TypeAlias = dict[str, Any]

CUTS: tuple[list[int], ...] = ([], [1], [20], [39], [7, 8, 30])
# Weights and masks are told to each shard for its own classes.
OF_CLASSES = ("weight", "class_mask")
OF_SHARDS = ("ignore_index", "temperature", "softcap")
OF_ENDS = ("label_smoothing", "z_loss", "sample_weight", "reduction", "normalizer", "offsets")


def sharded(
    logits: Array, targets: Array, cuts: list[int], grad_output: Any, options: Options
) -> tuple[Any, Array]:
    """Loss and gradient of shards that end at the cuts; the classes are the last axis."""
    bounds = list(itertools.pairwise([0, *cuts, logits.shape[-1]]))
    ends = {name: options[name] for name in OF_ENDS if name in options}

    def told(start: int, end: int) -> Options:
        own = {name: options[name][..., start:end] for name in OF_CLASSES if name in options}
        same = {name: options[name] for name in OF_SHARDS if name in options}
        return {"class_offset": start, **own, **same}

    parts = [
        sx.partial_cross_entropy(logits[..., a:b], targets, **told(a, b))
        for a, b in reversed(bounds)
    ]
    merged = sx.merge_partials(parts)
    grads = [
        sx.shard_grad(
            logits[..., a:b], targets, merged, grad_output=grad_output, **told(a, b), **ends
        )
        for a, b in bounds
    ]
    return sx.finish_cross_entropy(merged, **ends), np.concatenate(grads, axis=-1)


def check(
    logits: Array,
    targets: Array,
    cuts: list[int],
    torch_loss: Any,
    *,
    grad_output: Any = None,
    terms: float = 1.0,
    **options: Any,
) -> None:
    check_calls(
        logits,
        torch_loss,
        lambda: sharded(logits, targets, cuts, grad_output, options)[0],
        lambda: sharded(logits, targets, cuts, grad_output, options),
        grad_output=grad_output,
        terms=terms,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothing_and_weights_are_those_of_the_whole_vocabulary(
    dtype: str, reduction: str, cuts: list[int], label_smoothing: float, weighted: bool
) -> None:
    # Smoothing that each shard spreads over its own classes is another loss.
    targets = random_targets((9,), 40)
    targets[[2, 6]] = -100
    options: Options = {"label_smoothing": label_smoothing, "reduction": reduction}
    weight = random_weights(40) if weighted else None
    if weight is not None:
        options["weight"] = weight
    check(
        random_logits((9, 40), dtype),
        targets,
        cuts,
        lambda x: functional.cross_entropy(
            x,
            torch.from_numpy(targets),
            weight=None if weight is None else double(weight),
            label_smoothing=label_smoothing,
            reduction=reduction,
        ),
        **options,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("softcap", [None, 8.0])
def test_z_loss_is_ligers_published_formula_of_the_common_lse(
    dtype: str, reduction: str, cuts: list[int], softcap: float | None
) -> None:
    targets = random_targets((9,), 40)
    targets[[2, 6]] = -100
    scale = np.array([1.0, 2.0, 0.5, 1.0, 0.25, 4.0, 1.5, 1.0, 3.0])
    valid = targets != -100

    def torch_loss(x: Any) -> Any:
        s = (x if softcap is None else softcap * torch.tanh(x / softcap)) / 1.25
        nll = functional.cross_entropy(
            s, torch.from_numpy(targets), label_smoothing=0.1, reduction="none"
        )
        rows = (nll + 0.01 * torch.logsumexp(s, -1) ** 2 * double(valid)) * double(scale)
        mean = rows.sum() / scale[valid].sum()
        return {"none": rows, "sum": rows.sum(), "mean": mean}[reduction]

    check(
        random_logits((9, 40), dtype),
        targets,
        cuts,
        torch_loss,
        terms=16.0,
        temperature=1.25,
        softcap=softcap,
        label_smoothing=0.1,
        z_loss=0.01,
        sample_weight=scale,
        reduction=reduction,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", [[12345], [8192, 16384, 32768, 50256]], ids=str)
def test_a_large_vocabulary(dtype: str, cuts: list[int]) -> None:
    targets = random_targets((4,), 50257)
    check(
        random_logits((4, 50257), dtype),
        targets,
        cuts,
        lambda x: functional.cross_entropy(x, torch.from_numpy(targets)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_a_masked_class_is_left_out_wherever_its_shard_ends(dtype: str, cuts: list[int]) -> None:
    # Of some shards every class is masked.
    targets = random_targets((9,), 40)
    mask = np.random.default_rng(4).random((9, 40)) < 0.6
    mask[:, 7] = mask[:, 39] = False
    mask[range(9), targets] = True
    mask[4, 7:] = False
    targets[4], mask[4, 0] = 0, True
    logits = random_logits((9, 40), dtype)
    logits[~mask] = np.nan

    def torch_loss(x: Any) -> Any:
        rows = [
            functional.cross_entropy(
                x[row][torch.from_numpy(np.flatnonzero(mask[row]))],
                torch.tensor(int(mask[row, : targets[row]].sum())),
                label_smoothing=0.2,
            )
            for row in range(9)
        ]
        return torch.stack(rows).mean()

    check(logits, targets, cuts, torch_loss, class_mask=mask, label_smoothing=0.2)


@pytest.mark.parametrize(
    ("reduction", "grad_output"),
    [("mean", 0.25), ("sum", -3.0), ("none", 2.0), ("none", np.array([1.0, -0.5, 0.0, 8.0, 0.1]))],
)
def test_grad_output(reduction: str, grad_output: Any) -> None:
    targets = random_targets((5,), 40)
    for dtype, cuts in itertools.product(DTYPES, CUTS):
        check(
            random_logits((5, 40), dtype),
            targets,
            cuts,
            lambda x: functional.cross_entropy(x, torch.from_numpy(targets), reduction=reduction),
            reduction=reduction,
            grad_output=grad_output,
        )

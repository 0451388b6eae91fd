"""The loss of a linear layer as torch has it, and no less exact than torch's own.

Torch's gradients come from its autograd in double precision; its precision in singles stands beside ours.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import softxent as sx
from comparison import DTYPES, REDUCTIONS, Array, random_probabilities, random_targets
from torch_comparison import double, functional, tensor, torch

ROWS, WIDTH, CLASSES = 60, 24, 300
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-53}


def operands(dtype: str, seed: int = 0, size: tuple[int, int, int] = (ROWS, WIDTH, CLASSES)) -> Any:
    rows, width, classes = size
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((rows, width))
    weight = random.standard_normal((classes, width)) / width**0.5
    bias = random.standard_normal(classes)
    return [array.astype(DTYPES[dtype]) for array in (hidden, weight, bias)]


def of_torch(arrays: list[Array], targets: Any, reduction: str, **options: Any) -> Any:
    """The loss and the gradients, in doubles; of every row's loss the sum."""
    leaves = [double(array).requires_grad_() for array in arrays]
    loss = functional.linear_cross_entropy(
        *leaves[:2], targets, linear_bias=leaves[2], reduction=reduction, **options
    )
    grads = torch.autograd.grad(loss.sum(), leaves)
    return loss.detach().numpy(), [grad.numpy() for grad in grads]


def ours(arrays: list[Any], targets: Any, **options: Any) -> tuple[Any, sx.LinearGrads]:
    hidden, weight, bias = arrays
    return sx.linear_cross_entropy_with_grad(hidden, weight, targets, bias, **options)


def assert_near(got: Array, expected: Array, dtype: str, products: str) -> None:
    """Within the rounding of sums of some hundred products, beside the largest element."""
    allowed = 64 * ROUNDING[products] + 2 * ROUNDING[dtype]
    size = np.abs(expected).max()
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=0, atol=allowed * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["ids", "probabilities"])
def test_loss_and_gradients_are_torchs(
    dtype: str, reduction: str, label_smoothing: float, kind: str
) -> None:
    arrays = operands(dtype)
    class_weights = np.random.default_rng(2).integers(1, 9, size=CLASSES) / 4
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": label_smoothing}
    targets: Array = random_targets((ROWS,), CLASSES)
    targets[[0, 7]] = -100
    theirs = torch.from_numpy(targets)
    if kind == "probabilities":
        targets = random_probabilities((ROWS, CLASSES))
        theirs = double(targets)
    expected_loss, expected = of_torch(arrays, theirs, weight=double(class_weights), **options)
    loss, found = ours(arrays, targets, weight=class_weights, **options)
    products = "float64" if dtype == "float64" else "float32"
    assert_near(np.asarray(loss), expected_loss, products, products)
    for got, wanted in zip(found, expected, strict=True):
        assert got is not None
        assert_near(got, wanted, dtype, products)


@pytest.mark.parametrize("chunked", [False, True])
def test_gradients_are_no_less_exact_than_torchs(chunked: bool) -> None:
    size = (700, 256, 3000)
    arrays = operands("float32", size=size)
    targets = random_targets(size[:1], size[2])
    _, exact = of_torch(arrays, torch.from_numpy(targets), "sum")
    leaves = [tensor(array).requires_grad_() for array in arrays]
    options = torch.nn.LinearCrossEntropyOptions() if chunked else None
    loss = functional.linear_cross_entropy(
        *leaves[:2],
        torch.from_numpy(targets),
        linear_bias=leaves[2],
        reduction="sum",
        options=options,
    )
    theirs = torch.autograd.grad(loss, leaves)
    _, found = ours(arrays, targets, reduction="sum")

    def error(grad: Any, exact: Array) -> float:
        return float(np.sqrt(np.mean(np.square(np.asarray(grad, np.float64) - exact))))

    for got, their, wanted in zip(found, theirs, exact, strict=True):
        assert error(got, wanted) <= error(their, wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_tensors_are_read_where_they_lie(dtype: str) -> None:
    arrays = operands(dtype)
    targets = random_targets((ROWS,), CLASSES)
    expected_loss, expected = ours(
        arrays,
        targets,
    )
    tensors = [tensor(array) for array in arrays]
    loss, found = ours(tensors, torch.from_numpy(targets))
    assert loss == expected_loss
    for got, wanted in zip(found, expected, strict=True):
        assert got is not None
        assert wanted is not None
        assert got.tobytes() == wanted.tobytes()


def test_what_the_page_shows_runs() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "linear.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "page"})

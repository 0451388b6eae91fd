"""The gradient and the diagonal of the Hessian, row by row, as boosters ask for them."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike, NDArray

from softxent import _core


def softmax_grad_hess(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | Iterable[int] | None = -100,
    out: tuple[NDArray[Any], NDArray[Any]] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The gradient of each row's surprise with respect to its logits, and the diagonal of the Hessian.

    ``grad_i = u w_y (p_i - [i == y])`` and ``hess_i = u w_y p_i (1 - p_i)`` with ``p = softmax(x)``, the
    row's class y, a weight w of that class and a weight u of the row: the derivatives of
    ``u w_y (-log p_y)``. Nothing is reduced. Boosters with one tree for each class ask for these;
    `docs/boosting.md` shows how. A row is read from memory once.

    Parameters
    ----------
    logits : array_like, shape (..., V) with the V classes along `axis`
        As for `softmax`. Boosters call them raw scores, margins or predictions.
    targets : array_like of integers, shape of `logits` without `axis`
        Class ids in [0, V), of any integer dtype.
    axis : int
        The axis of the classes.
    weight : array_like, shape (V,), optional
        w: one factor for each class.
    sample_weight : array_like, shape of `logits` without `axis`, optional
        u: one factor for each row. A row of weight 0 is ignored.
    ignore_index : int, several of them, or None
        Ids that mark a row as ignored: it is not read.
    out : pair of ndarrays, each of the shape and dtype of `logits`, optional
        Where the gradient and the Hessian go. One of them may be `logits` itself.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    grad, hess : ndarrays, shape and dtype of `logits` (float64 for integers), and its order of axes
        The gradient has the bits of `cross_entropy_with_grad` with reduction "sum". In units in the last
        place of the dtype (of float32 for 16 bits, which are then rounded once), elements of the Hessian
        are within ``6 + (x_max - x_i)`` where normal. In a confident row 1 - p is the sum of the
        others and not a difference, so a p of 1 - 1e-12 gives 1e-12, not 0. Both exactly 0 in ignored rows;
        NaN in rows that hold NaN or +inf, or nothing but -inf.

    Raises
    ------
    IndexError
        A class id outside [0, V) that is not ignored: ``targets[3] = 50257 is outside [0, 50257)``.
    ValueError
        Shapes that do not match, no class at all, an `out` that is no pair, or whose arrays share memory with
        each other, and as `softmax`.
    TypeError
        Class ids that are no integers (probabilities too), weights that are no real numbers, and as
        `softmax`.

    See Also
    --------
    cross_entropy_with_grad : the loss and its gradient, with reductions and all options.

    Examples
    --------
    >>> import softxent as sx
    >>> grad, hess = sx.softmax_grad_hess([[3.2, 1.0, -0.5, 2.5]], [0])
    >>> grad.round(4)
    array([[-0.3873,  0.0679,  0.0151,  0.3043]])
    >>> hess.round(4)
    array([[0.2373, 0.0633, 0.0149, 0.2117]])
    """
    return _core.softmax_grad_hess(
        logits, targets, axis, weight, sample_weight, ignore_index, out, threads
    )

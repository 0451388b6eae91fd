"""The cross-entropy of a linear layer, and its gradients, without its logits."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core
from softxent.functions.choices import LinearGrad, OnEmpty, Reduction


class LinearGrads(NamedTuple):
    """The gradients with respect to the operands of a linear layer; None for what was not asked for.

    Attributes
    ----------
    hidden : ndarray of the shape and dtype of `hidden`, or None
    linear_weight : ndarray of the shape and dtype of `linear_weight`, or None
    linear_bias : ndarray of the shape and dtype of `linear_bias`, or None
    """

    hidden: NDArray[Any] | None
    linear_weight: NDArray[Any] | None
    linear_bias: NDArray[Any] | None


def linear_cross_entropy(
    hidden: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    linear_bias: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | Iterable[int] | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The cross-entropy of the logits ``hidden @ linear_weight.T + linear_bias``, which are never held.

    The loss that `cross_entropy` gives for these logits, with all of its options. The rows are worked
    through in chunks, so that the logits of one chunk are all that exists of them: a sixth of the rows,
    or as many as fit into 192 MiB. Rows that do not count, and classes from `valid_classes` on, cost no
    product.

    Parameters
    ----------
    hidden : array_like, shape (..., D)
        The rows: float16, bfloat16, float32, float64 or integers, of any strides. If it or
        `linear_weight` is float64 or of integers the products are made in double precision, else in
        single, of 16-bit operands too. Their logits are not rounded to 16 bits.
    linear_weight : array_like, shape (V, D)
        One row for each class, of a dtype of its own.
    targets : array_like, integers of shape (...), or floats of shape (..., V)
        As for `cross_entropy`.
    linear_bias : array_like, shape (V,), optional
        Added to the logits of each row.
    weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, softcap
        As for `cross_entropy`. A row that is ignored, or has weight 0, is not read.
    valid_classes, class_mask
        As for `softmax`. What `linear_weight` and `linear_bias` hold for masked classes makes no difference.
    reduction, offsets, normalizer, on_empty, threads
        As for `cross_entropy`. Without `offsets` "sequence_mean" takes hidden states of shape (B, T, D).
    dtype : floating dtype, optional
        Of the loss; by default float64 where products are in double precision, else float32.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of the rows for "none"
        The loss: that of the logits as they are in the precision of the products, with the accuracy of
        `cross_entropy`. A logit is a sum of D products with one rounding each.

        The same bits for any number of threads and any layout, and on every processor with a fused
        multiply-add; with "none" also alone or in any batch.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `cross_entropy`; for a `linear_weight` that is not (V, D), a `linear_bias` that is not (V,).

    See Also
    --------
    linear_cross_entropy_with_grad : the loss and the gradients, in one call.
    cross_entropy : the same for logits that exist.

    Examples
    --------
    >>> import numpy as np
    >>> import softxent as sx
    >>> hidden = np.array([[1.0, 2.0], [0.0, -1.0]])
    >>> head = np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, 0.25]])
    >>> print(round(sx.linear_cross_entropy(hidden, head, [0, 2]), 4))
    0.6803
    >>> print(round(sx.cross_entropy(hidden @ head.T, [0, 2]), 4))
    0.6803
    """
    reading = (-1, temperature, softcap, valid_classes, class_mask, dtype, threads)
    options = (weight, sample_weight, ignore_index, label_smoothing, z_loss)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.linear_cross_entropy(
        hidden, linear_weight, targets, linear_bias, reading, options, reducing
    )


def linear_cross_entropy_with_grad(
    hidden: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    linear_bias: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | Iterable[int] | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    grad_output: ArrayLike | None = None,
    grads: Iterable[LinearGrad] = ("hidden", "linear_weight", "linear_bias"),
    out: tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None] | None = None,
    accumulate: bool = False,
) -> tuple[Any, LinearGrads]:
    """The cross-entropy of a linear layer, and its gradients with respect to what the layer multiplies.

    With g the gradient of the loss with respect to the logits, which is what `cross_entropy_with_grad`
    gives, the gradients are ``g @ linear_weight``, ``g.T @ hidden`` and the sum of the rows of g: of
    the loss that `linear_cross_entropy` defines, times `grad_output`. g is never held either.

    Parameters
    ----------
    hidden, linear_weight, targets, linear_bias
        As for `linear_cross_entropy`.
    weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, softcap, valid_classes
        As for `linear_cross_entropy`.
    class_mask, reduction, offsets, normalizer, on_empty, dtype, threads
        As for `linear_cross_entropy`.
    grad_output : array_like, a scalar or the shape of the rows for "none", optional
        The gradient of what comes after with respect to the loss; None is 1.
    grads : names among "hidden", "linear_weight", "linear_bias"
        The gradients that are wanted. What is not asked for costs no product; without a `linear_bias`
        there is no gradient of it.
    out : three arrays or None, for instance a `LinearGrads`, optional
        Where the gradients go, each of the shape and dtype of its operand, of any strides, and with no
        memory in common with anything else. None is a new array.
    accumulate : bool
        Add the gradients to what is in `out`, which then needs an array for each.

    Returns
    -------
    tuple
        The loss, and the gradients as `LinearGrads`, each in the dtype of its operand (float64 for
        integers). Each is a sum of products with one rounding each, in the precision of the products,
        to which a row's target, as a rule by far the largest term, is added last; the gradient of the
        bias is summed in doubles. For 16-bit operands the sum over all chunks is
        kept apart and rounded once. Masked classes get 0 in the gradients of weight and bias, rows that
        do not count in that of `hidden`; what a class holds makes no difference to a row that masks it.

        The same bits for any number of threads, any layout, and whatever else is asked for, and on
        every processor with a fused multiply-add. The loss ("none") and the gradient of `hidden` of a
        row are also the same alone or in any batch; those of weight and bias are sums over rows, in
        chunks of as many rows as the sizes allow.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `linear_cross_entropy`; a name that is no operand, an `out` that cannot be written, for a
        gradient that is not wanted, or missing where there is something to be added to.

    See Also
    --------
    linear_cross_entropy : the loss alone, with one product in place of three.
    cross_entropy_with_grad : the same for logits that exist, and their gradient.

    Notes
    -----
    Beside the operands and the gradients a call takes, for B rows at a time, of elements of b bytes (8 in
    double precision, else 4),

        B * (V + 3 * D) * b bytes, at most 192 MiB

    for B of a sixth of the rows that count, but at least 320 and at most 1024, or as many as that allows,
    and for each thread some ``(512 + B * b / 4) * 1024`` bytes; 16-bit weights, and an `out` for them with
    gaps in its rows, take a gradient in single precision, ``V * D * 4`` bytes, too. What the chunks took
    waits for the next call; see `release_memory`.

    Examples
    --------
    >>> import numpy as np
    >>> import softxent as sx
    >>> hidden = np.array([[1.0, 2.0], [0.0, -1.0]])
    >>> head = np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, 0.25]])
    >>> loss, grads = sx.linear_cross_entropy_with_grad(hidden, head, [0, 2])
    >>> grads.linear_weight.round(4)
    array([[-0.1072, -0.3415],
           [ 0.0196, -0.1705],
           [ 0.0876,  0.512 ]])
    >>> grads.linear_bias is None
    True

    The gradients of two micro-batches, added up where they belong:

    >>> total = np.zeros_like(head)
    >>> for rows in (slice(0, 1), slice(1, 2)):
    ...     loss, grads = sx.linear_cross_entropy_with_grad(
    ...         hidden[rows], head, np.array([0, 2])[rows], normalizer=2,
    ...         grads=["linear_weight"], out=(None, total, None), accumulate=True,
    ...     )
    >>> total.round(4)
    array([[-0.1072, -0.3415],
           [ 0.0196, -0.1705],
           [ 0.0876,  0.512 ]])
    """
    reading = (-1, temperature, softcap, valid_classes, class_mask, dtype, threads)
    options = (weight, sample_weight, ignore_index, label_smoothing, z_loss)
    reducing = (reduction, offsets, normalizer, on_empty)
    loss, found = _core.linear_cross_entropy_with_grad(
        hidden,
        linear_weight,
        targets,
        linear_bias,
        reading,
        options,
        reducing,
        grad_output,
        grads,
        out,
        accumulate,
    )
    return loss, LinearGrads(*found)

"""The cross-entropy of class ids or probabilities, and its gradient."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core
from softxent.functions.choices import OnEmpty, Reduction


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
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
    """The cross-entropy of class ids or probabilities under the softmax of the logits, in nats.

    For each row ``nll = -log p_y = log sum_a exp(x_a / T) - x_y / T``: how surprised the model is by class y.
    With class weights w, label smoothing e over the K classes that are not masked, a z-loss z and a weight u
    of the row, its loss is ``u * ((1 - e) * w_y * nll + e / K * sum_c w_c * -log p_c + z * lse**2)``. With
    probabilities t for targets ``sum_c t_c * w_c * -log p_c`` takes the place of ``w_y * nll``. A term whose
    coefficient is 0 adds 0. Reads the logits once and writes nothing of their size.

    Parameters
    ----------
    logits : array_like, shape (..., V) with the V classes along `axis`
        As for `softmax`.
    targets : array_like, integers of the shape of `logits` without `axis`, or floats of the shape of `logits`
        Class ids in [0, V), of any integer dtype; or probabilities of the classes, taken as given. The dtype
        decides.
    axis : int
        The axis of the classes; 1 for image-like batches (N, V, d1, ...).
    weight : array_like, shape (V,), optional
        w: one factor for each class.
    sample_weight : array_like, shape of `logits` without `axis`, optional
        u: one factor for each row. A row of weight 0 is ignored.
    ignore_index : int, several of them, or None
        Ids that mark a row as ignored: it is not read, its loss is 0 and it does not count in the mean. With
        probability targets leave it alone; `sample_weight` ignores rows there.
    label_smoothing : float from 0 to 1
        e: the share of the loss that is spread over all classes.
    z_loss : float, at least 0
        z: the coefficient of the square of the log-sum-exp, which draws it to 0.
    temperature, softcap, valid_classes, class_mask
        As for `softmax`. A target that is masked has the loss +inf.
    reduction : {"mean", "sum", "none", "sequence_mean"}
        "mean" divides the sum over the rows by the sum of ``u * w_y`` over those that are not ignored: by
        their number if there are no weights (perplexity is the exponential of it); with probability targets
        by the sum of u. "none" gives one loss per row. "sequence_mean" divides the sum by the number of
        sequences: the average over sequences of the sum over tokens.
    offsets : array_like of integers, shape (S + 1,), optional
        For "sequence_mean": sequence s is the rows from ``offsets[s]`` up to ``offsets[s + 1]``. Without it
        the logits are (B, T, V), B sequences.
    normalizer : float, positive, optional
        For "mean": divides the sum in place of the weight of the rows, for instance by the number of tokens
        of all micro-batches together.
    on_empty : {"nan", "zero", "raise"}
        What the mean of nothing is, when there is no row or all are ignored. (A sum of weights that is 0
        divides as floating-point numbers do.)
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer logits, else float32.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of the rows for "none"
        The loss. Within 2 units in the last place, apart from the rounding of differences of logits; a
        confident row keeps its digits: 1e-12 is not rounded to 0. +inf if the target's logit is -inf; NaN
        if the row holds NaN or +inf. The same bits for any number of threads, layout and place in the batch.

    Raises
    ------
    IndexError
        A class id outside [0, V) that is not ignored: ``targets[3] = 50257 is outside [0, 50257)``.
    ValueError
        Shapes that do not match, an unknown `reduction` or `on_empty`, no class at all, `offsets` that do not
        rise from 0 to the number of rows, a number out of its range, an `ignore_index` beside probability
        targets, and as `softmax`.
    TypeError
        Targets that are neither class ids nor probabilities, weights that are no real numbers, and as
        `softmax`.

    See Also
    --------
    cross_entropy_with_grad : the loss and its gradient, in one call.

    Examples
    --------
    >>> import softxent as sx
    >>> logits = [[3.2, 1.0, -0.5, 2.5], [0.0, 0.0, 0.0, 0.0]]
    >>> sx.cross_entropy(logits, [0, 3], reduction="none").round(4)
    array([0.4899, 1.3863])
    >>> print(round(sx.cross_entropy(logits, [0, -100]), 4))
    0.4899
    >>> print(round(sx.cross_entropy([0.8, 0.15, 0.05], [1.0, 0.0, 0.0]), 4))
    0.6903
    >>> print(round(sx.cross_entropy(logits, [0, 3], label_smoothing=0.1, z_loss=1e-4), 4))
    1.0214
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    options = (weight, sample_weight, ignore_index, label_smoothing, z_loss)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.cross_entropy(logits, targets, reading, options, reducing)


def cross_entropy_with_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
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
    out: NDArray[Any] | None = None,
) -> tuple[Any, NDArray[Any]]:
    """The cross-entropy and its gradient with respect to the logits.

    ``d nll / d x_i = (p_i - [i == y]) / T`` for each row, times what the reduction makes of the row's loss
    and times `grad_output`; with options the exact derivative of the loss that `cross_entropy` defines.

    Parameters
    ----------
    logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss
        As for `cross_entropy`.
    temperature, softcap, valid_classes, class_mask, reduction, offsets, normalizer, on_empty
        As for `cross_entropy`.
    dtype, threads
        As for `cross_entropy`; `dtype` is that of the loss.
    grad_output : scalar or array_like of the shape of the rows, optional
        The gradient of whatever comes after with respect to the loss; 1 by default. An array only for
        reduction "none", where a scalar serves all rows.
    out : ndarray, shape and dtype of `logits`, optional
        Where the gradient goes. ``out=logits`` overwrites the logits and needs no further memory.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As `cross_entropy`.
    grad : ndarray, shape and dtype of `logits`
        The gradient; `out` if it was given. Exactly 0 in ignored rows, where a class is masked, and
        everywhere if there is nothing to take the mean of. NaN in rows that hold NaN or +inf, or nothing but
        -inf.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `cross_entropy` and, for `out`, as `softmax`; before anything is written.

    See Also
    --------
    cross_entropy : the loss alone, at half the cost or less.

    Examples
    --------
    >>> import softxent as sx
    >>> loss, grad = sx.cross_entropy_with_grad([[3.2, 1.0, -0.5, 2.5]], [0])
    >>> print(round(loss, 4))
    0.4899
    >>> grad.round(4)
    array([[-0.3873,  0.0679,  0.0151,  0.3043]])
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    options = (weight, sample_weight, ignore_index, label_smoothing, z_loss)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.cross_entropy_with_grad(
        logits, targets, reading, options, reducing, grad_output, out
    )

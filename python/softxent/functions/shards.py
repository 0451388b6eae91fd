"""The cross-entropy when the classes are split in shards: on several machines, or too many for one array."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core, partials
from softxent.functions.choices import OnEmpty, Reduction


def partial_cross_entropy(
    logits_shard: ArrayLike,
    targets: ArrayLike,
    *,
    class_offset: int,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """What a shard of the classes adds to the cross-entropy of whole rows.

    A shard holds the logits of the classes from `class_offset` on. With m the largest of them in a row, it is
    ``sum exp((x - m) / T)`` without the target, ``sum w (x - m)`` and ``sum w`` of its classes, and the logit
    of the target if the shard has it: about a hundred bytes a row. The logits are read once.

    Parameters
    ----------
    logits_shard : array_like, shape (..., V_s) with the V_s classes of the shard along `axis`
        As the `logits` of `softmax`.
    targets : array_like of integers, shape of `logits_shard` without `axis`
        Class ids among all classes, the same for every shard.
    class_offset : int, at least 0
        The class id of the shard's first column.
    axis : int
        The axis of the classes.
    weight : array_like, shape (V_s,), optional
        One factor for each class of the shard.
    ignore_index : int, several of them, or None
        Ids that mark a row as ignored: it is not read.
    temperature, softcap
        As for `softmax`; the same for every shard.
    valid_classes, class_mask
        As for `softmax`, of the shard's own classes.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    ndarray, shape (1,) and that of `targets`, structured
        For `merge_partials`. It can be pickled, saved and sent; its fields are no part of the interface.

    Raises
    ------
    IndexError
        A class id below 0 that is not ignored.
    ValueError
        Shapes that do not match, no class at all, a `class_offset` below 0, and as `softmax`.
    TypeError
        Class ids that are no integers, weights that are no real numbers, and as `softmax`.

    See Also
    --------
    merge_partials : the next step.
    cross_entropy : of rows that are in one array.

    Examples
    --------
    >>> import softxent as sx
    >>> logits, targets = [[3.2, 1.0, -0.5, 2.5]], [0]
    >>> left = sx.partial_cross_entropy([row[:3] for row in logits], targets, class_offset=0)
    >>> right = sx.partial_cross_entropy([row[3:] for row in logits], targets, class_offset=3)
    >>> merged = sx.merge_partials([right, left])
    >>> print(round(sx.finish_cross_entropy(merged), 4))
    0.4899
    >>> sx.shard_grad([[2.5]], targets, merged, class_offset=3).round(4)
    array([[0.3043]])
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, None, threads)
    shard = (class_offset, weight, ignore_index)
    rows = _core.partial_cross_entropy(logits_shard, targets, reading, shard)
    return partials.made_of(rows, class_offset, temperature, softcap)


def merge_partials(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The partials of several shards as one.

    They may come in any order, and may be merged before; the result is the same bits for the same pieces.

    Parameters
    ----------
    parts : iterable of ndarrays
        What `partial_cross_entropy` or `merge_partials` returned, for the same rows.

    Returns
    -------
    ndarray, structured
        For `finish_cross_entropy` and `shard_grad`, or to be merged further.

    Raises
    ------
    ValueError
        No part at all, or parts with other rows, targets, temperature or softcap, or with the same class.
    TypeError
        Anything else.

    See Also
    --------
    partial_cross_entropy : makes them.

    Examples
    --------
    >>> import softxent as sx
    >>> parts = [sx.partial_cross_entropy([[x]], [1], class_offset=i) for i, x in enumerate([3.0, 1.0])]
    >>> merged = sx.merge_partials(parts)
    >>> merged.shape, merged.tobytes() == sx.merge_partials(reversed(parts)).tobytes()
    ((2, 1), True)
    """
    return partials.merged(parts)


def finish_cross_entropy(
    merged: NDArray[Any],
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
) -> Any:
    """The cross-entropy of rows whose shards have been summed up.

    It is that of `cross_entropy` for all classes of the pieces: the smoothing is over all of them that are
    not masked, the z-loss of their common log-sum-exp.

    Parameters
    ----------
    merged : ndarray, structured
        What `merge_partials` returned.
    sample_weight, label_smoothing, z_loss, reduction, offsets, normalizer, on_empty
        As for `cross_entropy`.
    dtype : floating dtype, optional
        Of the result; by default float64 if a shard's logits are float64 or integers, else float32; float32
        too where there are no rows, whose partials do not tell.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of the rows for "none"
        The loss, as exact as `cross_entropy`.

    Raises
    ------
    IndexError
        A target that is in none of the shards.
    ValueError, TypeError
        As `cross_entropy`; a `merged` that is none.

    See Also
    --------
    partial_cross_entropy : makes the pieces.
    shard_grad : the gradient.

    Examples
    --------
    >>> import softxent as sx
    >>> parts = [sx.partial_cross_entropy([[x]], [1], class_offset=i) for i, x in enumerate([3.0, 1.0])]
    >>> merged = sx.merge_partials(parts)
    >>> print(round(sx.finish_cross_entropy(merged), 4))
    2.1269
    >>> print(round(sx.finish_cross_entropy(merged, label_smoothing=0.2), 4))
    1.9269
    """
    reducing = (reduction, offsets, normalizer, on_empty)
    merged = partials.whole(merged)
    return _core.finish_cross_entropy(
        merged, sample_weight, label_smoothing, z_loss, reducing, dtype
    )


def shard_grad(
    logits_shard: ArrayLike,
    targets: ArrayLike,
    merged: NDArray[Any],
    *,
    class_offset: int,
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
    threads: int | None = None,
    grad_output: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The gradient of that loss with respect to the logits of one shard.

    Parameters
    ----------
    logits_shard, targets, class_offset, axis, weight, ignore_index
        As they were given to `partial_cross_entropy`.
    temperature, softcap, valid_classes, class_mask
        Likewise.
    merged : ndarray, structured
        All pieces of the rows, from `merge_partials`.
    sample_weight, label_smoothing, z_loss, reduction, offsets, normalizer
        As they are given to `finish_cross_entropy`.
    threads : int, optional
        The most threads to use; by default `get_threads`.
    grad_output, out
        As for `cross_entropy_with_grad`, for the shard.

    Returns
    -------
    ndarray, shape and dtype of `logits_shard`
        The gradient: the shard's columns of that of `cross_entropy_with_grad`.

    Raises
    ------
    IndexError
        A target that is in none of the shards.
    ValueError
        A `merged` without a piece for these rows, classes, temperature and softcap, and as
        `cross_entropy_with_grad`.
    TypeError
        As `cross_entropy_with_grad`; a `merged` that is none.

    See Also
    --------
    partial_cross_entropy : makes the pieces.
    finish_cross_entropy : the loss.

    Examples
    --------
    >>> import softxent as sx
    >>> parts = [sx.partial_cross_entropy([[x]], [1], class_offset=i) for i, x in enumerate([3.0, 1.0])]
    >>> merged = sx.merge_partials(parts)
    >>> sx.shard_grad([[3.0]], [1], merged, class_offset=0).round(4)
    array([[0.8808]])
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, None, threads)
    shard = (class_offset, weight, ignore_index)
    reducing = (reduction, offsets, normalizer, "nan")
    merged = partials.whole(merged)
    grad: NDArray[Any] = _core.shard_grad(
        logits_shard,
        targets,
        merged,
        reading,
        shard,
        sample_weight,
        label_smoothing,
        z_loss,
        reducing,
        grad_output,
        out,
    )
    return grad

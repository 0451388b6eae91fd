"""Log-probabilities of chosen classes."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from softxent import _core


def token_logprobs(
    logits: ArrayLike,
    tokens: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """Log-probabilities of chosen classes, in nats, without an array of the size of the logits.

    ``log p_k = x_k / T - log sum_a exp(x_a / T)`` for the classes k that `tokens` names, one or several for
    each row. The logits are read once.

    Parameters
    ----------
    logits : array_like, shape (..., V) with the V classes along `axis`
        As for `softmax`.
    tokens : array_like of integers, shape of `logits` without `axis`, or that and one axis more, of length K
        Class ids in [0, V), of any integer dtype: one for each row, or K.
    axis : int
        The axis of the classes.
    ignore_index : int, several of them, or None
        Ids that name no class; they give 0. A row that names none is not read.
    temperature, softcap, valid_classes, class_mask
        As for `softmax`.
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer logits, else float32.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    NumPy scalar or ndarray, shape of `tokens`
        Log-probabilities, as exact as the loss of `cross_entropy`: -1e-12 is not rounded to 0. -inf for a
        class that is masked or whose logit is -inf; NaN in rows that hold NaN or +inf.

    Raises
    ------
    IndexError
        A class id outside [0, V) that is not ignored: ``tokens[3, 0] = 50257 is outside [0, 50257)``.
    ValueError
        `tokens` of another shape, no class at all, and as `softmax`.
    TypeError
        Class ids that are no integers, and as `softmax`.

    See Also
    --------
    log_softmax : of all classes.
    evaluate : of the class that came, and more about each row.

    Examples
    --------
    >>> import softxent as sx
    >>> logits = [[3.2, 1.0, -0.5, 2.5], [0.0, 0.0, 0.0, 0.0]]
    >>> sx.token_logprobs(logits, [0, 3]).round(4)
    array([-0.4899, -1.3863])
    >>> sx.token_logprobs(logits, [[0, 3], [1, -100]]).round(4)
    array([[-0.4899, -1.1899],
           [-1.3863,  0.    ]])
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    return _core.token_logprobs(logits, tokens, reading, ignore_index)

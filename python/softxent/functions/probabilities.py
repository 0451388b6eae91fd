"""Softmax, its logarithm, and the logarithm of the sum of exponentials."""

from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core


def softmax(
    logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Probabilities of the classes.

    ``p_i = exp(x_i / T) / sum_a exp(x_a / T)`` along `axis`, computed relative to the largest logit, so that
    nothing overflows.

    Parameters
    ----------
    logits : array_like, any shape with at least one axis
        float16, bfloat16 (of ml_dtypes), float32 or float64; integers are computed as float64. Any layout;
        also an object with ``__dlpack__`` on the CPU, such as a torch tensor.
    axis : int
        The axis of the classes.
    temperature : float, positive
        T: below 1 sharpens, above 1 flattens.
    softcap : float, positive, optional
        c: bounds the logits before all else, ``c * tanh(x / c)``.
    valid_classes : int from 1 to V, optional
        How many columns are real classes, when the vocabulary is padded; the columns after them are masked.
    class_mask : array_like of bool, shape (V,) or broadcastable to `logits`, optional
        True for the classes that take part, as NumPy's ``where=``. A masked class is not read: its
        probability is 0 whatever its logit holds.
    out : ndarray, shape of `logits`, optional
        Where the result goes. May be `logits` itself.
    dtype : floating dtype, optional
        Of the result; by default that of `logits`. The precision of the computation stays the same.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    ndarray, shape of `logits`
        Probabilities; `out` if it was given. 0 where a logit is -inf; a row that holds NaN or +inf, or
        nothing but -inf, is NaN; one whose classes are all masked is 0. Each is within 4 + (largest logit -
        logit) / T units in the last place; for float64 on the "portable" instruction set within twice that
        (1.63 times was measured).

    Raises
    ------
    ValueError
        0-d `logits`, a `temperature` or `softcap` that is not positive and finite, `valid_classes` out of
        range, a `class_mask` that does not broadcast, `out` of another shape, read-only, or overlapping
        `logits` other than exactly.
    TypeError
        Logits that are no real numbers; a `class_mask` that is not bool; `out` of another dtype.
    numpy.exceptions.AxisError
        No such axis.

    See Also
    --------
    log_softmax : the logarithms, without underflow.

    Examples
    --------
    >>> import numpy as np
    >>> import softxent as sx
    >>> sx.softmax([3.2, 1.0, -0.5, 2.5]).round(4)
    array([0.6127, 0.0679, 0.0151, 0.3043])
    >>> sx.softmax([3.2, 1.0, -0.5, 2.5], temperature=0.5).round(4).tolist()
    [0.794, 0.0097, 0.0005, 0.1958]
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    result: NDArray[Any] = _core.softmax(logits, reading, out)
    return result


def log_softmax(
    logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Logarithms of the probabilities of the classes, in nats.

    ``log p_i = x_i / T - log sum_a exp(x_a / T)`` along `axis`.

    Parameters
    ----------
    logits, axis, temperature, softcap, valid_classes, class_mask, out, dtype, threads
        As for `softmax`.

    Returns
    -------
    ndarray, shape of `logits`
        Log-probabilities; `out` if it was given. -inf where a logit is -inf or masked. A class that outweighs
        all others keeps its digits: -1e-12 is not rounded to 0.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As `softmax`.

    See Also
    --------
    softmax : the probabilities.
    cross_entropy : the loss of given classes, without an array of the size of the logits.

    Examples
    --------
    >>> import softxent as sx
    >>> sx.log_softmax([3.2, 1.0, -0.5, 2.5]).round(4)
    array([-0.4899, -2.6899, -4.1899, -1.1899])
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    result: NDArray[Any] = _core.log_softmax(logits, reading, out)
    return result


def logsumexp(
    logits: ArrayLike,
    axis: int = -1,
    *,
    keepdims: bool = False,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The logarithm of the sum of exponentials.

    ``lse = log sum_a exp(x_a / T)`` along `axis`, reading the logits once.

    Parameters
    ----------
    logits, axis, temperature, softcap, valid_classes, class_mask, threads
        As for `softmax`.
    keepdims : bool
        Whether the result keeps `axis`, with length 1.
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer logits, else float32.

    Returns
    -------
    ndarray or NumPy scalar, shape of `logits` without `axis`
        Within 1 unit (float64: 4) in the last place of the larger of ``|lse|`` and the largest logit.
        -inf of nothing, of nothing but -inf, and where all classes are masked; +inf if a logit is +inf; NaN
        if one is NaN.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As `softmax`.

    See Also
    --------
    cross_entropy : the same less the logit of the target, more exactly than by subtracting.

    Examples
    --------
    >>> import softxent as sx
    >>> print(round(sx.logsumexp([3.2, 1.0, -0.5, 2.5]), 4))
    3.6899
    >>> sx.logsumexp([[0.0, 0.0], [1000.0, 1000.0]]).round(3).tolist()
    [0.693, 1000.693]
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    return _core.logsumexp(logits, reading, keepdims)

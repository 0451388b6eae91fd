"""The public functions: one for each name, with its signature, its documentation and a call into the core.

Nothing is computed and nothing is checked here: the core does both, so that a small call stays small.
"""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core

Reduction: TypeAlias = Literal["mean", "sum", "none", "sequence_mean"]
OnEmpty: TypeAlias = Literal["nan", "zero", "raise"]


def softmax(
    logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
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
        nothing but -inf, is NaN. Each is within 4 + (largest logit - logit) / T units in the last place; for
        float64 on the "portable" instruction set within twice that (1.63 times was measured).

    Raises
    ------
    ValueError
        0-d `logits`, a temperature that is not positive and finite, `out` of another shape, read-only, or
        overlapping `logits` other than exactly.
    TypeError
        Logits that are no real numbers; `out` of another dtype.
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
    result: NDArray[Any] = _core.softmax(logits, axis, temperature, out, dtype, threads)
    return result


def log_softmax(
    logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Logarithms of the probabilities of the classes, in nats.

    ``log p_i = x_i / T - log sum_a exp(x_a / T)`` along `axis`.

    Parameters
    ----------
    logits, axis, temperature, out, dtype, threads
        As for `softmax`.

    Returns
    -------
    ndarray, shape of `logits`
        Log-probabilities; `out` if it was given. -inf where a logit is -inf. A class that outweighs all
        others keeps its digits: -1e-12 is not rounded to 0.

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
    result: NDArray[Any] = _core.log_softmax(logits, axis, temperature, out, dtype, threads)
    return result


def logsumexp(
    logits: ArrayLike,
    axis: int = -1,
    *,
    keepdims: bool = False,
    temperature: float = 1.0,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The logarithm of the sum of exponentials.

    ``lse = log sum_a exp(x_a / T)`` along `axis`, reading the logits once.

    Parameters
    ----------
    logits, axis, temperature, threads
        As for `softmax`.
    keepdims : bool
        Whether the result keeps `axis`, with length 1.
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer logits, else float32.

    Returns
    -------
    ndarray or NumPy scalar, shape of `logits` without `axis`
        Within 1 unit (float64: 4) in the last place of the larger of ``|lse|`` and the largest logit.
        -inf of nothing and of nothing but -inf; +inf if a logit is +inf; NaN if one is NaN.

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
    return _core.logsumexp(logits, axis, keepdims, temperature, dtype, threads)


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The cross-entropy of class ids under the softmax of the logits, in nats.

    For each row ``nll = -log p_y = log sum_a exp(x_a / T) - x_y / T``: how surprised the model is by class y.
    Reads the logits once and writes nothing of their size.

    Parameters
    ----------
    logits : array_like, shape (..., V) with the V classes along `axis`
        As for `softmax`.
    targets : array_like of integers, shape of `logits` without `axis`
        Class ids in [0, V), of any integer dtype.
    axis : int
        The axis of the classes; 1 for image-like batches (N, V, d1, ...).
    ignore_index : int, several of them, or None
        Ids that mark a row as ignored: it is not read, its loss is 0 and it does not count in the mean.
    temperature : float, positive
        Divides the logits.
    reduction : {"mean", "sum", "none", "sequence_mean"}
        "mean" divides the sum over the rows by the number of those that are not ignored (perplexity is the
        exponential of it). "none" gives one loss per row. "sequence_mean" divides the sum by the number of
        sequences: the average over sequences of the sum over tokens.
    offsets : array_like of integers, shape (S + 1,), optional
        For "sequence_mean": sequence s is the rows from ``offsets[s]`` up to ``offsets[s + 1]``. Without it
        the logits are (B, T, V), B sequences.
    normalizer : float, positive, optional
        For "mean": divides the sum in place of the number of rows, for instance by the number of tokens of
        all micro-batches together.
    on_empty : {"nan", "zero", "raise"}
        What the mean of nothing is, when there is no row or all are ignored.
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer logits, else float32.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of `targets` for "none"
        The loss. Within 2 units in the last place, apart from the rounding of differences of logits; a
        confident row keeps its digits: 1e-12 is not rounded to 0. +inf if the target's logit is -inf; NaN
        if the row holds NaN or +inf. The same bits for any number of threads, layout and place in the batch.

    Raises
    ------
    IndexError
        A class id outside [0, V) that is not ignored: ``targets[3] = 50257 is outside [0, 50257)``.
    ValueError
        Shapes that do not match, an unknown `reduction` or `on_empty`, no class at all, `offsets` that do not
        rise from 0 to the number of rows, and as `softmax`.
    TypeError
        Class ids that are no integers, and as `softmax`.

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
    """
    return _core.cross_entropy(
        logits,
        targets,
        (
            axis,
            ignore_index,
            temperature,
            reduction,
            offsets,
            normalizer,
            on_empty,
            dtype,
            threads,
        ),
    )


def cross_entropy_with_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
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
    and times `grad_output`.

    Parameters
    ----------
    logits, targets, axis, ignore_index, temperature, reduction, offsets, normalizer, on_empty
        As for `cross_entropy`.
    dtype, threads
        As for `cross_entropy`; `dtype` is that of the loss.
    grad_output : scalar or array_like of the shape of `targets`, optional
        The gradient of whatever comes after with respect to the loss; 1 by default. An array only for
        reduction "none", where a scalar serves all rows.
    out : ndarray, shape and dtype of `logits`, optional
        Where the gradient goes. ``out=logits`` overwrites the logits and needs no further memory.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As `cross_entropy`.
    grad : ndarray, shape and dtype of `logits`
        The gradient; `out` if it was given. Exactly 0 in ignored rows, and everywhere if there is nothing to
        take the mean of. NaN in rows that hold NaN or +inf, or nothing but -inf.

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
    return _core.cross_entropy_with_grad(
        logits,
        targets,
        (
            axis,
            ignore_index,
            temperature,
            reduction,
            offsets,
            normalizer,
            on_empty,
            dtype,
            threads,
        ),
        grad_output,
        out,
    )


def set_threads(threads: int | None) -> None:
    """Set how many threads a call uses at most, unless it says so itself.

    Parameters
    ----------
    threads : int, at least 1, or None
        None goes back to the default: ``SOFTXENT_NUM_THREADS``, else ``OMP_NUM_THREADS`` (both read at
        import), else the processors that this process may use.

    Raises
    ------
    ValueError
        A number below 1.
    TypeError
        No integer.

    Examples
    --------
    >>> import softxent as sx
    >>> sx.set_threads(1)
    >>> sx.get_threads()
    1
    >>> sx.set_threads(None)
    """
    _core.set_threads(threads)


def get_threads() -> int:
    """How many threads a call uses at most, unless it says so itself.

    Returns
    -------
    int
        What `set_threads` said, or its default.

    Examples
    --------
    >>> import softxent as sx
    >>> sx.get_threads() >= 1
    True
    """
    return _core.get_threads()


def show_runtime() -> dict[str, Any]:
    """Print and return what the package runs on.

    Returns
    -------
    dict
        ``version``, ``isa`` (the instruction set in use: "avx512", "avx2", "neon" or "portable"),
        ``threads``, ``profile`` (how the core was built: "release" or "debug"), and ``numpy``, its version.

    Examples
    --------
    >>> import softxent as sx
    >>> sorted(sx.show_runtime())  # doctest: +ELLIPSIS
    version: ...
    ['isa', 'numpy', 'profile', 'threads', 'version']
    """
    facts: dict[str, Any] = {**_core.runtime(), "numpy": np.__version__}
    for name, value in facts.items():
        print(f"{name}: {value}")
    return facts

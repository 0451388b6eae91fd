"""How far a student's probabilities are from a teacher's, from logits to logits, and the gradient."""

from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from softxent import _core
from softxent.functions.choices import Direction, OnEmpty, Reduction, Teacher


def kl_divergence(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    *,
    axis: int = -1,
    direction: Direction = "forward",
    teacher: Teacher = "logits",
    teacher_ids: ArrayLike | None = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    ignore_rows: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The Kullback-Leibler divergence between a teacher's and a student's probabilities, in nats.

    With ``p = softmax(teacher / T)`` and ``q = softmax(student / T)`` of each row it is
    ``sum p (log p - log q)`` forward and ``sum q (log q - log p)`` in reverse, where ``0 log 0 = 0``. There
    is no factor ``T**2``. Both rows are read twice, the second time as a rule from cache, and nothing of
    their size is written.

    Parameters
    ----------
    teacher_logits : array_like, shape of `student_logits`, or that of `teacher_ids`
        The teacher's logits; any dtype, computed in the precision of the student's.
    student_logits : array_like, shape (..., V) with the V classes along `axis`
        As the `logits` of `softmax`.
    axis : int
        The axis of the classes.
    direction : {"forward", "reverse"}
        "forward" is the divergence of the student from the teacher, KL(p || q), as distillation has it;
        "reverse" is KL(q || p), which seeks the teacher's modes.
    teacher : {"logits", "probabilities"}
        What `teacher_logits` holds. Probabilities are divided by their sum; the temperature applies to their
        logarithms.
    teacher_ids : array_like of integers, shape of the rows and (K,), optional
        For a teacher of which only K classes a row are known: their ids, each once in a row. Then
        `teacher_logits` holds their log-probabilities, at that temperature, and what these leave of 1 is set
        against the student's probability of all other classes together.
    temperature : float, positive
        T: divides the logits of both.
    valid_classes, class_mask
        As for `softmax`, for both.
    ignore_rows : array_like of bool, shape of the rows, optional
        True for rows that are not read: their loss is 0, and they do not count in the mean.
    reduction, offsets, normalizer, on_empty
        As for `cross_entropy`; the mean is over the rows that are not ignored.
    dtype : floating dtype, optional
        Of the result; by default float64 for float64 and integer students, else float32.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of the rows for "none"
        The divergence, never below 0. It is summed from terms none of which is negative, so that it keeps its
        digits also where the two nearly agree: 1e-9 is not rounded to 0. +inf where a class has probability 0
        on the second side only (one below the smallest number counts as 0); NaN in rows that hold NaN or +inf
        on either side, or nothing but -inf.

    Raises
    ------
    IndexError
        One of `teacher_ids` outside [0, V), unless its row is ignored.
    ValueError
        Shapes that do not match, an unknown `direction`, `teacher`, `reduction` or `on_empty`, no class at
        all, an id that stands twice in a row, `teacher_ids` beside probabilities, and as `softmax`.
    TypeError
        Ids that are no integers, `ignore_rows` that is not bool, and as `softmax`.

    See Also
    --------
    js_divergence : symmetric at ``beta=0.5``, and bounded.
    cross_entropy : against class ids, or probabilities that are not normalised.

    Examples
    --------
    >>> import softxent as sx
    >>> teacher, student = [[3.2, 1.0, -0.5, 2.5]], [[3.0, 1.0, 0.0, 2.0]]
    >>> print(round(sx.kl_divergence(teacher, student), 4))
    0.0174
    >>> print(round(sx.kl_divergence(teacher, student, direction="reverse"), 4))
    0.0185
    >>> print(round(sx.kl_divergence([[-0.5, -1.2]], student, teacher_ids=[[0, 3]]), 4))
    0.0124
    """
    reading = (axis, temperature, None, valid_classes, class_mask, dtype, threads)
    comparing = ("direction", direction, teacher, teacher_ids, ignore_rows)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.divergence(teacher_logits, student_logits, reading, comparing, reducing)


def kl_divergence_with_grad(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    *,
    axis: int = -1,
    direction: Direction = "forward",
    teacher: Teacher = "logits",
    teacher_ids: ArrayLike | None = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    ignore_rows: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    grad_output: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> tuple[Any, NDArray[Any]]:
    """The Kullback-Leibler divergence and its gradient with respect to the student's logits.

    Forward ``d / d x_i = (q_i - p_i) / T``, in reverse ``q_i (log q_i - log p_i - KL) / T``, for each row,
    times what the reduction makes of the row's divergence and times `grad_output`.

    Parameters
    ----------
    teacher_logits, student_logits, axis, direction, teacher, teacher_ids, temperature
        As for `kl_divergence`.
    valid_classes, class_mask, ignore_rows, reduction, offsets, normalizer, on_empty
        As for `kl_divergence`.
    dtype, threads
        As for `kl_divergence`; `dtype` is that of the divergence.
    grad_output, out
        As for `cross_entropy_with_grad`; `out` may be `student_logits` itself.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As `kl_divergence`.
    grad : ndarray, shape and dtype of `student_logits`
        Exactly 0 in ignored rows and where a class is masked; NaN in rows whose divergence is NaN. Where it
        is infinite there is no derivative: the slopes of such a row may be infinite or NaN.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `kl_divergence` and, for `out`, as `softmax`; before anything is written.

    See Also
    --------
    kl_divergence : the divergence alone.

    Examples
    --------
    >>> import softxent as sx
    >>> teacher, student = [[3.2, 1.0, -0.5, 2.5]], [[3.0, 1.0, 0.0, 2.0]]
    >>> loss, grad = sx.kl_divergence_with_grad(teacher, student)
    >>> grad.round(4)
    array([[ 0.0312,  0.0193,  0.0169, -0.0674]])
    """
    reading = (axis, temperature, None, valid_classes, class_mask, dtype, threads)
    comparing = ("direction", direction, teacher, teacher_ids, ignore_rows)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.divergence_with_grad(
        teacher_logits, student_logits, reading, comparing, reducing, grad_output, out
    )


def js_divergence(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    *,
    axis: int = -1,
    beta: float = 0.5,
    teacher: Teacher = "logits",
    teacher_ids: ArrayLike | None = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    ignore_rows: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Any:
    """The generalised Jensen-Shannon divergence between a teacher's and a student's probabilities, in nats.

    ``beta KL(p || m) + (1 - beta) KL(q || m)`` with ``m = beta p + (1 - beta) q``, for the probabilities p
    and q of `kl_divergence`. It is finite whatever the two are. At a `beta` of 0 and 1, where it would be 0,
    it is its limit in proportion to ``beta (1 - beta)``: the forward and the reverse KL divergence.

    Parameters
    ----------
    teacher_logits, student_logits, axis
        As for `kl_divergence`.
    beta : float from 0 to 1
        The teacher's share in m.
    teacher, teacher_ids, temperature, valid_classes, class_mask, ignore_rows
        As for `kl_divergence`.
    reduction, offsets, normalizer, on_empty, dtype, threads
        As for `kl_divergence`.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of the rows for "none"
        The divergence, never below 0, as exact as `kl_divergence`; NaN likewise.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `kl_divergence`; a `beta` out of range.

    See Also
    --------
    kl_divergence : of one from the other.

    Examples
    --------
    >>> import softxent as sx
    >>> teacher, student = [[3.2, 1.0, -0.5, 2.5]], [[3.0, 1.0, 0.0, 2.0]]
    >>> print(round(sx.js_divergence(teacher, student), 4))
    0.0044
    """
    reading = (axis, temperature, None, valid_classes, class_mask, dtype, threads)
    comparing = ("beta", beta, teacher, teacher_ids, ignore_rows)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.divergence(teacher_logits, student_logits, reading, comparing, reducing)


def js_divergence_with_grad(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    *,
    axis: int = -1,
    beta: float = 0.5,
    teacher: Teacher = "logits",
    teacher_ids: ArrayLike | None = None,
    temperature: float = 1.0,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    ignore_rows: ArrayLike | None = None,
    reduction: Reduction = "mean",
    offsets: ArrayLike | None = None,
    normalizer: float | None = None,
    on_empty: OnEmpty = "nan",
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    grad_output: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> tuple[Any, NDArray[Any]]:
    """The generalised Jensen-Shannon divergence and its gradient with respect to the student's logits.

    ``d / d x_i = (1 - beta) q_i (log(q_i / m_i) - KL(q || m)) / T`` for each row, times what the reduction
    makes of the row's divergence and times `grad_output`.

    Parameters
    ----------
    teacher_logits, student_logits, axis, beta, teacher, teacher_ids, temperature
        As for `js_divergence`.
    valid_classes, class_mask, ignore_rows, reduction, offsets, normalizer, on_empty
        As for `js_divergence`.
    dtype, threads
        As for `js_divergence`; `dtype` is that of the divergence.
    grad_output, out
        As for `cross_entropy_with_grad`; `out` may be `student_logits` itself.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As `js_divergence`.
    grad : ndarray, shape and dtype of `student_logits`
        Exactly 0 in ignored rows and where a class is masked; NaN in rows whose divergence is NaN. Where it
        is infinite there is no derivative: the slopes of such a row may be infinite or NaN.

    Raises
    ------
    IndexError, ValueError, TypeError
        As `js_divergence` and, for `out`, as `softmax`; before anything is written.

    See Also
    --------
    js_divergence : the divergence alone.

    Examples
    --------
    >>> import softxent as sx
    >>> teacher, student = [[3.2, 1.0, -0.5, 2.5]], [[3.0, 1.0, 0.0, 2.0]]
    >>> loss, grad = sx.js_divergence_with_grad(teacher, student)
    >>> grad.round(4)
    array([[ 0.0065,  0.0049,  0.0048, -0.0163]])
    """
    reading = (axis, temperature, None, valid_classes, class_mask, dtype, threads)
    comparing = ("beta", beta, teacher, teacher_ids, ignore_rows)
    reducing = (reduction, offsets, normalizer, on_empty)
    return _core.divergence_with_grad(
        teacher_logits, student_logits, reading, comparing, reducing, grad_output, out
    )

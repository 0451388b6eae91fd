"""Evaluation of a model: all that one read of the logits says about the classes that came."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from softxent import _core
from softxent.totals import Tally, Totals


@dataclass(frozen=True)
class Evaluation(Totals):
    """What `evaluate` says: the totals, and about each row arrays of the shape of the rows.

    Attributes
    ----------
    nll : ndarray or NumPy scalar
        The negative log-likelihood of the class that came, in nats; 0 in ignored rows.
    lse : ndarray or NumPy scalar
        The logarithm of the sum of exponentials; NaN in ignored rows.
    entropy : ndarray or NumPy scalar
        Of the probabilities, in nats; NaN in ignored rows.
    predicted : ndarray or NumPy scalar of int64
        The most probable class, the lowest if there are several; -1 in ignored rows and where `nll` is NaN.
    confidence : ndarray or NumPy scalar
        The probability of the predicted class; NaN where there is none.
    correct : ndarray or NumPy scalar of bool
        Whether the predicted class is the one that came.
    rank : ndarray or NumPy scalar of int64
        How many classes are more probable than the one that came; -1 likewise.
    """

    nll: Any
    lse: Any
    entropy: Any
    predicted: Any
    confidence: Any
    correct: Any
    rank: Any


_OF_ROWS = tuple(Evaluation.__annotations__)


def evaluate(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | Iterable[int] | None = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: ArrayLike | None = None,
    top_k: int | Iterable[int] = (),
    dtype: DTypeLike | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Loss, perplexity, accuracy, entropy and ranks, reading the logits once.

    With ``nll = -log p_y`` of each row and the weights u, ``loss = sum u nll / sum u`` over the rows that are
    not ignored, and ``perplexity = exp(loss)``. The standard error of the loss is the root of ``n / (n - 1) *
    sum u**2 (nll - loss)**2 / (sum u)**2`` over those n rows; that of the perplexity is, to first order, the
    perplexity times as much. The entropy is ``-sum_a p_a log p_a``.

    Parameters
    ----------
    logits : array_like, shape (..., V) with the V classes along `axis`
        As for `softmax`.
    targets : array_like of integers, shape of `logits` without `axis`
        The classes that came, in [0, V), of any integer dtype.
    axis : int
        The axis of the classes.
    sample_weight : array_like, shape of `targets`, optional
        u: one factor for each row. A row of weight 0 is ignored.
    ignore_index : int, several of them, or None
        Ids that mark a row as ignored: it is not read and does not count.
    temperature, softcap, valid_classes, class_mask
        As for `softmax`. A masked class is never predicted; a target that is masked has the loss +inf.
    top_k : int or several, at least 1
        For each k the share of rows whose class is among the k most probable is reported.
    dtype : floating dtype, optional
        Of `nll`, `lse` and `entropy`; by default float64 for float64 and integer logits, else float32. The
        totals are made from the values before they are rounded to it.
    threads : int, optional
        The most threads to use; by default `get_threads`.

    Returns
    -------
    Evaluation
        About each row ``nll``, ``lse``, ``entropy``, ``predicted``, ``confidence``, ``correct`` and ``rank``;
        the totals ``rows``, ``ignored``, ``weight``, ``loss``, ``loss_standard_error``, ``perplexity``,
        ``perplexity_standard_error``, ``bits_per_token``, ``accuracy`` and ``top_k_accuracy``, a dict. Where
        nothing counts they are NaN.

    Raises
    ------
    IndexError
        A class id outside [0, V) that is not ignored.
    ValueError
        Shapes that do not match, no class at all, a `top_k` below 1, and as `softmax`.
    TypeError
        Class ids that are no integers, and as `softmax`.

    See Also
    --------
    Evaluator : the same totals for data that comes in batches.
    cross_entropy : the loss alone, with more options.

    Examples
    --------
    >>> import softxent as sx
    >>> logits = [[3.2, 1.0, -0.5, 2.5], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]]
    >>> result = sx.evaluate(logits, [0, 3, 2], top_k=2)
    >>> print(round(result.loss, 4), round(result.perplexity, 4), round(result.accuracy, 4))
    1.1055 3.0206 0.3333
    >>> result.nll.round(4), result.predicted, result.rank
    (array([0.4899, 1.3863, 1.4402]), array([0, 0, 3]), array([0, 0, 1]))
    >>> result.top_k_accuracy
    {2: 1.0}
    """
    reading = (axis, temperature, softcap, valid_classes, class_mask, dtype, threads)
    tally = Tally.of_nothing(_top_k(top_k))
    rows = _core.evaluate(logits, targets, reading, sample_weight, ignore_index)
    return _evaluation(tally, rows)


class Evaluator:
    """The totals of `evaluate` for data that comes in batches, or from several processes.

    They are made from exact sums: the same bits however the rows were cut into batches, in whatever order
    these came, and whichever evaluators were merged. An evaluator can be pickled.

    Parameters
    ----------
    axis, ignore_index, temperature, softcap, valid_classes, class_mask, top_k, threads
        As for `evaluate`.

    Raises
    ------
    ValueError, TypeError
        As `evaluate`, most of it when the first batch comes.

    See Also
    --------
    evaluate : one batch.

    Examples
    --------
    >>> import softxent as sx
    >>> evaluator = sx.Evaluator(top_k=(1, 2))
    >>> for logits, targets in [([[3.2, 1.0, -0.5, 2.5]], [0]), ([[0.0, 1.0, 2.0, 3.0]], [2])]:
    ...     _ = evaluator.update(logits, targets)
    >>> totals = evaluator.result()
    >>> print(totals.rows, round(totals.loss, 4), totals.top_k_accuracy)
    2 0.965 {1: 0.5, 2: 1.0}
    """

    def __init__(
        self,
        *,
        axis: int = -1,
        ignore_index: int | Iterable[int] | None = -100,
        temperature: float = 1.0,
        softcap: float | None = None,
        valid_classes: int | None = None,
        class_mask: ArrayLike | None = None,
        top_k: int | Iterable[int] = (),
        threads: int | None = None,
    ) -> None:
        """Nothing is counted yet."""
        if isinstance(ignore_index, Iterable):
            ignore_index = tuple(ignore_index)  # an iterator would be empty after the first batch
        self._ignore_index = ignore_index
        self._reading = (axis, temperature, softcap, valid_classes, class_mask, None, threads)
        self._tally = Tally.of_nothing(_top_k(top_k))

    def update(
        self, logits: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Count a batch; returns the evaluation of it alone. A batch that is refused leaves no trace."""
        rows = self.describe(logits, targets, sample_weight=sample_weight)
        batch = Tally.of_nothing(self._tally.top_k)
        evaluation = _evaluation(batch, rows)
        self._tally.merge(batch)
        return evaluation

    def describe(
        self, logits: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> dict[str, Any]:
        """What is known of each row of a batch, as `softxent.totals.Tally.add` takes it; counts nothing."""
        reading, ignore_index = self._reading, self._ignore_index
        return _core.evaluate(logits, targets, reading, sample_weight, ignore_index)

    def merge(self, other: "Evaluator") -> "Evaluator":
        """Count what another evaluator has counted; returns this one.

        ValueError if it has another `top_k`.
        """
        self._tally.merge(other._tally)
        return self

    def result(self) -> Totals:
        """The totals of all that has been counted."""
        return self._tally.totals()


def _evaluation(tally: Tally, rows: dict[str, Any]) -> Evaluation:
    tally.add(rows)
    return Evaluation(**asdict(tally.totals()), **{name: rows[name] for name in _OF_ROWS})


def _top_k(top_k: int | Iterable[int]) -> tuple[int, ...]:
    given = top_k if isinstance(top_k, Iterable) else (top_k,)
    several = []
    for k in given:
        if isinstance(k, bool | np.bool_) or not hasattr(k, "__index__"):
            raise TypeError(f"top_k: expected an int or several, got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"top_k: expected numbers >= 1, got {k}")
        several.append(int(k))
    return tuple(dict.fromkeys(several))

"""A dataset of sequences: from each token's probability to the loss of all, averaged in both ways."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from softxent.explain.page import Line, Page, Step, number, shares
from softxent.functions.cross_entropy import cross_entropy

#: What a small model might have said of each next word.
EXAMPLE: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("The cat sat on the mat", (0.01, 0.60, 0.80, 0.60, 0.6127)),
    ("The cat sat", (0.01, 0.60)),
)


def explain_sequences(
    sequences: Sequence[tuple[str, Sequence[float]]] = EXAMPLE,
) -> Page:
    """The loss of a dataset: the mean over its sequences of the sum over their tokens.

    ``l(D) = 1/|D| sum_x sum_i -log p(x_{i+1} | x_1 ... x_i)``, which is ``reduction="sequence_mean"``; and,
    beside it, the mean over all tokens, ``reduction="mean"``, of which perplexity is the exponential.

    Parameters
    ----------
    sequences : sequence of (str, sequence of float)
        Each a sentence of n words, and the n - 1 probabilities of every word but the first, given those
        before.

    Returns
    -------
    Page
        `print` shows it as text, a notebook as a table. Its ``values`` has ``sums`` (of each sequence),
        ``sequence_mean``, ``mean`` and ``perplexity``.

    Raises
    ------
    ValueError
        No sequence, one without its probabilities, or a probability outside (0, 1].

    See Also
    --------
    explain : what happens at one token.

    Examples
    --------
    >>> from softxent.explain import explain_sequences
    >>> page = explain_sequences([("The cat sat", [0.80, 0.60]), ("The mat", [0.01])])
    >>> print(round(page.values["sequence_mean"], 3), round(page.values["mean"], 3))
    2.67 1.78
    """
    words = [sentence.split() for sentence, _ in sequences]
    _check(words, sequences)
    p = np.array([value for _, each in sequences for value in each], np.float64)
    # Each token is a choice between the word that came and all others.
    with np.errstate(divide="ignore"):
        logits = np.log(np.stack([p, 1 - p], axis=-1))
    targets = np.zeros(len(p), np.int64)
    offsets = np.cumsum([0, *(len(each) for _, each in sequences)])
    nll = cross_entropy(logits, targets, reduction="none")
    sums = [float(nll[a:b].sum()) for a, b in pairwise(offsets.tolist())]
    sequence_mean = float(
        cross_entropy(logits, targets, reduction="sequence_mean", offsets=offsets)
    )
    mean = float(cross_entropy(logits, targets))
    bars = shares(nll.tolist())
    steps = []
    for i, sentence in enumerate(words):
        lines = [
            Line(word, number(float(nll[k]), 3), bars[k], f"p = {p[k]:.4g}")
            for word, k in zip(sentence[1:], range(offsets[i], offsets[i + 1]), strict=True)
        ]
        title = f"{' '.join(sentence)}: surprise at each next word"
        steps.append(Step(title, "-log p", (*lines, Line("sum", number(sums[i], 3)))))
    steps += [_per_sequence(sums, sequence_mean), _per_token(sums, len(p), mean)]
    values = {
        "sums": sums,
        "sequence_mean": sequence_mean,
        "mean": mean,
        "perplexity": math.exp(mean),
    }
    return Page("The loss of a dataset", tuple(steps), values)


def _check(words: list[list[str]], sequences: Sequence[tuple[str, Sequence[float]]]) -> None:
    if not sequences:
        raise ValueError("sequences: expected at least one, got none")
    for sentence, (text, probabilities) in zip(words, sequences, strict=True):
        if len(sentence) < 2 or len(probabilities) != len(sentence) - 1:
            wanted = f"{max(1, len(sentence) - 1)} probabilities"
            raise ValueError(
                f"sequences: expected {wanted} for {text!r}, one for each word but the first, "
                f"got {len(probabilities)}"
            )
        for value in probabilities:
            if not 0 < value <= 1:
                raise ValueError(f"sequences: expected probabilities in (0, 1], got {value}")


def _per_sequence(sums: list[float], mean: float) -> Step:
    added = " + ".join(number(value, 3) for value in sums)
    return Step(
        "Mean over the sequences of the sums over their tokens",
        "1/|D| sum sum -log p",
        (Line("loss", number(mean, 3), None, f"= ({added}) / {len(sums)}"),),
        ('In softxent: reduction="sequence_mean". Long sequences weigh more.',),
    )


def _per_token(sums: list[float], tokens: int, mean: float) -> Step:
    return Step(
        "What frameworks report: mean over all tokens",
        "1/N sum -log p",
        (
            Line("loss", number(mean, 3), None, f"= {number(sum(sums), 3)} / {tokens}"),
            Line("perplexity", number(math.exp(mean), 3), None, "= exp(loss)"),
        ),
        ('In softxent: reduction="mean". Every token weighs the same.',),
    )

"""One row of logits, and the class that came: every step from scores to the gradient."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent.explain.page import Line, Page, Step, number, shares
from softxent.functions.cross_entropy import cross_entropy_with_grad
from softxent.functions.probabilities import log_softmax, logsumexp, softmax

Doubles = NDArray[np.float64]

LARGEST_EXPONENT = 20.0  # exp of more is shown relative to the largest: e**20 has nine digits
OTHER_TEMPERATURES = (0.5, 1.0, 2.0)
LONGEST_SUM = 58  # characters: what a line of 80 columns has for it


def explain(
    logits: Iterable[float],
    labels: Sequence[str] | None = None,
    target: str | int = 0,
    *,
    temperature: float = 1.0,
) -> Page:
    """The road from a few logits to the loss and its gradient, with every number on the way.

    ``p_i = exp(x_i / T) / sum_a exp(x_a / T)``, ``loss = -log p_y``, ``d loss / d x_i = (p_i - [i == y]) /
    T``.

    Parameters
    ----------
    logits : iterable of float, length V
        The scores x of the classes.
    labels : sequence of str, length V, optional
        What the classes are called; by default their numbers.
    target : str or int
        The class that came: its label, or its number.
    temperature : float, positive
        T: below 1 it sharpens the probabilities, above 1 it flattens them.

    Returns
    -------
    Page
        `print` shows it as text, a notebook as a table. Its ``values`` has ``logits``, ``exponentials``,
        ``sum``, ``lse``, ``probabilities``, ``surprises``, ``loss`` and ``gradient``.

    Raises
    ------
    ValueError
        No logits, logits that are not finite, labels of another number, a target that is none of them, and as
        `softxent.cross_entropy`.

    See Also
    --------
    explain_sequences : from tokens to the loss of a dataset.

    Examples
    --------
    >>> from softxent.explain import explain
    >>> page = explain([3.2, 1.0, -0.5, 2.5], ["mat", "hat", "sat", "rug"], "mat")
    >>> print(round(page.values["loss"], 4))
    0.4899
    >>> print(page.text().splitlines()[-4].strip())
    T 1   mat 0.6127  hat 0.0679  sat 0.0151  rug 0.3043
    """
    x = np.array(list(logits), np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"logits: expected at least one finite number, got {x.tolist()}")
    names = [str(i) for i in range(len(x))] if labels is None else list(labels)
    if len(names) != len(x):
        raise ValueError(f"labels: expected {len(x)}, one for each logit, got {len(names)}")
    y = _class(target, names)
    loss, grad = cross_entropy_with_grad(x, y, temperature=temperature)
    scaled = x / temperature
    shift = float(scaled.max()) if np.abs(scaled).max() > LARGEST_EXPONENT else 0.0
    p = softmax(x, temperature=temperature)
    surprises = -log_softmax(x, temperature=temperature)
    surprises[y] = loss
    values = {
        "logits": x,
        "exponentials": np.exp(scaled - shift),
        "sum": float(np.exp(scaled - shift).sum()),
        "lse": float(logsumexp(x, temperature=temperature)),
        "probabilities": p,
        "surprises": surprises,
        "loss": float(loss),
        "gradient": grad,
    }
    steps = (
        _logits(names, x, scaled, temperature),
        _exponentials(names, values, shift, temperature),
        _probabilities(names, values),
        _surprise(names, values, y),
        _loss(names, values, scaled, y),
        _gradient(names, values, temperature),
        _temperatures(names, x),
    )
    return Page(
        f"The model's scores for {len(x)} classes; {names[y]!r} is what came", steps, values
    )


def _class(target: str | int, names: list[str]) -> int:
    if isinstance(target, str) and target in names:
        return names.index(target)
    if isinstance(target, str) or not 0 <= target < len(names):
        raise ValueError(f"target: expected one of {', '.join(names)}, got {target!r}")
    return int(target)


def _lines(names: list[str], numbers: Doubles, decimals: int, bars: Doubles) -> tuple[Line, ...]:
    return tuple(
        Line(name, number(float(value), decimals), bar)
        for name, value, bar in zip(names, numbers, shares(bars.tolist()), strict=True)
    )


def _logits(names: list[str], x: Doubles, scaled: Doubles, temperature: float) -> Step:
    if temperature == 1.0:
        lines = _lines(names, x, 2, x - min(0.0, float(x.min())))
        return Step(
            "Logits", "x", lines, ("Scores: any real numbers. Only their differences count.",)
        )
    lines = tuple(
        Line(line.label, line.number, line.bar, f"x = {number(float(value), 2)}")
        for line, value in zip(
            _lines(names, scaled, 2, scaled - min(0.0, float(scaled.min()))), x, strict=True
        )
    )
    what = "sharper" if temperature < 1 else "flatter"
    return Step(
        f"Logits over the temperature {temperature:g}",
        "x / T",
        lines,
        (
            f"Differences become {'larger' if temperature < 1 else 'smaller'}, probabilities {what}.",
        ),
    )


def _exponentials(
    names: list[str], values: dict[str, Any], shift: float, temperature: float
) -> Step:
    e, total = values["exponentials"], values["sum"]
    lines = (*_lines(names, e, 2, e), Line("sum", number(total, 2)))
    inner = "x" if temperature == 1.0 else "x / T"
    remark = f"log of the sum: {values['lse']:.4f}, the log-sum-exp (lse)"
    if shift:
        inner = f"{inner} - max"
        remark = f"max + log of the sum: {values['lse']:.4f}, the log-sum-exp (lse)"
    return Step("Exponentials", f"exp({inner})", lines, ("All are positive now.", remark))


def _probabilities(names: list[str], values: dict[str, Any]) -> Step:
    p = values["probabilities"]
    lines = (*_lines(names, p, 4, p), Line("sum", number(round(float(p.sum()), 12), 4)))
    return Step("Probabilities: softmax", "p = exp / sum", lines)


def _surprise(names: list[str], values: dict[str, Any], y: int) -> Step:
    surprises = values["surprises"]
    lines = tuple(
        Line(line.label, line.number, line.bar, "came" if i == y else "")
        for i, line in enumerate(_lines(names, surprises, 4, surprises))
    )
    scale = ", ".join(f"{-math.log(p):.3f}" for p in (0.80, 0.60, 0.01, 0.001))
    return Step(
        "Surprise: negative log-likelihood (nll), in nats",
        "-log p",
        lines,
        (f"For p = 0.80, 0.60, 0.01, 0.001 it is {scale}.",),
    )


def _loss(names: list[str], values: dict[str, Any], scaled: Doubles, y: int) -> Step:
    p, lse = values["probabilities"], values["lse"]
    loss = number(values["loss"], 4)
    terms = [f"{int(i == y)} log {number(float(p[i]), 4)}" for i in range(len(p))]
    shown = " + ".join(terms)
    if len(terms) > 4 or len(shown) > LONGEST_SUM:
        shown = " + ".join([*terms[:3], "..."])
    return Step(
        "Loss: cross-entropy with a one-hot target",
        "-sum t log p",
        (Line(names[y], loss, None, f"= lse - x = {lse:.4f} - {float(scaled[y]):.4f}"),),
        (
            "The target t is 1 for what came and 0 for the rest, so one term is left:",
            f"-({shown}) = -log {number(float(p[y]), 4)}",
        ),
    )


def _gradient(names: list[str], values: dict[str, Any], temperature: float) -> Step:
    grad = values["gradient"]
    direction = ["up" if value < 0 else "down" for value in grad]
    lines = tuple(
        Line(line.label, line.number, line.bar, arrow)
        for line, arrow in zip(_lines(names, grad, 4, np.abs(grad)), direction, strict=True)
    )
    return Step(
        "Gradient of the loss",
        "p - t" if temperature == 1.0 else "(p - t) / T",
        (*lines, Line("sum", number(abs(round(float(grad.sum()), 12)), 4))),
        ("Training moves each logit against it: up what came, down the others.",),
    )


def _temperatures(names: list[str], x: Doubles) -> Step:
    remarks = []
    for temperature in OTHER_TEMPERATURES:
        p = softmax(x, temperature=temperature)
        pairs = [f"{name} {number(float(value), 4)}" for name, value in zip(names, p, strict=True)]
        remarks.append(f"T {temperature:<3g} {'  '.join(pairs[:5])}")
    return Step(
        "Temperature: T below 1 sharpens, above 1 flattens",
        "softmax(x / T)",
        (),
        (*remarks, "T -> 0: all on the largest logit.", "T -> infinity: all the same."),
    )

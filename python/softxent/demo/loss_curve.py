"""The picture of a training: the loss of every step, and the baseline it set out from.

Knows numbers and matplotlib, and is imported only when a picture is wanted. No window and no
global state: a `Figure` of its own, written as PNG.
"""

from math import exp
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SMOOTHED_STEPS = 25  # width of the running mean


def save_loss_curve(losses: list[float], unigram: float, path: Path) -> None:
    """Draw the losses in nats, perplexity on the right, and write the picture to `path`."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, color="C0", alpha=0.3, label="each batch")
    if len(losses) >= 2 * SMOOTHED_STEPS:
        mean = np.convolve(losses, np.full(SMOOTHED_STEPS, 1 / SMOOTHED_STEPS), "valid")
        middle = np.arange(len(mean)) + (SMOOTHED_STEPS + 1) / 2
        axes.plot(middle, mean, color="C0", label=f"mean of {SMOOTHED_STEPS} batches")
    axes.axhline(unigram, color="C1", linestyle="--", label="unigram baseline, held-out text")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="softxent demo: training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    perplexity = axes.secondary_yaxis("right")
    perplexity.yaxis.set_major_formatter(lambda nats, _: f"{exp(nats):,.0f}")
    perplexity.set_ylabel("perplexity")
    figure.savefig(path, format="png")

"""What a small step of one logit makes of the loss: the slope that a gradient should be."""

from typing import Any

import numpy as np
import softxent as sx
from common import Array


def following(logits: Array, targets: Any, grad_output: Any = 1.0, **options: Any) -> float:
    """What comes after the loss: the sum of the losses times `grad_output`."""
    return float(np.sum(grad_output * sx.cross_entropy(logits, targets, **options)))


def difference_at(
    place: tuple[int, ...], step: float, logits: Array, targets: Any, **options: Any
) -> float:
    """How much `following` changes with one logit."""
    up, down = logits.copy(), logits.copy()
    up[place] += step
    down[place] -= step
    change = following(up, targets, **options) - following(down, targets, **options)
    return change / float(up[place] - down[place])

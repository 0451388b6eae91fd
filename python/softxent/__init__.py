"""Softmax, log-sum-exp and cross-entropy with gradients over large-vocabulary logits, on the CPU."""

from softxent.functions import (
    cross_entropy,
    cross_entropy_with_grad,
    get_threads,
    log_softmax,
    logsumexp,
    set_threads,
    show_runtime,
    softmax,
)

__all__ = [
    "cross_entropy",
    "cross_entropy_with_grad",
    "get_threads",
    "log_softmax",
    "logsumexp",
    "set_threads",
    "show_runtime",
    "softmax",
]

"""Softmax, log-sum-exp and cross-entropy with gradients over large-vocabulary logits, on the CPU."""

from softxent.functions.cross_entropy import cross_entropy, cross_entropy_with_grad
from softxent.functions.divergence import (
    js_divergence,
    js_divergence_with_grad,
    kl_divergence,
    kl_divergence_with_grad,
)
from softxent.functions.evaluation import Evaluation, Evaluator, evaluate
from softxent.functions.grad_hess import softmax_grad_hess
from softxent.functions.linear import (
    LinearGrads,
    linear_cross_entropy,
    linear_cross_entropy_with_grad,
)
from softxent.functions.probabilities import log_softmax, logsumexp, softmax
from softxent.functions.runtime import get_threads, release_memory, set_threads, show_runtime
from softxent.functions.shards import (
    finish_cross_entropy,
    merge_partials,
    partial_cross_entropy,
    shard_grad,
)
from softxent.functions.tokens import token_logprobs
from softxent.totals import Totals

__all__ = [
    "Evaluation",
    "Evaluator",
    "LinearGrads",
    "Totals",
    "cross_entropy",
    "cross_entropy_with_grad",
    "evaluate",
    "finish_cross_entropy",
    "get_threads",
    "js_divergence",
    "js_divergence_with_grad",
    "kl_divergence",
    "kl_divergence_with_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "merge_partials",
    "partial_cross_entropy",
    "release_memory",
    "set_threads",
    "shard_grad",
    "show_runtime",
    "softmax",
    "softmax_grad_hess",
    "token_logprobs",
]

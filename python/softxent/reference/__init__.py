"""Softmax, log-sum-exp and cross-entropy in the standard library alone: the specification.

Written to be read, and to be what every other implementation is tested against. The functions have
the names and keywords of the public ones; they take and give nested lists of numbers. It does not
know arrays, dtypes, threads or speed: an answer is always in double precision, so there is no
`out`, `dtype` or `threads`, and `show_runtime`, `set_threads`, `get_threads` and `release_memory`,
which are not mathematics, have no twin here.

The rooms, ground floor first; each opens with its formulas:

    lists           nested lists as a table of rows
    sums            exact sums, and sums of all terms but one
    row             one row: softcap, temperature, masks; its exponentials and their sum
    targets         class ids and probabilities
    reduction       from the losses of rows to the loss, and back
    probabilities   softmax, log_softmax, logsumexp, token_logprobs
    loss            cross_entropy, cross_entropy_with_grad, softmax_grad_hess
    linear          linear_cross_entropy, linear_cross_entropy_with_grad
    evaluation      evaluate, Evaluator
    shards          partial_cross_entropy, merge_partials, finish_cross_entropy, shard_grad
    distributions   two distributions in decimals: how far apart, and which way is nearer
    divergence      kl_divergence, js_divergence, and both with_grad

>>> from softxent import reference
>>> [round(p, 4) for p in reference.softmax([3.2, 1.0, -0.5, 2.5])]
[0.6127, 0.0679, 0.0151, 0.3043]
>>> round(reference.cross_entropy([3.2, 1.0, -0.5, 2.5], 0), 4)
0.4899
"""

from softxent.reference.divergence import (
    js_divergence,
    js_divergence_with_grad,
    kl_divergence,
    kl_divergence_with_grad,
)
from softxent.reference.evaluation import Evaluator, evaluate
from softxent.reference.linear import linear_cross_entropy, linear_cross_entropy_with_grad
from softxent.reference.loss import cross_entropy, cross_entropy_with_grad, softmax_grad_hess
from softxent.reference.probabilities import log_softmax, logsumexp, softmax, token_logprobs
from softxent.reference.shards import (
    finish_cross_entropy,
    merge_partials,
    partial_cross_entropy,
    shard_grad,
)

__all__ = [
    "Evaluator",
    "cross_entropy",
    "cross_entropy_with_grad",
    "evaluate",
    "finish_cross_entropy",
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
    "shard_grad",
    "softmax",
    "softmax_grad_hess",
    "token_logprobs",
]

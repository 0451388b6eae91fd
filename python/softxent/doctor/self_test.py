"""The functions of logits against the pure-Python reference, on the instruction set that is in use.

Knows what is to be equal, and how nearly; as a program (`python -m softxent.doctor.self_test`) it prints
what it found as JSON. The one idea: logits that every dtype holds exactly, so one answer serves all dtypes.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent import reference
from softxent.functions.cross_entropy import cross_entropy, cross_entropy_with_grad
from softxent.functions.divergence import js_divergence, kl_divergence_with_grad
from softxent.functions.evaluation import evaluate
from softxent.functions.probabilities import log_softmax, logsumexp, softmax
from softxent.functions.runtime import show_runtime
from softxent.functions.tokens import token_logprobs

# One class; part of a vector; a few vectors and a tail; more than a chunk of a row.
COLUMNS = (1, 7, 150, 16_500)
MOST_FOR_ALL = 1_000  # columns; beyond, the reference would take seconds for the losses
ROWS = 3
TOLERANCES = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Findings:
    """What a self-test found: on what, of how many comparisons, which were not equal, and a hash of all."""

    runtime: dict[str, Any]
    comparisons: int
    failures: list[str]
    bits: str


def self_test() -> Findings:
    """Compare everything; takes a second or two."""
    comparisons, failures, bits = 0, [], hashlib.sha256()
    for columns in COLUMNS:
        logits, targets = _example(columns)
        expected = dict(_answers(reference, logits.tolist(), targets.tolist()))
        for name in _dtypes():
            given = logits.astype(_dtype(name))
            for threads in (1, 2):
                for call, found in _answers(_Ours(threads), given, targets):
                    comparisons += 1
                    if threads == 1:
                        bits.update(np.asarray(found).tobytes())
                    if not _equal(found, expected[call], name):
                        failures.append(f"{call} of {name} (3, {columns}), {threads} threads")
    with contextlib.redirect_stdout(io.StringIO()):
        runtime = show_runtime()
    return Findings(runtime, comparisons, failures, bits.hexdigest())


class _Ours:
    """The functions as the reference has them: without a number of threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            return _FUNCTIONS[name](*arguments, threads=self._threads, **options)

        return call


_FUNCTIONS: dict[str, Any] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "cross_entropy": cross_entropy,
    "cross_entropy_with_grad": cross_entropy_with_grad,
    "token_logprobs": token_logprobs,
    "evaluate": evaluate,
    "kl_divergence_with_grad": kl_divergence_with_grad,
    "js_divergence": js_divergence,
}


def _answers(module: Any, logits: Any, targets: Any) -> Iterator[tuple[str, Any]]:
    """Each call with its answer; of `logits`, the last row is the teacher of the first."""
    yield "softmax", module.softmax(logits)
    yield "log_softmax", module.log_softmax(logits, temperature=1.5)
    yield "logsumexp", module.logsumexp(logits)
    yield "token_logprobs", module.token_logprobs(logits, targets)
    evaluation = module.evaluate(logits, targets)
    for name in ("nll", "entropy", "predicted", "confidence", "correct", "rank"):
        yield f"{name} of evaluate", getattr(evaluation, name)
    if len(logits[0]) > MOST_FOR_ALL:
        return
    yield "cross_entropy", module.cross_entropy(logits, targets, label_smoothing=0.25)
    loss, grad = module.cross_entropy_with_grad(logits, targets, z_loss=0.125, softcap=8.0)
    yield "the loss of cross_entropy_with_grad", loss
    yield "the gradient of cross_entropy_with_grad", grad
    loss, grad = module.kl_divergence_with_grad(logits[-1:], logits[:1])
    yield "kl_divergence_with_grad", loss
    yield "the gradient of kl_divergence_with_grad", grad
    yield "js_divergence", module.js_divergence(logits[-1:], logits[:1])


def _example(columns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Multiples of 1/16 within +-8, no two of them tied for the largest of a row, and -inf among them."""
    random = np.random.default_rng(columns)
    logits = random.integers(-128, 112, size=(ROWS, columns)) / 16
    logits[np.arange(ROWS), random.integers(0, columns, ROWS)] = 8.0
    if columns > 2:
        lowest = logits[1].argmin()
        logits[1, lowest] = -np.inf
    targets = logits.argmax(axis=1)
    targets[0] = columns // 2
    return logits, targets


def _equal(found: Any, expected: Any, name: str) -> bool:
    tolerance = TOLERANCES[name]
    a, b = np.asarray(found).astype(np.float64), np.asarray(expected, np.float64)
    return a.shape == b.shape and bool(
        np.allclose(a, b, rtol=tolerance, atol=tolerance / 16, equal_nan=True)
    )


def _dtypes() -> list[str]:
    """Those that this NumPy has."""
    return [name for name in TOLERANCES if _dtype(name) is not None]


def _dtype(name: str) -> Any:
    try:
        return np.dtype(name)
    except TypeError:  # bfloat16 is ml_dtypes' own
        try:
            import ml_dtypes
        except ImportError:
            return None
        return np.dtype(ml_dtypes.bfloat16)


if __name__ == "__main__":
    print(json.dumps(asdict(self_test())))

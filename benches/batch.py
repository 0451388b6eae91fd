"""A batch of logits with its right answers, so that nothing wrong is ever timed.

The expected values are computed in float64 with plain NumPy, in blocks of rows, and know nothing of
any library under measurement.
"""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

DTYPES: dict[str, npt.DTypeLike] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}

# What a result may be off by, relative to its element and to the largest element of its row: enough
# to tell right from wrong. Peers carry the log-probabilities of 16-bit logits in 16 bits.
TOLERANCE = {
    "float16": (4e-3, 1e-3),
    "bfloat16": (3e-2, 1e-2),
    "float32": (2e-5, 1e-7),
    "float64": (1e-12, 1e-15),
}
SMALLEST = {"float16": 2.0**-24}  # the others reach below every value here

CHECKED_ROWS = 16


class Batch:
    """Logits (N, V) that no call may change, targets (N,), and ``out`` (N, V) to write to."""

    def __init__(
        self,
        logits: npt.NDArray[Any],
        targets: npt.NDArray[np.int64],
        out: npt.NDArray[Any],
        threads: int,
    ) -> None:
        self.logits, self.targets, self.out, self.threads = logits, targets, out, threads
        self.lse: npt.NDArray[np.float64] = np.concatenate(
            [_logsumexp(logits[i : i + 64]) for i in range(0, len(logits), 64)]
        )
        at_target = logits[np.arange(len(targets)), targets].astype(np.float64)
        self.loss = np.mean(self.lse - at_target)

    @classmethod
    def random(cls, rows: int, columns: int, dtype: str, threads: int) -> "Batch":
        """Normal logits of standard deviation 3, as a language model's are."""
        random = np.random.default_rng(0)
        logits = random.standard_normal((rows, columns), dtype=np.float32)
        logits *= 3
        targets = random.integers(0, columns, size=rows)
        typed = logits.astype(DTYPES[dtype], copy=False)
        return cls(typed, targets, np.zeros_like(typed), threads)

    def check(self, function: str, result: Any) -> None:
        """Raise AssertionError unless ``result`` is what ``function`` should have returned."""
        if function == "logsumexp":
            self._close(result, self.lse)
        elif function == "cross_entropy":
            self._close(result, self.loss)
        elif function == "cross_entropy_with_grad":
            loss, grad = result
            self._close(loss, self.loss)
            self._close_in_some_rows(grad, self._grad)
        elif function == "softmax":
            self._close_in_some_rows(result, lambda rows: np.exp(self._log_softmax(rows)))
        elif function == "log_softmax":
            self._close_in_some_rows(result, self._log_softmax)
        else:
            raise AssertionError(f"no expected value for {function}: write it here")

    def _log_softmax(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        wide: npt.NDArray[np.float64] = self.logits[rows].astype(np.float64)
        return wide - self.lse[rows, np.newaxis]

    def _grad(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        grad = np.exp(self._log_softmax(rows))
        grad[np.arange(len(rows)), self.targets[rows]] -= 1
        grad /= len(self.targets)
        return grad

    def _close_in_some_rows(self, result: Any, expected: Any) -> None:
        assert result.shape == self.logits.shape
        rows = np.unique(np.linspace(0, len(self.targets) - 1, CHECKED_ROWS).astype(np.intp))
        for row in rows:
            self._close(result[row], expected(np.array([row]))[0])

    def _close(self, result: Any, expected: Any) -> None:
        widest = result.double() if hasattr(result, "double") else result
        dtype = self.logits.dtype.name
        of_element, of_largest = TOLERANCE[dtype]
        tolerance = of_largest * np.abs(expected).max() + SMALLEST.get(dtype, 0.0)
        np.testing.assert_allclose(
            np.asarray(widest, np.float64), expected, rtol=of_element, atol=tolerance
        )


def _logsumexp(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    largest = wide.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(wide - largest[:, np.newaxis]).sum(axis=-1)))

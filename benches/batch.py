"""A batch of logits with its right answers, so that nothing wrong is ever timed.

The expected values are computed in float64 with plain NumPy, in blocks of rows, and know nothing of
any library under measurement. What to expect stands in the name of the *operation*: the function,
then at most one option, then how the result is delivered (``"cross_entropy_with_grad label_smoothing=
out="``). What the options are set to is here too, the same for everyone.
"""

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Wide: TypeAlias = npt.NDArray[np.float64]

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
    "float32": (2e-5, 1e-6),
    "float64": (1e-12, 1e-14),
}
# Torch adds up the equal shares of a label smoothing one by one: with 128256 classes its gradient was
# off by 2e-4 of the element.
SMOOTHED_GRAD = {"float32": 5e-4}
SMALLEST = {"float16": 2.0**-24}  # the others reach below every value here

CHECKED_ROWS = 16
BLOCK = 16  # rows in float64 at a time, some 16 MB of a large vocabulary

OF_PROBABILITIES = "of probabilities"
DELIVERIES = ("out=", "in place")  # else a new array


def function_of(operation: str) -> str:
    """The public function of an operation."""
    return operation.split()[0]


def without_delivery(operation: str) -> str:
    """The operation that has the same values in a new array."""
    for delivery in DELIVERIES:
        operation = operation.removesuffix(f" {delivery}")
    return operation


def option_of(operation: str) -> str:
    """``"label_smoothing="`` and the like; empty if the operation has none."""
    return without_delivery(operation).removeprefix(function_of(operation)).strip()


class Batch:
    """Logits (N, V) that no call may change, targets (N,), and ``out`` (N, V) to write to.

    ``options`` has the values of the keywords. What else has the size of the logits is made when
    somebody asks for it.
    """

    def __init__(
        self,
        logits: npt.NDArray[Any],
        targets: npt.NDArray[np.int64],
        out: npt.NDArray[Any],
        threads: int,
    ) -> None:
        self.logits, self.targets, self.out, self.threads = logits, targets, out, threads
        self.lse = np.empty(len(targets))
        for rows in self._blocks():
            self.lse[rows] = _logsumexp(logits[rows])
        self.nll = self.lse - logits[np.arange(len(targets)), targets].astype(np.float64)

        columns = logits.shape[1]
        self.options: dict[str, Any] = {
            # Eighths, which every dtype can hold.
            "weight": np.random.default_rng(2).integers(4, 13, columns).astype(np.float32) / 8,
            "label_smoothing": 0.1,
            "z_loss": 1e-4,
            "class_mask": _class_mask(columns),
            "softcap": 30.0,
        }
        self._losses: dict[str, float] = {}

    def keywords_of(self, option: str) -> dict[str, Any]:
        """The keywords of a loss with an option, as it stands in the name of an operation."""
        name = option.removesuffix("=")
        return {name: self.options[name]} if option.endswith("=") else {}

    def targets_of(self, option: str) -> npt.NDArray[Any]:
        """The targets of a loss with an option."""
        return self.probabilities if option == OF_PROBABILITIES else self.targets

    def on(self, threads: int) -> "Batch":
        """The same arrays for another number of threads."""
        other = copy.copy(self)
        other.threads = threads
        return other

    def as_dtype(self, dtype: str) -> "Batch":
        """The same values in another dtype, of as many rows as do not take more bytes.

        Its results go to the same memory.
        """
        kind = np.dtype(DTYPES[dtype])
        rows = max(
            len(self.targets) * self.logits.itemsize // max(kind.itemsize, self.logits.itemsize), 1
        )
        logits = self.logits[:rows].astype(kind)
        out = self.out.reshape(-1).view(np.uint8)[: logits.nbytes]
        if out.nbytes < logits.nbytes:
            out = np.zeros(logits.nbytes, np.uint8)
        return Batch(
            logits, self.targets[:rows], out.view(kind).reshape(logits.shape), self.threads
        )

    @cached_property
    def probabilities(self) -> npt.NDArray[Any]:
        """Targets of a teacher, that gives each class what the model gives its mirror image."""
        probabilities = np.empty_like(self.logits)
        for rows in self._blocks():
            probabilities[rows] = np.exp(self._log_softmax(rows)[:, ::-1])
        return probabilities

    @cached_property
    def second_out(self) -> npt.NDArray[Any]:
        """For a function with two results; made when one asks, for it is as large as the logits."""
        return np.zeros_like(self.out)

    @cached_property
    def teacher(self) -> npt.NDArray[Any]:
        """Logits of a teacher, which gives each class what the model gives its mirror image."""
        return np.ascontiguousarray(self.logits[:, ::-1])

    @classmethod
    def random(cls, rows: int, columns: int, dtype: str, threads: int) -> "Batch":
        """Normal logits of standard deviation 3, as a language model's are."""
        random = np.random.default_rng(0)
        logits = random.standard_normal((rows, columns), dtype=np.float32)
        logits *= 3
        targets = random.choice(np.flatnonzero(_class_mask(columns)), size=rows)
        typed = logits.astype(DTYPES[dtype], copy=False)
        return cls(typed, targets, np.zeros_like(typed), threads)

    def check(self, operation: str, result: Any) -> None:
        """Raise AssertionError unless ``result`` is what the operation should have returned."""
        function, option = function_of(operation), option_of(operation)
        if function == "logsumexp":
            self._close(result, self.lse)
        elif function in ("kl_divergence", "js_divergence"):
            self._close(result, self._divergence(function))
        elif function in ("kl_divergence_with_grad", "js_divergence_with_grad"):
            of = function.removesuffix("_with_grad")
            self._close(result[0], self._divergence(of))
            count = len(self.targets)
            self._close_in_some_rows(
                result[1], lambda rows: self._divergence_rows(of, rows)[1] / count
            )
        elif function == "shard_grad":
            count = len(self.targets)
            self._close_in_some_rows(result, lambda rows: self._rows("", rows)[1] / count)
        elif function in ("cross_entropy", "partial_cross_entropy"):
            self._close(result, self._loss(option))
        elif function == "token_logprobs":
            self._close(result, -self.nll)
        elif function == "evaluate":
            self._close(result.nll, self.nll)
            largest = [row.argmax() for row in self.logits[:CHECKED_ROWS]]
            np.testing.assert_array_equal(result.predicted[: len(largest)], largest)
        elif function == "softmax_grad_hess":
            grad, hess = result
            self._close_in_some_rows(grad, lambda rows: self._rows("", rows)[1])
            self._close_in_some_rows(hess, self._hess)
        elif function == "cross_entropy_with_grad":
            loss, grad = result
            self._close(loss, self._loss(option))
            divisor = self._divisor(option)
            least = SMOOTHED_GRAD.get(self.logits.dtype.name, 0.0) * (option == "label_smoothing=")
            self._close_in_some_rows(
                grad, lambda rows: self._rows(option, rows)[1] / divisor, least
            )
        elif function == "softmax":
            self._close_in_some_rows(result, lambda rows: np.exp(self._log_softmax(rows)))
        elif function == "log_softmax":
            self._close_in_some_rows(result, self._log_softmax)
        else:
            raise AssertionError(f"no expected value for {function}: write it here")

    def _log_softmax(self, rows: slice) -> Wide:
        wide: Wide = self.logits[rows].astype(np.float64)
        return wide - self.lse[rows][:, np.newaxis]

    def _loss(self, option: str) -> float:
        """The mean loss, computed when it is first asked for."""
        if option not in self._losses:
            total = sum(self._rows(option, rows)[0].sum() for rows in self._blocks())
            self._losses[option] = float(total / self._divisor(option))
        return self._losses[option]

    def _divisor(self, option: str) -> float:
        weight = self.keywords_of(option).get("weight")
        return len(self.targets) if weight is None else weight[self.targets].sum(dtype=np.float64)

    def _rows(self, option: str, rows: slice) -> tuple[Wide, Wide]:
        """The losses of some rows and the gradients of these, before the mean.

        With a coefficient ``q_c`` for each class and ``s`` the capped logits, a row's loss is
        ``sum_c q_c (lse - s_c) + z lse**2``, whatever the option.
        """
        targets, keywords = self.targets_of(option), self.keywords_of(option)
        s: Wide = self.logits[rows].astype(np.float64)
        columns = s.shape[1]
        slope: Any = 1.0
        if "softcap" in keywords:
            bent = np.tanh(s / keywords["softcap"])
            s, slope = keywords["softcap"] * bent, 1 - bent**2
        allowed = keywords.get("class_mask", np.ones(columns, bool))
        smoothing, z = keywords.get("label_smoothing", 0.0), keywords.get("z_loss", 0.0)

        largest = s.max(axis=-1, keepdims=True)
        p = np.exp(s - largest) * allowed
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        lse = largest + np.log(total)

        if targets.ndim == 1:
            q = (np.arange(columns) == targets[rows][:, np.newaxis]).astype(np.float64)
        else:
            q = targets[rows].astype(np.float64)
        q = (1 - smoothing) * q + smoothing / allowed.sum() * allowed
        q *= keywords.get("weight", np.ones(columns))
        q_total = q.sum(axis=-1, keepdims=True)
        loss = q_total * lse - (q * s).sum(axis=-1, keepdims=True) + z * lse**2
        return loss[:, 0], ((q_total + 2 * z * lse) * p - q) * slope

    def _divergence(self, function: str) -> float:
        """The mean divergence from the teacher, computed when it is first asked for."""
        if function not in self._losses:
            total = sum(self._divergence_rows(function, rows)[0].sum() for rows in self._blocks())
            self._losses[function] = float(total / len(self.targets))
        return self._losses[function]

    def _divergence_rows(self, function: str, rows: slice) -> tuple[Wide, Wide]:
        """The divergences of some rows and their gradients, before the mean."""
        log_q = self._log_softmax(rows)
        log_p = log_q[:, ::-1]
        p, q = np.exp(log_p), np.exp(log_q)
        if function == "kl_divergence":
            return (p * (log_p - log_q)).sum(axis=-1), q - p
        log_m = np.logaddexp(log_p, log_q) - np.log(2)
        of_q = (q * (log_q - log_m)).sum(axis=-1, keepdims=True)
        of_p = (p * (log_p - log_m)).sum(axis=-1, keepdims=True)
        return ((of_p + of_q) / 2)[:, 0], q * (log_q - log_m - of_q) / 2

    def _hess(self, rows: slice) -> Wide:
        p: Wide = np.exp(self._log_softmax(rows))
        return np.asarray(p * (1 - p))

    def _blocks(self) -> Iterator[slice]:
        return (slice(i, i + BLOCK) for i in range(0, len(self.targets), BLOCK))

    def _close_in_some_rows(
        self, result: Any, expected: Callable[[slice], Wide], least: float = 0.0
    ) -> None:
        assert result.shape == self.logits.shape
        rows = np.unique(np.linspace(0, len(self.targets) - 1, CHECKED_ROWS).astype(np.intp))
        for row in rows:
            self._close(result[row], expected(slice(row, row + 1))[0], least)

    def _close(self, result: Any, expected: Any, least: float = 0.0) -> None:
        widest = result.double() if hasattr(result, "double") else result
        dtype = self.logits.dtype.name
        of_element, of_largest = TOLERANCE[dtype]
        tolerance = of_largest * np.abs(expected).max() + SMALLEST.get(dtype, 0.0)
        np.testing.assert_allclose(
            np.asarray(widest, np.float64), expected, rtol=max(of_element, least), atol=tolerance
        )


def _class_mask(columns: int) -> npt.NDArray[np.bool_]:
    """Leaves out a tenth of the classes, here and there, and none that is a target."""
    mask = np.random.default_rng(1).random(columns) < 0.9
    mask[0] = True  # someone has to be
    return mask


def _logsumexp(logits: npt.NDArray[Any]) -> Wide:
    wide = logits.astype(np.float64)
    largest = wide.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(wide - largest[:, np.newaxis]).sum(axis=-1)))

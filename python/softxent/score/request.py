"""What is to be scored: the files and options as a person names them, opened and checked against each other.

Everything that can be refused before the first row is read, is.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent.files.array_file import ArrayFile, FileError, shape_text
from softxent.files.opening import open_array
from softxent.functions.cross_entropy import cross_entropy
from softxent.functions.divergence import kl_divergence
from softxent.functions.evaluation import evaluate

MOST_HELD = 4 * 2**20  # numbers of an array that is held as a whole: offsets, or one number a class


class RequestError(Exception):
    """The options do not go together. The message is one line."""


@dataclass(frozen=True)
class Options:
    """What is asked for beside the logits and the targets; files as FILE or FILE::NAME."""

    teacher: str | None = None
    offsets: str | None = None
    sample_weight: str | None = None
    weight: str | None = None
    class_mask: str | None = None
    ignore_index: tuple[int, ...] = (-100,)
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    temperature: float = 1.0
    softcap: float | None = None
    valid_classes: int | None = None
    top_k: tuple[int, ...] = ()
    temperature_grid: tuple[float, ...] = ()
    threads: int | None = None


class Request:
    """Open files that fit together, and keywords that the functions take. Usable in a `with` statement."""

    def __init__(self, logits: str, targets: str, options: Options) -> None:
        """FileError or RequestError for what cannot be scored."""
        self.options = options
        with ExitStack() as opened:
            self.logits = opened.enter_context(open_array(logits))
            self.targets = opened.enter_context(open_array(targets))
            self.files: dict[str, ArrayFile] = {"logits": self.logits, "targets": self.targets}
            if options.sample_weight is not None:
                self.files["sample_weight"] = opened.enter_context(
                    open_array(options.sample_weight)
                )
            if options.teacher is not None:
                self.files["teacher"] = opened.enter_context(open_array(options.teacher))
            self._check_files()
            self.rows = math.prod(self.logits.shape[:-1])
            self.classes = self.logits.shape[-1]
            self.columns = {
                name: self.classes for name in self.files if name in ("logits", "teacher")
            }
            self.class_mask = self._per_class("class_mask", options.class_mask, "b")
            self.weight = self._per_class("weight", options.weight, "fiu")
            self.offsets = self._read_offsets()
            self._check_options()
            self._opened = opened.pop_all()

    def __enter__(self) -> "Request":
        """The request itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._opened.close()

    @property
    def reading(self) -> dict[str, Any]:
        """The keywords by which logits are read, as far as they are not the default."""
        mask = {} if self.class_mask is None else {"class_mask": self.class_mask}
        return {**self._given("valid_classes", "threads"), **mask}

    @property
    def evaluating(self) -> dict[str, Any]:
        """The keywords of `Evaluator`."""
        kept = self._given("temperature", "softcap", "top_k")
        return {**self.reading, **kept, "ignore_index": self.options.ignore_index}

    @property
    def objective(self) -> dict[str, Any]:
        """The keywords of `cross_entropy` that make another loss of it; empty if there are none."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return {**weight, **self._given("label_smoothing", "z_loss")}

    def _given(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self.options, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(Options, name)}

    def _check_files(self) -> None:
        logits = self.logits
        for file in (logits, self.files.get("teacher", logits)):
            if file.dtype.kind == "b":
                raise FileError(f"{file.label}: expected logits, got dtype bool")
        if not logits.shape or logits.shape[-1] == 0:
            raise FileError(
                f"{logits.label}: expected logits of at least one class, got shape {logits.shape}"
            )
        if self.targets.dtype.kind not in "iu":
            raise FileError(
                f"{self.targets.label}: expected class ids of an integer dtype, got {self.targets.dtype}"
            )
        weights = self.files.get("sample_weight")
        if weights is not None and weights.dtype.kind not in "fiu":
            raise FileError(f"{weights.label}: expected numbers, got dtype {weights.dtype}")
        for name, file in self.files.items():
            shape = logits.shape if name in ("logits", "teacher") else logits.shape[:-1]
            if file.shape != shape:
                wanted = f"shape {shape} to match logits {logits.shape}"
                raise FileError(f"{file.label}: expected {wanted}, got {file.shape}")

    def _per_class(self, option: str, text: str | None, kinds: str) -> NDArray[Any] | None:
        if text is None:
            return None
        with open_array(text) as file:
            if file.dtype.kind not in kinds or file.shape != (self.classes,):
                kind = "bools" if kinds == "b" else "numbers"
                wanted = f"{option} as {kind} of shape ({self.classes},)"
                raise FileError(f"{file.label}: expected {wanted}, got {file.dtype} {file.shape}")
            return file.read_all(MOST_HELD)

    def _read_offsets(self) -> NDArray[np.int64] | None:
        if self.options.offsets is None:
            return None
        with open_array(self.options.offsets) as file:
            if file.dtype.kind not in "iu" or len(file.shape) != 1 or file.shape == (0,):
                wanted = "offsets as integers of shape (sequences + 1,)"
                raise FileError(f"{file.label}: expected {wanted}, got {file.dtype} {file.shape}")
            given = file.read_all(MOST_HELD)
            offsets: NDArray[np.int64] = given.astype(np.int64)
            if given[0] != 0 or given[-1] != self.rows or (offsets[1:] < offsets[:-1]).any():
                wanted = f"offsets that rise from 0 to the number of rows, {self.rows:,}"
                raise FileError(f"{file.label}: expected {wanted}, got {given[0]} to {given[-1]}")
            return offsets

    def _check_options(self) -> None:
        """Let the functions themselves judge their keywords, on no rows at all."""
        if self.options.teacher is not None and self.options.softcap is not None:
            raise RequestError("--softcap: not with --teacher, whose divergence knows no soft cap")
        logits = np.empty((0, self.classes), self.logits.dtype)
        targets = np.empty(0, np.int64)
        evaluating = self.evaluating
        top_k = evaluating.pop("top_k", ())
        try:
            evaluate(logits, targets, top_k=top_k, **evaluating)
            evaluating.pop("temperature", None)
            for temperature in (self.options.temperature, *self.options.temperature_grid):
                cross_entropy(
                    logits, targets, temperature=temperature, **evaluating, **self.objective
                )
            if self.options.teacher is not None:
                kl_divergence(logits, logits, **self.reading)
        except (ValueError, TypeError) as error:
            raise RequestError(str(error)) from error


def described(file: ArrayFile) -> str:
    """A file in a few words: `4,096 x 128,256 bfloat16, 1.05 GB`."""
    size, unit = file.nbytes / 1e9, "GB"
    if size < 0.1:
        size, unit = file.nbytes / 1e6, "MB"
    return f"{shape_text(file.shape)} {file.dtype.name}, {size:.2f} {unit}"

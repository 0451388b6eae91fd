"""What the logits of a chunk say about its rows: all that needs the logits, by the thread that has read them.

The one idea: a function of the chunk alone, so several can be looked at at once; what they add up to is
`scoring`'s affair. Nothing in the answer is of the size of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from softxent.curves.temperatures import losses_at
from softxent.files.array_file import FileError
from softxent.functions.cross_entropy import cross_entropy
from softxent.functions.divergence import kl_divergence
from softxent.functions.evaluation import Evaluator
from softxent.score.chunks import Chunk
from softxent.score.request import Request

Columns: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Rows:
    """What is known of some rows, the first of which is number `start`."""

    start: int
    #: Of each row what `Evaluator.describe` says, its `targets` and `weights`.
    model: Columns
    #: Likewise of the teacher, and the `divergence` from it.
    teacher: Columns | None
    #: The sum of the losses at each temperature of the grid.
    tempered: NDArray[np.float64] | None
    #: The sum of what the options make of the losses, and that of the weights by which it is divided.
    objective: tuple[float, float]


def together(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Look:
    """From a chunk to its `Rows`. Several threads may look at once."""

    def __init__(self, request: Request, threads: int) -> None:
        """`threads` are for each of those who look."""
        self._request = request
        self._reading = {**request.reading, "threads": threads}
        self._evaluating = {**request.evaluating, "threads": threads}
        self._evaluating.pop("top_k", None)  # a matter of totals
        self._evaluator = Evaluator(**self._evaluating)  # it describes rows, and counts none

    def __call__(self, chunk: Chunk) -> Rows:
        """FileError for a target that is no class."""
        logits, theirs = chunk.arrays["logits"], chunk.arrays.get("teacher")
        targets = self._class_ids(chunk)
        weight = chunk.arrays.get("sample_weight")
        weight = None if weight is None else weight.astype(np.float64)
        model = self._described(logits, targets, weight)
        options = self._request.options
        teacher = None
        if theirs is not None:
            teacher = self._described(theirs, targets, weight)
            teacher["divergence"] = kl_divergence(
                theirs,
                logits,
                ignore_rows=~model["valid"],
                temperature=options.temperature,
                reduction="none",
                **self._reading,
            )
        tempered = None
        if options.temperature_grid:
            same = {k: v for k, v in self._evaluating.items() if k != "temperature"}
            same["sample_weight"] = weight
            tempered = losses_at(options.temperature_grid, logits, targets, **same)
        objective = self._objective(logits, weight, model) if self._request.objective else (0, 0)
        return Rows(chunk.start, model, teacher, tempered, objective)

    def _class_ids(self, chunk: Chunk) -> NDArray[np.int64]:
        """The targets as int64; FileError names the first one that is no class, by its place in the file."""
        request = self._request
        given = chunk.arrays["targets"]
        outside = np.flatnonzero((given < 0) | (given >= request.classes))
        if outside.size:
            outside = outside[~np.isin(given[outside], request.options.ignore_index)]
        for row in outside[:1].tolist():
            place = np.unravel_index(chunk.start + row, request.targets.shape or (1,))
            where = ", ".join(map(str, place)) if request.targets.shape else ""
            raise FileError(
                f"{request.targets.label}: targets[{where}] = {given[row]} is outside "
                f"[0, {request.classes})"
            )
        return given.astype(np.int64)

    def _described(
        self,
        logits: NDArray[Any],
        targets: NDArray[np.int64],
        weight: NDArray[np.float64] | None,
    ) -> Columns:
        described = self._evaluator.describe(logits, targets, sample_weight=weight)
        weights = np.ones(len(targets)) if weight is None else weight
        return {**described, "targets": targets, "weights": weights}

    def _objective(
        self, logits: NDArray[Any], weight: NDArray[np.float64] | None, model: Columns
    ) -> tuple[float, float]:
        loss = cross_entropy(
            logits,
            model["targets"],
            sample_weight=weight,
            reduction="sum",
            dtype=np.float64,
            **self._evaluating,
            **self._request.objective,
        )
        weights = model["weights"][model["valid"]]
        if self._request.weight is not None:
            weights = weights * self._request.weight[model["targets"][model["valid"]]]
        return float(loss), float(weights.sum())

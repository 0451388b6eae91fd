"""Every chunk of rows through everything that was asked for.

Knows what is to be computed of a chunk, and in which order; each result is gathered by a room of its own.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softxent.curves.calibration import Calibration
from softxent.curves.distribution import Distribution
from softxent.curves.positions import LossByPosition
from softxent.curves.rows import confidence, counted
from softxent.curves.temperatures import TemperatureCurve
from softxent.files.array_file import FileError
from softxent.functions.cross_entropy import cross_entropy
from softxent.functions.evaluation import Evaluation, Evaluator
from softxent.score.chunks import Chunk, read_chunks
from softxent.score.per_token import PerToken
from softxent.score.request import Request
from softxent.score.teacher import TeacherReport

Progress = Callable[[int], None]
TOGETHER = 2048  # rows whose curves are gathered at once: NumPy takes as long for ten rows as for a thousand


class Score:
    """What the rows so far add up to."""

    def __init__(self, request: Request) -> None:
        """Nothing is counted yet."""
        self.request = request
        self.distribution = Distribution()
        self.calibration = Calibration()
        self.positions = LossByPosition()
        self.objective_sum = self.objective_weight = 0.0
        self.curve: TemperatureCurve | None = None
        if request.options.temperature_grid:
            self.curve = TemperatureCurve(request.options.temperature_grid)
        self.teacher: TeacherReport | None = None
        if "teacher" in request.files:
            evaluating = {k: v for k, v in request.evaluating.items() if k != "top_k"}
            self.teacher = TeacherReport(request.reading, evaluating)
        self._evaluator = Evaluator(**request.evaluating)
        self._waiting: list[tuple[NDArray[Any], ...]] = []
        self._rows_waiting = 0
        self.totals = self._evaluator.result()

    def add(self, chunk: Chunk) -> tuple[NDArray[np.int64], Evaluation]:
        """Count a chunk; returns its class ids and its evaluation."""
        logits = chunk.arrays["logits"]
        targets = self._class_ids(chunk)
        weight = chunk.arrays.get("sample_weight")
        weight = None if weight is None else weight.astype(np.float64)
        evaluation = self._evaluator.update(logits, targets, sample_weight=weight)
        there = counted(evaluation)
        some = np.ones(int(there.sum())) if weight is None else weight[there]
        options = self.request.options
        sure = confidence(
            logits, evaluation, temperature=options.temperature, softcap=options.softcap
        )
        correct = evaluation.predicted == targets
        self._gather(
            evaluation.nll[there], sure[there], correct[there], self._places(chunk)[there], some
        )
        if self.curve is not None:
            same = {k: v for k, v in self._loss_options(weight).items() if k != "temperature"}
            self.curve.add(logits, targets, float(some.sum()), **same)
        if self.request.objective:
            self._add_objective(logits, targets, weight, there, some)
        if self.teacher is not None:
            theirs = chunk.arrays["teacher"]
            self.teacher.add(theirs, logits, targets, weight, evaluation, there)
        return targets, evaluation

    def finish(self) -> None:
        """Make the totals of what was counted."""
        self._add_curves()
        self.totals = self._evaluator.result()

    def _gather(self, *columns: NDArray[Any]) -> None:
        """Keep what the curves want to know of some rows until there are enough."""
        self._waiting.append(columns)
        self._rows_waiting += len(columns[0])
        if self._rows_waiting >= TOGETHER:
            self._add_curves()

    def _add_curves(self) -> None:
        if self._waiting:
            nll, sure, correct, places, weights = map(
                np.concatenate, zip(*self._waiting, strict=True)
            )
            self.distribution.add(nll)
            self.calibration.add(sure, correct, weights)
            self.positions.add(places, nll, weights)
        self._waiting, self._rows_waiting = [], 0

    def _class_ids(self, chunk: Chunk) -> NDArray[np.int64]:
        """The targets as int64; FileError names the first one that is no class, by its place in the file."""
        request = self.request
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

    def _places(self, chunk: Chunk) -> NDArray[np.int64]:
        """Where in its sequence each row stands."""
        rows = np.arange(chunk.start, chunk.stop)
        if self.request.offsets is not None:
            sequence = np.searchsorted(self.request.offsets, rows, side="right") - 1
            return rows - self.request.offsets[sequence]
        shape = self.request.targets.shape
        return rows % shape[-1] if len(shape) > 1 else rows

    def _loss_options(self, weight: NDArray[np.float64] | None) -> dict[str, Any]:
        kept = {k: v for k, v in self.request.evaluating.items() if k != "top_k"}
        return {**kept, "sample_weight": weight}

    def _add_objective(
        self,
        logits: NDArray[Any],
        targets: NDArray[np.int64],
        weight: NDArray[np.float64] | None,
        there: NDArray[np.bool_],
        some: NDArray[np.float64],
    ) -> None:
        self.objective_sum += cross_entropy(
            logits,
            targets,
            reduction="sum",
            dtype=np.float64,
            **self._loss_options(weight),
            **self.request.objective,
        )
        if self.request.weight is not None:
            some = some * self.request.weight[targets[there]]
        self.objective_weight += float(some.sum())


def score(request: Request, progress: Progress, per_token: PerToken | None = None) -> Score:
    """Read and count all rows; `progress` hears how many each chunk had."""
    found = Score(request)
    with closing(read_chunks(request.files, request.rows, request.columns)) as chunks:
        for chunk in chunks:
            targets, evaluation = found.add(chunk)
            if per_token is not None:
                per_token.add(chunk.start, targets, evaluation)
            progress(chunk.stop - chunk.start)
    found.finish()
    return found

"""What the rows of all chunks add up to, chunk after chunk.

Knows what is known of rows, and in which order they come; each result is gathered by a room of its own.
"""

from collections.abc import Callable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from softxent.curves.calibration import Calibration
from softxent.curves.distribution import Distribution
from softxent.curves.positions import LossByPosition
from softxent.curves.temperatures import TemperatureCurve
from softxent.functions.runtime import get_threads
from softxent.score.chunks import WORKERS, each_chunk
from softxent.score.per_token import PerToken
from softxent.score.request import Request
from softxent.score.rows import Look, Rows, together
from softxent.score.teacher import TeacherReport
from softxent.totals import Tally

Progress = Callable[[int], None]
TOGETHER = 2048  # rows that are counted at once: NumPy takes as long for ten rows as for a thousand


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
        self.teacher = TeacherReport() if "teacher" in request.files else None
        self._tally = Tally.of_nothing(tuple(dict.fromkeys(request.options.top_k)))
        self._waiting: list[Rows] = []
        self._rows_waiting = 0
        self.totals = self._tally.totals()

    def add(self, rows: Rows) -> None:
        """Count the rows that follow."""
        self._waiting.append(rows)
        self._rows_waiting += len(rows.model["targets"])
        if self._rows_waiting >= TOGETHER:
            self._count()

    def finish(self) -> None:
        """Make the totals of what was counted."""
        if self._waiting:
            self._count()
        self.totals = self._tally.totals()

    def _count(self) -> None:
        parts, self._waiting, self._rows_waiting = self._waiting, [], 0
        model = together([part.model for part in parts])
        self._tally.add(model)
        there = model["valid"]
        nll, weights = model["nll"][there], model["weights"][there]
        self.distribution.add(nll)
        self.calibration.add(model["confidence"][there], model["correct"][there], weights)
        self.positions.add(self._places(parts[0].start, len(there))[there], nll, weights)
        for part in parts:
            self.objective_sum += part.objective[0]
            self.objective_weight += part.objective[1]
        if self.curve is not None:
            sums = [part.tempered for part in parts if part.tempered is not None]
            self.curve.add(np.sum(sums, axis=0), float(weights.sum()))
        if self.teacher is not None:
            theirs = together([part.teacher for part in parts if part.teacher is not None])
            self.teacher.add(model, theirs)

    def _places(self, start: int, count: int) -> NDArray[np.int64]:
        """Where in its sequence each of so many rows stands."""
        rows = np.arange(start, start + count)
        if self.request.offsets is not None:
            sequence = np.searchsorted(self.request.offsets, rows, side="right") - 1
            return rows - self.request.offsets[sequence]
        shape = self.request.targets.shape
        return rows % shape[-1] if len(shape) > 1 else rows


def score(request: Request, progress: Progress, per_token: PerToken | None = None) -> Score:
    """Read and count all rows; `progress` hears how many each chunk had."""
    found = Score(request)
    threads = request.options.threads or get_threads()
    workers = min(WORKERS, threads)
    look = Look(request, -(-threads // workers))
    with closing(each_chunk(request.files, request.rows, request.columns, look, workers)) as chunks:
        for rows in chunks:
            found.add(rows)
            if per_token is not None:
                per_token.add(rows.start, rows.model)
            progress(len(rows.model["targets"]))
    found.finish()
    return found

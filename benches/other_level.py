"""Our functions on another instruction set, in a process beside this one.

The package chooses its instruction set when it is imported (``SOFTXENT_ISA``), so a process has one.
This one makes the same batch from the same seed, checks its answers, and times on its own clock, one
round when it is told to: the two take turns like rows of one process. They talk in lines of JSON.
"""

import json
import os
import subprocess
import sys
from typing import Any, Self

from benches.batch import Batch
from benches.clock import seconds_of
from benches.libraries import LIBRARIES, OURS
from benches.operations import Call


class NoSuchLevelError(Exception):
    """The processor does not have it."""


class OtherLevel:
    """The process, as the one that started it sees it."""

    def __init__(self, isa: str, rows: int, columns: int, threads: int) -> None:
        """Start it and have it make a float32 batch."""
        self._isa = isa
        command = [sys.executable, "-m", __spec__.name, *map(str, (rows, columns, threads))]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "SOFTXENT_ISA": isa},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._answer()
        except EOFError:
            self.close()
            raise NoSuchLevelError(f"{isa}: no process could be started with it") from None

    def check(self, operation: str) -> None:
        """Raise AssertionError unless its answer is right."""
        problem = self._ask("check", operation)
        if problem:
            raise AssertionError(problem)

    def seconds(self, operation: str, repeats: int = 1) -> float:
        return float(self._ask("time", operation, repeats))

    def _ask(self, *question: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the process of {self._isa} has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it and wait until its memory is free."""
        self._process.communicate()  # it ends with its input

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(rows: int, columns: int, threads: int) -> None:
    """What the process does: answer, until nobody asks."""
    batch = Batch.random(rows, columns, "float32", threads)
    calls = LIBRARIES[OURS].calls(batch)
    say("ready")
    for line in sys.stdin:
        verb, operation, *rest = json.loads(line)
        call = calls[operation]
        say(problem_of(batch, operation, call) if verb == "check" else seconds_of(call, *rest))


def problem_of(batch: Batch, operation: str, call: Call) -> str:
    call.prepare()
    try:
        batch.check(operation, call.run())
    except AssertionError as error:
        return str(error) or "wrong"
    return ""


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))

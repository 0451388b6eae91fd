"""How a call is timed. It knows nothing of what the call does."""

import time
from collections.abc import Callable
from typing import TypeAlias

from benches.operations import Call

PAUSE = 0.01  # seconds, until the idle threads of the row before no longer spin
ENOUGH = 0.02  # seconds on the clock, against its own cost and the first, cold calls
MOST_REPEATS = 20_000

# Calls that many times in a row and says how many seconds one took.
Timer: TypeAlias = Callable[[int], float]


def seconds_of(call: Call, repeats: int = 1) -> float:
    """Seconds of one call out of so many in a row."""
    call.prepare()
    run = call.run
    time.sleep(PAUSE)
    start = time.perf_counter()
    for _ in range(repeats):
        run()  # a new array is freed on the clock too, as in a user's loop
    return (time.perf_counter() - start) / repeats


def repeats_for(timer: Timer) -> int:
    """How often to call in a row, so that a round is long enough to be measured."""
    return max(1, min(MOST_REPEATS, int(ENOUGH / max(timer(1), 1e-9))))

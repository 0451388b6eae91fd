"""Every operation of every library on every dtype and shape; right before it is fast.

A group holds one operation on one batch, so ``--benchmark-group-by=group`` puts the libraries
below each other.
"""

from typing import Any

import pytest

from benches.batch import Batch
from benches.libraries import LIBRARIES, OURS, installed
from benches.operations import OPERATIONS

SECONDS = 0.2  # for each benchmark: there are a thousand
FEWEST_ROUNDS = 5
# Where each round is prepared, pytest-benchmark does not choose their number.
ELEMENTS, MOST_ROUNDS = 10**8, 1000


@pytest.mark.benchmark(max_time=SECONDS, min_rounds=FEWEST_ROUNDS)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_speed(benchmark: Any, batch: Batch, operation: str, library: str) -> None:
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    call = LIBRARIES[library].calls(batch).get(operation)
    if call is None:
        pytest.skip(f"{library} has no {operation}")
    call.prepare()
    try:
        batch.check(operation, call.run())
    except AssertionError:
        if library == OURS:
            raise
        pytest.skip(f"{library} gives a wrong answer: not timed")

    rows, columns = batch.logits.shape
    benchmark.group = (
        f"{operation}, {batch.logits.dtype.name} {rows}x{columns}, {batch.threads} threads"
    )
    benchmark.extra_info["elements"] = batch.logits.size
    if operation.endswith("in place"):
        rounds = min(max(ELEMENTS // batch.logits.size, FEWEST_ROUNDS), MOST_ROUNDS)
        benchmark.pedantic(call.run, setup=call.prepare, rounds=rounds, warmup_rounds=1)
    else:
        benchmark(call.run)

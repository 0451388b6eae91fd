"""Every operation of every library on every dtype and shape; right before it is fast.

A group holds one operation on one batch, so ``--benchmark-group-by=group`` puts the libraries
below each other.
"""

import functools
from typing import Any

import pytest

from benches.batch import Batch
from benches.libraries import LIBRARIES, OURS, installed
from benches.operations import OPERATIONS, Call

SECONDS = 0.2  # for each benchmark: there are a thousand
FEWEST_ROUNDS = 5
# Where each round is prepared, pytest-benchmark does not choose their number.
ELEMENTS, MOST_ROUNDS = 10**8, 1000


@functools.lru_cache(maxsize=len(LIBRARIES))
def calls_of(library: str, batch: Batch) -> dict[str, Call]:
    """Made once for a batch: some copy the logits, or compile."""
    return LIBRARIES[library].calls(batch)


@pytest.mark.benchmark(max_time=SECONDS, min_rounds=FEWEST_ROUNDS)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_speed(benchmark: Any, batch: Batch, operation: str, library: str) -> None:
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    call = calls_of(library, batch).get(operation)
    if call is None:
        pytest.skip(f"{library} has no {operation}")
    call.prepare()
    try:
        batch.check(operation, call.run())
    except Exception as error:  # torch.compile finds no C++ compiler, for one
        if library == OURS:
            raise
        wrong = isinstance(error, AssertionError)
        pytest.skip(f"{library} {'gives a wrong answer' if wrong else 'fails'}: not timed")

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

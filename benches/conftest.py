"""What the suites share: the batches, one in memory at a time, and the number of threads.

``SOFTXENT_NUM_THREADS`` sets the threads of the package and of every peer that has any.
"""

import pytest
import softxent as sx

from benches.batch import DTYPES, Batch
from benches.machine import Neighbours

NEIGHBOURS = Neighbours()

# In a core's cache; few rows of a large vocabulary, beyond L2; many rows of a small one; one call.
SHAPES = ((8, 50257), (512, 128256), (65536, 1000), (1, 1000))


@pytest.fixture(
    scope="session",
    params=[(dtype, *shape) for shape in SHAPES for dtype in DTYPES],
    ids=lambda p: f"{p[0]}-{p[1]}x{p[2]}",
)
def batch(request: pytest.FixtureRequest) -> Batch:
    """Logits of one dtype and shape, with targets and the expected results."""
    dtype, rows, columns = request.param
    return Batch.random(rows, columns, dtype, sx.get_threads())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"taken by other processes: {NEIGHBOURS}")

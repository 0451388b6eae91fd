"""What NumPy's simplest loops reach on all threads: the least that reading or copying the logits takes.

No library's loss is faster than reading its logits, and few loops are simpler than a maximum. Loops in C
may be some per cent faster; here nothing is compiled.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Limits:
    """Loops over the rows of arrays, a share for each thread."""

    def __init__(self, threads: int) -> None:
        """The threads wait until they are needed."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def read(self, logits: NDArray[Any]) -> float:
        """The largest of all numbers: every one is read once."""
        flat = logits.reshape(-1)
        bits = flat if flat.dtype == np.float32 else flat.view(np.float32)
        return float(max(self._pool.map(np.max, np.array_split(bits, self._threads))))

    def copy(self, logits: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy all numbers."""
        pairs = zip(
            np.array_split(out.reshape(-1), self._threads),
            np.array_split(logits.reshape(-1), self._threads),
            strict=True,
        )
        list(self._pool.map(lambda pair: np.copyto(*pair), pairs))

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()

"""What a call runs on: threads, instruction set, versions."""

from typing import Any

import numpy as np

from softxent import _core


def set_threads(threads: int | None) -> None:
    """Set how many threads a call uses at most, unless it says so itself.

    Parameters
    ----------
    threads : int, at least 1, or None
        None goes back to the default: ``SOFTXENT_NUM_THREADS``, else ``OMP_NUM_THREADS`` (both read at
        import), else the processors that this process may use.

    Raises
    ------
    ValueError
        A number below 1.
    TypeError
        No integer.

    Examples
    --------
    >>> import softxent as sx
    >>> sx.set_threads(1)
    >>> sx.get_threads()
    1
    >>> sx.set_threads(None)
    """
    _core.set_threads(threads)


def get_threads() -> int:
    """How many threads a call uses at most, unless it says so itself.

    Returns
    -------
    int
        What `set_threads` said, or its default.

    Examples
    --------
    >>> import softxent as sx
    >>> sx.get_threads() >= 1
    True
    """
    return _core.get_threads()


def release_memory() -> int:
    """Return to the system the memory that waits for the next large result.

    A new array of 32 MiB or more takes the memory of an earlier result that is gone, if there is one
    of about its size; new memory from the system would cost more than the computation. What waits is at most
    a quarter of the machine's memory, and the system may take it back whenever it is short of memory (until
    then it still counts it as the process's own). Arrays that are in use are not touched.

    Returns
    -------
    int
        How many bytes were returned.

    Examples
    --------
    >>> import numpy as np, softxent as sx
    >>> gone = sx.softmax(np.zeros((1000, 5000)))
    >>> del gone
    >>> sx.release_memory() >= 1000 * 5000 * 8
    True
    >>> sx.release_memory()
    0
    """
    return _core.release_memory()


def show_runtime() -> dict[str, Any]:
    """Print and return what the package runs on.

    Returns
    -------
    dict
        ``version``, ``isa`` (the instruction set in use: "avx512", "avx2", "neon" or "portable"),
        ``threads``, ``profile`` (how the core was built: "release" or "debug"), and ``numpy``, its version.

    Examples
    --------
    >>> import softxent as sx
    >>> sorted(sx.show_runtime())  # doctest: +ELLIPSIS
    version: ...
    ['isa', 'numpy', 'profile', 'threads', 'version']
    """
    facts: dict[str, Any] = {**_core.runtime(), "numpy": np.__version__}
    for name, value in facts.items():
        print(f"{name}: {value}")
    return facts

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

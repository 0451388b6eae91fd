"""How a command ends: its exit status, and the line on standard error that says why it was refused."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec

CANNOT_WRITE = 1
REFUSED = 2
INTERRUPTED = 130  # the shell's 128 + SIGINT


def refuse(reason: object) -> int:
    """Say why nothing was done; returns the exit status."""
    print(f"softxent: {reason}", file=sys.stderr)
    return REFUSED


def missing(command: str, needed: Iterable[str], extra: str) -> str | None:
    """What to say if one of the packages that a command needs is not installed."""
    if absent := [name for name in needed if find_spec(name) is None]:
        return f'{command} needs {" and ".join(absent)}: pip install "softxent[{extra}]"'
    return None


def shows(text: str) -> bool:
    """Whether standard output can show these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True

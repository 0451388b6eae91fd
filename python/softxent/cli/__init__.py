"""The command line: `softxent COMMAND`, the same as `python -m softxent COMMAND`.

Each command has a file here that knows its options; what it does is imported when it is asked for, so that
only its users need its extra dependencies. Exit statuses: 0 done, 1 done but for a file that could not be
written, 2 refused (standard error says why), 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from softxent.cli import bench, demo, doctor, explain, score
from softxent.cli.outcome import CANNOT_WRITE, INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("softxent: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # standard output takes no more; nor may the interpreter's own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # then whoever read it has seen enough
            print(f"softxent: cannot print: {error.strerror or error}", file=sys.stderr)
        return CANNOT_WRITE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="softxent",
        description="Softmax and cross-entropy, with gradients, for large vocabularies on a CPU.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (score, explain, bench, doctor, demo):
        command.add_to(commands)
    return parser


class _Version(argparse.Action):
    """Looked up when it is asked for: that takes longer than to import the package."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"softxent {version('softxent')}")
        parser.exit()

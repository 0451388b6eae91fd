"""The command line: `softxent COMMAND`, the same as `python -m softxent COMMAND`.

Knows the names and options of the commands, and the exit statuses: 0 done, 1 done but for a file
that could not be written, 2 refused (standard error says why), 130 interrupted. It does not know
how a command works: each is imported when it is asked for, so that only its users need its extra
dependencies.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

REFUSED = 2
INTERRUPTED = 130  # the shell's 128 + SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("softxent: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="softxent",
        description="Softmax and cross-entropy, with gradients, for large vocabularies on a CPU.",
    )
    parser.add_argument("--version", action="version", version=f"softxent {version('softxent')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="train a next-token model on real text, in about half a minute",
        description="Train a next-token model on real text, in about half a minute, with the loss "
        "and its gradient from softxent; then time them against plain NumPy. Ctrl-C ends the "
        "training early; the exit status is then 130. The same seed gives the same losses.",
    )
    demo.add_argument(
        "--corpus",
        type=Path,
        metavar="PATH",
        help="a text file, or a folder of them (default: Python's own standard library)",
    )
    demo.add_argument(
        "--steps", type=_at_least(1), default=750, metavar="N", help="default: %(default)s"
    )
    demo.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="N", help="default: %(default)s"
    )
    plot = demo.add_mutually_exclusive_group()
    plot.add_argument(
        "--plot",
        type=_png,
        default=Path("softxent-demo.png"),
        metavar="FILE",
        help="where the loss curve goes (default: %(default)s)",
    )
    plot.add_argument(
        "--no-plot", dest="plot", action="store_const", const=None, help="draw no loss curve"
    )
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    needed = ["rich"] if options.plot is None else ["rich", "matplotlib"]
    if missing := [name for name in needed if find_spec(name) is None]:
        return _refuse(f'demo needs {" and ".join(missing)}: pip install "softxent[demo]"')
    from softxent.demo.corpus import CorpusError
    from softxent.demo.screen import run

    try:
        return run(options.corpus, options.steps, options.seed, options.plot)
    except CorpusError as error:
        return _refuse(str(error))


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return number  # its name is what argparse calls the type in "invalid number value: 'x'"


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    return path


def _refuse(reason: str) -> int:
    print(f"softxent: {reason}", file=sys.stderr)
    return REFUSED

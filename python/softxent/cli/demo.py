"""`softxent demo`: its options."""

import argparse
from pathlib import Path

from softxent.cli.arguments import at_least, named
from softxent.cli.outcome import missing, refuse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
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
        "--steps", type=at_least(1), default=750, metavar="N", help="default: %(default)s"
    )
    demo.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="default: %(default)s"
    )
    plot = demo.add_mutually_exclusive_group()
    plot.add_argument(
        "--plot",
        type=named(".png"),
        default=Path("softxent-demo.png"),
        metavar="FILE",
        help="where the loss curve goes (default: %(default)s)",
    )
    plot.add_argument(
        "--no-plot", dest="plot", action="store_const", const=None, help="draw no loss curve"
    )
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    needed = ["rich"] if options.plot is None else ["rich", "matplotlib"]
    if reason := missing("demo", needed, "demo"):
        return refuse(reason)
    from softxent.demo.corpus import CorpusError
    from softxent.demo.screen import run

    try:
        return run(options.corpus, options.steps, options.seed, options.plot)
    except CorpusError as error:
        return refuse(error)

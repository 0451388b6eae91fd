"""`softxent bench`: its options."""

import argparse
import json

from softxent.cli.arguments import at_least, named
from softxent.cli.outcome import CANNOT_WRITE, missing, refuse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    bench = commands.add_parser(
        "bench",
        help="how near this machine's memory the functions come",
        description="How near the machine's memory the functions come, and how far ahead of NumPy, SciPy "
        "and torch, as far as they are installed. Ratios of one run; on a busy machine run again.",
    )
    bench.add_argument(
        "--rows", type=at_least(1), default=512, metavar="N", help="default: %(default)s"
    )
    bench.add_argument(
        "--classes", type=at_least(2), default=128_256, metavar="V", help="default: %(default)s"
    )
    bench.add_argument(
        "--rounds", type=at_least(1), default=5, metavar="N", help="default: %(default)s"
    )
    bench.add_argument("--threads", type=at_least(1), metavar="N")
    bench.add_argument("--plot", type=named(".png", ".svg", ".pdf"), metavar="FILE", help="bars")
    bench.add_argument("--json", action="store_true", help="print JSON, not a table")
    bench.add_argument("--force", action="store_true", help="replace a file that exists")
    bench.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.plot is not None and (reason := missing("--plot", ["matplotlib"], "plot")):
        return refuse(reason)
    from softxent.bench.report import BenchDisplay, as_dict, table
    from softxent.bench.rounds import make_arrays, measure
    from softxent.files.results import ResultError, check_result
    from softxent.functions.runtime import get_threads
    from softxent.plots import save_page

    try:
        if options.plot is not None:
            check_result(options.plot, force=options.force)
        arrays = make_arrays(options.rows, options.classes, options.threads or get_threads())
    except ResultError as error:
        return refuse(error)
    except MemoryError as error:
        return refuse(f"--rows, --classes: too little memory: {error}")
    *_, result = measure(arrays, options.rounds)
    print(json.dumps(as_dict(result), indent=2) if options.json else table(result))
    if options.plot is not None:
        try:
            save_page([BenchDisplay(result)], options.plot, force=options.force)
        except ResultError as error:
            refuse(error)
            return CANNOT_WRITE
    return 0

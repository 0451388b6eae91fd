"""`softxent score`: its options, and the order of what it does."""

import argparse
import json
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from softxent.cli.arguments import at_least, grid, integers, named
from softxent.cli.outcome import CANNOT_WRITE, missing, refuse, shows

if TYPE_CHECKING:
    from softxent.score.request import Request
    from softxent.score.scoring import Score

FILES = ("logits", "targets", "teacher", "offsets", "sample_weight", "weight", "class_mask")
EPILOG = """\
A FILE is .npy, .npz or .safetensors (float16, bfloat16, float32, float64), and
may be far larger than memory. FILE::NAME chooses one of several arrays in it.
No pickle is ever loaded.

  softxent score logits.npy targets.npy --top-k 5 --plot picture.png
  softxent score run.safetensors::logits run.safetensors::targets --json
  softxent score quantised.npy targets.npy --teacher original.npy
"""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    score = commands.add_parser(
        "score",
        help="loss, perplexity, accuracy of logits in a file of any size",
        description="Loss, perplexity and its standard error, bits per token, accuracy and\n"
        "calibration of logits in a file, in one read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("logits", metavar="LOGITS", help="an array of shape (..., V)")
    score.add_argument(
        "targets", metavar="TARGETS", help="the classes that came: integers of shape (...)"
    )
    _add_loss_options(score)
    _add_reports(score)
    score.set_defaults(run=_run)


def _add_loss_options(score: argparse.ArgumentParser) -> None:
    loss = score.add_argument_group("options of the loss, as in softxent.cross_entropy")
    loss.add_argument(
        "--ignore-index",
        type=int,
        action="append",
        metavar="ID",
        help="default: -100; repeat for several",
    )
    loss.add_argument("--sample-weight", metavar="FILE", help="a factor for each row")
    loss.add_argument("--temperature", type=float, default=1.0, metavar="T")
    loss.add_argument("--softcap", type=float, metavar="C")
    loss.add_argument("--valid-classes", type=int, metavar="K", help="only the first K are real")
    loss.add_argument("--class-mask", metavar="FILE", help="bools, True where the class takes part")
    loss.add_argument(
        "--weight", metavar="FILE", help="a factor for each class: reports the objective too"
    )
    loss.add_argument("--label-smoothing", type=float, default=0.0, metavar="E", help="likewise")
    loss.add_argument("--z-loss", type=float, default=0.0, metavar="Z", help="likewise")
    loss.add_argument("--threads", type=at_least(1), metavar="N")


def _add_reports(score: argparse.ArgumentParser) -> None:
    reports = score.add_argument_group("reports")
    reports.add_argument(
        "--top-k", type=integers, default=(), metavar="K,K...", help="top-k accuracy"
    )
    reports.add_argument(
        "--offsets",
        metavar="FILE",
        help="where sequences begin and the last one ends: loss per sequence",
    )
    reports.add_argument(
        "--temperature-grid",
        type=grid,
        default=(),
        metavar="GRID",
        help="loss at temperatures 0.5,1,2 or LOW:HIGH:COUNT, and which is best",
    )
    reports.add_argument("--teacher", metavar="FILE", help="other logits: divergence from them")
    reports.add_argument(
        "--per-token",
        type=named(".npy", ".csv"),
        metavar="FILE",
        help="nll of each row, or a table of it",
    )
    reports.add_argument(
        "--plot", type=named(".png", ".svg", ".pdf"), metavar="FILE", help="the picture of it all"
    )
    reports.add_argument("--json", action="store_true", help="print JSON, not a table")
    reports.add_argument("--force", action="store_true", help="replace files that exist")


def _run(options: argparse.Namespace) -> int:
    if options.plot is not None and (reason := missing("--plot", ["matplotlib"], "plot")):
        return refuse(reason)
    from softxent.files.array_file import FileError
    from softxent.files.opening import split
    from softxent.files.results import ResultError, check_result
    from softxent.score.request import Options, Request, RequestError

    given = vars(options)
    if options.ignore_index is None:
        del given["ignore_index"]
    else:
        given["ignore_index"] = tuple(options.ignore_index)
    asked = Options(**{f.name: given[f.name] for f in fields(Options) if f.name in given})
    read = [split(given[name])[0] for name in FILES if given[name] is not None]
    try:
        for path in (options.per_token, options.plot):
            if path is not None:
                check_result(path, force=options.force, read=read)
        with Request(options.logits, options.targets, asked) as request:
            return _score(request, options)
    except (FileError, RequestError, ResultError) as error:
        return refuse(error)


def _score(request: "Request", options: argparse.Namespace) -> int:
    from softxent.files.results import ResultError, result_file
    from softxent.score.per_token import per_token
    from softxent.score.progress import progress_bar
    from softxent.score.result import as_dict, for_json, table
    from softxent.score.scoring import score

    row_bytes = sum(f.nbytes for f in request.files.values()) / max(1, request.rows)
    with ExitStack() as stack:
        writer = None
        if options.per_token is not None:
            file = stack.enter_context(result_file(options.per_token, force=options.force))
            double = request.logits.dtype.kind in "iu" or request.logits.dtype.itemsize == 8
            writer = per_token(options.per_token, file, request.targets.shape, double=double)
        progress = stack.enter_context(progress_bar(request.rows, row_bytes))
        found = score(request, progress, writer)
    report = as_dict(found)
    if options.json:
        print(json.dumps(for_json(report), indent=2))
    else:
        print(table(report, request, "±" if shows("±") else "+-"))
    if options.plot is None:
        return 0
    try:
        _draw(found, options.plot, force=options.force)
    except ResultError as error:
        refuse(error)
        return CANNOT_WRITE
    return 0


def _draw(found: "Score", path: Path, *, force: bool) -> None:
    from softxent import plots

    displays: list[plots.axes.Drawn] = [
        plots.LossHistogramDisplay(found.distribution, found.totals.loss),
        plots.LossByPositionDisplay(found.positions),
        plots.ReliabilityDisplay(found.calibration),
    ]
    if found.curve is not None:
        displays.append(plots.TemperatureDisplay(found.curve))
    title = (
        f"{found.request.logits.label}: {found.totals.rows:,} rows, loss {found.totals.loss:.4f}"
    )
    plots.save_page(displays, path, title=title, force=force)

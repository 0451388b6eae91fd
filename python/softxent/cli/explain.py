"""`softxent explain`: its options."""

import argparse
import math

from softxent.cli.arguments import numbers
from softxent.cli.outcome import refuse, shows

LOGITS = (3.2, 1.0, -0.5, 2.5)
LABELS = ("mat", "hat", "sat", "rug")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    explain = commands.add_parser(
        "explain",
        help="from a few logits to loss and gradient, step by step",
        description="From a few logits to probabilities, loss and gradient, step by step. Without options: "
        'which word follows "The cat sat on the". Begin a list with a negative number as --logits=-1,2.',
    )
    scores = explain.add_mutually_exclusive_group()
    scores.add_argument("--logits", type=numbers, metavar="X,X...", help="the scores")
    scores.add_argument(
        "--probabilities", type=numbers, metavar="P,P...", help="or probabilities, for logits log p"
    )
    scores.add_argument(
        "--dataset",
        action="store_true",
        help="the loss of sequences: averages and sums over tokens",
    )
    explain.add_argument("--labels", metavar="A,B...", help="what the classes are called")
    explain.add_argument("--target", metavar="A", help="the one that came (default: the first)")
    explain.add_argument("--temperature", type=float, metavar="T", help="default: 1")
    explain.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from softxent.explain import explain, explain_sequences

    of_one_row = (options.labels, options.target, options.temperature)
    if options.dataset and of_one_row != (None, None, None):
        return refuse("--dataset: not with --labels, --target or --temperature")
    temperature = 1.0 if options.temperature is None else options.temperature
    logits, labels = options.logits, options.labels.split(",") if options.labels else None
    if options.probabilities is not None:
        if not all(0 < p <= 1 for p in options.probabilities):
            return refuse("--probabilities: expected numbers above 0 and up to 1")
        logits = tuple(map(math.log, options.probabilities))
    if logits is None:
        logits, labels = LOGITS, labels or list(LABELS)
    try:
        if options.dataset:
            page = explain_sequences()
        else:
            first = labels[0] if labels else "0"
            target = first if options.target is None else options.target
            names = labels or [str(i) for i in range(len(logits))]
            page = explain(logits, names, target, temperature=temperature)
    except (ValueError, TypeError) as error:
        return refuse(error)
    print(page.text(ascii_only=not shows("█")))
    return 0

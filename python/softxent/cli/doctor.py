"""`softxent doctor`: its options."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    doctor = commands.add_parser(
        "doctor",
        help="what it runs on, and whether it is right there",
        description="What the package runs on, and a self-test of every instruction set against the "
        "pure-Python reference. Exit status 1 if anything is wrong.",
    )
    doctor.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from softxent.doctor.levels import examine_all
    from softxent.doctor.report import report

    del options
    text, well = report(examine_all())
    print(text)
    return 0 if well else 1

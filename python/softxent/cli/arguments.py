"""What the words of a command line may be: numbers in a range, lists of them, names of files."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

MOST_TEMPERATURES = 1000


def at_least(least: int) -> Callable[[str], int]:
    """An integer that is not too small."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return number  # its name is what argparse calls the type in "invalid number value: 'x'"


def integers(text: str) -> tuple[int, ...]:
    """Integers with commas between them."""
    return tuple(int(part) for part in text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(float(part) for part in text.split(","))


def grid(text: str) -> tuple[float, ...]:
    """Numbers with commas between them, or LOW:HIGH:COUNT, spaced by equal factors."""
    if ":" not in text:
        values = numbers(text)
    else:
        low, high, count = text.split(":")
        ends, many = (float(low), float(high)), int(count)
        if not 1 <= many <= MOST_TEMPERATURES:
            raise argparse.ArgumentTypeError(
                f"expected 1 to {MOST_TEMPERATURES} temperatures, got {many}"
            )
        if not all(0 < end < math.inf for end in ends):
            raise argparse.ArgumentTypeError(f"expected temperatures above 0, got {text!r}")
        values = tuple(np.geomspace(*ends, many).tolist())
    if len(values) > MOST_TEMPERATURES:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_TEMPERATURES} temperatures")
    return values


def named(*suffixes: str) -> Callable[[str], Path]:
    """The name of a file that ends in one of these, in a folder that exists."""

    def file(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in suffixes:
            wanted = " or ".join(suffixes)
            raise argparse.ArgumentTypeError(f"expected a name that ends in {wanted}, got {text!r}")
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
        return path

    return file

"""The loss of a linear layer: against its bare products, and against those who hold the logits.

A size is (N, D, V): rows, columns of the hidden states, classes. Each round runs every row of the table
once, A B C A B C, on the same arrays; before that every library has been right on a small size. The extra
memory of a call is the growth of the peak of a process of its own.

    python -m benches.linear --peers numpy torch --record
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import softxent as sx
from softxent import _core

from benches import records
from benches.libraries import installed
from benches.machine import Neighbours, machine_name, processor, versions

Array = npt.NDArray[Any]

# Every operation, with the products that it cannot do without.
OPERATIONS: Mapping[str, int] = {
    "linear_cross_entropy": 1,
    "linear_cross_entropy_with_grad": 3,
    "linear_cross_entropy_with_grad out=": 3,
    "linear_cross_entropy_with_grad out= half ignored": 3,
    "linear_cross_entropy_with_grad out= bias": 3,
}
PRODUCTS = "bare products"  # ours, in the same chunks; the limit
PEERS = ("numpy", "torch", "torch chunked")
SIZES = ((2048, 768, 50257), (2048, 2048, 128256), (2048, 4096, 50257))
MIB = 2**20


class Problem(NamedTuple):
    """The arrays of one size."""

    hidden: Array
    weight: Array
    bias: Array
    targets: Array
    out: tuple[Array, Array]
    threads: int

    @classmethod
    def random(cls, rows: int, width: int, classes: int, threads: int) -> "Problem":
        random = np.random.default_rng(0)
        hidden = random.standard_normal((rows, width), np.float32)
        weight = random.standard_normal((classes, width), np.float32)
        weight *= np.float32(width**-0.5)
        bias = random.standard_normal(classes, np.float32)
        targets = random.integers(classes, size=rows)
        # Written once, so that no page is new.
        out = (np.ones_like(hidden), np.ones_like(weight))
        return cls(hidden, weight, bias, targets, out, threads)

    @property
    def half(self) -> Array:
        """The targets, every second of them ignored."""
        return np.where(np.arange(len(self.targets)) % 2 == 0, -100, self.targets)


Calls = dict[str, Callable[[], Any]]


def softxent_calls(p: Problem) -> Calls:
    def products(out: Any) -> None:
        _core._linear_products(p.hidden, p.weight, (*out, None), p.threads)

    def loss(*arguments: Any, **options: Any) -> Any:
        return sx.linear_cross_entropy_with_grad(
            p.hidden, p.weight, *arguments, threads=p.threads, **options
        )

    return {
        PRODUCTS: lambda: products(p.out),
        f"{PRODUCTS}, one": lambda: products((None, None)),
        "linear_cross_entropy": lambda: sx.linear_cross_entropy(
            p.hidden, p.weight, p.targets, threads=p.threads
        ),
        "linear_cross_entropy_with_grad": lambda: loss(p.targets),
        "linear_cross_entropy_with_grad out=": lambda: loss(p.targets, out=(*p.out, None)),
        "linear_cross_entropy_with_grad out= half ignored": lambda: loss(
            p.half, out=(*p.out, None)
        ),
        "linear_cross_entropy_with_grad out= bias": lambda: loss(
            p.targets, p.bias, out=(*p.out, None)
        ),
    }


def numpy_calls(p: Problem) -> Calls:
    """Products of NumPy's, the logits held whole, our loss over them in place."""

    def with_grad(out: Any = (None, None)) -> Any:
        logits = p.hidden @ p.weight.T
        loss, grad = sx.cross_entropy_with_grad(logits, p.targets, out=logits, threads=p.threads)
        hidden = np.matmul(grad, p.weight, out=out[0])
        return loss, (hidden, np.matmul(grad.T, p.hidden, out=out[1]), None)

    def loss() -> Any:
        return sx.cross_entropy(p.hidden @ p.weight.T, p.targets, threads=p.threads)

    return {
        "linear_cross_entropy": loss,
        "linear_cross_entropy_with_grad": with_grad,
        "linear_cross_entropy_with_grad out=": lambda: with_grad(p.out),
    }


def torch_calls(p: Problem, chunked: bool = False) -> Calls:
    """Eager torch, on the same memory: the logits held whole, or its own function in chunks."""
    import torch

    functional: Any = torch.nn.functional
    torch.set_num_threads(p.threads)
    x, w, y = map(torch.from_numpy, (p.hidden, p.weight, p.targets))

    def loss(x: Any, w: Any) -> Any:
        if chunked:
            options = torch.nn.LinearCrossEntropyOptions()
            return functional.linear_cross_entropy(x, w, y, options=options)
        return functional.cross_entropy(functional.linear(x, w), y)

    def with_grad() -> Any:
        leaves = [a.detach().requires_grad_() for a in (x, w)]
        value = loss(*leaves)
        return value.detach(), (*torch.autograd.grad(value, leaves), None)

    def loss_alone() -> Any:
        with torch.no_grad():
            return loss(x, w)

    return {"linear_cross_entropy": loss_alone, "linear_cross_entropy_with_grad": with_grad}


LIBRARIES: Mapping[str, Callable[[Problem], Calls]] = {
    "softxent": softxent_calls,
    "numpy": numpy_calls,
    "torch": torch_calls,
    "torch chunked": lambda p: torch_calls(p, chunked=True),
}


def check(library: str) -> None:
    """Every operation that a library has is right on a small size, or AssertionError."""
    p = Problem.random(40, 24, 500, threads=2)
    for operation, call in LIBRARIES[library](p).items():
        if operation.startswith(PRODUCTS):
            continue
        targets = p.half if "ignored" in operation else p.targets
        bias = p.bias if "bias" in operation else 0
        exact = p.hidden.astype(np.float64) @ p.weight.T.astype(np.float64) + bias
        loss, grad = sx.cross_entropy_with_grad(exact, targets)
        result = call()
        found, grads = result if isinstance(result, tuple) else (result, ())
        np.testing.assert_allclose(float(found), loss, rtol=1e-5)
        for got, wanted in zip(grads, (grad @ p.weight, grad.T @ p.hidden), strict=False):
            error = np.abs(np.asarray(got) - wanted).max()
            assert error <= 1e-5 * np.abs(wanted).max(), f"{library} {operation}: off by {error}"


# Memory.


def peak() -> tuple[int, int]:
    """Bytes of this process: now, and at most since the last reset."""
    status = Path("/proc/self/status").read_text()
    found = {line.split(":")[0]: line for line in status.splitlines()}
    return int(found["VmRSS"].split()[1]) * 1024, int(found["VmHWM"].split()[1]) * 1024


def extra_memory(library: str, operation: str, size: Sequence[int], threads: int) -> int:
    """Bytes by which one call makes the peak of a process of its own grow."""
    command = [sys.executable, "-m", "benches.linear", "--threads", str(threads)]
    command += ["--sizes", "x".join(map(str, size)), "--memory-of", library, operation]
    folder = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout)


def print_extra_memory(library: str, operation: str, p: Problem) -> None:
    call = LIBRARIES[library](p)[operation]
    small = Problem.random(8, 8, 8, p.threads)
    LIBRARIES[library](small)[operation]()  # what a library loads when it is first called
    Path("/proc/self/clear_refs").write_text("5")
    before, _ = peak()
    call()
    print(peak()[1] - before)


# The run.


def rows_of(p: Problem, peers: Sequence[str]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    for library in ("softxent", *peers):
        for operation, call in LIBRARIES[library](p).items():
            yield library, operation, call


def measure(size: Sequence[int], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows, width, classes = size
    p = Problem.random(rows, width, classes, options.threads)
    work = list(rows_of(p, options.peers))
    seconds: list[list[float]] = [[] for _ in work]
    for number in range(options.rounds):
        print(f"{size}: round {number + 1} of {options.rounds}", file=sys.stderr)
        for (_, _, call), found in zip(work, seconds, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    del p
    return [
        {
            "size": list(size),
            "library": library,
            "operation": operation,
            "seconds": found,
            "extra MiB": round(extra_memory(library, operation, size, options.threads) / MIB),
        }
        for (library, operation, _), found in zip(work, seconds, strict=True)
    ]


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """Each row beside the products that it cannot do without, and the peers beside ours."""
    lines = ["| N x D x V | library | operation | s | of the products | GFLOP/s | extra MiB |"]
    lines.append("|---|---|---|---|---|---|---|")
    of = {
        (tuple(row["size"]), row["library"], row["operation"]): row["seconds"] for row in measured
    }
    for row in measured:
        rows, width, classes = row["size"]
        products = OPERATIONS.get(row["operation"], 1 if row["operation"].endswith("one") else 3)
        name = PRODUCTS if products == 3 else f"{PRODUCTS}, one"
        bare = of[tuple(row["size"]), "softxent", name]
        median = statistics.median(row["seconds"])
        ratios = [ours / theirs for ours, theirs in zip(row["seconds"], bare, strict=True)]
        flops = 2 * products * rows * width * classes
        cells = [f"{rows} x {width} x {classes}", row["library"], row["operation"]]
        cells += [
            f"{median:.3f}",
            f"{statistics.median(ratios):.3f}",
            f"{flops / median / 1e9:.0f}",
        ]
        lines.append("| " + " | ".join([*cells, str(row["extra MiB"])]) + " |")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    def size(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split("x")))

    parser = argparse.ArgumentParser(prog="python -m benches.linear", description=__doc__)
    parser.add_argument("--sizes", nargs="*", type=size, default=SIZES, help="NxDxV")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=sx.get_threads())
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="if installed")
    parser.add_argument(
        "--record", action="store_true", help=f"write to benches/{records.RECORD.name}/"
    )
    parser.add_argument("--machine", default=machine_name(), help="the folder of the record")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    missing = [name for name in options.peers if not installed(name.split()[0])]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    return options


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.memory_of:
        rows, width, classes = options.sizes[0]
        library, operation = options.memory_of
        p = Problem.random(rows, width, classes, options.threads)
        print_extra_memory(library, operation, p)
        return
    for library in ("softxent", *options.peers):
        check(library)
    neighbours = Neighbours()
    measured = [row for size in options.sizes for row in measure(size, options)]
    now = datetime.now()
    packages = dict.fromkeys(["softxent", "numpy", *(peer.split()[0] for peer in options.peers)])
    facts = {
        "machine": processor(),
        "date": now.isoformat(" ", "minutes"),
        "command": " ".join(["python -m benches.linear", *arguments]),
        "versions": versions(packages),
        "threads": options.threads,
        "taken by other processes": str(neighbours),
    }
    page = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    page += "\n\n" + table(measured)
    print(page)
    if options.record:
        content = {**facts, "measured": measured}
        records.write(options.machine, f"linear-{now:%Y-%m-%d-%H%M}", content, page)


if __name__ == "__main__":
    main(sys.argv[1:])

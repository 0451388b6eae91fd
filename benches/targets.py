"""Where the package wants to be: each row of the table of targets, and the arrays it is measured on.

A target is data: what is measured, over what, in which unit, and how much it has to be. ``ratios.py``
measures what stands here and nothing else, ``judge`` says what came. Where a target names several to
stand against (all peers, or the faster of two ways to copy), it counts what it does worst against.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from benches.libraries import OURS, PEERS
from benches.measured import (
    LIMIT,
    STATISTICS,
    Measured,
    Statistic,
    What,
    bandwidth,
    rate,
    speed,
    times,
)
from benches.operations import OPERATIONS


class Size(NamedTuple):
    """What the arrays are made for: the logits beyond every cache, and the bytes of the caches."""

    rows: int
    columns: int
    l2: int
    l3: int


VOCABULARY = 50257  # of the arrays in cache
FILLED = 0.8  # of a cache that an array takes, for the row's targets and the stack want some of it


def rows_within(size: int, most: int) -> int:
    """Rows of the small vocabulary that a cache of that many bytes holds."""
    return max(1, min(most, int(FILLED * size / (4 * VOCABULARY))))


# The logits of each setting. "peers" has those of "beyond", in memory that the narrow dtypes and
# the processes of other instruction sets have left.
SETTINGS: Mapping[str, Callable[[Size], tuple[int, int]]] = {
    "beyond": lambda size: (size.rows, size.columns),
    "peers": lambda size: (size.rows, size.columns),
    "one row": lambda _: (1, 1_000_000),
    "a few rows": lambda _: (8, 1_000_000),
    "short rows": lambda size: (16 * size.rows, 1000),
    "L2": lambda size: (rows_within(size.l2, 8), VOCABULARY),
    "L3": lambda size: (rows_within(size.l3 // 2, 64), VOCABULARY),
    "one call": lambda _: (1, 1000),
    "family": lambda size: (max(1, size.rows // 4), size.columns),
}
# Every operation of ours and of the peers: what an option costs, and what nobody has a target for.
FAMILY = "family"


class Unit(NamedTuple):
    """How a row is held against another, or, where it stands alone, against a clock."""

    name: str
    against: Callable[[Measured, Measured, Statistic], float]
    at_least: bool = True


BANDWIDTH = Unit("x its bytes/s", bandwidth)
SPEED = Unit("x its elements/s", speed)
TIME = Unit("x its time", times, at_least=False)
RATE = Unit("G elements/s", lambda row, _, of: rate(row, of))
MICROSECONDS = Unit("µs", lambda row, _, of: 1e6 * of(row.seconds), at_least=False)


class Target(NamedTuple):
    """One row of the table."""

    case: str
    what: What
    over: tuple[What, ...]
    unit: Unit
    goal: float

    def __str__(self) -> str:
        return f"{'>=' if self.unit.at_least else '<='} {self.goal:g}"


class Judged(NamedTuple):
    """What came of a target. ``over`` is what it did worst against, by the median."""

    case: str
    what: str
    over: str
    unit: str
    target: str
    min: float | None
    median: float | None
    verdict: str


HELD, MISSED, NOT_MEASURED = "held", "missed", "not measured"


def judge(target: Target, measured: Iterable[Measured]) -> Judged:
    """Held where the fastest and the median round both hold it."""
    rows = {row.what: row for row in measured}
    row = rows.get(target.what)
    others = [rows[what] for what in target.over if what in rows]
    if row is None or (target.over and not others):
        named = ", ".join(dict.fromkeys(str(what) for what in target.over))
        return Judged(
            target.case,
            str(target.what),
            named,
            target.unit.name,
            str(target),
            None,
            None,
            NOT_MEASURED,
        )
    worst = min if target.unit.at_least else max
    against = {
        name: worst((target.unit.against(row, other, of), str(other)) for other in others or [row])
        for name, of in STATISTICS.items()
    }
    values = {name: value for name, (value, _) in against.items()}
    held = all(
        (v >= target.goal) if target.unit.at_least else (v <= target.goal) for v in values.values()
    )
    return Judged(
        target.case,
        str(row),
        against["median"][1] if others else "",
        target.unit.name,
        str(target),
        values["min"],
        values["median"],
        HELD if held else MISSED,
    )


def ours(
    setting: str, operation: str, dtype: str = "float32", threads: int = 0, isa: str = ""
) -> What:
    return What(setting, OURS, operation, dtype, threads, isa)


def of_limit(
    case: str, goal: float, setting: str, operation: str, dtype: str = "float32"
) -> Target:
    """An operation over the limit that moves memory in the same way."""
    limit = OPERATIONS[operation][0]
    # Where both arrays stay in a cache, stores that go past it are no limit.
    ways = (
        ["streaming copy", "ordinary copy"]
        if limit == "streaming copy" and setting in CACHED
        else [limit]
    )
    over = tuple(What(setting, LIMIT, way) for way in ways)
    return Target(case, ours(setting, operation, dtype), over, BANDWIDTH, goal)


def of_ours(case: str, goal: float, what: What, over: What, unit: Unit = SPEED) -> Target:
    return Target(case, what, (over,), unit, goal)


def of_peers(case: str, goal: float, operation: str, peers: Iterable[str]) -> Target:
    """An operation over that of the fastest peer, which may not be able to write to ``out``."""
    ways = dict.fromkeys([operation, operation.removesuffix(" out=")])
    over = tuple(What("peers", peer, way) for peer in peers for way in ways)
    return Target(case, ours("peers", operation), over, SPEED, goal)


CACHED = ("one row", "a few rows")
LOSS, GRAD, GRAD_OUT = "cross_entropy", "cross_entropy_with_grad", "cross_entropy_with_grad out="
IN_PLACE = "cross_entropy_with_grad in place"
L2_AVX512, L2_AVX2 = (ours("L2", LOSS, threads=1, isa=isa) for isa in ("avx512", "avx2"))

TARGETS: tuple[Target, ...] = (
    of_limit("loss", 0.95, "beyond", LOSS),
    of_limit("log-sum-exp", 0.95, "beyond", "logsumexp"),
    of_limit("evaluation", 0.95, "beyond", "evaluate"),
    of_limit("softmax, out=", 0.90, "beyond", "softmax out="),
    of_limit("loss + gradient, out=", 0.90, "beyond", GRAD_OUT),
    of_limit("loss + gradient, in place", 0.90, "beyond", IN_PLACE),
    of_ours("loss + gradient, fresh over out=", 1.10, ours("beyond", GRAD), ours("beyond", GRAD_OUT), TIME),
    of_limit("one row of 1M, loss", 0.85, "one row", LOSS),
    of_limit("one row of 1M, loss + gradient", 0.85, "one row", GRAD_OUT),
    of_limit("8 rows of 1M, loss", 0.85, "a few rows", LOSS),
    of_limit("8 rows of 1M, loss + gradient", 0.85, "a few rows", GRAD_OUT),
    of_limit("rows of 1000, loss", 0.85, "short rows", LOSS),
    of_limit("rows of 1000, softmax", 0.85, "short rows", "softmax out="),
    of_limit("rows of 1000, loss + gradient", 0.85, "short rows", GRAD_OUT),
    of_limit("rows of 1000, in place", 0.85, "short rows", IN_PLACE),
    of_ours("bfloat16 over float32", 1.7, ours("beyond", LOSS, "bfloat16"), ours("beyond", LOSS)),
    of_ours("float16 over float32", 1.7, ours("beyond", LOSS, "float16"), ours("beyond", LOSS)),
    of_limit("float64, loss", 0.95, "beyond", LOSS, "float64"),
    of_limit("float64, loss + gradient", 0.90, "beyond", GRAD_OUT, "float64"),
    Target("in L2, one thread, AVX-512", L2_AVX512, (), RATE, 6.0),
    Target("in L2, one thread, AVX2", L2_AVX2, (), RATE, 3.0),
    of_ours("in L2, AVX2 over AVX-512", 0.5, L2_AVX2, L2_AVX512),
    Target("one call on (1, 1000)", ours("one call", LOSS), (), MICROSECONDS, 3.0),
    of_peers("torch eager, loss", 8, LOSS, ["torch"]),
    of_peers("torch eager, loss + gradient", 12, GRAD, ["torch"]),
    of_peers("torch eager, loss + gradient, ours out=", 12, GRAD_OUT, ["torch"]),
    of_peers("best of all peers, loss", 2.3, LOSS, PEERS),
    of_peers("best of all peers, loss + gradient", 6, GRAD, PEERS),
    of_peers("best of all peers, loss + gradient, out=", 6, GRAD_OUT, PEERS),
    # What the loss costs in all over reading its bytes: no promise of it can cost more.
    of_ours("accuracy and same bits", 1.05, ours("beyond", LOSS), What("beyond", LIMIT, "read"), TIME),
    of_ours("1 -> 2 threads in L2", 1.9, ours("L2", LOSS, threads=2), ours("L2", LOSS, threads=1)),
    of_ours("1 -> 2 threads in L3", 1.9, ours("L3", LOSS, threads=2), ours("L3", LOSS, threads=1)),
    of_ours("beyond cache, AVX2 over AVX-512, loss", 0.9,
            ours("beyond", LOSS, isa="avx2"), ours("beyond", LOSS, isa="avx512")),
    of_ours("beyond cache, AVX2 over AVX-512, gradient", 0.9,
            ours("beyond", GRAD_OUT, isa="avx2"), ours("beyond", GRAD_OUT, isa="avx512")),
)  # fmt: skip


def wanted(setting: str, peers: Iterable[str], more: Iterable[What] = ()) -> list[What]:
    """What has to be measured on the arrays of a setting, each once."""
    libraries = {LIMIT, OURS, *peers}
    named = [what for target in TARGETS for what in (target.what, *target.over)]
    if setting == FAMILY:
        limits = dict.fromkeys(limit for limit, _ in OPERATIONS.values())
        named = [What(FAMILY, LIMIT, limit) for limit in limits]
        named += [What(FAMILY, library, o) for library in (OURS, *peers) for o in OPERATIONS]
    every = dict.fromkeys(what for what in [*named, *more] if what.setting == setting)
    return [what for what in every if what.library in libraries]

"""The README's table of speed, made from a record.

    python -m benches.readme [benches/record/MACHINE/DATE.json]

puts that of the newest record, or of the one that is named, in place of the one that is there. The words
around it are the author's.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benches import records
from benches.libraries import OURS, PEERS
from benches.measured import LIMIT, STATISTICS, Measured, What, bandwidth, times
from benches.operations import OPERATIONS
from benches.targets import FAMILY

README = Path(__file__).parent.parent / "README.md"
SETTING = "peers"

# What a reader wants to know first, and how it is called. What takes the peers too much memory beside
# 2 GB of logits comes from the setting of all operations, and says of what shape.
ROWS: dict[str, str] = {
    "cross_entropy": "cross_entropy",
    "cross_entropy(label_smoothing=)": "cross_entropy label_smoothing=",
    "evaluate": "evaluate",
    "softmax(out=)": "softmax out=",
    "cross_entropy_with_grad(out=)": "cross_entropy_with_grad out=",
    "cross_entropy_with_grad": "cross_entropy_with_grad",
    "cross_entropy_with_grad(out=logits)": "cross_entropy_with_grad in place",
    "kl_divergence": "kl_divergence",
}
TOO_LARGE = {"kl_divergence"}
LIMITS = {
    "read": "reading every logit once",
    "streaming copy": "a streaming copy",
    "in-place scale": "scaling in place",
}
HEADER = ("", "ms", "of the limit", "limit", "torch / softxent", "best other peer / softxent")
TABLE = re.compile(r"^\| \| ms \|.*\n(\|.*\n)+", re.MULTILINE)


def needed(peers: Sequence[str]) -> Iterable[What]:
    """What the table is made of."""
    for operation in ROWS.values():
        if operation in TOO_LARGE:
            continue
        yield What(SETTING, LIMIT, OPERATIONS[operation][0])
        yield What(SETTING, OURS, operation)
        # Only torch has nearly all of it; the others are compared where a target is.
        yield from (
            What(SETTING, peer, way) for peer in peers if peer == "torch" for way in ways(operation)
        )


def ways(operation: str) -> list[str]:
    """The operation, and where it has no twin at a peer, the one with the same values in a new array."""
    plain = operation.removesuffix(" out=").removesuffix(" in place")
    return list(dict.fromkeys([operation, plain]))


def table(measured: Iterable[Measured]) -> str:
    """The rows that were measured, by the median."""
    rows = {row.what: row for row in measured}
    median = STATISTICS["median"]
    lines = [HEADER, ("---",) * len(HEADER)]
    for label, operation in ROWS.items():
        setting = FAMILY if operation in TOO_LARGE else SETTING
        row = rows.get(What(setting, OURS, operation))
        if row is None:
            continue
        name = OPERATIONS[operation][0]
        reading_two = name == "read" and row.moved > row.size
        limit = rows.get(What(setting, LIMIT, name))
        ahead = {}
        for peer in PEERS:
            found = [rows[w] for way in ways(operation) if (w := What(setting, peer, way)) in rows]
            if found:
                ahead[peer] = min(times(other, row, median) for other in found)
        torch = ahead.pop("torch", None)
        best = min(ahead, key=lambda peer: ahead[peer], default=None)
        lines.append(
            (
                f"`{label}`" + (f", {row.rows} x {row.columns:,}" if setting == FAMILY else ""),
                f"{1e3 * median(row.seconds):.3g}",
                f"{bandwidth(row, limit, median):.2f}" if limit else "",
                "reading both arrays once" if reading_two else LIMITS[name],
                f"{torch:.3g}" if torch else "",
                f"{ahead[best]:.3g} ({best})" if best else "",
            )
        )
    return (
        "".join("| " + " | ".join(line).lstrip() + " |\n" for line in lines)
        .replace("| ---", "|---")
        .replace("--- |", "---|")
    )


def main(arguments: Sequence[str]) -> None:
    record = Path(*arguments) if arguments else records.newest()
    content = json.loads(record.read_text(encoding="utf-8"))
    page = README.read_text(encoding="utf-8")
    made = table(Measured.from_json(row) for row in content["measured"])
    changed, count = TABLE.subn(lambda _: made, page)
    if count != 1:
        raise SystemExit(f"{README}: expected one table that starts with | | ms |, found {count}")
    README.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Where results are kept: a JSON file with every round and the page that was printed, side by side."""

import json
import sys
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("record")


def write(machine: str, name: str, content: dict[str, Any], page: str) -> None:
    """Both files of a run, in the machine's folder."""
    folder = RECORD / machine
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(page, encoding="utf-8")
    print(f"recorded in {file.with_suffix('.json')}", file=sys.stderr)


def newest() -> Path:
    """The last run that had targets. The names of the files are their dates."""
    runs = [f for f in RECORD.glob("*/*.json") if '"targets"' in f.read_text(encoding="utf-8")]
    if not runs:
        raise SystemExit(f"{RECORD}: no record yet, python -m benches.ratios --record makes one")
    return max(runs, key=lambda file: file.name)

"""The rows on file: ``results/cpu.json``, each with the day and the load it was measured under."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from benchmarks.timing import machine

RESULTS = Path(__file__).resolve().parent / "results" / "cpu.json"
Entry = dict[str, Any]


def short(scene: str) -> str:
    """Return a scene's name, or the name of its file."""
    return Path(scene).stem


def read(path: Path = RESULTS) -> list[Entry]:
    """Return the entries on file, none where there is no file."""
    if not path.exists():
        return []
    entries: list[Entry] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return entries


def write(rows: list[Row], known: list[Entry], path: Path = RESULTS) -> list[Entry]:
    """Write rows, each in the place of the one that ``known`` holds of the same; return them all.

    Args:
        rows: just measured here.
        known: entries of earlier runs on this machine to keep.
    """
    stamp = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    kept = {Row.from_json(entry).key: entry for entry in known}
    kept |= {row.key: _rounded(row.as_json()) | stamp for row in rows}
    about = {key: value for key, value in machine().items() if key != "threads"}
    document = {"machine": about | {"cores": os.cpu_count()}, "rows": list(kept.values())}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return list(kept.values())


def _rounded(entry: Entry) -> Entry:
    """Return the entry with four significant digits."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in entry.items()}

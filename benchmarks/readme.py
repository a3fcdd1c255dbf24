"""The README's speed tables, made of what ``results/cpu.json`` holds: no figure is typed.

python -m benchmarks.readme
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.files import RESULTS
from benchmarks.peers import PEERS
from benchmarks.rows import Row, figure

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- speed: made by python -m benchmarks.readme -->", "<!-- end of speed -->"
THREADS = 2
WHATS = {
    "sites, index, submanifold rulebook, unsorted": "sites and rulebook from raw coordinates",
    "submanifold 3x3x3, 16 to 16 channels, forward": "submanifold 3x3x3, 16 channels",
    "submanifold 3x3x3, 32 to 32 channels, forward": "32 channels",
    "submanifold 3x3x3, 64 to 64 channels, forward": "64 channels",
    "submanifold 3x3x3, 128 to 128 channels, forward": "128 channels",
    "stride 2, k=2, 64 channels, forward": "stride 2, k=2, 64 channels",
    "minkunet, forward": "MinkUNet-like network, forward",
    "minkunet, forward, optimized": "the same after `sc.optimize`",
    "minkunet, forward + backward": "the same, forward and backward",
    "minkunet, forward, bfloat16": "the same, forward in bfloat16",
    "second, forward": "SECOND-like encoder, forward",
}


def block(document: dict[str, Any]) -> str:
    """Return both tables and what was measured where."""
    rows = [Row.from_json(entry) for entry in document["rows"]]
    rows = [row for row in rows if row.threads == THREADS and row.what in WHATS]
    scenes = {row.scene: row.sites for row in rows}
    machine = document["machine"]
    about = (
        f"{machine['processor']}, {THREADS} threads, torch {machine['torch']}, float32. "
        "Milliseconds, and how many times the floor: one `torch.mm` per kernel cell with the same "
        "FLOPs (of the rulebook: one sort of the keys and one writing of the pairs)."
    )
    speed = "How many times as fast as the fastest peer that was importable in the same run:"
    ours = _table(rows, scenes, _against_floor)
    return "\n\n".join([about, ours, speed, _table(rows, scenes, _against_peers)])


def _table(rows: list[Row], scenes: dict[str, int], cell: Any) -> str:
    heads = [f"{name}, {sites:,} sites" for name, sites in scenes.items()]
    lines = [["", *heads], ["---"] * (1 + len(heads))]
    for what, title in WHATS.items():
        found = {scene: [r for r in rows if (r.what, r.scene) == (what, scene)] for scene in scenes}
        cells = [cell(same) for same in found.values()]
        if any(cells):
            lines.append([title, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _against_floor(rows: list[Row]) -> str:
    own = [row for row in rows if row.against not in PEERS]
    return f"{figure(own[0].value)} ({own[0].ratio:.2f})" if own else ""


def _against_peers(rows: list[Row]) -> str:
    theirs = [row for row in rows if row.against in PEERS]
    best = max(theirs, key=lambda row: row.ratio, default=None)
    return f"{1 / best.ratio:.1f} ({best.against})" if best else ""


def replaced(text: str, inside: str) -> str:
    """Return a README with the text between its two marks replaced."""
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{inside}\n\n{END}{tail}"


def refresh() -> None:
    """Put the tables of the results on file into the README."""
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = replaced(README.read_text(encoding="utf-8"), block(document))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    refresh()

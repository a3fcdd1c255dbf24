"""What a card should reach: a model of time from counted launches, waits, bytes and FLOP."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parents[1] / "docs" / "devices.md"
BEGIN, END = "<!-- model: made by python tools/device_counts.py -->", "<!-- end of model -->"
SITES = 90_000  # of a LiDAR scan in voxels of 5 cm
LAUNCH, SYNC = 6e-6, 20e-6  # seconds of the host for an operator, and for a wait


class Card(NamedTuple):
    """What a card's data sheet says.

    Attributes:
        bandwidth: bytes a second of its memory.
        half, single: FLOP a second of matrix products in bfloat16, and in float32 without TF32.
    """

    bandwidth: float
    half: float
    single: float


CARDS = {
    "H100 SXM": Card(3.35e12, 989e12, 67e12),
    "H200": Card(4.8e12, 989e12, 67e12),
    "A100 80 GB": Card(2.04e12, 312e12, 19.5e12),
    "RTX 4090": Card(1.01e12, 165e12, 82.6e12),
}


def at_sites(counted: dict[str, list[int]], sites: int = SITES) -> list[float]:
    """Return counts at a number of sites, on the line through the two that were counted."""
    (few, low), (many, high) = ((int(size), numbers) for size, numbers in counted.items())
    share = (sites - few) / (many - few)
    return [a + share * (b - a) for a, b in zip(low, high, strict=True)]


def table(model: dict[str, dict[str, list[int]]]) -> str:
    """Return the table in Markdown."""
    lines = [
        f"| call, {SITES:,} sites | GB | GFLOP | host, ms | {' | '.join(CARDS)} |",
        "| --- |" + " --- |" * (3 + len(CARDS)),
    ]
    for name, counted in model.items():
        launches, syncs, size, flop = at_sites(counted)
        host = launches * LAUNCH + syncs * SYNC
        cells = [f"{size / 1e9:.3g}", f"{flop / 1e9:.3g}", f"{1e3 * host:.2g}"]
        for card in CARDS.values():
            peak = card.half if "bfloat16" in name else card.single
            cells.append(f"{1e3 * (size / card.bandwidth + flop / peak):.2g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(model: dict[str, dict[str, list[int]]]) -> None:
    """Write the table into its page."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(model)}\n{END}{tail}", encoding="utf-8")

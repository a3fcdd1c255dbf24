"""A row of a benchmark's table: what took how long, against what, and the bar it should clear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        group: the part of the table that it belongs to.
        what, scene: what was measured, and on which scene.
        threads: PyTorch's number of threads.
        value: milliseconds, unless ``unit`` says otherwise.
        against: what it is compared with, in the same run.
        reference: the value of that.
        bar: the largest ratio ``value / reference`` that is good enough; None for a report.
        unit: of both values.
    """

    group: str
    what: str
    scene: str
    threads: int
    value: float
    against: str
    reference: float
    bar: float | None = None
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """``value / reference``: smaller is better."""
        return self.value / self.reference if self.reference else float("nan")

    @property
    def met(self) -> bool | None:
        """Whether the bar is cleared, None where there is none."""
        return None if self.bar is None else self.ratio <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Return the row with its ratio."""
        return asdict(self) | {"ratio": self.ratio}


def show(rows: list[Row]) -> None:
    """Print the rows as one table."""
    table = Table(title="ratio = measured / compared with")
    for name in ("what", "scene", "threads", "measured", "compared with", "ratio", "bar"):
        table.add_column(name, justify="left" if name in ("what", "scene") else "right")
    group = None
    for row in rows:
        if group is not None and row.group != group:
            table.add_section()
        group = row.group
        table.add_row(*_cells(row))
    Console(width=150).print(table)


def _cells(row: Row) -> Iterator[str]:
    yield from (row.what, row.scene, str(row.threads))
    yield f"{row.value:.4g} {row.unit}"
    yield f"{row.against} {row.reference:.4g}"
    colour = {None: "default", True: "green", False: "red"}[row.met]
    yield f"[{colour}]{row.ratio:.2f}[/]"
    yield "" if row.bar is None else f"{row.bar:.2f}"

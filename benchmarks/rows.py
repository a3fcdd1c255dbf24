"""A row of a benchmark's table: what took how long, against what, and the bar it should clear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
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
        gflop: of the products that were measured, in billions of operations; 0 without any.
        sites: of the scene.
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
    gflop: float = 0.0
    sites: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the row from every other one."""
        return self.group, self.what, self.scene, str(self.threads), self.against, self.unit

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

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Row:
        """Return the row that :meth:`as_json` wrote; what it does not know is left out."""
        names = {column.name for column in fields(cls)}
        return cls(**{name: value for name, value in entry.items() if name in names})


def show(rows: list[Row]) -> None:
    """Print the rows as one table."""
    table = Table(title="ratio = measured / compared with")
    columns = ("what", "scene", "threads", "GFLOP", "measured", "compared with", "ratio", "bar")
    for name in columns:
        table.add_column(name, justify="left" if name in ("what", "scene") else "right")
    group = None
    for row in rows:
        if group is not None and row.group != group:
            table.add_section()
        group = row.group
        table.add_row(*_cells(row))
    Console(width=150).print(table)


def figure(value: float) -> str:
    """Return three significant digits as people write them: 0.123, 4.57, 1,040."""
    return f"{float(f'{value:.3g}'):,.10g}"


def line(row: Row) -> str:
    """Return a row as one line, for those who wait."""
    mark = {None: " ", True: "+", False: "-"}[row.met]
    numbers = f"{figure(row.value)} {row.unit} / {figure(row.reference)} = {row.ratio:.2f}"
    return f"{mark} {row.scene}, {row.threads} threads: {row.what}: {numbers} ({row.against})"


def _cells(row: Row) -> Iterator[str]:
    yield from (row.what, row.scene, str(row.threads))
    yield figure(row.gflop) if row.gflop else ""
    yield f"{figure(row.value)} {row.unit}"
    yield f"{row.against} {figure(row.reference)}"
    colour = {None: "default", True: "green", False: "red"}[row.met]
    yield f"[{colour}]{row.ratio:.2f}[/]"
    yield "" if row.bar is None else f"{row.bar:.2f}"

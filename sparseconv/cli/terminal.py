"""Tables and progress: by rich in a terminal where it is installed, else as plain text."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sparseconv.errors import SparseConvError
from sparseconv.io import Points, iter_points, join_points, read_points, scan

T = TypeVar("T")

LARGE = 1 << 25  # bytes of a file from which on reading takes about a second
PART = 1 << 20  # points that are read at a time


def say(text: str = "") -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows below names; what begins with a digit stands to the right."""
    rows = [tuple(row) for row in rows]
    right = [bool(rows) and all(row[i][:1].isdigit() for row in rows) for i in range(len(names))]
    if sys.stdout.isatty():
        try:
            library, console = (importlib.import_module(f"rich.{n}") for n in ("table", "console"))
        except ImportError:
            pass
        else:
            shown = library.Table(title=title, title_justify="left", header_style="bold")
            for name, end in zip(names, right, strict=True):
                shown.add_column(name, justify="right" if end else "left")
            for row in rows:
                shown.add_row(*row)
            console.Console().print(shown)
            return
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    say(title)
    for row in (tuple(names), *rows):
        cells = zip(row, widths, right, strict=True)
        say("  " + "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip())


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield items, and show in a terminal how many of ``total`` are done (None: of all)."""
    if sys.stderr.isatty():
        try:
            progress = importlib.import_module("rich.progress")
            console = importlib.import_module("rich.console").Console(stderr=True)
        except ImportError:
            pass
        else:
            shown = {"description": text, "total": total, "console": console, "transient": True}
            yield from progress.track(items, **shown)
            return
    yield from items


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what a file does not say of itself: the arguments of `read_points`."""
    group = parser.add_argument_group("what the file does not say")
    group.add_argument("--layout", help="of a .bin: kitti, nuscenes, scannet, sunrgbd or waymo")
    group.add_argument("--columns", help="names of the columns, as x,y,z,intensity")
    group.add_argument("--label", help="name of the column of labels, or a file of labels")
    group.add_argument("--key", help="of a .npz: the array of positions")


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of :func:`add_reading` for `read_points`."""
    columns = None if options.columns is None else tuple(options.columns.split(","))
    given = {"layout": options.layout, "label": options.label, "key": options.key}
    return {name: value for name, value in {**given, "columns": columns}.items() if value}


def points_in(path: Path, options: argparse.Namespace, **more: Any) -> Points:
    """Read a file as the command line says.

    Raises:
        SparseConvError, OSError: As of :func:`sparseconv.io.read_points`.
    """
    _check_file(path)
    if path.stat().st_size < LARGE or not sys.stderr.isatty():
        return read_points(path, **reading(options), **more)
    return join_points(list(parts_in(path, options, **more)))


def parts_in(path: Path, options: argparse.Namespace, **more: Any) -> Iterator[Points]:
    """Read a file by parts, as the command line says, and show in a terminal how far it is.

    Raises:
        SparseConvError, OSError: As of :func:`sparseconv.io.iter_points`.
    """
    _check_file(path)
    given = reading(options)
    header = scan(path, **{name: value for name, value in given.items() if name != "label"})
    parts = iter_points(path, rows=PART, **given, **more)
    yield from track(parts, f"read {path.name}", max(1, -(-header.rows // PART)))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise SparseConvError(f"{path} is a folder, give its files: {path}/*")


def short(number: float) -> str:
    """Return a number with three digits.

    >>> short(1024.0), short(0.05), short(3)
    ('1,024', '0.05', '3')
    """
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def size(count: int) -> str:
    """Return a number of bytes with a unit.

    >>> size(1536), size(2_000_000)
    ('1.5 KiB', '1.9 MiB')
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value < 100 else f"{value:.0f} {units[0]}"

"""``sparseconv convert``: from one format to another, and less of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.cli.terminal import add_reading, parts_in, say
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points, write_points
from sparseconv.io.write import LAS


def add_convert(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "convert",
        help="write a point cloud in another format",
        description="Read a point cloud and write it in the format of OUT's suffix.",
        epilog="example: sparseconv convert survey.laz part.ply --bounds 0 0 0 50 50 20 --every 2",
    )
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--fields", help="columns to keep besides x,y,z, as intensity,label")
    parser.add_argument("--every", type=int, default=1, help="keep each so many-th point (1)")
    parser.add_argument("--limit", type=int, help="keep so many points at most")
    parser.add_argument(
        "--bounds", type=float, nargs=6, metavar="M", help="x y z of the low corner, then the high"
    )
    parser.add_argument("--finite", action="store_true", help="leave out points with NaN")
    parser.add_argument("--drop-labels", action="store_true", help="leave the labels out")
    parser.add_argument("--rename", action="append", metavar="OLD=NEW", help="a column; repeatable")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read, choose, write: part by part, so that a file may be larger than the memory."""
    _check_folder(options.output)
    fields = None if options.fields is None else tuple(filter(None, options.fields.split(",")))
    chosen = {
        "fields": fields,
        "every": options.every,
        "limit": options.limit,
        "bounds": options.bounds,
    }
    rounding = None
    if options.output.suffix.lower() in LAS and options.source.suffix.lower() not in LAS:
        rounding = _bounds(parts_in(options.source, options, **{**chosen, "fields": ()}))
    count = 0

    def parts() -> Iterator[Points]:
        nonlocal count
        for part in parts_in(options.source, options, **chosen):
            points = part.finite() if options.finite else part
            points = replace(points, labels=None) if options.drop_labels else points
            count += len(points)
            yield _renamed(points, options.rename or [])

    write_points(options.output, parts(), bounds=rounding)
    say(f"wrote {count:,} points to {options.output}")


def _bounds(parts: Iterable[Points]) -> tuple[list[float], list[float]] | None:
    """Return low and high corner of all points that have a finite position."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in parts:
        xyz = part.xyz[np.isfinite(part.xyz).all(axis=1)]
        if len(xyz):
            low, high = np.minimum(low, xyz.min(axis=0)), np.maximum(high, xyz.max(axis=0))
    return None if np.isinf(low).any() else (low.tolist(), high.tolist())


def _renamed(points: Points, changes: list[str]) -> Points:
    names = dict(change.partition("=")[::2] for change in changes)
    for name in names:
        if name not in (*points.feature_names, *points.extra):
            raise SparseConvValueError(f"rename: there is no column {name!r}")
    features = tuple(names.get(name, name) for name in points.feature_names)
    extra = {names.get(name, name): values for name, values in points.extra.items()}
    return replace(points, feature_names=features, extra=extra)


def write(path: Path, points: Points) -> None:
    """Write points, in a folder that exists.

    Raises:
        SparseConvValueError: There is no such folder.
    """
    _check_folder(path)
    write_points(path, points)


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise SparseConvValueError(f"output: there is no folder {path.parent}")

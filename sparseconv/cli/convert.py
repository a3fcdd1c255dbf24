"""``sparseconv convert``: from one format to another, and less of it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparseconv.cli.terminal import add_reading, points_in, say
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points, write_points


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
    """Read, choose, write."""
    fields = None if options.fields is None else tuple(filter(None, options.fields.split(",")))
    points = points_in(
        options.source,
        options,
        fields=fields,
        every=options.every,
        limit=options.limit,
        bounds=options.bounds,
    )
    points = points.finite() if options.finite else points
    points = replace(points, labels=None) if options.drop_labels else points
    points = _renamed(points, options.rename or [])
    write(options.output, points)
    say(f"wrote {len(points):,} points to {options.output}")


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
    if not path.parent.is_dir():
        raise SparseConvValueError(f"output: there is no folder {path.parent}")
    write_points(path, points)

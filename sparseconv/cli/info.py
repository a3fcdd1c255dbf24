"""``sparseconv info``: what a file holds, and what each voxel size makes of it."""

from __future__ import annotations

import argparse
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv import engines
from sparseconv.cli.terminal import add_reading, points_in, reading, say, short, size, table, track
from sparseconv.io import Points, scan
from sparseconv.models.point_labeller import WIDTHS, unet_bytes
from sparseconv.models.unet import UNet
from sparseconv.tools import VoxelSize, receptive_field, voxel_sizes

STEPS = (1.0, 2.0, 5.0)
SIZES = 6  # rows of the table
COARSEST = 32  # voxels along the extent: the first size
FINEST_POINTS = 1.15  # points a site; finer voxels merge nothing
NEIGHBOURS = 5.0  # of 26, from which on a 3x3x3 window has something to look at


EXPLAINED = """\
moved: mean distance of a point from the middle of its voxel's points; alone: sites without a
neighbour; sees: width of what one score of a U-Net depends on; U-Net: memory of its features"""
MIXED = "\nmixed: points whose label is not the commonest of their voxel"
WIDE = 256  # voxels: wider than what the U-Net sees


def add_info(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "info",
        help="what files hold, and which voxel size fits",
        description="Show points, extent, columns and units of files; and for several voxel sizes "
        "the active sites, the detail and the neighbours that they lose, what a U-Net sees, and "
        "its memory.",
        epilog="example: sparseconv info scan.bin --voxel-size 0.1",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--voxel-size", type=float, help="show this one alone, in the file's unit")
    parser.add_argument("--header", action="store_true", help="read the headers alone")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Describe each file."""
    for number, path in enumerate(options.files):
        say() if number else None
        if options.header:
            _header(path, options)
            continue
        points = points_in(path, options)
        _describe(path, points)
        positions = points[np.isfinite(points.xyz).all(axis=1)]
        if not len(positions):
            say("no point has a finite position")
            continue
        rows = rows_of(positions, options.voxel_size)
        _sizes(rows, points.units.get("xyz", ""))
        if options.voxel_size is None:
            say(advice(rows))


def _sizes(rows: list[VoxelSize], unit: str) -> None:
    labelled = not math.isnan(rows[0].mixed)
    cells = [
        (
            f"{row.edge:g}", f"{row.sites[0]:,}", short(row.points), short(row.moved),
            *[f"{100 * row.mixed:.1f} %"] * labelled, short(row.neighbours),
            f"{100 * row.alone:.1f} %", short(row.edge * width_seen()), size(unet_bytes(row.sites)),
        )
        for row in rows
    ]  # fmt: skip
    names = (f"size {unit}".strip(), "sites", "points/site", "moved", *["mixed"] * labelled,
             "neighbours", "alone", "sees", "U-Net")  # fmt: skip
    table("voxels", names, cells)
    say(EXPLAINED + MIXED * labelled)


@functools.cache
def width_seen() -> int:
    """Return how many voxels wide the receptive field of the U-Net of `sparseconv train` is."""
    network = UNet(1, 2, WIDTHS, convolutions=1)
    return int(receptive_field(network, (WIDE,) * 3)[-1].r[0])


def _header(path: Path, options: argparse.Namespace) -> None:
    given = {name: value for name, value in reading(options).items() if name != "label"}
    found = scan(path, **given)
    say(f"{found.name}: {found.rows:,} points, {found.header.get('format', '')}")
    table("columns", ("name", "dtype"), list(found.columns.items()))
    if found.bounds is not None:
        say(f"from {_place(found.bounds[0])} to {_place(found.bounds[1])}")


def _describe(path: Path, points: Points) -> None:
    header = points.header
    words = [f"{len(points):,} points", str(header.get("format", path.suffix)).upper()]
    if "width" in header:
        words.append(f"organised {header['width']} x {header['height']}")
    if "crs" in header:
        words.append(str(header["crs"])[:60])
    say(f"{path.name}: {', '.join(words)}, {size(path.stat().st_size)}")
    rows: list[tuple[str, ...]] = []
    for name in points.names:
        values = points[name]
        if values.dtype.kind not in "biuf":
            rows.append((name, str(values.dtype), "", "", f"{len(np.unique(values))} words"))
            continue
        numbers = values[np.isfinite(values)].astype(np.float64)
        ends = (numbers.min(), numbers.max()) if numbers.size else (np.nan, np.nan)
        note = "" if numbers.size == values.size else f"{values.size - numbers.size:,} not finite"
        if name == "label":
            kinds = len(np.unique(values))
            note = f"{kinds} class" + "es" * (kinds != 1)
        rows.append((name, str(values.dtype), *map(_number, ends), note or _unit(points, name)))
    table("columns", ("name", "dtype", "low", "high", ""), rows)
    finite = points.xyz[np.isfinite(points.xyz).all(axis=1)]
    if len(finite):
        say(f"extent {_place(finite.max(axis=0) - finite.min(axis=0))}")
    zeros = int((points.xyz == 0).all(axis=1).sum())
    if zeros > 1:
        say(f"{zeros:,} points lie at (0, 0, 0): returns without an echo?")


def _number(value: float) -> str:
    return f"{value:.9g}"


def _unit(points: Points, name: str) -> str:
    return points.units.get("xyz" if name in ("x", "y", "z") else name, "")


def _place(values: Any) -> str:
    return " x ".join(f"{float(value):.6g}" for value in values)


def rows_of(points: Points, edge: float | None = None) -> list[VoxelSize]:
    """Return what voxel sizes make of points.

    Args:
        points: with finite positions, one at least.
        edge: the only size, or None for up to six between 1/32 of the extent and the finest that
            still merges points.
    """
    if edge is not None:
        return [row_of(points, edge)]
    extent = float((points.xyz.max(axis=0) - points.xyz.min(axis=0)).max())
    exponent = int(np.floor(np.log10(max(extent, 1e-6) / COARSEST)))
    ladder = [step * 10.0**e for e in range(exponent, exponent - 5, -1) for step in STEPS[::-1]]
    ladder = [float(f"{entry:.3g}") for entry in ladder if entry <= max(extent, 1e-6) / COARSEST]
    rows: list[VoxelSize] = []
    for entry in track(ladder, "voxels"):
        row = row_of(points, entry)
        if rows and row.points < FINEST_POINTS:
            break
        rows.append(row)
    return rows[-SIZES:]


def row_of(points: Points, edge: float) -> VoxelSize:
    """Return what one voxel size makes of points with finite positions."""
    with engines.engine("torch"):  # nothing here is worth compiling kernels for
        return voxel_sizes(points, [edge], len(WIDTHS) - 1)[0]


def advice(rows: list[VoxelSize]) -> str:
    """Return which size to take, and why."""
    fitting = [row for row in rows if row.neighbours >= NEIGHBOURS]
    if not fitting:
        best = max(rows, key=lambda row: row.neighbours)
        return (
            f"take {best.edge:g}: no size gives a site {NEIGHBOURS:g} neighbours, this one comes "
            f"closest ({best.neighbours:.1f})"
        )
    best = min(fitting, key=lambda row: row.edge)
    return (
        f"take {best.edge:g}: the finest of these at which a site has {NEIGHBOURS:g} neighbours or "
        f"more ({best.neighbours:.1f}); finer voxels leave most of a 3x3x3 window empty"
    )

"""Put the points of a cloud into files, tile by tile, and read those that a tile needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sparseconv.core.arguments import Ints
from sparseconv.core.grid import Grid
from sparseconv.errors import SparseConvValueError
from sparseconv.tiles.census import Numbering, cells_of
from sparseconv.tiles.plan import Plan
from sparseconv.tiles.sources import Array, Source

_XYZ, _FEATURES, _TILES = "xyz.bin", "features.bin", "tile_of_point.bin"
_TILE_DTYPE = np.dtype(np.int32)


class Cut(NamedTuple):
    """The points that a tile reads.

    Attributes:
        cells: int64 ``[n, D]``, voxels counted from the first that the tile reads.
        features: ``[n, C]``; None where the cloud has positions alone.
        extent: voxels that the tile reads, per axis.
        grid: where they lie.
        kept: which rows lie in the core; they are in the file's order.
    """

    cells: Array
    features: Array | None
    extent: Ints
    grid: Grid
    kept: slice


def partition(source: Source, plan: Plan, folder: Path) -> None:
    """Read a source once, and write its points tile by tile, each tile's in their own order.

    Raises:
        SparseConvValueError: the source changed since its points were counted.
    """
    xyz_dtype, features_dtype = np.dtype(plan.columns.xyz), np.dtype(plan.columns.features)
    numbering, corner_numbers = _tile_numbers(plan)
    cursors = plan.starts[:-1].copy()
    with ExitStack() as stack:
        files = [stack.enter_context((folder / n).open("wb")) for n in (_XYZ, _FEATURES, _TILES)]
        for positions, features in source.parts():
            xyz = positions.astype(xyz_dtype, copy=False)
            cells = cells_of(xyz, plan.voxel_size)
            blocks = (cells - plan.low - plan.phase) // plan.core
            numbers = numbering.of(blocks)
            tiles = np.searchsorted(corner_numbers, numbers)
            known = tiles < len(corner_numbers)
            if not known.all() or (corner_numbers[tiles] != numbers).any():
                raise SparseConvValueError("source: changed while it was read")
            tiles.astype(_TILE_DTYPE).tofile(files[2])
            order = np.argsort(tiles, kind="stable")
            pieces = runs(tiles[order])
            columns = [(files[0], xyz[order])]
            if features is not None:
                columns.append((files[1], features.astype(features_dtype, copy=False)[order]))
            for tile, first, end in pieces:
                for file, rows in columns:
                    _write(file, rows[first:end], int(cursors[tile]))
                cursors[tile] += end - first
    if not np.array_equal(cursors, plan.starts[1:]):
        raise SparseConvValueError("source: changed while it was read")


def _tile_numbers(plan: Plan) -> tuple[Numbering, Array]:
    numbering = Numbering(len(plan.core))
    return numbering, numbering.of((plan.corners - plan.phase) // plan.core)


def runs(sorted_values: Array) -> Iterator[tuple[int, int, int]]:
    """Yield value, first and end of each run of equal values of a sorted array."""
    if not len(sorted_values):
        return
    ends = np.flatnonzero(np.diff(sorted_values)) + 1
    bounds = [0, *ends.tolist(), len(sorted_values)]
    for first, end in pairwise(bounds):
        yield int(sorted_values[first]), first, end


def _write(file: BinaryIO, rows: Array, first_row: int) -> None:
    """Write rows of a file of rows."""
    file.seek(first_row * rows.itemsize * rows.shape[1])
    file.write(np.ascontiguousarray(rows).data)


def cut(plan: Plan, folder: Path, number: int) -> Cut:
    """Return what a tile reads of the cloud."""
    low, high = plan.box(number)
    starts = plan.starts
    cells, features, kept = list[Array](), list[Array](), slice(0, 0)
    with ExitStack() as stack:
        xyz_file = stack.enter_context((folder / _XYZ).open("rb"))
        features_file = stack.enter_context((folder / _FEATURES).open("rb"))
        for tile in plan.read_by(number):
            rows = int(starts[tile]), int(starts[tile + 1])
            xyz = _read(xyz_file, plan.columns.xyz, len(low), rows)
            own = cells_of(xyz, plan.voxel_size) - plan.low - low
            inside = ((own >= 0) & (own < high - low)).all(axis=1)
            if tile == number:
                before = sum(map(len, cells))
                kept = slice(before, before + len(own))
            cells.append(own[inside])
            if plan.columns.channels:
                values = _read(features_file, plan.columns.features, plan.columns.channels, rows)
                features.append(values[inside])
    joined = np.concatenate(features) if features else None
    extent = tuple(int(side) for side in high - low)
    first = zip(low + plan.low, plan.voxel_size, strict=True)
    grid = Grid(tuple(float(cell * size) for cell, size in first), plan.voxel_size)
    return Cut(np.concatenate(cells), joined, extent, grid, kept)


def _read(file: BinaryIO, dtype: str, width: int, rows: tuple[int, int]) -> Array:
    kind = np.dtype(dtype)
    file.seek(rows[0] * width * kind.itemsize)
    values = np.fromfile(file, kind, (rows[1] - rows[0]) * width)
    return values.reshape(-1, width)


def tiles_in_order(folder: Path, points: int) -> Iterator[Array]:
    """Yield the tile of each point, int32, ``points`` at a time, in the source's own order."""
    with (folder / _TILES).open("rb") as file:
        while len(tiles := np.fromfile(file, _TILE_DTYPE, points)):
            yield tiles

"""Which tiles a cloud is cut into: all on one grid, and where each one's points will lie."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from sparseconv.core.arguments import Ints
from sparseconv.points.cells import rounded_box
from sparseconv.tiles.census import FAR, Census, Columns, Numbering
from sparseconv.tiles.sources import Array

MULTIPLE_OF = 16  # voxels: the whole cloud's origin and extent, as voxelize rounds them


@dataclass(frozen=True)
class Plan:
    """The tiles of a cloud.

    Attributes:
        voxel_size: metres per axis.
        low: the first voxel of the whole cloud per axis, in the sensor's frame.
        extent: voxels of the whole cloud per axis.
        core: voxels of a tile that are kept, per axis.
        before, behind: voxels that a tile reads on each side of its core, per axis.
        corners: first voxel of each tile's core in the whole cloud, one entry per axis.
        counts: points in each tile's core.
        columns: what lies on disk of each point.
    """

    voxel_size: tuple[float, ...]
    low: Ints
    extent: Ints
    core: Ints
    before: Ints
    behind: Ints
    corners: Array
    counts: Array
    columns: Columns

    @property
    def phase(self) -> Array:
        """Where cores begin in the whole cloud, but for multiples of the core."""
        corner = self.corners[0] if len(self.corners) else np.zeros(len(self.core), np.int64)
        return np.asarray(corner % self.core)

    @property
    def num_tiles(self) -> int:
        """Number of tiles that hold points."""
        return len(self.corners)

    @property
    def num_points(self) -> int:
        """Number of points of the cloud."""
        return int(self.counts.sum())

    @property
    def starts(self) -> Array:
        """Where the points of each tile begin among all, and the end, int64 ``[T + 1]``."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def box(self, number: int) -> tuple[Array, Array]:
        """Return the first voxel that a tile reads, and the one behind the last."""
        corner = self.corners[number]
        low = np.maximum(corner - self.before, 0)
        high = np.minimum(corner + self.core + np.asarray(self.behind), self.extent)
        return low, high

    def read_by(self, number: int) -> Array:
        """Return the tiles whose cores a tile reads, itself among them, ascending."""
        low, high = self.box(number)
        meets = (self.corners < high) & (self.corners + np.asarray(self.core) > low)
        return np.flatnonzero(meets.all(axis=1))

    def describe(self, number: int) -> str:
        """Return where a tile lies, in the unit of the points."""
        first = self.corners[number] + self.low
        ends = zip(first, self.core, self.voxel_size, strict=True)
        sides = [f"{a * size:g} to {(a + n) * size:g}" for a, n, size in ends]
        return f"tile {number} ({' by '.join(sides)})"

    def save(self, folder: Path) -> None:
        """Write the plan into a folder."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ARRAYS}
        (folder / "plan.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
        np.savez(folder / "tiles.npz", corners=self.corners, counts=self.counts)

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Read what :meth:`save` wrote."""
        values = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        values["columns"] = Columns(*values["columns"])
        with np.load(folder / "tiles.npz") as arrays:
            return cls(**values, **{name: arrays[name] for name in _ARRAYS})


_ARRAYS = ("corners", "counts")


def whole_box(census: Census) -> tuple[Ints, Ints]:
    """Return first voxel and extent of the whole cloud, as voxelize rounds them."""
    return rounded_box(census.low, census.high, (MULTIPLE_OF,) * len(census.low))


def make_plan(
    census: Census,
    voxel_size: tuple[float, ...],
    blocks: tuple[Ints, Ints],
    core: Ints,
    halo: tuple[Ints, Ints],
) -> Plan:
    """Return the plan of tiles of ``core`` voxels, a multiple of the blocks that were counted.

    Args:
        census: blocks and their points.
        voxel_size: metres per axis.
        blocks: edge and phase of the blocks, voxels per axis.
        core: voxels per axis.
        halo: voxels before and behind a core that are read, per axis.
    """
    edge, phase = blocks
    low, extent = whole_box(census)
    first = census.blocks.min(axis=0, initial=FAR)  # so that what fits into one tile is one
    tiles, counts = merged((census.blocks - first) // (np.asarray(core) // edge), census.counts)
    corners = tiles * core + first * edge + phase - low
    return Plan(voxel_size, low, extent, core, *halo, corners, counts, census.columns)


def merged(blocks: Array, counts: Array) -> tuple[Array, Array]:
    """Return distinct blocks, ascending, and the sum of the counts of each."""
    numbering = Numbering(blocks.shape[1])
    numbers, rows = np.unique(numbering.of(blocks), return_inverse=True)
    return numbering.blocks(numbers), np.bincount(rows, counts, len(numbers)).astype(np.int64)


def most_read(
    census: Census, weights: Array, edge: Ints, core: Ints, halo: tuple[Ints, Ints]
) -> float:
    """Return a bound of what one tile reads, where each block of a census weighs something."""
    steps = np.asarray(core) // edge
    before, behind = (-(-np.asarray(side) // edge) for side in halo)
    blocks = census.blocks - census.blocks.min(axis=0)
    tiles = blocks // steps
    inside = blocks - tiles * steps
    numbering = Numbering(len(edge))
    occupied = np.unique(numbering.of(tiles))
    read = np.zeros(len(occupied))
    # a block lies in the tile `offset` after the one that reads it
    spans = zip(-((steps - 1 + before) // steps), (steps - 1 + behind) // steps + 1, strict=True)
    for offset in itertools.product(*(range(first, end) for first, end in spans)):
        place = inside + np.asarray(offset) * steps
        near = ((place >= -before) & (place < steps + behind)).all(axis=1)
        readers = numbering.of(tiles[near] - offset)
        rows = np.searchsorted(occupied, readers)
        rows[rows == len(occupied)] = 0
        real = occupied[rows] == readers if len(rows) else rows.astype(bool)
        read += np.bincount(rows[real], weights[near][real], len(occupied))
    return float(read.max(initial=0))

"""Which tiles a cloud is cut into: all on one grid, and where each one's points will lie."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError
from sparseconv.points.cells import cells_from, lifted, rounded_box
from sparseconv.tiles.sources import Array, Source

MULTIPLE_OF = 16  # voxels: the whole cloud's origin and extent, as voxelize rounds them


class Columns(NamedTuple):
    """What a source holds of each point.

    Attributes:
        xyz: the widest of the positions' dtypes.
        channels: of the features; 0 where there are positions alone.
        features: the widest of the features' dtypes.
    """

    xyz: str
    channels: int
    features: str


class Census(NamedTuple):
    """What one reading of a source finds.

    Attributes:
        low, high: smallest and largest voxel per axis; of no point 0 and -1.
        blocks: int64 ``[B, D]``, the blocks that hold points, ascending.
        counts: int64 ``[B]``, points in each.
        sites: int64 ``[B]``, a bound of the voxels in each: those of every part, added up.
        columns: what the source holds of each point.
    """

    low: Ints
    high: Ints
    blocks: Array
    counts: Array
    sites: Array
    columns: Columns


def cells_of(xyz: Array, voxel_size: Sequence[float]) -> Array:
    """Return the voxel of each point in the points' own frame, int64 ``[n, D]``."""
    columns = []
    for axis, size in enumerate(voxel_size):
        column = torch.from_numpy(np.ascontiguousarray(xyz[:, axis]))
        columns.append(cells_from(lifted(column, size), 0.0, size).numpy())
    return np.stack(columns, axis=1).astype(np.int64)


def take_census(
    source: Source, voxel_size: Sequence[float], edge: Ints, phase: Ints, dtype: str | None = None
) -> Census:
    """Read a source once, and count the points of each block of ``edge`` voxels.

    Args:
        source: what is read.
        voxel_size: metres per axis.
        edge: voxels of a block per axis.
        phase: blocks begin at ``phase`` plus a multiple of ``edge``.
        dtype: of the positions of all parts together, where that is known: a point's own dtype
            says by how much it may have been rounded.

    Raises:
        SparseConvValueError: positions or features that are NaN or infinite, or differ in shape
            from part to part; more blocks on one axis than can be numbered.
    """
    axes = len(voxel_size)
    numbering = Numbering(axes)
    lows, highs = [np.full(axes, _FAR)], [np.full(axes, -_FAR)]
    numbers, counts = np.empty(0, np.int64), np.empty((0, 2), np.int64)
    kinds, first = _Kinds(), 0
    for xyz, features in source.parts():
        _check_part(xyz, features, first, axes)
        kinds.note(xyz, features)
        if not len(xyz):
            continue
        first += len(xyz)
        cells = cells_of(xyz if dtype is None else xyz.astype(dtype, copy=False), voxel_size)
        lows.append(np.minimum(lows.pop(), cells.min(axis=0)))
        highs.append(np.maximum(highs.pop(), cells.max(axis=0)))
        blocks = numbering.of((cells - phase) // edge)
        own, rows = np.unique(blocks, return_inverse=True)
        voxels = np.bincount(rows[distinct(cells)], minlength=len(own))
        both = np.stack([np.bincount(rows, minlength=len(own)), voxels], axis=1)
        numbers, counts = _added((numbers, counts), (own, both))
    low, high = (lows[0], highs[0]) if first else (np.zeros(axes), np.full(axes, -1))
    box = tuple(map(int, low)), tuple(map(int, high))
    if kinds.mixed and dtype is None:
        return take_census(source, voxel_size, edge, phase, kinds.found().xyz)
    return Census(*box, numbering.blocks(numbers), counts[:, 0], counts[:, 1], kinds.found())


_FAR = 2**62


def distinct(cells: Array) -> Array:
    """Return the first row of each distinct cell."""
    low, high = cells.min(axis=0), cells.max(axis=0)
    sides = [int(side) for side in high - low + 1]
    if math.prod(sides) >= _FAR:
        return np.unique(cells, axis=0, return_index=True)[1]
    return np.unique(np.ravel_multi_index(tuple((cells - low).T), sides), return_index=True)[1]


class _Kinds:
    """The dtypes and widths of the parts of a source."""

    def __init__(self) -> None:
        self.xyz: Any = np.dtype(np.float32)
        self.features: Any = np.dtype(np.float32)
        self.channels: int | None = None
        self.mixed = False

    def note(self, xyz: Array, features: Array | None) -> None:
        """Widen the dtypes to those of a part, and check that it has as many features."""
        width = 0 if features is None else features.shape[1]
        values = self.features if features is None else features.dtype
        if self.channels is None:
            self.xyz, self.features, self.channels = xyz.dtype, values, width
        if width != self.channels:
            raise SparseConvValueError(
                f"source: must have the same features in all parts, got {self.channels} and "
                f"{width} columns"
            )
        self.mixed |= self.xyz != xyz.dtype
        self.xyz = np.promote_types(self.xyz, xyz.dtype)
        self.features = np.promote_types(self.features, values)

    def found(self) -> Columns:
        """Return what all parts hold."""
        return Columns(self.xyz.str, self.channels or 0, self.features.str)


def _check_part(xyz: Array, features: Array | None, first: int, axes: int) -> None:
    if xyz.shape[1] != axes:
        raise SparseConvValueError(
            f"source: must have {axes} axes, one for each voxel size, got {xyz.shape[1]}"
        )
    wrong = {"xyz: NaN or infinite": ~np.isfinite(xyz).all(axis=1)}
    if features is not None:
        wrong["features: NaN"] = np.isnan(features).any(axis=1)
    for what, rows in wrong.items():
        if rows.any():
            raise SparseConvValueError(
                f"source: {what} in row {first + int(np.argmax(rows))} and in {rows.sum() - 1} "
                f"others of this part; keep the rows without"
            )


class Numbering:
    """Numbers of blocks that ascend as the blocks do: so many bits for each axis."""

    def __init__(self, axes: int) -> None:
        self.axes, self.bits = axes, 63 // axes
        self.middle = 1 << (self.bits - 1)

    def of(self, blocks: Array) -> Array:
        """Return the number of each block, int64 ``[n]``.

        Raises:
            SparseConvValueError: a block too far from the origin.
        """
        numbers = np.zeros(len(blocks), np.int64)
        for axis in range(self.axes):
            entries = blocks[:, axis] + self.middle
            if len(entries) and (entries.min() < 0 or entries.max() >= 2 * self.middle):
                raise SparseConvValueError(
                    f"core: a cloud may lie within {self.middle} tiles of the origin on axis "
                    f"{axis}; take a larger core or voxel size"
                )
            numbers = (numbers << self.bits) | entries
        return numbers

    def blocks(self, numbers: Array) -> Array:
        """Return the blocks of numbers, int64 ``[n, D]``."""
        shifts = [self.bits * (self.axes - 1 - axis) for axis in range(self.axes)]
        mask = (1 << self.bits) - 1
        columns = [((numbers >> shift) & mask) - self.middle for shift in shifts]
        return np.stack(columns, axis=1).astype(np.int64)


def _added(one: tuple[Array, Array], two: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the counts of both together, numbers ascending."""
    numbers, rows = np.unique(np.concatenate([one[0], two[0]]), return_inverse=True)
    counts = np.zeros((len(numbers), 2), np.int64)
    np.add.at(counts, rows, np.concatenate([one[1], two[1]]))
    return numbers, counts


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
    first = census.blocks.min(axis=0, initial=_FAR)  # so that what fits into one tile is one
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

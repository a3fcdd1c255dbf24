"""How many points and voxels lie where: what one reading of a source finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError
from sparseconv.points.cells import cells_from, lifted
from sparseconv.tiles.sources import Array, Source

FAR = 2**62


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
    lows, highs = [np.full(axes, FAR)], [np.full(axes, -FAR)]
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


def distinct(cells: Array) -> Array:
    """Return the first row of each distinct cell."""
    low, high = cells.min(axis=0), cells.max(axis=0)
    sides = [int(side) for side in high - low + 1]
    if math.prod(sides) >= FAR:
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

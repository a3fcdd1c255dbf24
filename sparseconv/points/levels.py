"""Which voxel of another level a voxel or a point lies in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import per_axis
from sparseconv.core.grid import Grid, change, paired
from sparseconv.errors import SparseConvValueError
from sparseconv.points.cells import cells_on, coarse_cells
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.sites.places import grids_of, origins_and_sizes
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


def level_of(features: Any, voxels: Sites) -> tuple[Any, Sites]:
    """Return values, and the sites that they lie on: those of a tensor, or else the voxels.

    Raises:
        SparseConvValueError: a tensor on a grid that is not known, or that layers made of another.
    """
    if not isinstance(features, SparseTensor):
        return features, voxels
    values, level = features.features, features.sites
    if level.same_as(voxels):
        return values, voxels
    if level.batch_size != voxels.batch_size:
        raise SparseConvValueError(
            f"features: must have {voxels.batch_size} samples as the map, got {level.batch_size}"
        )
    grids_of("features", level.grid)
    if level.grid is not None and voxels.grid is not None:
        for own, other in paired(level.grid, voxels.grid):
            if not own.root.agrees_with(other.root):
                raise SparseConvValueError(
                    f"features: must lie on the grid of the map or on one that layers made of it, "
                    f"which began at {other.root.origin} with edges {other.root.voxel_size}; got "
                    f"one that began at {own.root.origin} with edges {own.root.voxel_size}"
                )
    return values, level


def coarse_sites(voxels: Sites, factor: int | Sequence[int]) -> Sites:
    """Return the blocks of ``factor`` voxels per axis that hold one, ascending."""
    stride = per_axis("factor", factor, voxels.dimensions)
    cells = _blocks_of(voxels, [(stride, (0,) * len(stride))])
    shape = tuple(-(-size // step) for size, step in zip(voxels.spatial_shape, stride, strict=True))
    lower = tuple(low // step for low, step in zip(voxels.lower, stride, strict=True))
    grid = change(voxels.grid, lambda own: own.scaled(stride))
    return grouped_sites(cells, shape, voxels.batch_size, lower, grid)[0]


def rows_on_level(
    rows: Tensor, voxels: Sites, level: Sites, xyz: Tensor, samples: Tensor
) -> Tensor:
    """Return the row of the level's voxel that holds each point, int64 ``[N]``, -1 for none.

    Args:
        rows: int64 ``[N]``, the row of each point among ``voxels``; -1 stays.
        voxels: the voxels of the points.
        level: sites on a grid with the same root.
        xyz, samples: the points, which are asked where the level does not hold whole voxels.
    """
    coarse = grids_of("features", level.grid)
    blocks = [_block(*pair) for pair in paired(_fine(voxels), _few(coarse))]
    whole = [block for block in blocks if block is not None]
    if len(whole) < len(blocks):
        there = rows_of_points(xyz, samples, level)
    elif voxels.num_sites:
        there = level.rows_of(_blocks_of(voxels, whole))[0][rows]
    else:
        return rows
    return torch.where(rows < 0, -1, there)


def rows_of_points(xyz: Tensor, samples: Tensor, level: Sites) -> Tensor:
    """Return the row of the level's voxel that each point falls on, int64 ``[N]``, -1 for none."""
    cells = torch.empty(len(xyz), 1 + level.dimensions, dtype=torch.int64, device=xyz.device)
    cells[:, 0] = samples
    grids = grids_of("features", level.grid)
    for sample, grid in enumerate(grids):
        here = slice(None) if len(grids) == 1 else torch.nonzero(samples == sample)[:, 0]
        cells[here, 1:] = cells_on(grid, xyz[here])
    return level.rows_of(cells)[0]


def positions(xyz: Tensor, samples: Tensor, level: Sites) -> Tensor:
    """Return batch index and voxel coordinates float64 ``[N, 1 + D]``, differentiable in ``xyz``.

    Whole numbers are voxel centres.
    """
    origins, sizes = origins_and_sizes("features", level.grid, samples)
    return torch.cat([samples[:, None].double(), (xyz.double() - origins) / sizes - 0.5], dim=1)


_Block = tuple[Sequence[int], Sequence[int]]


def _blocks_of(voxels: Sites, blocks: Sequence[_Block]) -> Tensor:
    """Return the coordinates int64 ``[S, 1 + D]`` of the blocks that hold voxels.

    Each block is a stride and a shift; there is one for all samples, or one for each.
    """
    coords = voxels.shared_coords.long()
    if len(blocks) == 1:
        return torch.cat([coords[:, :1], coarse_cells(coords[:, 1:], *blocks[0])], dim=1)
    cells = coords.clone()
    for sample, block in enumerate(blocks):
        here = torch.nonzero(coords[:, 0] == sample)[:, 0]
        cells[here, 1:] = coarse_cells(coords[here, 1:], *block)
    return cells


def _fine(voxels: Sites) -> Grid | tuple[Grid, ...]:
    return _few(grids_of("sites", voxels.grid))


def _few(grids: list[Grid]) -> Grid | tuple[Grid, ...]:
    return grids[0] if len(grids) == 1 else tuple(grids)


def _block(fine: Grid, coarse: Grid) -> _Block | None:
    """Return stride and shift of a coarse grid over a fine one, None where they are not whole."""
    stride, shift = [], []
    for axis in range(fine.dimensions):
        size = coarse.stride[axis] / fine.stride[axis]
        steps = (coarse.shift[axis] - fine.shift[axis]) / fine.stride[axis]
        if size.denominator != 1 or steps.denominator != 1:
            return None
        stride.append(int(size))
        shift.append(int(steps))
    return stride, shift

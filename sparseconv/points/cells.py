"""Which voxel a point falls into.

A point is stored rounded: 0.35 as a float32 divided by 0.05 is 6.9999998. What lies below a face by
no more than the rounding of its own dtype belongs to the voxel above, as its decimals say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparseconv.core.grid import Floats, Grid

# Half a unit in the last place for the point, as much for a factor that it was computed with, and
# as much for an offset; then what the division in float64 rounds.
POINT_ROUNDINGS = 1.5  # times the eps of the points' dtype
DIVISION_ROUNDINGS = 2.0  # times the eps of float64
LARGEST_LIFT = 0.25  # voxels, where voxels are hardly larger than the rounding of the points
WHOLE = 1e-6  # voxels: an origin this near to a multiple of the voxel size is one

EPS = torch.finfo(torch.float64).eps
FAR = 2.0**40  # voxels, beyond every site and within int64


def lifted(axis: Tensor, size: float, offset: float = 0.0) -> Tensor:
    """Return coordinates ``[N]`` in float64, raised by what may have rounded them down.

    Args:
        axis: floating point ``[N]``, one coordinate of each point.
        size: the voxel's edge.
        offset: the origin, whose rounding counts too where it lies on no voxel's face.
    """
    share = POINT_ROUNDINGS * torch.finfo(axis.dtype).eps + DIVISION_ROUNDINGS * EPS
    exact = axis.double()
    lift = exact.abs()
    if whole_steps(offset, size) is None:
        lift.add_(DIVISION_ROUNDINGS * EPS / share * abs(offset))
    lift.clamp_(max=LARGEST_LIFT / share * size)
    return torch.add(exact, lift, alpha=share, out=lift)


def whole_steps(origin: float, size: float) -> int | None:
    """Return which multiple of the voxel size the origin is, None where it is none."""
    steps = origin / size
    if not math.isfinite(steps):
        return None
    return round(steps) if abs(steps - round(steps)) < WHOLE else None


def cells_from(axis: Tensor, origin: float, size: float) -> Tensor:
    """Turn lifted coordinates ``[N]`` into whole voxels from an origin, in their place.

    All origins on multiples of the voxel size share the same faces, bit for bit.
    """
    steps = whole_steps(origin, size)
    if steps is None:
        return axis.sub_(origin).div_(size).floor_()
    cells = axis.div_(size).floor_()
    return cells.sub_(steps) if steps else cells


def cells_on(grid: Grid, xyz: Tensor) -> Tensor:
    """Return the voxel coordinates int64 ``[N, D]`` of points ``[N, D]`` on a grid.

    On a grid that layers made of another one they are found on that one first, and then exactly.
    """
    whole = all(entry.denominator == 1 for entry in (*grid.stride, *grid.shift))
    start = grid.root if whole else grid
    columns = []
    for axis, low, size in zip(xyz.detach().unbind(1), start.origin, start.voxel_size, strict=True):
        columns.append(cells_from(lifted(axis, size, low), low, size).clamp_(-FAR, FAR).long())
    cells = torch.stack(columns, dim=1)
    if not whole or grid.base is None:
        return cells
    return coarse_cells(cells, list(map(int, grid.stride)), list(map(int, grid.shift)))


def coarse_cells(cells: Tensor, stride: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Return ``floor((cells - shift) / stride)``, int64 ``[N, D]``."""
    moved = cells - cells.new_tensor(shift)
    return moved.div(cells.new_tensor(stride), rounding_mode="floor")


def rounded_box(
    first: Sequence[int], last: Sequence[int], multiple_of: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first voxel and the extent of the box of whole multiples.

    It ends behind the last window of kernel 3, padding 1 and a stride up to the multiple, which
    reaches one step beyond the last voxel: a smaller box would cut windows that a scan has in the
    larger box of a batch.
    """
    low = tuple(start // m * m for start, m in zip(first, multiple_of, strict=True))
    ends = zip(low, last, multiple_of, strict=True)
    return low, tuple((1 - (start - end) // m) * m if end >= start else 0 for start, end, m in ends)


def origin_of(first: Sequence[int], size: Floats) -> Floats:
    """Return the low corner of a voxel on the lattice of whole multiples of the voxel size."""
    return tuple(steps * edge for steps, edge in zip(first, size, strict=True))

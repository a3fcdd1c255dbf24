"""Values of voxels at points and values of points on voxels, where voxels may have no point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import gather_rows, place_rows, reduce_groups
from sparseconv.core.arguments import came, check_tensor, is_int, is_number
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvTypeError, SparseConvValueError


def check_values(name: str, values: Any, count: int, what: str) -> None:
    """Raise unless ``values`` are a tensor with one row for each of ``count`` things."""
    check_tensor(name, values)
    if values.ndim < 1 or values.shape[0] != count:
        raise SparseConvValueError(
            f"{name}: must have one row for each of the {count} {what}, got {tuple(values.shape)}"
        )


def check_fill(fill: Any, dtype: torch.dtype) -> None:
    """Raise unless ``fill`` is a number of ``dtype``."""
    if dtype.is_floating_point or dtype.is_complex:
        if not is_number(fill):
            raise SparseConvTypeError(f"fill: must be a number, got {came(fill)}")
        return
    if dtype is torch.bool:
        legal = fill in (0, 1)
    else:
        limits = torch.iinfo(dtype)
        legal = is_int(fill) and limits.min <= fill <= limits.max
    if not legal:
        raise SparseConvValueError(f"fill: must be a value of {dtype}, got {fill!r}")


def at_points(values: Tensor, rows: Tensor, groups: Groups, fill: float) -> Tensor:
    """Return ``values`` ``[S, ...]`` at ``rows`` ``[N]``, ``fill`` where a row is negative.

    Floating point values are differentiable; the gradient of a voxel is the sum over its points in
    their own order. ``groups`` are those of the rows that are not negative.
    """
    absent = rows < 0
    if not values.is_floating_point():
        out = values.new_full((rows.numel(), *values.shape[1:]), fill)
        out[~absent] = values[rows[~absent]]
        return out
    gathered = gather_rows(values.flatten(1) if values.ndim > 1 else values[:, None], groups)
    if torch.compiler.is_compiling():  # a graph's groups leave no row out
        gathered = gathered.masked_fill(absent[:, None], fill)
    elif gathered.shape[0] != rows.numel():
        out = gathered.new_full((rows.numel(), gathered.shape[1]), fill)
        gathered = place_rows(gathered, torch.nonzero(~absent)[:, 0], out)
    return gathered.reshape(rows.numel(), *values.shape[1:])


def on_voxels(values: Tensor, groups: Groups, reduce: str) -> Tensor:
    """Return the merged rows ``[S, C]`` of point values ``[N, C]``; 0 where a voxel has none."""
    counts = groups.starts.diff()
    filled = torch.nonzero(counts)[:, 0]
    if filled.numel() == counts.numel():
        return reduce_groups(values, groups, reduce)
    number = torch.zeros_like(counts)
    number[filled] = torch.arange(filled.numel(), device=filled.device)
    starts = torch.cat([groups.starts[filled], groups.starts[-1:]])
    some = Groups(groups.order, starts, number[groups.site_of_row])
    merged = reduce_groups(values, some, reduce)
    return place_rows(merged, filled, merged.new_zeros(counts.numel(), merged.shape[1]))


def first_points(groups: Groups, at_most: int) -> tuple[Tensor, Tensor]:
    """Return the first points of each voxel, int64 ``[S, P]``, -1 where it has fewer; and counts.

    The counts ``[S]`` are at most P.
    """
    counts = groups.starts.diff().clamp(max=at_most)
    steps = torch.arange(at_most, device=counts.device)
    there = steps < counts[:, None]
    places = (groups.starts[:-1, None] + steps).clamp(max=max(groups.order.numel() - 1, 0))
    points = groups.order[places] if groups.order.numel() else places
    return torch.where(there, points, -1), counts

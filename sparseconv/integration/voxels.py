"""Points to voxels inside a compiled graph: one operator finds sites and the points of each.

Features are merged, and spread to points again, by operations of the graph, so gradients flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import reduce_groups
from sparseconv.core.arguments import came, per_axis
from sparseconv.core.handles import DOORS
from sparseconv.core.index import Groups
from sparseconv.core.private_torch import dynamic_size
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.points.point_map import PointMap
from sparseconv.points.voxels import extent_of, voxelize
from sparseconv.tensor import SparseTensor
from sparseconv.tracing.building import unknown_sites
from sparseconv.tracing.handles import owning_handle
from sparseconv.tracing.sites import Box, TracedSites


def register() -> None:
    """Let graphs find the operator."""
    DOORS.operators["voxelize"] = _voxelize


@torch.library.custom_op("sparseconv::voxels", mutates_args=())
def voxels(
    xyz: Tensor,
    features: Tensor | None,
    batch: Tensor | None,
    voxel_size: list[float],
    bounds: list[float],
    origin: list[float],
    multiple_of: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return handle and ``[S, 0]`` of the voxels, and the points of each.

    Rows int64 ``[N]``, -1 outside of the bounds; order of the points inside, starts int64
    ``[S + 1]``.
    """
    x, to_points = voxelize(
        xyz,
        voxel_size,
        features,
        batch,
        bounds or None,
        origin=origin or None,
        multiple_of=multiple_of,
    )
    order, starts, _ = to_points.groups
    if bounds:
        order = torch.nonzero(to_points.rows >= 0)[:, 0][order]
    rows = xyz.new_empty(x.num_sites, 0)
    return owning_handle(x.sites), rows, to_points.rows.clone(), order.clone(), starts.clone()


@voxels.register_fake
def _(xyz, features, batch, voxel_size, bounds, origin, multiple_of):  # type: ignore[no-untyped-def]
    count, points = dynamic_size(), xyz.shape[0]
    inside = dynamic_size() if bounds else points
    sizes = (points, inside, count + 1)
    return (
        unknown_sites(),
        xyz.new_empty(count, 0),
        *(xyz.new_empty(n, dtype=torch.int64) for n in sizes),
    )


def _voxelize(
    xyz: Any,
    features: Tensor | None,
    batch: Tensor | None,
    place: tuple[Any, Any, Any, Any],
    multiple_of: Any,
    reduce: str,
) -> tuple[SparseTensor, PointMap]:
    """Return what :func:`sparseconv.voxelize` does, for one tensor of points.

    Raises:
        SparseConvNotImplementedError: a list, a file, ``like=``.
    """
    voxel_size, bounds, origin, like = place
    if not isinstance(xyz, Tensor) or xyz.ndim != 2 or like is not None:
        what = "like=" if isinstance(xyz, Tensor) and xyz.ndim == 2 else came(xyz)
        raise SparseConvNotImplementedError(
            f"voxelize: a compiled graph takes points (N, D) with batch=, voxel_size=, and bounds= "
            f"or origin=; got {what}"
        )
    axes = xyz.shape[1]
    size, box = _numbers(voxel_size), _numbers(bounds)
    size = size * axes if len(size) == 1 else size
    multiples = list(per_axis("multiple_of", multiple_of, axes))
    handle, rows, row_of_point, order, starts = torch.ops.sparseconv.voxels(
        xyz.detach(),
        None if features is None else features.detach(),
        batch,
        size,
        box,
        _numbers(origin),
        multiples,
    )
    shape = extent_of(box[:axes], box[axes:], size) if box else None
    known = Box(shape, 1 if batch is None else None)
    sites: Any = TracedSites(handle, rows, None, axes, box=known)
    groups = Groups(order, starts, row_of_point)
    values = xyz.new_ones(xyz.shape[0], 1, dtype=torch.float32) if features is None else features
    x = SparseTensor.unchecked(reduce_groups(values, groups, reduce), sites)
    samples = torch.zeros_like(row_of_point) if batch is None else batch.long()
    return x, PointMap(row_of_point, sites, xyz, samples, None, _groups=[groups])


def _numbers(value: Any) -> list[float]:
    """Return numbers, nested or not, as one list; none for None."""
    if value is None:
        return []
    if isinstance(value, Sequence):
        return [number for entry in value for number in _numbers(entry)]
    return [float(value)]

"""Points to voxels and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.autograd import segment_gather
from sparseconv.coordinates import MAX_DIMENSIONS, Groups, grouped_sites
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.geometry import Ints
from sparseconv.segments import check_reduction, reduce_groups
from sparseconv.tensor import SparseTensor

Metres = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PointMap:
    """The way back from voxels to the points that they were made of.

    Attributes:
        rows: int64 ``[N]``, the voxel's row of each point; -1 for a point outside the bounds.
        num_sites: number of voxels S.
        origin: metres, the low corner of voxel 0 on each axis.
        voxel_size: metres per axis.
        groups: points in the order of their voxels (of the points inside the bounds).
    """

    rows: Tensor
    num_sites: int
    origin: Metres
    voxel_size: Metres
    groups: Groups

    def __call__(self, features: Tensor | SparseTensor) -> Tensor:
        """Return each point's voxel row, ``[N, C]``; zeros for points outside the bounds.

        Args:
            features: ``[S, C]``, or a SparseTensor on the voxels' sites. Gradients flow back: a
                voxel gets the sum over its points.

        Raises:
            SparseConvValueError: not one row per voxel.
        """
        values = features.features if isinstance(features, SparseTensor) else features
        if values.ndim != 2 or values.shape[0] != self.num_sites:
            raise SparseConvValueError(
                f"features: must have one row for each of the {self.num_sites} voxels, "
                f"got {tuple(values.shape)}"
            )
        inside = self.groups.site_of_row
        gathered = segment_gather(values, self.groups.order, self.groups.starts, inside)
        if inside.numel() == self.rows.numel():
            return gathered
        out = values.new_zeros(self.rows.numel(), values.shape[1])
        return out.index_copy(0, torch.nonzero(self.rows >= 0)[:, 0], gathered)


def voxelize(
    xyz: Tensor | np.ndarray[Any, Any],
    voxel_size: float | Sequence[float],
    features: Tensor | np.ndarray[Any, Any] | None = None,
    batch: Tensor | np.ndarray[Any, Any] | None = None,
    bounds: Sequence[Any] | Tensor | np.ndarray[Any, Any] | None = None,
    reduce: str = "mean",
) -> tuple[SparseTensor, PointMap]:
    """Return the voxels that points fall on, and the way back to the points.

    A point belongs to voxel ``floor((xyz - origin) / voxel_size)``, computed in float64. Without
    bounds the origin is the smallest voxel that holds a point, on the grid of whole multiples of
    ``voxel_size``, so that shifting all points by whole voxels changes nothing.

    Args:
        xyz: ``[N, D]`` points, metres, D from 1 to 4.
        voxel_size: metres, one number or one per axis.
        features: floating point ``[N, C]``; a column of ones where left out.
        batch: integer ``[N]``, the sample of each point; all in sample 0 where left out.
        bounds: ``(low, high)`` or ``(*low, *high)``, metres: points outside ``low <= xyz < high``
            are dropped and the extent is ``ceil((high - low) / voxel_size)``.
        reduce: how the features of points in one voxel merge: ``"mean"``, ``"sum"``, ``"max"``,
            ``"min"``, ``"first"`` or ``"last"``; differentiable.

    Returns:
        The SparseTensor, its sites sorted, and the :class:`PointMap`.

    Raises:
        SparseConvError: NaN or infinite points, a voxel size that is not positive, shapes that do
            not fit, voxel coordinates that cannot be packed.

    Example:
        >>> import torch, sparseconv as sc
        >>> xyz = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.1, 0.2], [2.0, 0.0, 0.0]])
        >>> x, to_points = sc.voxelize(xyz, 0.5, reduce="sum")
        >>> x.features.flatten(), to_points.rows
        (tensor([2., 1.]), tensor([0, 0, 1]))
    """
    points = torch.as_tensor(xyz)
    _check_points(points)
    check_reduction(reduce)
    size = _metres("voxel_size", voxel_size, points.shape[1])
    if not all(0 < edge < float("inf") for edge in size):
        raise SparseConvValueError(f"voxel_size: must be positive and finite, got {size}")
    values = _point_features(features, points)
    samples = _point_samples(batch, points)
    inside, cells, origin, shape = _cells(points.double(), size, bounds)
    coords = torch.cat([samples[:, None], cells], dim=1)
    if inside is not None:
        coords, values = coords[inside], values[inside]
    batch_size = int(samples.max()) + 1 if samples.numel() else 1
    sites, groups = grouped_sites(coords, shape, batch_size)
    x = SparseTensor.on_sites(reduce_groups(values, groups, reduce), sites)
    rows = groups.site_of_row
    if inside is not None:
        rows = torch.full((points.shape[0],), -1, device=points.device)
        rows[inside] = groups.site_of_row
    return x, PointMap(rows, sites.num_sites, origin, size, groups)


def _cells(points: Tensor, size: Metres, bounds: Any) -> tuple[Tensor | None, Tensor, Metres, Ints]:
    """Return which points are inside (None for all), voxel coordinates, origin and extent."""
    steps = points.new_tensor(size)
    if bounds is None:
        cells = torch.floor(points / steps)
        first = cells.amin(dim=0) if cells.shape[0] else torch.zeros_like(steps)
        cells = cells - first
        last = cells.amax(dim=0).tolist() if cells.shape[0] else [-1.0] * len(size)
        if max(last, default=0) >= 2**31:
            raise SparseConvValueError(
                f"voxel_size: the points span {max(last):.3g} voxels of {size} metres on one axis; "
                f"coordinates must lie in the int32 range"
            )
        origin = tuple((first * steps).tolist())
        return None, cells.long(), origin, tuple(int(entry) + 1 for entry in last)
    low, high = _bounds(bounds, len(size))
    # an extent of a whole number of voxels, but for rounding, is that whole number
    lengths = zip(low, high, size, strict=True)
    shape = tuple(int(np.ceil((top - bottom) / step - 1e-6)) for bottom, top, step in lengths)
    cells = torch.floor((points - points.new_tensor(low)) / steps)
    inside = (points >= points.new_tensor(low)) & (points < points.new_tensor(high))
    inside &= cells < cells.new_tensor(shape)
    chosen = inside.all(dim=1)
    return chosen, torch.where(chosen[:, None], cells, 0).long(), low, shape


def _bounds(bounds: Any, axes: int) -> tuple[Metres, Metres]:
    flat = np.asarray(bounds, dtype=np.float64).ravel()
    if flat.size != 2 * axes or not np.isfinite(flat).all():
        raise SparseConvValueError(
            f"bounds: must be (low, high) with {axes} finite numbers each, got {bounds!r}"
        )
    low, high = tuple(flat[:axes].tolist()), tuple(flat[axes:].tolist())
    if any(top <= bottom for bottom, top in zip(low, high, strict=True)):
        raise SparseConvValueError(f"bounds: high must exceed low on every axis, got {low}, {high}")
    return low, high


def _metres(name: str, value: float | Sequence[float], axes: int) -> Metres:
    entries = np.asarray(value, dtype=np.float64).ravel().tolist()
    if len(entries) == 1:
        entries = entries * axes
    if len(entries) != axes:
        raise SparseConvValueError(
            f"{name}: must be one number or {axes} (one per axis), got {len(entries)}"
        )
    return tuple(entries)


def _check_points(points: Tensor) -> None:
    if not points.is_floating_point():
        raise SparseConvTypeError(f"xyz: must be floating point, got {points.dtype}")
    if points.ndim != 2 or not 1 <= points.shape[1] <= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"xyz: must have shape (N, D) with D from 1 to {MAX_DIMENSIONS}, "
            f"got {tuple(points.shape)}"
        )
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        raise SparseConvValueError(
            f"xyz: {int((~finite).sum())} of {points.shape[0]} points are NaN or infinite; keep "
            f"those with torch.isfinite(xyz).all(dim=1)"
        )


def _point_features(features: Any, points: Tensor) -> Tensor:
    if features is None:
        return torch.ones(points.shape[0], 1, device=points.device)
    values = torch.as_tensor(features)
    if not values.is_floating_point():
        raise SparseConvTypeError(f"features: must be floating point, got {values.dtype}")
    if values.ndim != 2 or values.shape[0] != points.shape[0]:
        raise SparseConvValueError(
            f"features: must have shape (N, C) with one row per point, got "
            f"{tuple(values.shape)} for {points.shape[0]} points"
        )
    if values.device != points.device:
        raise SparseConvTypeError(
            f"features: on {values.device}, but the points are on {points.device}"
        )
    return values


def _point_samples(batch: Any, points: Tensor) -> Tensor:
    if batch is None:
        return torch.zeros(points.shape[0], dtype=torch.int64, device=points.device)
    samples = torch.as_tensor(batch)
    if samples.is_floating_point() or samples.dtype == torch.bool:
        raise SparseConvTypeError(f"batch: must be integer, got {samples.dtype}")
    if tuple(samples.shape) != (points.shape[0],):
        raise SparseConvValueError(
            f"batch: must have shape ({points.shape[0]},), one entry per point, "
            f"got {tuple(samples.shape)}"
        )
    if samples.device != points.device:
        raise SparseConvTypeError(
            f"batch: on {samples.device}, but the points are on {points.device}"
        )
    return samples.long()

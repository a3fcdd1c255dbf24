"""Voxelisers of spconv: at most so many points in each of at most so many voxels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.compat.spconv import tensorview
from sparseconv.core.arguments import check_int, check_tensor
from sparseconv.errors import SparseConvValueError


class PointToVoxel:
    """Sort points into voxels, in the order in which voxels first hold a point.

    Points outside of the range, and points of voxels or places beyond the limits, are left out.

    Args:
        vsize_xyz: voxel size per axis, in the points' unit.
        coors_range_xyz: lower bounds, then upper bounds.
        num_point_features: number of columns of a point, the coordinates first.
        max_num_voxels, max_num_points_per_voxel: the limits.
        device: of the points.

    Example:
        >>> import torch
        >>> gen = PointToVoxel([1.0, 1.0], [0, 0, 4, 4], 2, 10, 3)
        >>> voxels, indices, counts = gen(torch.tensor([[0.5, 2.5], [3.5, 0.5], [0.6, 2.1]]))
        >>> indices, counts
        (tensor([[2, 0],
                [0, 3]], dtype=torch.int32), tensor([2, 1], dtype=torch.int32))
    """

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.ndim = len(vsize_xyz)
        if len(coors_range_xyz) != 2 * self.ndim:
            raise SparseConvValueError(
                f"coors_range_xyz: must have {2 * self.ndim} entries, lower bounds and upper "
                f"bounds, got {len(coors_range_xyz)}"
            )
        self.device = torch.device(device)
        self.num_point_features = check_int("num_point_features", num_point_features, self.ndim)
        self.max_num_voxels = check_int("max_num_voxels", max_num_voxels, 1)
        self.max_num_points_per_voxel = check_int(
            "max_num_points_per_voxel", max_num_points_per_voxel, 1
        )
        sizes, bounds = (np.asarray(v, np.float32) for v in (vsize_xyz, coors_range_xyz))
        cells = np.round((bounds[self.ndim :] - bounds[: self.ndim]) / sizes).astype(np.int64)
        # zyx, as the indices are
        self.vsize, self.grid_size = sizes[::-1].tolist(), cells[::-1].tolist()
        self.coors_range = [
            *bounds[: self.ndim][::-1].tolist(),
            *bounds[self.ndim :][::-1].tolist(),
        ]

    def __call__(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return voxels, indices and numbers of points; see :meth:`generate_voxel_with_id`."""
        voxels, indices, counts, _ = self.generate_voxel_with_id(pc, clear_voxels, empty_mean)
        return voxels, indices, counts

    def generate_voxel_with_id(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the voxels of points, and the voxel of each point.

        Args:
            pc: ``[N, num_point_features]``, the coordinates first, in the order xyz.
            clear_voxels: taken without effect: places without a point are 0 each time.
            empty_mean: whether places without a point hold the mean of their voxel instead.

        Returns:
            points of each voxel ``[V, P, num_point_features]``; its indices int32 ``[V, D]`` in
            the order zyx; its number of points int32 ``[V]``; the voxel of each point int64
            ``[N]``, -1 for a point that none holds.
        """
        check_tensor("pc", pc)
        if pc.ndim != 2 or pc.shape[1] != self.num_point_features:
            raise SparseConvValueError(
                f"pc: must have shape (N, {self.num_point_features}), got {tuple(pc.shape)}"
            )
        with torch.no_grad():
            rows, cells = self._cells(pc)
            voxel, first, place = self._numbered(cells)
            kept = voxel < self.max_num_voxels
            voxel_of_point = pc.new_full((pc.shape[0],), -1, dtype=torch.int64)
            voxel_of_point[rows[kept]] = voxel[kept]
            count = min(first.numel(), self.max_num_voxels)
            indices = self._unravelled(cells[first[:count]])
            stored = kept & (place < self.max_num_points_per_voxel)
            shape = (count, self.max_num_points_per_voxel, self.num_point_features)
            voxels = pc.new_zeros(shape)
            voxels[voxel[stored], place[stored]] = pc[rows[stored]]
            counts = torch.bincount(voxel[stored], minlength=count)
            if empty_mean:
                mean = voxels.sum(dim=1) / counts[:, None].to(voxels.dtype)
                free = torch.arange(shape[1], device=pc.device) >= counts[:, None]
                voxels = torch.where(free[..., None], mean[:, None], voxels)
            return voxels, indices, counts.int(), voxel_of_point

    def _cells(self, pc: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the points in the range, and the number of each one's cell."""
        coordinates = pc[:, : self.ndim].flip(1).float()
        lower = torch.tensor(self.coors_range[: self.ndim], device=pc.device)
        sizes = torch.tensor(self.vsize, device=pc.device)
        grid = torch.tensor(self.grid_size, device=pc.device)
        cells = ((coordinates - lower) / sizes).floor()
        inside = ((cells >= 0) & (cells < grid)).all(dim=1)
        rows = torch.nonzero(inside)[:, 0]
        numbers = cells[rows].long()
        key = numbers[:, 0]
        for axis in range(1, self.ndim):
            key = key * self.grid_size[axis] + numbers[:, axis]
        return rows, key

    def _numbered(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each point's voxel, the first point of each voxel, and each point's place in it.

        Voxels are numbered in the order of their first points.
        """
        unique, group = torch.unique(cells, return_inverse=True)
        order = torch.argsort(group, stable=True)
        counts = torch.bincount(group, minlength=unique.numel())
        starts = counts.cumsum(0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel(), device=order.device) - starts[group[order]]
        firsts, by_first = torch.sort(order[starts])
        number = torch.empty_like(by_first)
        number[by_first] = torch.arange(by_first.numel(), device=order.device)
        return number[group], firsts, place

    def _unravelled(self, cells: Tensor) -> Tensor:
        """Return the indices int32 ``[V, D]`` of cells."""
        columns = []
        for size in reversed(self.grid_size):
            columns.append(cells % size)
            cells = cells // size
        return torch.stack(columns[::-1], dim=1).int()


def gather_features_by_pc_voxel_id(
    seg_res_features: Tensor, pc_voxel_id: Tensor, invalid_value: float = 0
) -> Tensor:
    """Return the voxels' rows at the points.

    Args:
        seg_res_features: ``[V, ...]``.
        pc_voxel_id: int64 ``[N]`` of :meth:`PointToVoxel.generate_voxel_with_id`.
        invalid_value: for points that no voxel holds.

    Returns:
        ``[N, ...]``.
    """
    voxel = pc_voxel_id.to(seg_res_features.device)
    points = seg_res_features.new_full((voxel.shape[0], *seg_res_features.shape[1:]), invalid_value)
    held = torch.nonzero(voxel >= 0)[:, 0]
    return points.index_put((held,), seg_res_features[voxel[held]])


class _Point2Voxel:
    """A :class:`PointToVoxel` that takes and returns arrays of ``cumm.tensorview``."""

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
    ) -> None:
        """Make the voxeliser; arguments as of :class:`PointToVoxel`."""
        limits = max_num_voxels, max_num_points_per_voxel
        self._made = PointToVoxel(vsize_xyz, coors_range_xyz, num_point_features, *limits)

    @property
    def grid_size(self) -> list[int]:
        """Number of cells per axis, zyx."""
        return list(self._made.grid_size)

    def point_to_voxel(
        self, points: Any, clear_voxels: bool = True
    ) -> tuple[tensorview.Tensor, tensorview.Tensor, tensorview.Tensor]:
        """Return voxels, indices and numbers of points."""
        return self._voxels(points, empty_mean=False)

    def point_to_voxel_empty_mean(
        self, points: Any, clear_voxels: bool = True
    ) -> tuple[tensorview.Tensor, tensorview.Tensor, tensorview.Tensor]:
        """Return the same, with the mean of each voxel in its places without a point."""
        return self._voxels(points, empty_mean=True)

    def _voxels(
        self, points: Any, empty_mean: bool
    ) -> tuple[tensorview.Tensor, tensorview.Tensor, tensorview.Tensor]:
        pc = torch.from_numpy(np.ascontiguousarray(tensorview.array_of(points)))
        found = self._made(pc, empty_mean=empty_mean)
        voxels, indices, counts = (tensorview.Tensor(entry.numpy()) for entry in found)
        return voxels, indices, counts


class Point2VoxelCPU1d(_Point2Voxel):
    """Voxeliser of points on one axis."""


class Point2VoxelCPU2d(_Point2Voxel):
    """Voxeliser of points on two axes."""


class Point2VoxelCPU3d(_Point2Voxel):
    """Voxeliser of points on three axes."""


class Point2VoxelCPU4d(_Point2Voxel):
    """Voxeliser of points on four axes."""


class _OnDevice(_Point2Voxel):
    def point_to_voxel_hash(
        self, points: Any, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[tensorview.Tensor, tensorview.Tensor, tensorview.Tensor]:
        """Return voxels, indices and numbers of points."""
        return self._voxels(points, empty_mean)


class Point2VoxelGPU1d(_OnDevice):
    """Voxeliser of points on one axis, as spconv names the one for CUDA."""


class Point2VoxelGPU2d(_OnDevice):
    """Voxeliser of points on two axes, as spconv names the one for CUDA."""


class Point2VoxelGPU3d(_OnDevice):
    """Voxeliser of points on three axes, as spconv names the one for CUDA."""


class Point2VoxelGPU4d(_OnDevice):
    """Voxeliser of points on four axes, as spconv names the one for CUDA."""


__all__ = [
    "Point2VoxelCPU1d",
    "Point2VoxelCPU2d",
    "Point2VoxelCPU3d",
    "Point2VoxelCPU4d",
    "Point2VoxelGPU1d",
    "Point2VoxelGPU2d",
    "Point2VoxelGPU3d",
    "Point2VoxelGPU4d",
    "PointToVoxel",
    "gather_features_by_pc_voxel_id",
    "nullcontext",
]

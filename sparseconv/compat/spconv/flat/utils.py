"""The voxelisers of spconv 1.x, which take and return NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sparseconv.compat.spconv.voxels import PointToVoxel
from sparseconv.core.dtypes import Array


class VoxelGenerator:
    """Sort points into at most ``max_voxels`` voxels of at most ``max_num_points`` points.

    Args:
        voxel_size: per axis, xyz.
        point_cloud_range: lower bounds, then upper bounds, xyz.
        max_num_points, max_voxels: the limits.
        full_mean: whether places without a point hold the mean of their voxel.
    """

    def __init__(
        self,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        max_num_points: int,
        max_voxels: int = 20000,
        full_mean: bool = False,
    ) -> None:
        self.voxel_size = np.array(voxel_size, dtype=np.float32)
        self.point_cloud_range = np.array(point_cloud_range, dtype=np.float32)
        self.max_num_points_per_voxel = max_num_points
        self._max_voxels, self._full_mean = max_voxels, full_mean
        axes = len(self.voxel_size)
        extent = self.point_cloud_range[axes:] - self.point_cloud_range[:axes]
        self.grid_size = np.round(extent / self.voxel_size).astype(np.int64)

    def generate(self, points: Array, max_voxels: int | None = None) -> Any:
        """Return voxels ``[V, P, F]``, coordinates zyx ``[V, 3]``, numbers of points ``[V]``."""
        limits = max_voxels or self._max_voxels, self.max_num_points_per_voxel
        ranges = self.voxel_size.tolist(), self.point_cloud_range.tolist()
        maker = PointToVoxel(*ranges, points.shape[1], *limits)
        pc = torch.from_numpy(np.ascontiguousarray(points))
        return tuple(found.numpy() for found in maker(pc, empty_mean=self._full_mean))


class VoxelGeneratorV2(VoxelGenerator):
    """The same with its results in a dict."""

    def generate(self, points: Array, max_voxels: int | None = None) -> Any:
        """Return ``voxels``, ``coordinates`` and ``num_points_per_voxel`` by name."""
        voxels, coordinates, counts = super().generate(points, max_voxels)
        return {
            "voxels": voxels,
            "coordinates": coordinates,
            "num_points_per_voxel": counts,
            "voxel_point_mask": np.arange(voxels.shape[1]) < counts[:, None],
        }


__all__ = ["VoxelGenerator", "VoxelGeneratorV2"]

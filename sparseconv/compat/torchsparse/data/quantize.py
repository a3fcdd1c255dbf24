"""Points made voxels, one row for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.errors import SparseConvValueError


def ravel_hash(x: Array) -> Array:
    """Return the number of each row of integers in the box around all rows, uint64 ``[N]``."""
    moved = (x - x.min(axis=0)).astype(np.uint64)
    keys = np.zeros(len(x), dtype=np.uint64)
    for column, size in zip(moved.T, moved.max(axis=0) + np.uint64(1), strict=True):
        keys = keys * size + column
    return keys


def sparse_quantize(
    coords: Any,
    voxel_size: Any = 1,
    *,
    return_index: bool = False,
    return_inverse: bool = False,
) -> Any:
    """Return the voxels that points fall into, int32 ``[M, 3]``, ascending.

    Args:
        coords: ``[N, 3]``.
        voxel_size: edge of a voxel, or one per axis.
        return_index: whether to return the first row of each voxel.
        return_inverse: whether to return the voxel of each row.

    Returns:
        The voxels, or a list of them and what was asked for.
    """
    points = np.asarray(coords)
    sizes = (voxel_size,) * 3 if isinstance(voxel_size, (int, float)) else tuple(voxel_size)
    if points.ndim != 2 or points.shape[1] != len(sizes):
        raise SparseConvValueError(f"coords: must have shape (N, {len(sizes)}), got {points.shape}")
    voxels = np.floor(points / np.array(sizes)).astype(np.int32)
    found, index, inverse = np.unique(voxels, axis=0, return_index=True, return_inverse=True)
    outputs = [found] + [index] * return_index + [inverse.reshape(-1)] * return_inverse
    return outputs[0] if len(outputs) == 1 else outputs


__all__ = ["sparse_quantize"]

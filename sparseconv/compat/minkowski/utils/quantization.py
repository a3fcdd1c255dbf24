"""Continuous coordinates made sites, one row for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.compat.minkowski.manager import CoordinateManager
from sparseconv.core.arguments import check_kind
from sparseconv.errors import SparseConvTypeError, SparseConvValueError


def sparse_quantize(
    coordinates: Any,
    features: Any = None,
    labels: Any = None,
    ignore_label: int = -100,
    return_index: bool = False,
    return_inverse: bool = False,
    return_maps_only: bool = False,
    quantization_size: Any = None,
    device: Any = "cpu",
) -> Any:
    """Return the sites that coordinates fall on, in the order in which they come first.

    Args:
        coordinates: ``[N, D]``, a tensor or an array.
        features: ``[N, C]``; the first row of each site is kept.
        labels: ``[N]`` of integers; a site with several gets ``ignore_label``.
        ignore_label: as said.
        return_index: whether to return the first row of each site, int64 ``[M]``.
        return_inverse: whether to return the site of each row, int64 ``[N]``.
        return_maps_only: whether to return these two alone.
        quantization_size: edge of a site, or one per axis; 1 where left out.
        device: where the sites lie.

    Returns:
        The sites, int32 ``[M, D]``, and the others of these that were asked for or given, in this
        order. Arrays with labels stay arrays.

    Raises:
        SparseConvError: coordinates, features or labels of another kind or shape.
    """
    check_kind("coordinates", coordinates, (Tensor, np.ndarray), "a tensor or an array")
    if coordinates.ndim != 2:
        raise SparseConvValueError(
            f"coordinates: must have shape (N, D), got {tuple(coordinates.shape)}"
        )
    for name, rows in (("features", features), ("labels", labels)):
        if rows is not None and len(rows) != len(coordinates):
            raise SparseConvValueError(
                f"{name}: must have one entry for each of {len(coordinates)} rows, got {len(rows)}"
            )
    sites: Any = _divided(coordinates, quantization_size).to(device)
    kept, rows = _first_rows(sites)
    as_arrays = labels is not None and isinstance(coordinates, np.ndarray)
    maps: list[Any] = [kept, rows]
    if as_arrays:
        sites, maps = sites.numpy(), [entry.numpy() for entry in maps]
    asked = maps[:1] * return_index + maps[1:] * return_inverse
    if return_maps_only:
        found = maps[: 1 + return_inverse]
    else:
        found = [sites[maps[0]]]
        if features is not None:
            found.append(features[_index_for(features, kept)])
        if labels is not None:
            found.append(_labels(labels, kept, rows, ignore_label))
        found += asked
    return found[0] if len(found) == 1 else tuple(found)


def _divided(coordinates: Any, size: Any) -> Tensor:
    """Return the sites of coordinates, int32 ``[N, D]``."""
    points = torch.as_tensor(coordinates)
    if size is None:
        return points.floor().int() if points.is_floating_point() else points.int()
    if isinstance(size, (Sequence, np.ndarray, Tensor)):
        if len(size) != points.shape[1]:
            raise SparseConvValueError(
                f"quantization_size: must have {points.shape[1]} entries, got {len(size)}"
            )
        size = torch.tensor([float(edge) for edge in size], dtype=torch.float64).to(
            points.dtype if points.is_floating_point() else torch.float32
        )
    return torch.floor(points / size).int()


def _first_rows(sites: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row of each site, and the site of each row."""
    batch = torch.nn.functional.pad(sites, (1, 0))
    return CoordinateManager(sites.shape[1]).insert_and_map(batch)[1]


def _index_for(features: Any, kept: Tensor) -> Any:
    return kept.numpy(force=True) if isinstance(features, np.ndarray) else kept.to(features.device)


def _labels(labels: Any, kept: Tensor, rows: Tensor, ignore_label: int) -> Any:
    """Return the label of each site, of the kind of ``labels``."""
    given = torch.as_tensor(labels)
    if given.is_floating_point():
        raise SparseConvTypeError(f"labels: must be integers, got {given.dtype}")
    first = given[kept.to(given.device)]
    differ = given != first[rows.to(given.device)]
    found = first.clone()
    found[rows.to(given.device)[differ]] = ignore_label
    return found.numpy() if isinstance(labels, np.ndarray) else found


def unique_coordinate_map(coordinates: Tensor, tensor_stride: Any = 1) -> tuple[Tensor, Tensor]:
    """Return the first row of each site of ``[N, 1 + D]``, and the site of each row."""
    manager = CoordinateManager(coordinates.shape[1] - 1)
    return manager.insert_and_map(coordinates, tensor_stride)[1]


def fnv_hash_vec(arr: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the FNV-1 hash of each row of integers, uint64 ``[N]``."""
    hashed = np.full(len(arr), 14695981039346656037, dtype=np.uint64)
    for column in arr.astype(np.int64).view(np.uint64).T:
        hashed = (hashed * np.uint64(1099511628211)) ^ column
    return hashed


def ravel_hash_vec(arr: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of each row in the box around all rows, uint64 ``[N]``."""
    moved = (arr - arr.min(0)).astype(np.uint64)
    keys = np.zeros(len(arr), dtype=np.uint64)
    for column, size in zip(moved.T, moved.max(0) + np.uint64(1), strict=True):
        keys = keys * size + column
    return keys


__all__ = ["fnv_hash_vec", "ravel_hash_vec", "sparse_quantize", "unique_coordinate_map"]

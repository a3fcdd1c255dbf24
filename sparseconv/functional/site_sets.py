"""Tensors on different sites, and samples put together: union, concatenation, batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.coordinates import grouped_sites, sites_from_coords
from sparseconv.dispatch import implements
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites import Sites
from sparseconv.tensor import SparseTensor


class Union(NamedTuple):
    """The sites of two sets together, sorted, and where each set's rows went."""

    sites: Sites
    rows: Tensor
    other_rows: Tensor


def unite(sites: Sites, other: Sites) -> Union:
    """Return the union of two site sets of one extent.

    Raises:
        SparseConvValueError: their grids differ; SparseConvTypeError: their devices do.
    """
    check_same_grid(sites, other)
    coords = torch.cat([sites.coords, other.coords.to(sites.coords.dtype)])
    lower = tuple(map(min, sites.lower, other.lower))
    united, groups = grouped_sites(coords, sites.spatial_shape, sites.batch_size, lower)
    rows, other_rows = groups.site_of_row.split([sites.num_sites, other.num_sites])
    return Union(united, rows, other_rows)


def check_same_grid(sites: Sites, other: Sites) -> None:
    """Raise unless both sets live on one device and one grid."""
    if sites.device != other.device:
        raise SparseConvTypeError(f"other: on {other.device}, but the input is on {sites.device}")
    grids = [(entry.batch_size, *entry.spatial_shape) for entry in (sites, other)]
    if grids[0] != grids[1]:
        raise SparseConvValueError(
            f"other: lives on a grid (batch, *spatial) of {grids[1]}, the input on {grids[0]}"
        )


def spread(features: Tensor, rows: Tensor, num_sites: int) -> Tensor:
    """Return ``features`` ``[N, C]`` at ``rows`` of ``[num_sites, C]``, zero elsewhere."""
    return features.new_zeros(num_sites, features.shape[1]).index_copy(0, rows, features)


@implements(torch.cat)
def cat(tensors: Sequence[SparseTensor], dim: int = 1) -> SparseTensor:
    """Concatenate channels (``dim=1``) of tensors on the same sites, or batches (``dim=0``).

    Args:
        tensors: at least one SparseTensor; for ``dim=1`` all on the same set of sites (their rows
            may be ordered differently: the result has the first one's order).
        dim: 1 or 0.

    Raises:
        SparseConvValueError: sites that differ, or another ``dim``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1], [0, 2]]))
        >>> sc.cat([x, x]).channels
        6
    """
    tensors = list(tensors)
    for entry in tensors:
        if not isinstance(entry, SparseTensor):
            raise SparseConvTypeError(
                f"tensors: must all be SparseTensors, got {type(entry).__name__}"
            )
    if not tensors:
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    first = tensors[0]
    axis = dim + first.ndim if dim < 0 else dim
    if axis == 0:
        for entry in tensors[1:]:
            if entry.spatial_shape != first.spatial_shape:
                raise SparseConvValueError(
                    f"tensors: spatial shapes differ, {first.spatial_shape} and "
                    f"{entry.spatial_shape}; sparseconv.collate takes the larger extent"
                )
        return collate(tensors)
    if axis != 1:
        raise SparseConvValueError(
            f"dim: sparse tensors concatenate along 0 (samples) or 1 (channels), got {dim}"
        )
    return first.replace(torch.cat([_rows_as(first.sites, entry) for entry in tensors], dim=1))


def _rows_as(sites: Sites, x: SparseTensor) -> Tensor:
    """Return the features of ``x`` in the row order of ``sites``, which hold the same set."""
    if sites.same_as(x.sites):
        return x.features
    check_same_grid(sites, x.sites)
    rows, found = x.sites.rows_of(sites.coords)
    if x.num_sites != sites.num_sites or not bool(found.all()):
        raise SparseConvValueError(
            f"tensors: must live on the same sites to join channels, got {sites} and {x.sites}; "
            f"x + y takes the union of different sites"
        )
    return x.features[rows]


def collate(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Put samples into one batch, in the order given.

    Args:
        tensors: SparseTensors with equal channels, dtype and number of axes; each may hold several
            samples. The result's extent is the largest per axis.

    Raises:
        SparseConvValueError, SparseConvTypeError: nothing to collate, or tensors that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 3), torch.tensor([[0, 1]]))
        >>> sc.collate([x, x]).shape
        torch.Size([2, 3, 2])
    """
    tensors = list(tensors)
    if not tensors:
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    first = tensors[0]
    for entry in tensors:
        if not isinstance(entry, SparseTensor):
            raise SparseConvTypeError(
                f"tensors: must all be SparseTensors, got {type(entry).__name__}"
            )
        if (entry.ndim, entry.channels) != (first.ndim, first.channels):
            raise SparseConvValueError(
                f"tensors: axes or channels differ, {tuple(first.shape)} and {tuple(entry.shape)}"
            )
        if (entry.dtype, entry.device) != (first.dtype, first.device):
            raise SparseConvTypeError(
                f"tensors: dtypes or devices differ, {first.dtype} on {first.device} and "
                f"{entry.dtype} on {entry.device}"
            )
    shape = tuple(map(max, *(entry.spatial_shape for entry in tensors), first.spatial_shape))
    lower = tuple(map(min, *(entry.sites.lower for entry in tensors), first.sites.lower))
    coords, offset = [], 0
    for entry in tensors:
        moved = entry.coords.to(first.coords.dtype, copy=True)
        moved[:, 0] += offset
        coords.append(moved)
        offset += entry.batch_size
    sites = sites_from_coords(torch.cat(coords), shape, offset, lower)
    return SparseTensor.on_sites(torch.cat([entry.features for entry in tensors]), sites)

"""Tensors put together: channels beside channels, samples behind samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseconv.autograd.elementwise import joined
from sparseconv.core.arguments import check_kind
from sparseconv.core.dispatch import implements
from sparseconv.core.grid import behind
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.site_sets.sets import common_sites, filled
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


def cat(tensors: Sequence[SparseTensor], dim: int = 1, fill: float | None = None) -> SparseTensor:
    """Concatenate channels (``dim=1``), or batches (``dim=0``).

    Args:
        tensors: at least one SparseTensor; for ``dim=1`` all on the same set of sites (their rows
            may be ordered differently: the result has the first one's order), unless ``fill`` is
            given.
        dim: 1 or 0.
        fill: the number that stands for the channels of a tensor at the sites that it does not
            have; the result then has the union of the sites, sorted.

    Raises:
        SparseConvValueError: sites that differ without a ``fill``, a ``fill`` along ``dim=0``, or
            another ``dim``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1], [0, 2]]))
        >>> sc.cat([x, x]).channels
        6
    """
    tensors = _checked_list(tensors)
    first = tensors[0]
    axis = dim + first.ndim if dim < 0 else dim
    if axis not in (0, 1):
        raise SparseConvValueError(
            f"dim: sparse tensors concatenate along 0 (samples) or 1 (channels), got {dim}"
        )
    if axis == 0:
        if fill is not None:
            raise SparseConvValueError("fill: samples need none; it is for channels (dim=1)")
        for entry in tensors[1:]:
            if entry.spatial_shape != first.spatial_shape:
                raise SparseConvValueError(
                    f"tensors: spatial shapes differ, {first.spatial_shape} and "
                    f"{entry.spatial_shape}; sparseconv.collate takes the larger extent"
                )
        return collate(tensors)
    if fill is not None:
        sites, rows_of = common_sites(tensors)
        count = sites.num_sites
        columns = [
            filled(x.features, rows, count, fill) for x, rows in zip(tensors, rows_of, strict=True)
        ]
        return SparseTensor.on_sites(joined(columns), sites)
    return first.replace(joined([_features_on(first.sites, entry) for entry in tensors]))


@implements(
    torch.cat,
    torch.concat,
    torch.concatenate,
    meaning="channels side by side (dim=1) or samples one after another (dim=0)",
    law="dense law; dim=1 on different sites has their union, where an absent row counts 0",
)
def _sparse_cat(
    tensors: Sequence[SparseTensor], dim: int = 0, *, axis: int | None = None, out: None = None
) -> SparseTensor:
    """Join tensors with PyTorch's own default: samples. Channels that a site lacks are 0."""
    if out is not None:
        raise SparseConvTypeError("out: nothing sparse is written in place; leave it out")
    dim = dim if axis is None else axis
    return cat(tensors, dim, fill=0 if _is_channel_axis(tensors, dim) else None)


def _is_channel_axis(tensors: Sequence[SparseTensor], dim: int) -> bool:
    return dim % _checked_list(tensors)[0].ndim == 1


def _features_on(sites: Sites, x: SparseTensor) -> Tensor:
    """Return the features of ``x`` in the row order of ``sites``, which hold the same set."""
    if sites.same_as(x.sites):
        return x.features
    rows = sites.rows_in(x.sites)
    if rows is None or x.num_sites != sites.num_sites:
        raise SparseConvValueError(
            f"tensors: must live on the same sites to join channels, got {sites} and {x.sites}; "
            f"sparseconv.cat(tensors, fill=0) takes the union of different sites"
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
    tensors = _checked_list(tensors)
    first = tensors[0]
    for entry in tensors:
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
    grid = behind([x.grid for x in tensors], [x.batch_size for x in tensors])
    sites = sites_from_coords(torch.cat(coords), shape, offset, lower, grid=grid)
    return SparseTensor.on_sites(torch.cat([entry.features for entry in tensors]), sites)


def _checked_list(tensors: Sequence[SparseTensor]) -> list[SparseTensor]:
    """Return the list, which holds at least one SparseTensor and nothing else."""
    check_kind("tensors", tensors, list | tuple, "a list or tuple of SparseTensors")
    for entry in tensors:
        check_kind("tensors", entry, SparseTensor, "SparseTensors alone")
    if not tensors:
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    return list(tensors)

"""Tensors put together: channels beside channels, samples behind samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparseconv.autograd.elementwise import joined
from sparseconv.core.arguments import check_device, check_kind
from sparseconv.core.dispatch import implements
from sparseconv.core.grid import agree
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvTypeError,
    SparseConvValueError,
)
from sparseconv.functional.site_sets.broadcast import dense_rows
from sparseconv.functional.site_sets.parts import joined_along
from sparseconv.functional.site_sets.permuted import axis_number
from sparseconv.functional.site_sets.sets import common_sites, filled
from sparseconv.functional.site_sets.shapes import shape_function
from sparseconv.points.batches import joined_maps
from sparseconv.points.point_map import PointMap
from sparseconv.sites.batches import joined_samples
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

Batch = TypeVar("Batch", SparseTensor, PointMap)


def cat(tensors: Sequence[SparseTensor], dim: int = 1, fill: float | None = None) -> SparseTensor:
    """Concatenate channels (``dim=1``), batches (``dim=0``), or a spatial axis.

    Args:
        tensors: at least one SparseTensor; for ``dim=1`` all on the same set of sites (their rows
            may be ordered differently: the result has the first one's order), unless ``fill`` is
            given. A dense tensor among them gives its channels at these sites; along other axes it
            has the sites of :meth:`SparseTensor.from_dense`.
        dim: the axis.
        fill: the number that stands for the channels of a tensor at the sites that it does not
            have; the result then has the union of the sites, sorted.

    Raises:
        SparseConvValueError: sites that differ without a ``fill``, a ``fill`` along another axis,
            shapes that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1], [0, 2]]))
        >>> sc.cat([x, x]).channels
        6
    """
    operands = _checked_operands(tensors)
    axis = axis_number("dim", dim, operands[0].ndim)
    if axis == 1:
        return _channels_side_by_side(operands, fill)
    if fill is not None:
        raise SparseConvValueError("fill: is for channels (dim=1), other axes need none")
    tensors = [SparseTensor.from_dense(x) if isinstance(x, Tensor) else x for x in operands]
    if axis == 0:
        for entry in tensors[1:]:
            _check_behind(tensors[0], entry)
        return collate(tensors)
    return joined_along(tensors, axis - 2)


def _check_behind(first: SparseTensor, entry: SparseTensor) -> None:
    """Raise where a tensor of samples has another extent or grid than the one before it."""
    if entry.sites.ends[1:] != first.sites.ends[1:]:
        raise SparseConvValueError(
            f"tensors: spatial shapes differ, {first.spatial_shape} and {entry.spatial_shape}; "
            f"sparseconv.collate takes the larger extent"
        )
    grids = first.grid, entry.grid
    if not any(isinstance(grid, tuple) for grid in grids) and not agree(*grids):
        raise SparseConvValueError(
            f"tensors: lie on different grids, {first.grid} and {entry.grid}; sparseconv.collate "
            f"keeps a grid for each sample"
        )


def _channels_side_by_side(
    operands: Sequence[SparseTensor | Tensor], fill: float | None
) -> SparseTensor:
    """Return the channels of all operands, those of dense ones at the sites of the others."""
    tensors = [entry for entry in operands if isinstance(entry, SparseTensor)]
    if fill is None:
        sites = tensors[0].sites
        columns = [_features_on(sites, entry) for entry in tensors]
    else:
        sites, rows_of = common_sites(tensors)
        count = sites.num_sites
        columns = [
            filled(x.features, rows, count, fill) for x, rows in zip(tensors, rows_of, strict=True)
        ]
    rest = iter(columns)
    rows = [_dense_at(x, sites) if isinstance(x, Tensor) else next(rest) for x in operands]
    return SparseTensor.on_sites(joined(rows), sites)


def _dense_at(t: Tensor, sites: Sites) -> Tensor:
    """Return the channels ``[N, C]`` of a dense tensor at sites of its own grid."""
    check_device("tensors", t, sites.device, "first SparseTensor")
    if (t.shape[0], *t.shape[2:]) != sites.dense_extent:
        raise SparseConvValueError(
            f"tensors: a dense one must have the grid (batch, *spatial) of the others, "
            f"{sites.dense_extent}, got shape {tuple(t.shape)}"
        )
    return dense_rows(t, sites).expand(sites.num_sites, -1)


@implements(
    torch.cat,
    torch.concat,
    torch.concatenate,
    meaning="channels side by side (dim=1), samples or cells of an axis one after another",
    law="dense law; dim=1 on different sites has their union, where an absent row counts 0, and "
    "takes dense tensors at these sites",
)
def _sparse_cat(tensors: Sequence[SparseTensor], dim: int = 0, *, out: None = None) -> SparseTensor:
    """Join tensors with PyTorch's own default: samples. Channels that a site lacks are 0."""
    if out is not None:
        raise SparseConvTypeError("out: nothing sparse is written in place; leave it out")
    return cat(tensors, dim, fill=0 if _is_channel_axis(tensors, dim) else None)


@shape_function(
    torch.stack,
    meaning="tensors along a new axis, which is not the first",
    law="dense law, as unsqueeze and cat",
)
def _stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    check_kind("tensors", tensors, list | tuple, "a list or tuple of SparseTensors")
    if not tensors:
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    place = axis_number("dim", dim, tensors[0].ndim + 1)
    if place == 0:
        raise SparseConvNotImplementedError(
            "dim: use torch.cat(dim=1) for channels or sparseconv.collate for samples; a new axis "
            "is not the first"
        )
    return torch.cat([entry.unsqueeze(place) for entry in tensors], place)


def _is_channel_axis(tensors: Sequence[SparseTensor], dim: int) -> bool:
    return axis_number("dim", dim, _checked_operands(tensors)[0].ndim) == 1


def _features_on(sites: Sites, x: SparseTensor) -> Tensor:
    """Return the features of ``x`` in the row order of ``sites``, which hold the same set."""
    if sites.same_as(x.sites):
        return x.features
    rows = sites.rows_in(x.sites)
    if rows is None or x.num_sites != sites.num_sites:
        raise SparseConvValueError(
            f"tensors: give fill=0 for the union of their sites; without it they must live on the "
            f"same sites, {sites.num_sites} on a grid (batch, *spatial) of {sites.dense_extent}, "
            f"got {x.num_sites} on {x.sites.dense_extent}"
        )
    return x.features[rows]


def collate(tensors: Sequence[Batch]) -> Batch:
    """Put samples into one batch, in the order given.

    Args:
        tensors: SparseTensors with equal channels, dtype and number of axes; each may hold several
            samples. The result's extent is the largest per axis, and each sample keeps its grid.
            Or PointMaps, for the map of the batch.

    Raises:
        SparseConvValueError, SparseConvTypeError: nothing to collate, or tensors that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 3), torch.tensor([[0, 1]]))
        >>> sc.collate([x, x]).shape
        torch.Size([2, 3, 2])
    """
    if isinstance(tensors, list | tuple) and tensors and isinstance(tensors[0], PointMap):
        for entry in tensors:
            check_kind("tensors", entry, PointMap, "all PointMaps or all SparseTensors")
        whole: Any = joined_maps(tensors, _collated)
    else:
        whole = _collated(tensors)
    batch: Batch = whole
    return batch


def _collated(tensors: Any) -> SparseTensor:
    """Return the batch of SparseTensors, see :func:`collate`."""
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
    sites = joined_samples([entry.sites for entry in tensors])
    return SparseTensor.on_sites(torch.cat([entry.features for entry in tensors]), sites)


def _checked_operands(tensors: Sequence[SparseTensor | Tensor]) -> list[SparseTensor | Tensor]:
    """Return the list of tensors of either kind, at least one of them sparse."""
    check_kind("tensors", tensors, list | tuple, "a list or tuple of SparseTensors")
    for entry in tensors:
        check_kind("tensors", entry, SparseTensor | Tensor, "SparseTensors or dense tensors")
    if not any(isinstance(entry, SparseTensor) for entry in tensors):
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    return list(tensors)


def _checked_list(tensors: Sequence[SparseTensor]) -> list[SparseTensor]:
    """Return the list, which holds at least one SparseTensor and nothing else."""
    check_kind("tensors", tensors, list | tuple, "a list or tuple of SparseTensors")
    for entry in tensors:
        check_kind("tensors", entry, SparseTensor, "SparseTensors alone")
    if not tensors:
        raise SparseConvValueError("tensors: must hold at least one SparseTensor")
    return list(tensors)

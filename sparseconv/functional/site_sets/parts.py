"""Parts of a tensor along one axis, and parts put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import check_int
from sparseconv.core.grid import change
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.axes import (
    Frame,
    check_closed,
    frame_of,
    grouped_rows,
    sites_in,
)
from sparseconv.functional.site_sets.permuted import axis_number, held, shown, shown_axes
from sparseconv.functional.site_sets.shapes import shape_function
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@shape_function(
    torch.narrow,
    meaning="a part of one axis: cells, channels or samples",
    law="dense law: sites outside are left out, the others move",
)
def narrow(input: Any, dim: int, start: int, length: int) -> Any:
    """Return the cells ``start`` to ``start + length`` of one axis, from 0 on."""
    place = axis_number("dim", dim, input.ndim)
    extent = input.shape[place]
    first, count = check_int("start", start, least=-extent), check_int("length", length, least=0)
    first = first + extent if first < 0 else first
    if first + count > extent:
        raise SparseConvValueError(
            f"length: must end within the axis's extent of {extent}, got start {first} and "
            f"length {count}"
        )
    values, channel_dim = held(input)
    axis = shown_axes(values.ndim, channel_dim)[place]
    if axis == 0:
        return shown(values[first : first + count], channel_dim)
    if axis == 1:
        return shown(values.replace(values.features[:, first : first + count]), channel_dim)
    check_closed(values, (axis - 2,), "dim")
    return shown(_cut(values, axis - 2, first, count), channel_dim)


@shape_function(
    torch.select,
    meaning="one cell of an axis, which goes",
    law="dense law: sites outside are left out; of the last spatial axis a plain tensor",
)
def _select(input: Any, dim: int, index: int) -> Any:
    place = axis_number("dim", dim, input.ndim)
    cell = axis_number("index", index, input.shape[place])
    return narrow(input, place, cell, 1).squeeze(place)


@shape_function(
    torch.unbind,
    meaning="the cells of one axis, each without it",
    law="dense law",
)
def _unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    place = axis_number("dim", dim, input.ndim)
    if place == 0:
        raise SparseConvValueError(
            "dim: x.split() gives the samples; unbind takes the axes from 1 on, which go"
        )
    return tuple(input.select(place, cell) for cell in range(input.shape[place]))


def parts_of(
    function: Callable[..., Any], input: SparseTensor, sizes: Any, dim: int
) -> tuple[SparseTensor, ...]:
    """Return what ``torch.split`` or ``torch.chunk`` cut from any axis.

    Raises:
        SparseConvValueError: sizes that do not add up to the axis.
    """
    place = axis_number("dim", dim, input.ndim)
    if place == 0:
        raise SparseConvValueError(
            f"dim: on a SparseTensor this cuts spatial axes or the channels, dim=1, got {dim}; "
            f"x.split() gives the samples, x[a:b] some of them"
        )
    extent = input.shape[place]
    try:
        lengths = [len(part) for part in function(torch.empty(extent, 0), sizes, 0)]
    except (TypeError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SparseConvValueError(
            f"{function.__name__}: {sizes!r} does not cut {extent} "
            f"{'channels' if place == 1 else 'cells'}: {reason}"
        ) from error
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return tuple(
        narrow(input, place, start, length) for start, length in zip(starts, lengths, strict=True)
    )


def _cut(x: SparseTensor, axis: int, start: int, length: int) -> SparseTensor:
    """Return the cells ``start`` to ``start + length`` of a spatial axis, rows in their order."""
    shape, lower, grid, _ = frame_of(x.sites)
    steps = [-start if number == axis else 0 for number in range(len(shape))]
    moved = change(grid, lambda own: own.moved(steps).cut((axis,) if length < shape[axis] else ()))
    frame = Frame((*shape[:axis], length, *shape[axis + 1 :]), lower, moved)

    def build(sites: Sites) -> tuple[Sites, Tensor]:
        coords = sites.coords
        coords[:, 1 + axis] -= start
        inside = (coords[:, 1 + axis] >= 0) & (coords[:, 1 + axis] < length)
        rows = torch.nonzero(inside)[:, 0]
        return sites_in(frame, coords[rows], sites.batch_size), rows

    sites, rows = x.sites.derived(("narrow", axis, start, length), build)
    return SparseTensor.on_sites(x.features[rows], sites)


def joined_along(tensors: Sequence[SparseTensor], axis: int) -> SparseTensor:
    """Return tensors one after another along a spatial axis, whose other extents are the same.

    Raises:
        SparseConvValueError: extents, samples or channels that differ, an axis without an end.
    """
    first = tensors[0]
    coords, offset = [], 0
    for x in tensors:
        check_closed(x, (axis,), "dim")
        sizes, wanted = list(x.shape), list(first.shape)
        sizes[2 + axis] = wanted[2 + axis] = 0
        if sizes != wanted:
            raise SparseConvValueError(
                f"tensors: must have the same shape but for axis {2 + axis}, got "
                f"{tuple(first.shape)} and {tuple(x.shape)}"
            )
        moved = x.coords.long()
        moved[:, 1 + axis] += offset
        coords.append(moved)
        offset += x.spatial_shape[axis]
    shape, lower, *_ = frame_of(first.sites)
    frame = Frame((*shape[:axis], offset, *shape[axis + 1 :]), lower)
    sites, rows = grouped_rows(torch.cat(coords), frame, first.batch_size)
    return SparseTensor.on_sites(torch.cat([x.features for x in tensors])[rows], sites)

"""Axes renamed as of a dense tensor: permute, transpose, squeeze, unsqueeze, flatten, unflatten."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints, check_int, entries_of
from sparseconv.core.dispatch import implements
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvTypeError,
    SparseConvValueError,
)
from sparseconv.functional.site_sets.axes import (
    axes_to_channels,
    channels_to_axes,
    merged_axes,
    permuted_axes,
    split_axis,
    with_axis,
    without_axes,
)
from sparseconv.functional.site_sets.permuted import (
    axis_number,
    held,
    on_permuted,
    shown,
    shown_axes,
)
from sparseconv.tensor import SparseTensor

_LAW = "dense law: coordinates move, features stay"


def shape_function(
    *functions: Callable[..., Any], meaning: str, law: str = _LAW
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of tensors of both kinds: channels at axis 1 or elsewhere."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        on_permuted(*functions)(lambda function, args, kwargs: handler(*args, **kwargs))
        return implements(*functions, meaning=meaning, law=law)(handler)

    return register


@shape_function(
    torch.permute,
    meaning="the axes in another order; channels may go to any place but the first",
    law="dense law; where channels leave axis 1, LayerNorm, Linear and functions of single values "
    "take the result as it is, and for others the values move",
)
def _permute(input: Any, *dims: Any) -> Any:
    order = axes_of("dims", dims, input.ndim)
    if sorted(order) != list(range(input.ndim)):
        raise SparseConvValueError(
            f"dims: must name each of the {input.ndim} axes once, got {tuple(order)}"
        )
    return in_order(input, order)


@shape_function(torch.transpose, torch.swapaxes, torch.swapdims, meaning="two axes change places")
def _transpose(input: Any, dim0: int, dim1: int) -> Any:
    first, second = (
        axis_number(name, dim, input.ndim) for name, dim in (("dim0", dim0), ("dim1", dim1))
    )
    order = list(range(input.ndim))
    order[first], order[second] = second, first
    return in_order(input, order)


@shape_function(torch.movedim, torch.moveaxis, meaning="some axes at other places")
def _movedim(input: Any, source: Any, destination: Any) -> Any:
    sources = axes_of("source", (source,), input.ndim)
    targets = axes_of("destination", (destination,), input.ndim)
    if len(sources) != len(targets):
        raise SparseConvValueError(
            f"destination: must name as many axes as source, got {len(targets)} and {len(sources)}"
        )
    order = [axis for axis in range(input.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return in_order(input, order)


def in_order(input: Any, order: Sequence[int]) -> Any:
    """Return the tensor with its axes in another order."""
    if order[0] != 0:
        raise SparseConvNotImplementedError(
            f"dims: samples stay axis 0 of a SparseTensor, got {tuple(order)}; use x.dense()"
        )
    values, channel_dim = held(input)
    axes = shown_axes(values.ndim, channel_dim)
    axes = [axes[axis] for axis in order]
    spatial = [axis - 2 for axis in axes if axis > 1]
    moved = permuted_axes(values, spatial)
    return shown(moved, None if channel_dim is None else axes.index(1))


@shape_function(
    torch.squeeze,
    meaning="the tensor without axes of extent 1; of the last spatial axis a plain tensor",
)
def _squeeze(input: Any, *dims: Any, dim: Any = None) -> Any:
    shape = input.shape
    if not dims and dim is None:
        chosen = [axis for axis, size in enumerate(shape) if size == 1]
        if 0 in chosen:
            raise SparseConvValueError(
                "dim: name the axes to squeeze, the batch of one sample must stay"
            )
    else:
        chosen = axes_of("dim", dims or (dim,), input.ndim)
    values, channel_dim = held(input)
    axes = shown_axes(values.ndim, channel_dim)
    gone = [axis for axis in chosen if shape[axis] == 1 and _has_end(values, axes[axis])]
    if 0 in gone:
        raise SparseConvNotImplementedError(
            "dim: samples stay axis 0 of a SparseTensor; use x.features, or x.dense()"
        )
    spatial = [axes[axis] - 2 for axis in gone if axes[axis] > 1]
    if channel_dim in gone:
        channel_dim = None
    elif channel_dim is not None:
        channel_dim -= sum(axis < channel_dim for axis in gone)
    if spatial and len(spatial) == values.ndim - 2:
        rows = values.dense().flatten(1)
        return rows[:, 0] if channel_dim is None else rows
    return shown(without_axes(values, spatial) if spatial else values, channel_dim)


def _has_end(values: SparseTensor, axis: int) -> bool:
    return axis < 2 or values.sites.lower[axis - 2] == 0


@shape_function(torch.unsqueeze, meaning="a new axis of extent 1")
def _unsqueeze(input: Any, dim: int) -> Any:
    place = axis_number("dim", dim, input.ndim + 1)
    if place == 0:
        raise SparseConvNotImplementedError(
            "dim: samples stay axis 0 of a SparseTensor; sparseconv.collate puts samples together"
        )
    values, channel_dim = held(input)
    if channel_dim is None:
        return shown(values, place)
    behind = place > channel_dim
    wider = with_axis(values, place - 1 - behind)
    return shown(wider, channel_dim + (not behind))


@shape_function(
    torch.flatten,
    meaning="neighbouring axes as one, the last one fastest; with the channels, cells of the axes "
    "become channels",
    law="dense law, an inactive site counts 0; the whole, from 1 to -1, is a plain tensor and "
    "takes a spatial extent of 1, as after global pooling",
)
def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    start = axis_number("start_dim", start_dim, input.ndim)
    end = axis_number("end_dim", end_dim, input.ndim)
    if start == 0 or start > end:
        raise SparseConvValueError(
            f"start_dim, end_dim: a SparseTensor keeps its samples and flattens axes from 1 on, "
            f"got {start_dim}, {end_dim}; x.flatten(1) flattens each sample"
        )
    if start == end:
        return input
    values, channel_dim = held(input)
    if (start, end) == (1, input.ndim - 1):
        return _whole(values)
    if channel_dim is None or not start <= channel_dim <= end:
        behind = channel_dim is not None and channel_dim < start
        merged = merged_axes(values, start - 1 - behind, end - 1 - behind)
        if channel_dim is not None and not behind:
            channel_dim -= end - start
        return shown(merged, channel_dim)
    chosen = list(range(start - 1, end - 1))  # the spatial axes among them
    rest = [axis for axis in range(values.ndim - 2) if axis not in chosen]
    before = channel_dim - start
    wide, sites = axes_to_channels(permuted_axes(values, chosen + rest), before, end - channel_dim)
    return wide if sites is None else shown(SparseTensor.on_sites(wide, sites), start)


def _whole(values: SparseTensor) -> Tensor:
    """Return the rows ``[B, C]`` of a tensor that has one cell for each sample."""
    if any(size != 1 for size in values.spatial_shape) or any(values.sites.lower):
        raise SparseConvNotImplementedError(
            f"flatten: pool globally first, or use x.dense().flatten(1): the whole of a sample "
            f"takes a spatial extent of 1, got {values.spatial_shape}"
        )
    return values.dense().flatten(1)


@shape_function(
    torch.unflatten,
    torch.Tensor.unflatten,
    meaning="one axis as several, the last one fastest; of the channels the first stays channels",
    law="dense law; channels that become axes make every cell of them a site",
)
def _unflatten(input: Any, dim: int, sizes: Any) -> Any:
    place = axis_number("dim", dim, input.ndim)
    if place == 0:
        raise SparseConvNotImplementedError("dim: samples stay axis 0 of a SparseTensor")
    parts = _checked_sizes("sizes", sizes, (input.shape[place],))
    values, channel_dim = held(input)
    if place != channel_dim:
        behind = channel_dim is not None and channel_dim < place
        split = split_axis(values, place - 1 - behind, parts)
        if channel_dim is not None and not behind:
            channel_dim += len(parts) - 1
        return shown(split, channel_dim)
    if len(parts) == 1:
        return input
    wide = channels_to_axes(values, parts[1:])
    new, count = range(len(parts) - 1), wide.ndim - 2
    order = list(range(len(new), count))
    order[channel_dim - 1 : channel_dim - 1] = new
    return shown(permuted_axes(wide, order), channel_dim)


@shape_function(
    torch.reshape,
    torch.Tensor.view,
    torch.Tensor.reshape,
    meaning="axes joined and split, where samples stay axis 0",
    law="as flatten and unflatten",
)
def _reshape(input: Any, *shape: Any) -> Any:
    entries = entries_of(shape[0]) if len(shape) == 1 else shape
    sizes = _checked_sizes("shape", shape if entries is None else entries, input.shape)
    if not sizes or sizes[0] != input.shape[0]:
        raise SparseConvNotImplementedError(
            f"shape: use x.features or x.dense(); samples stay axis 0 of a SparseTensor, so "
            f"{tuple(input.shape)} cannot become {sizes}"
        )
    result, place = input, 1
    for count, parts in _groups(tuple(input.shape[1:]), sizes[1:]):
        if count > 1:
            result = result.flatten(place, place + count - 1)
        if len(parts) > 1:
            result = result.unflatten(place, parts)
        place += len(parts)
    return result


def _groups(before: Ints, after: Ints) -> list[tuple[int, Ints]]:
    """Return how many neighbouring axes become which others, from the first axes to the last."""
    groups: list[tuple[int, Ints]] = []
    start = stop = first = last = 0
    while start < len(before) and first < len(after):
        stop, last = start + 1, first + 1
        while True:
            old, new = math.prod(before[start:stop]), math.prod(after[first:last])
            if old == new:
                break
            stop, last = (stop + 1, last) if old < new else (stop, last + 1)
            if stop > len(before) or last > len(after):  # an extent of 0: all that is left
                stop, last = len(before), len(after)
                break
        groups.append((stop - start, after[first:last]))
        start, first = stop, last
    # extents of 1 that are left on either side
    if groups and (start, first) != (len(before), len(after)):
        count, parts = groups.pop()
        groups.append((count + len(before) - start, parts + after[first:]))
    return groups


def _checked_sizes(name: str, sizes: Any, shape: Sequence[int]) -> Ints:
    """Return extents that hold as many cells as ``shape``; one of them may be -1."""
    entries = entries_of(sizes)
    if entries is None or not entries:
        raise SparseConvTypeError(f"{name}: must be a tuple of ints, got {sizes!r}")
    parts = [check_int(name, entry, least=-1) for entry in entries]
    cells = math.prod(shape)
    if parts.count(-1) == 1:
        known = math.prod(size for size in parts if size != -1)
        parts[parts.index(-1)] = cells // known if known else -1
    if -1 in parts or math.prod(parts) != cells:
        raise SparseConvValueError(
            f"{name}: must hold as many cells as {tuple(shape)}, got {tuple(entries)}; "
            f"or use x.features"
        )
    return tuple(parts)


def axes_of(name: str, dims: Sequence[Any], count: int) -> list[int]:
    """Return axes that were given one by one, or as one sequence; none of them twice."""
    entries = entries_of(dims[0]) if len(dims) == 1 else None
    chosen = [axis_number(name, axis, count) for axis in (dims if entries is None else entries)]
    if len(set(chosen)) != len(chosen):
        raise SparseConvValueError(f"{name}: names an axis twice, {tuple(chosen)}")
    return chosen

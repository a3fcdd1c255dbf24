"""Spatial axes moved, dropped, put in, joined and split: coordinates move and features stay.

Sites that are made here are kept on those that they were made of, so tensors that shared sites
share them afterwards, and layers find their rulebooks again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.autograd.segments import place_rows
from sparseconv.core.arguments import Ints
from sparseconv.core.dtypes import INT32
from sparseconv.core.grid import Grids, change
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.coordinates import MAX_DIMENSIONS, grouped_sites, sites_from_coords
from sparseconv.sites.samples import Samples
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


class Lines(NamedTuple):
    """The sites that remain when axes are reduced, and the rows that fall on each of them.

    Attributes:
        sites: the remaining ones, ascending.
        samples: the rows of each, in ascending order of their own sites.
    """

    sites: Sites
    samples: Samples


class Frame(NamedTuple):
    """The box that sites lie in.

    Attributes:
        shape: extent, one int per axis.
        lower: smallest legal coordinate, one int per axis.
        grid: where the sites lie in the world, None where nobody knows.
        inferred: whether nobody gave the extent.
    """

    shape: Ints
    lower: Ints
    grid: Grids = None
    inferred: bool = False

    def picked(self, axes: Sequence[int]) -> Frame:
        """Return the frame of some axes, in their order."""
        shape, lower = (tuple(entry[axis] for axis in axes) for entry in self[:2])
        return Frame(shape, lower, change(self.grid, lambda own: own.axes(axes)), self.inferred)

    def reduced(self, kept: Sequence[bool]) -> Frame:
        """Return the frame in which one cell takes the place of every axis that is not kept."""
        shape = tuple(size if stays else 1 for size, stays in zip(self.shape, kept, strict=True))
        lower = tuple(low if stays else 0 for low, stays in zip(self.lower, kept, strict=True))
        ends = zip(self.shape, self.lower, kept, strict=True)
        if any(not stays and (size == 0 or low < 0) for size, low, stays in ends):
            return Frame(shape, lower)
        factors = [1 if stays else size for size, stays in zip(self.shape, kept, strict=True)]
        return Frame(shape, lower, change(self.grid, lambda own: own.scaled(factors)))


def frame_of(sites: Sites) -> Frame:
    """Return the frame of all axes."""
    return Frame(sites.spatial_shape, sites.lower, sites.grid, sites.inferred)


def check_closed(input: SparseTensor, axes: Sequence[int], name: str) -> None:
    """Raise unless the spatial ``axes`` have two ends."""
    for axis in axes:
        if input.sites.lower[axis] < 0:
            raise SparseConvValueError(
                f"{name}: axis {2 + axis} of the tensor has no end; sparseconv.crop(x, low, high) "
                f"gives it two"
            )


def rearranged(
    input: SparseTensor,
    key: Hashable,
    frame: Frame,
    columns: Callable[[Tensor], Sequence[Tensor]],
) -> SparseTensor:
    """Return the features of ``input`` at sites whose coordinates are made of the old ones.

    Args:
        input: the tensor.
        key: by which the sites are found again.
        frame: of the result.
        columns: takes the old spatial coordinates int64 ``[N, D]``, returns the new ones by axis.
    """

    def build(sites: Sites) -> Sites:
        coords = sites.shared_coords
        spatial = [column.to(coords.dtype) for column in columns(coords[:, 1:].long())]
        moved = torch.stack([coords[:, 0], *spatial], dim=1)
        return sites_in(frame, moved, sites.batch_size)

    return SparseTensor.unchecked(input.features, input.sites.derived(key, build))


def sites_in(frame: Frame, coords: Tensor, batch_size: int) -> Sites:
    """Return the sites at ``coords`` ``[N, 1 + D]``, rows as given, in a frame."""
    shape, lower, grid, inferred = frame
    return sites_from_coords(coords, shape, batch_size, lower, grid=grid, inferred=inferred)


def permuted_axes(input: SparseTensor, order: Sequence[int]) -> SparseTensor:
    """Return the tensor whose spatial axis ``i`` is the old ``order[i]``."""
    order = tuple(order)
    if order == tuple(range(len(order))):
        return input
    frame = frame_of(input.sites).picked(order)
    return rearranged(input, ("permute", order), frame, lambda old: old[:, order].unbind(1))


def without_axes(input: SparseTensor, axes: Sequence[int]) -> SparseTensor:
    """Return the tensor without spatial axes of extent 1, of which at least one more is left."""
    rest = tuple(axis for axis in range(input.ndim - 2) if axis not in axes)
    frame = frame_of(input.sites).picked(rest)
    return rearranged(input, ("drop", rest), frame, lambda old: old[:, rest].unbind(1))


def with_axis(input: SparseTensor, place: int) -> SparseTensor:
    """Return the tensor with a new spatial axis of extent 1 at ``place``."""
    if input.ndim - 2 >= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"dim: a SparseTensor has at most {MAX_DIMENSIONS} spatial axes, got {input.ndim - 2} "
            f"and one more"
        )
    shape, lower, *_ = frame_of(input.sites)
    box = (*shape[:place], 1, *shape[place:]), (*lower[:place], 0, *lower[place:])
    frame = Frame(*box, inferred=input.sites.inferred)

    def columns(old: Tensor) -> list[Tensor]:
        parts = list(old.unbind(1))
        parts.insert(place, torch.zeros_like(parts[0]))
        return parts

    return rearranged(input, ("insert", place), frame, columns)


def merged_axes(input: SparseTensor, first: int, last: int) -> SparseTensor:
    """Return the tensor whose spatial axes ``first`` to ``last`` are one, the last one fastest."""
    merged = range(first, last + 1)
    check_closed(input, merged, "start_dim, end_dim")
    shape, lower, *_ = frame_of(input.sites)
    length = math.prod(shape[axis] for axis in merged)
    _check_length("start_dim, end_dim", length)
    frame = Frame(
        (*shape[:first], length, *shape[last + 1 :]), (*lower[:first], 0, *lower[last + 1 :])
    )

    def columns(old: Tensor) -> list[Tensor]:
        parts = list(old.unbind(1))
        return [*parts[:first], _numbered(parts, shape, merged), *parts[last + 1 :]]

    return rearranged(input, ("merge", first, last), frame, columns)


def split_axis(input: SparseTensor, axis: int, sizes: Ints) -> SparseTensor:
    """Return the tensor whose spatial ``axis`` is several, of ``sizes``, the last one fastest."""
    check_closed(input, (axis,), "dim")
    shape, lower, *_ = frame_of(input.sites)
    zeros = (0,) * len(sizes)
    frame = Frame(
        (*shape[:axis], *sizes, *shape[axis + 1 :]), (*lower[:axis], *zeros, *lower[axis + 1 :])
    )

    def columns(old: Tensor) -> list[Tensor]:
        parts = list(old.unbind(1))
        inner = _steps(sizes)
        split = [parts[axis] // step % size for step, size in zip(inner, sizes, strict=True)]
        return [*parts[:axis], *split, *parts[axis + 1 :]]

    return rearranged(input, ("split", axis, sizes), frame, columns)


def channels_to_axes(input: SparseTensor, sizes: Ints) -> SparseTensor:
    """Return ``[B, C, *sizes, *spatial]`` of ``[B, C * prod(sizes), *spatial]``.

    Each site becomes one per cell of the new axes.
    """
    count = math.prod(sizes)
    shape, lower, *_ = frame_of(input.sites)
    frame = Frame((*sizes, *shape), (*(0,) * len(sizes), *lower))

    def build(sites: Sites) -> tuple[Sites, Tensor]:
        coords = sites.shared_coords
        cells = [torch.arange(size, device=coords.device) for size in sizes]
        grid = torch.cartesian_prod(*cells).reshape(-1, len(sizes)).to(coords.dtype)
        parts = coords[:, None, :1], grid[None], coords[:, None, 1:]
        wide = torch.cat([part.expand(len(coords), count, -1) for part in parts], dim=2)
        return grouped_rows(wide.flatten(0, 1), frame, sites.batch_size)

    target, rows = input.sites.derived(("channels", sizes), build)
    values = input.features.unflatten(1, (-1, count)).transpose(1, 2).flatten(0, 1)
    return SparseTensor.on_sites(values[rows], target)


def axes_to_channels(input: SparseTensor, before: int, after: int) -> tuple[Tensor, Sites | None]:
    """Return the features ``[S, A * C * B]`` of a tensor whose first axes are among its channels.

    Args:
        input: ``[B, C, *axes, *rest]``.
        before: how many of the axes vary more slowly than the channels, A cells.
        after: how many of them vary faster, B cells.

    Returns:
        The features and the sites of the rest; ``[batch, A * C * B]`` and None where no axis is
        left.
    """
    count = before + after
    check_closed(input, range(count), "dim")
    shape = input.spatial_shape
    slow, fast = math.prod(shape[:before]), math.prod(shape[before:count])
    rest = range(count, len(shape))
    coords = input.sites.shared_coords.long()
    sites, group, groups = None, coords[:, 0], input.batch_size
    if rest:
        sites, by_line = input.sites.derived(
            ("project", tuple(rest)), lambda own: _projected(own, rest, keepdim=False)
        )
        group, groups = by_line.site_of_row, sites.num_sites
    cells = groups * slow * fast
    if cells * max(input.channels, 1) >= 2**48:
        raise SparseConvValueError(
            f"dim: the axes of extent {shape[:count]} would give {cells:.3g} cells of "
            f"{input.channels} channels, more than any memory"
        )
    place = group * (slow * fast) + _numbered(coords[:, 1:].unbind(1), shape, range(count))
    flat = place_rows(input.features, place, input.features.new_zeros(cells, input.channels))
    wide = flat.reshape(groups, slow, fast, input.channels).transpose(2, 3)
    return wide.flatten(1), sites


def grouped_rows(coords: Tensor, frame: Frame, batch_size: int) -> tuple[Sites, Tensor]:
    """Return the sites of ``coords``, ascending, and the row that lies on each; all differ."""
    shape, lower, grid, _ = frame
    sites, groups = grouped_sites(coords, shape, batch_size, lower, grid)
    return sites, groups.order


def lines_of(input: SparseTensor, axes: Sequence[int], keepdim: bool) -> Lines:
    """Return the lines along the spatial ``axes``, which are not all of them.

    Args:
        input: the tensor.
        axes: the spatial axes that a reduction runs over.
        keepdim: whether these axes stay, with extent 1.
    """
    rest = tuple(axis for axis in range(input.ndim - 2) if axis not in axes)

    def build(sites: Sites) -> Lines:
        remaining, groups = _projected(sites, rest, keepdim)
        rows = sites.row_order
        if rows is None:
            return Lines(remaining, _samples(groups, groups.order))
        # within a line in ascending order of the sites, whatever the order of the rows
        order = torch.sort(groups.site_of_row[rows], stable=True).indices
        return Lines(remaining, _samples(groups, rows[order]))

    return input.sites.derived(("lines", rest, keepdim), build)


def _samples(groups: Groups, order: Tensor) -> Samples:
    numbers = tuple(groups.starts.diff().tolist())
    return Samples(order, groups.site_of_row, numbers, order.device)


def _projected(sites: Sites, rest: Sequence[int], keepdim: bool) -> tuple[Sites, Groups]:
    """Return the sites on the axes that are left, and which rows fall on each."""
    coords, frame = sites.shared_coords, frame_of(sites)
    if keepdim:
        kept = [axis in rest for axis in range(sites.dimensions)]
        coords, frame = coords * coords.new_tensor([True, *kept]), frame.reduced(kept)
    else:
        coords, frame = coords[:, [0, *(1 + axis for axis in rest)]], frame.picked(rest)
    shape, lower, grid, _ = frame
    return grouped_sites(coords, shape, sites.batch_size, lower, grid)


def _numbered(parts: Sequence[Tensor], shape: Ints, axes: Sequence[int]) -> Tensor:
    """Return the row-major number of each site's cell on some axes."""
    number = torch.zeros_like(parts[0])
    for axis in axes:
        number = number * shape[axis] + parts[axis]
    return number


def _steps(sizes: Ints) -> list[int]:
    """Return by how much one step on each of several axes changes their row-major number."""
    return list(itertools.accumulate((1, *sizes[:0:-1]), lambda a, b: a * b))[::-1]


def _check_length(name: str, length: int) -> None:
    if length > INT32.max:
        raise SparseConvValueError(
            f"{name}: the axis would have an extent of {length}, beyond the int32 range"
        )

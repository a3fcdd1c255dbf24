"""Operands that are smaller than the tensor that they meet: axes of extent 1 repeat.

A smaller operand acts at the active sites of the larger one, as a number does, and counts 0 where
it has no site itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.autograd.samples import sample_spread
from sparseconv.autograd.segments import gather_rows, group_rows, place_rows
from sparseconv.core.grid import agree
from sparseconv.core.private_torch import outside_transforms
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.axes import Frame, grouped_rows
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


class Repeats(NamedTuple):
    """Along which spatial axes each of two tensors repeats; samples never do."""

    first: tuple[bool, ...]
    second: tuple[bool, ...]


def repeats(x: Sites, y: Sites) -> Repeats | None:
    """Return the spatial axes on which one of two sets has extent 1 and the other has not.

    None where there is no such axis, or another one in which they differ, or the batch does.
    """
    if torch.compiler.is_compiling():
        return _repeats_in_graph(x, y)
    if x.dense_extent == y.dense_extent:
        return None
    if None not in (x.grid, y.grid) and agree(x.grid, y.grid):
        return None  # one place in the world: an extent of 1 is no gate
    if (x.dimensions, x.batch_size) != (y.dimensions, y.batch_size):
        return None
    lower = zip(x.lower, y.lower, strict=True)
    both = list(zip(x.spatial_shape, y.spatial_shape, lower, strict=True))
    first = tuple(a == 1 != b and not low for a, b, (low, _) in both)
    second = tuple(b == 1 != a and not low for a, b, (_, low) in both)
    if any(a != b and not (f or s) for (a, b, _), f, s in zip(both, first, second, strict=True)):
        return None
    return Repeats(first, second)


def _repeats_in_graph(x: Any, y: Any) -> Repeats | None:
    """Return the same of two sets in a graph, which knows the extent of one cell a sample."""
    if x.dimensions != y.dimensions or x.is_cell == y.is_cell:
        return None
    return Repeats((x.is_cell,) * x.dimensions, (y.is_cell,) * y.dimensions)


def on_larger(x: SparseTensor, y: SparseTensor) -> tuple[Sites, Tensor, Tensor] | None:
    """Return the sites on which two tensors of different extent meet, and both tensors' rows.

    None where neither repeats along an axis.
    """
    found = repeats(x.sites, y.sites)
    if found is None:
        return None
    if not any(found.first):
        return x.sites, x.features, repeated(y, x.sites)
    if not any(found.second):
        return y.sites, repeated(x, y.sites), y.features
    sites, rows, other_rows = _crossed(x.sites, y.sites, found)
    return (
        sites,
        gather_rows(x.features, group_rows(rows, x.num_sites)),
        gather_rows(y.features, group_rows(other_rows, y.num_sites)),
    )


def repeated(x: SparseTensor, sites: Sites) -> Tensor:
    """Return the rows ``[N, C]`` of ``x``, repeated along axes of extent 1, at other ``sites``."""
    if torch.compiler.is_compiling():
        samples: Any = sites.samples  # of a graph; there one cell a sample alone repeats
        lanes = x.features.new_zeros(samples.lanes.shape[0], x.channels)
        return sample_spread(place_rows(x.features, x.coords[:, 0].long(), lanes), samples)
    return gather_rows(x.features, group_rows(_rows_at(x.sites, sites), x.num_sites))


@outside_transforms
def _rows_at(small: Sites, sites: Sites) -> Tensor:
    """Return the row of a small set at each of the ``sites``, int64 ``[N]``, -1 where none is."""
    coords = sites.shared_coords
    full = [True, *(size != 1 for size in small.spatial_shape)]
    return small.rows_of(coords * coords.new_tensor(full))[0]


@outside_transforms
def _crossed(x: Sites, y: Sites, found: Repeats) -> tuple[Sites, Tensor, Tensor]:
    """Return the sites that lie on a site of both sets, and the row of each in either."""
    a, b = x.shared_coords.long(), y.shared_coords.long()
    shared = [
        axis + 1 for axis, (one, other) in enumerate(zip(*found, strict=True)) if not (one or other)
    ]
    shared = [0, *shared]
    keys = torch.cat([a[:, shared], b[:, shared]])
    _, group = torch.unique(keys, dim=0, return_inverse=True)
    mine, others = group[: len(a)], group[len(a) :]
    order = torch.argsort(others, stable=True)
    first = torch.searchsorted(others[order], mine)
    count = torch.searchsorted(others[order], mine, right=True) - first
    rows = torch.repeat_interleave(count)
    begin = count.cumsum(0) - count
    other_rows = order[torch.arange(rows.numel(), device=rows.device) - begin[rows] + first[rows]]
    repeats_here = torch.tensor([False, *found.first], device=a.device)
    coords = torch.where(repeats_here, b[other_rows], a[rows])
    both = zip(x.spatial_shape, y.spatial_shape, found.first, strict=True)
    shape = tuple(other if one else own for own, other, one in both)
    # an axis without an end repeats nowhere, and no other has a cell below 0
    lower = tuple(map(min, x.lower, y.lower))
    sites, chosen = grouped_rows(coords, Frame(shape, lower), x.batch_size)
    return sites, rows[chosen], other_rows[chosen]


def dense_rows(t: Tensor, sites: Sites) -> Tensor:
    """Return the values ``[N or 1, C]`` of ``t`` ``[B or 1, C, *(spatial or 1)]`` at the sites."""
    for axis in (0, *range(2, t.ndim)):
        if t.stride(axis) == 0:  # expanded: every cell holds the same
            t = t.narrow(axis, 0, 1)
    if t.shape[0] == 1 and all(size == 1 for size in t.shape[2:]):
        return t.reshape(1, -1)
    if any(size > 1 for size in t.shape[2:]) and min(sites.lower) < 0:
        raise SparseConvValueError(
            f"other: give the SparseTensor a spatial_shape to meet a dense tensor of shape "
            f"{tuple(t.shape)}: its axes have no end, {sites.ends[1:]}"
        )
    columns = sites.shared_coords.long().unbind(1)
    sizes = (t.shape[0], *t.shape[2:])
    cells = [
        column if size > 1 else torch.zeros_like(column)
        for column, size in zip(columns, sizes, strict=True)
    ]
    return t.movedim(1, -1)[tuple(cells)]

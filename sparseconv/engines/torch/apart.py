"""Sites and map of a layer whose windows do not overlap: each row falls into one window at most.

Strided layers of this kind (2x2x2 with stride 2) halve the resolution of nearly every network.
There is one key a row, where windows that overlap have one a row and kernel cell, so that one short
sort gives the sites and the pairs at once, and the host waits once for both numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing, to_device
from sparseconv.engines.torch.keys import ABSENT


class Finished(NamedTuple):
    """The sites that a layer reaches, and the pairs that lead there.

    Attributes:
        geometry: of the layer.
        keys: of the sites.
        rows, sites: int32 ``[P]``, places among the keys of the index and of the sites.
        splits: where the pairs of each kernel cell begin, and the last ones end.
    """

    geometry: Geometry
    keys: Tensor
    rows: Tensor
    sites: Tensor
    splits: tuple[int, ...]


def falls_apart(geometry: Geometry) -> bool:
    """Return whether the windows of a layer do not overlap, and have no gaps inside."""
    axes = zip(geometry.kernel_size, geometry.stride, geometry.dilation, strict=True)
    back = geometry.kind is Kind.REGULAR
    return back and all(k == 1 or (k <= s and d == 1) for k, s, d in axes)


def reached_apart(index: Index, geometry: Geometry, packing: Packing) -> Finished:
    """Return the sites that rows fall on, and the pairs, cell by cell."""
    keys, cells = _falls_on(index, geometry, packing)
    ascending, order = torch.sort(keys)
    differs = ascending[1:] != ascending[:-1]
    site = torch.zeros(keys.numel(), dtype=torch.int32, device=keys.device)
    site[order[1:]] = differs.cumsum(0, dtype=torch.int32)
    of_cell, rows = torch.sort(cells, stable=True)
    numbers = torch.arange(geometry.num_cells, device=keys.device)
    ends = torch.searchsorted(of_cell, numbers, right=True)
    *splits, last = torch.cat([ends, differs.sum(0, keepdim=True)]).tolist()
    # the first key of each run but the first; and the end of the last one, where all rows fall
    lasts = torch.nonzero_static(differs, size=last)[:, 0]
    found = ascending[lasts]
    if splits[-1] == keys.numel():
        found = torch.cat([found, ascending[-1:]])
    rows = rows[: splits[-1]]
    return Finished(geometry, found, rows.int(), site[rows], (0, *splits))


def _falls_on(index: Index, geometry: Geometry, packing: Packing) -> tuple[Tensor, Tensor]:
    """Return the key of the site that each row falls on, and through which kernel cell.

    ``ABSENT`` and K where there is none.
    """
    strides, paddings = (1, *geometry.stride), (0, *geometry.padding)
    lows = zip(index.packing.lower, packing.lower, strides, paddings, strict=True)
    shifts = [low - other * s + p for low, other, s, p in lows]
    kernel = (1, *geometry.kernel_size)
    cell_weights = [math.prod(kernel[axis + 1 :]) for axis in range(len(kernel))]
    columns = [index.packing.weights, index.packing.radix, strides, shifts]
    ends = [[0] * len(kernel), [n - 1 for n in packing.extent], [size - 1 for size in kernel]]
    table = to_device([*columns, packing.weights, cell_weights, *ends], index.keys.device)
    weights, radix, stride, shift, *scales, zero, last, most = table[:, :, None]
    moved = torch.div(index.keys, weights, rounding_mode="floor") % radix + shift
    place = torch.div(moved, stride, rounding_mode="floor").clamp_(zero, last)
    step = moved - place * stride
    inside = (step.clamp(zero, most) == step).all(dim=0)
    keys = torch.where(inside, (place * scales[0]).sum(0), ABSENT)
    return keys, torch.where(inside, (step * scales[1]).sum(0), geometry.num_cells)

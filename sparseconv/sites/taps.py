"""Where a deformable kernel's sample positions fall between active sites."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.geometry import Geometry
from sparseconv.core.grid import wrapping
from sparseconv.core.index import GUARD, KEY_BYTES, MAX_COPY, Index, to_device
from sparseconv.core.private_torch import is_batchedtensor, outside_transforms, transformed
from sparseconv.core.rulebook import Taps
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.sites.record import SiteRecord


def sparse_taps(cells: Tensor, geometry: Geometry, source: SiteRecord, target: SiteRecord) -> Taps:
    """Return the rows of active sites, through the hash index; the outputs in ascending order."""
    if transformed() and is_batchedtensor(cells):
        raise SparseConvNotImplementedError(
            "vmap: a deformable convolution looks for sites at positions that differ from entry to "
            "entry; call it in a loop"
        )
    by_keys = source.index.packing.guard >= GUARD and not any(wrapping(source.grid))
    find = _taps_by_keys if by_keys else _taps_by_coords
    corners = 2**geometry.dimensions
    step = max(MAX_COPY // max(KEY_BYTES * corners * cells[:, 0, 0].numel(), 1), 1)
    ranges = [slice(first, first + step) for first in range(0, geometry.num_cells, step)]
    parts = [find(cells[:, some], geometry, source, target, some) for some in ranges]
    rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return Taps(rows, target.splits, source.num_sites)


def _taps_by_keys(
    cells: Tensor, geometry: Geometry, source: SiteRecord, target: SiteRecord, some: slice
) -> Tensor:
    """Return the rows of ``some`` kernel cells: a corner is an addition to the lowest one's key.

    A place that is far outside of the box is moved to where no corner of it can be inside.
    """
    packing, own, axes = source.index.packing, target.index.packing, geometry.dimensions
    strides, paddings = (1, *geometry.stride), (0, *geometry.padding)
    lows = zip(own.lower, packing.lower, strides, paddings, strict=True)
    shifts = [low * s - p - other for low, other, s, p in lows]
    first, last = [-GUARD] * (1 + axes), packing.extent
    table = [own.weights, own.radix, strides, shifts, packing.weights, first, last]
    steps = [[0, *(d * k for d, k in zip(geometry.dilation, cell, strict=True))]
             for cell in geometry.cells[some]]  # fmt: skip
    ups = itertools.product((0, 1), repeat=axes)
    corners = [sum(u * w for u, w in zip(up, packing.weights[1:], strict=True)) for up in ups]
    device = cells.device
    numbers = to_device([*table, *steps], device)[:, :, None]
    weights, radix, stride, shift, out_weights, low, high = numbers[:7]
    digits = torch.div(target.index.keys, weights, rounding_mode="floor") % radix
    moves = torch.nn.functional.pad(cells, (0, 0, 1, 0))  # [H, K, 1 + D, N]
    place = moves + numbers[7:] + (digits * stride + shift)
    lowest = (place.clamp_(low, high) * out_weights).sum(dim=2)
    keys = lowest[:, :, None] + to_device(corners, device)[:, None]
    return _rows_at(source.index, keys.flatten()).view(keys.shape).int()


@outside_transforms
def _rows_at(index: Index, keys: Tensor) -> Tensor:
    """Return the rows of keys, int64, -1 where there is none."""
    return engines.for_tensor(index.keys).lookup(index, keys.clone())


def _taps_by_coords(
    cells: Tensor, geometry: Geometry, source: SiteRecord, target: SiteRecord, some: slice
) -> Tensor:
    """Return the rows of ``some`` kernel cells, corner by corner, in a box of nearly 2^63 cells."""
    coords = target.index.packing.unpack(target.index.keys)
    batch = coords[:, 0].expand(*cells.shape[:2], -1)
    lows = [
        low_sites(cells, coords[:, 1 + axis], geometry, axis, some)
        for axis in range(geometry.dimensions)
    ]
    rows = []
    for corner in itertools.product((0, 1), repeat=geometry.dimensions):
        places = [low + up for low, up in zip(lows, corner, strict=True)]
        for axis, wraps in enumerate(wrapping(source.grid)):
            if wraps:
                places[axis] = places[axis] % max(source.spatial_shape[axis], 1)
        places = [batch, *places]
        found, _ = source.rows_of(torch.stack([place.flatten() for place in places], dim=1))
        rows.append(found.reshape(batch.shape))
    return torch.stack(rows, dim=2).int()


def low_sites(
    cells: Tensor, outputs: Tensor, geometry: Geometry, axis: int, some: slice = slice(None)
) -> Tensor:
    """Return the site below each position along one axis, ``[H, K, N]``, in the dtype of outputs.

    Args:
        cells: whole part of the shifts, int32 ``[H, K, D, N]``.
        outputs: place of each output along the axis, int32 or int64 ``[N]``.
        geometry: of the kernel.
        axis: which one.
        some: which of the kernel cells.
    """
    inner = math.prod(geometry.kernel_size[axis + 1 :])  # kernel cells: the last axis is fastest
    numbers = torch.arange(geometry.num_cells, dtype=outputs.dtype, device=cells.device)[some]
    steps = numbers // inner % geometry.kernel_size[axis] * geometry.dilation[axis]
    first = outputs * geometry.stride[axis] - geometry.padding[axis]
    return cells[:, :, axis] + (first + steps[:, None])

"""Where a deformable kernel's sample positions fall between active sites."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry
from sparseconv.core.rulebook import Taps
from sparseconv.sites.record import SiteRecord


def sparse_taps(cells: Tensor, geometry: Geometry, source: SiteRecord, target: SiteRecord) -> Taps:
    """Return the rows of active sites, through the hash index; the outputs in ascending order."""
    coords = target.index.packing.unpack(target.index.keys)
    batch = coords[:, 0].expand(*cells.shape[:2], -1)
    lows = [
        low_sites(cells, coords[:, 1 + axis], geometry, axis) for axis in range(geometry.dimensions)
    ]
    rows = []
    for corner in itertools.product((0, 1), repeat=geometry.dimensions):
        places = [batch, *(low + up for low, up in zip(lows, corner, strict=True))]
        found, _ = source.rows_of(torch.stack([place.flatten() for place in places], dim=1))
        rows.append(found.reshape(batch.shape))
    return Taps(torch.stack(rows, dim=2).int(), sample_splits(target), source.num_sites)


def sample_splits(sites: SiteRecord) -> tuple[int, ...]:
    """Return where the rows of each sample begin, and the last ends, in ascending order."""
    batch = sites.index.packing.unpack(sites.index.keys)[:, 0].contiguous()
    samples = torch.arange(sites.batch_size + 1, device=batch.device)
    return tuple(torch.searchsorted(batch, samples).tolist())


def low_sites(cells: Tensor, outputs: Tensor, geometry: Geometry, axis: int) -> Tensor:
    """Return the site below each position along one axis, ``[H, K, N]``, in the dtype of outputs.

    Args:
        cells: whole part of the shifts, int32 ``[H, K, D, N]``.
        outputs: place of each output along the axis, int32 or int64 ``[N]``.
        geometry: of the kernel.
        axis: which one.
    """
    inner = math.prod(geometry.kernel_size[axis + 1 :])  # kernel cells: the last axis is fastest
    numbers = torch.arange(geometry.num_cells, dtype=outputs.dtype, device=cells.device)
    steps = numbers // inner % geometry.kernel_size[axis] * geometry.dilation[axis]
    first = outputs * geometry.stride[axis] - geometry.padding[axis]
    return cells[:, :, axis] + (first + steps[:, None])

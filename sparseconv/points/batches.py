"""Point maps of a batch: put together, and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sparseconv.core.index import starts_of
from sparseconv.errors import SparseConvTypeError
from sparseconv.points.point_map import PointMap
from sparseconv.tensor import SparseTensor


def joined_maps(
    maps: Sequence[PointMap], join: Callable[[list[SparseTensor]], SparseTensor]
) -> PointMap:
    """Return the map of samples put into one batch; ``join`` does it with tensors.

    Raises:
        SparseConvError: maps with other numbers of axes, dtypes of points or devices.
    """
    first = maps[0]
    for entry in maps:
        if (entry.xyz.dtype, entry.xyz.device) != (first.xyz.dtype, first.xyz.device):
            raise SparseConvTypeError(
                f"maps: dtypes or devices of the points differ, {first.xyz.dtype} on "
                f"{first.xyz.device} and {entry.xyz.dtype} on {entry.xyz.device}"
            )
    bare = [SparseTensor.on_sites(m.xyz.new_empty(m.num_sites, 0), m.sites) for m in maps]
    sites = join(bare).sites
    voxels = starts_of(torch.tensor([entry.num_sites for entry in maps])).tolist()
    samples = starts_of(torch.tensor([len(entry) for entry in maps])).tolist()
    rows = [torch.where(m.rows < 0, -1, m.rows + n) for m, n in zip(maps, voxels, strict=False)]
    return PointMap(
        torch.cat(rows),
        sites,
        torch.cat([entry.xyz for entry in maps]),
        torch.cat([m.samples + n for m, n in zip(maps, samples, strict=False)]),
        first.bounds if all(entry.bounds == first.bounds for entry in maps) else None,
    )

"""Where sites lie in the world."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.grid import Grid, Grids
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.sites import Sites


def grids_of(name: str, grids: Grids) -> list[Grid]:
    """Return the grid of each sample, or the one that all share.

    Raises:
        SparseConvValueError: nobody knows it.
    """
    if grids is None:
        raise SparseConvValueError(
            f"{name}: nobody knows where its sites lie; name their grid by "
            f"x.with_grid(sparseconv.Grid(origin, voxel_size))"
        )
    return [grids] if isinstance(grids, Grid) else list(grids)


def origins_and_sizes(name: str, grids: Grids, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return origin and voxel size, float64 ``[1, D]``, or ``[N, D]`` where samples differ."""
    each = grids_of(name, grids)
    numbers = [[grid.origin for grid in each], [grid.voxel_size for grid in each]]
    places = torch.tensor(numbers, dtype=torch.float64, device=samples.device)
    origins, sizes = places if len(each) == 1 else places[:, samples]
    return origins, sizes


def centres_of(sites: Sites) -> Tensor:
    """Return the centres of voxels, float64 ``[N, D]``, in the unit of their grid."""
    coords = sites.shared_coords
    origins, sizes = origins_and_sizes("x", sites.grid, coords[:, 0].long())
    return (coords[:, 1:].double() + 0.5) * sizes + origins

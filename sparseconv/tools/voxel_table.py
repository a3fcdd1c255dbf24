"""What voxel sizes make of points: what is lost, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvValueError
from sparseconv.functional import subm_conv
from sparseconv.io import Points
from sparseconv.points.voxels import voxelize
from sparseconv.tensor import SparseTensor

HALVINGS = 3  # coarser levels that are counted: those of a usual U-Net


@dataclass(frozen=True)
class VoxelSize:
    """What one voxel size makes of points.

    Attributes:
        edge: of a voxel, in the points' unit.
        sites: active sites, and those after each halving of the grid.
        points: a site, on average.
        moved: detail lost: the mean distance from a point to the mean of its voxel's points, in
            their unit.
        mixed: labels lost: the share of labelled points whose label is not the commonest one of
            their voxel, which no network on these voxels gets right; NaN without labels.
        neighbours: a site has in the window of 3 cells along each axis, on average.
        alone: neighbours lost: the share of sites that have none.
    """

    edge: float
    sites: tuple[int, ...]
    points: float
    moved: float
    mixed: float
    neighbours: float
    alone: float


def voxel_sizes(
    points: Points | Tensor, edges: Iterable[float], levels: int = HALVINGS
) -> list[VoxelSize]:
    """Return what each voxel size makes of points; small ones lose neighbours, large ones detail.

    Args:
        points: as of ``sc.io.read_points``, or positions ``[N, D]``; one at least.
        edges: of a voxel, in the points' unit.
        levels: how many halvings of the grid are counted.

    Raises:
        SparseConvValueError: There is no point.
        SparseConvError: As of :func:`sparseconv.voxelize`.

    Example:
        >>> import torch
        >>> from sparseconv.tools import voxel_sizes
        >>> (row,) = voxel_sizes(torch.tensor([[0.1], [0.3], [1.2], [9.0]]), [1.0])
        >>> row.sites[0], round(row.points, 2), round(row.alone, 2)
        (3, 1.33, 0.33)
    """
    check_int("levels", levels, least=0)
    if len(points) == 0:
        raise SparseConvValueError("points: must hold one point at least, got none")
    if isinstance(points, Tensor):
        return [_row(points, None, float(edge), levels) for edge in edges]
    positions = torch.from_numpy(points.xyz.copy())
    labels = None if points.labels is None else torch.from_numpy(points.labels.copy())
    return [_row(positions, labels, float(edge), levels) for edge in edges]


def _row(positions: Tensor, labels: Tensor | None, edge: float, levels: int) -> VoxelSize:
    places = (positions - positions[:1]).double()  # near 0: maps have coordinates of millions
    x, to_points = voxelize(positions, edge, places)
    spatial = positions.shape[1]
    window = torch.ones(1, 1, *[3] * spatial)
    around = subm_conv(x.replace(torch.ones(x.num_sites, 1)), window).features - 1
    moved = (places - x.features[to_points.rows]).norm(dim=1).mean()
    mixed = math.nan
    if labels is not None and bool((labels >= 0).any()):
        names, classes = labels.unique(return_inverse=True)
        classes = classes.masked_fill(labels < 0, -1)
        commonest = to_points.majority(classes, len(names))[to_points.rows]
        mixed = float((classes != commonest)[labels >= 0].float().mean())
    return VoxelSize(
        edge,
        (x.num_sites, *_coarser(x, levels)),
        len(positions) / x.num_sites,
        float(moved),
        mixed,
        float(around.mean()),
        float((around == 0).float().mean()),
    )


def _coarser(x: SparseTensor, levels: int) -> list[int]:
    """Return the active sites after each of ``levels`` halvings."""
    coords, counts = x.coords.clone(), []
    for _ in range(levels):
        coords[:, 1:] = coords[:, 1:] // 2
        coords = torch.unique(coords, dim=0)
        counts.append(len(coords))
    return counts

"""Values between sites: N-linear and nearest interpolation over the hash index, and its adjoint.

A site's value stands at its integer coordinates. Between them, a point meets the ``2 ** D`` sites
around it, each with the product over the axes of ``1 - distance``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import gather_rows, group_rows, sum_rows
from sparseconv.core.arguments import check_device, check_floating, check_kind
from sparseconv.core.dtypes import summable
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.sites import Sites

MODES = ("nearest", "linear")
FAR = 2.0**32  # beyond every site, and within int64


def check_mode(mode: str, renormalise: bool = False) -> None:
    """Raise unless ``mode`` is one of :data:`MODES` and ``renormalise`` a bool."""
    if mode not in MODES:
        raise SparseConvValueError(f"mode: must be one of {MODES}, got {mode!r}")
    check_kind("renormalise", renormalise, bool, "a bool")


def check_points(points: Any, sites: Sites) -> None:
    """Raise unless ``points`` are finite, ``[M, 1 + D]``, in samples that ``sites`` have."""
    check_floating("points", points)
    columns = 1 + sites.dimensions
    if points.ndim != 2 or points.shape[1] != columns:
        raise SparseConvValueError(
            f"points: must have shape (M, {columns}), the batch index and one voxel coordinate per "
            f"axis, got {tuple(points.shape)}"
        )
    check_device("points", points, sites.device)
    if not bool(torch.isfinite(points).all()):
        raise SparseConvValueError("points: some are NaN or infinite")
    samples = points[:, 0]
    if not bool(((samples >= 0) & (samples < sites.batch_size) & (samples % 1 == 0)).all()):
        raise SparseConvValueError(
            f"points: column 0 must hold batch indices, whole numbers from 0 to "
            f"{sites.batch_size - 1}"
        )


def sample_nearest(features: Tensor, sites: Sites, points: Tensor) -> Tensor:
    """Return the rows ``[M, C]`` of the sites nearest to ``points``, zero where not active."""
    cells = torch.floor(points.detach() + 0.5)
    return gather_rows(features, _groups_at(sites, cells))


def sample_linear(features: Tensor, sites: Sites, points: Tensor, renormalise: bool) -> Tensor:
    """Return features ``[M, C]`` between sites, differentiable in ``features`` and ``points``.

    Args:
        features: ``[N, C]`` on ``sites``.
        sites: where they stand.
        points: floating point ``[M, 1 + D]``, batch first, in voxels.
        renormalise: divide by the weight of the active sites instead of counting the others 0.
    """
    values = summable(features)
    out = values.new_zeros(points.shape[0], values.shape[1])
    total = values.new_zeros(points.shape[0], 1)
    for weight, groups in _corners(sites, points, values.dtype):
        out = out + weight * gather_rows(values, groups)
        total = total + weight * (groups.site_of_row >= 0)[:, None]
    if renormalise:
        out = _quotient(out, total)
    return out.to(features.dtype)


def splat_linear(values: Tensor, sites: Sites, points: Tensor, mean: bool) -> Tensor:
    """Return the weighted sums (or means) ``[N, C]`` of point values ``[M, C]`` on the sites."""
    summed = summable(values)
    out = summed.new_zeros(sites.num_sites, summed.shape[1])
    total = summed.new_zeros(sites.num_sites, 1)
    for weight, groups in _corners(sites, points, summed.dtype):
        out = out + sum_rows(weight * summed, groups)
        total = total + sum_rows(weight, groups)
    if mean:
        out = _quotient(out, total)
    return out.to(values.dtype)


def _corners(sites: Sites, points: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Groups]]:
    """Yield, for each corner around the points, its weights ``[M, 1]`` and which rows it meets."""
    base = torch.floor(points.detach())
    fractions = (points - base)[:, 1:]
    for corner in itertools.product((0, 1), repeat=sites.dimensions):
        sides = zip(corner, fractions.unbind(1), strict=True)
        weight = torch.ones_like(points[:, 0])
        for upper, fraction in sides:
            weight = weight * (fraction if upper else 1 - fraction)
        yield weight[:, None].to(dtype), _groups_at(sites, base + base.new_tensor((0, *corner)))


def _groups_at(sites: Sites, cells: Tensor) -> Groups:
    """Return the points at each site, from whole-numbered ``cells`` ``[M, 1 + D]``."""
    rows, _ = sites.rows_of(cells.clamp(-FAR, FAR).long())
    return group_rows(rows, sites.num_sites)


def _quotient(total: Tensor, weight: Tensor) -> Tensor:
    """Return ``total / weight``, 0 where nothing has any weight."""
    return total / torch.where(weight > 0, weight, 1.0)

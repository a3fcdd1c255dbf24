"""Sets of sites: union, intersection, difference, parts of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import place_rows
from sparseconv.core.arguments import (
    LARGEST,
    Ints,
    check_bools,
    check_device,
    check_floating,
    check_int,
    check_kind,
    is_number,
    per_axis,
)
from sparseconv.core.dtypes import INTEGERS
from sparseconv.core.grid import Grids, change
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


def common_sites(tensors: Sequence[SparseTensor]) -> tuple[Sites, list[Tensor | None]]:
    """Return sites that hold those of all tensors, and which of their rows each tensor has.

    The sites are the first tensor's where they hold the others' already, else the union, sorted.
    Rows are int64 ``[N]`` of a tensor, None where it lies on these very sites.
    """
    sites = tensors[0].sites
    rows: list[Tensor | None] = [None]
    for x in tensors[1:]:
        if sites.same_as(x.sites):
            rows.append(None)
            continue
        rows_of_x = x.sites.rows_in(sites)
        if rows_of_x is None:
            sites, moved, rows_of_x = sites.unite(x.sites)
            rows = [moved if before is None else moved[before] for before in rows]
        rows.append(rows_of_x)
    return sites, rows


def filled(features: Tensor, rows: Tensor | None, num_sites: int, fill: float = 0) -> Tensor:
    """Return ``features`` at ``rows`` of ``[num_sites, C]``, ``fill`` elsewhere."""
    if rows is None:
        return features
    return place_rows(features, rows, features.new_full((num_sites, features.shape[1]), fill))


def union(x: SparseTensor, *others: SparseTensor, fill: float = 0) -> SparseTensor:
    """Return ``x`` on the union of its sites and those of the others.

    Args:
        x: ``[B, C, *spatial]``.
        others: SparseTensors on the same grid; only their sites matter.
        fill: the features of sites that ``x`` does not have.

    Returns:
        The features of ``x``, ``fill`` elsewhere, on the union, which comes out sorted; on the
        sites of ``x`` themselves where they hold the others already.

    Raises:
        SparseConvError: an operand that is no SparseTensor, another grid, another device.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 3]]), (5,))
        >>> y = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 2]]), (5,))
        >>> sc.union(x, y).features.flatten()
        tensor([0., 1.])
    """
    _check_operands(x, *others)
    if not is_number(fill):
        raise SparseConvTypeError(f"fill: must be a number, got {fill!r}")
    sites, rows = common_sites((x, *others))
    if sites is x.sites:
        return x
    return SparseTensor.on_sites(filled(x.features, rows[0], sites.num_sites, fill), sites)


def intersect(x: SparseTensor, *others: SparseTensor) -> SparseTensor:
    """Return ``x`` at those of its sites that all the others have too, in its row order.

    Raises:
        SparseConvError: an operand that is no SparseTensor, another grid, another device.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 3], [0, 1]]), (5,))
        >>> y = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 2], [0, 3]]), (5,))
        >>> sc.intersect(x, y).coords
        tensor([[0, 3]])
    """
    _check_operands(x, *others)
    keep = torch.ones(x.num_sites, dtype=torch.bool, device=x.device)
    for other in others:
        x.sites.check_same_grid(other.sites)
        keep &= other.sites.rows_of(x.sites.shared_coords)[1]
    return prune(x, keep)


def difference(x: SparseTensor, *others: SparseTensor) -> SparseTensor:
    """Return ``x`` at those of its sites that none of the others has, in its row order.

    Raises:
        SparseConvError: an operand that is no SparseTensor, another grid, another device.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 3], [0, 1]]), (5,))
        >>> y = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 2], [0, 3]]), (5,))
        >>> sc.difference(x, y).coords
        tensor([[0, 1]])
    """
    _check_operands(x, *others)
    keep = torch.ones(x.num_sites, dtype=torch.bool, device=x.device)
    for other in others:
        x.sites.check_same_grid(other.sites)
        keep &= ~other.sites.rows_of(x.sites.shared_coords)[1]
    return prune(x, keep)


def prune(x: SparseTensor, keep: Tensor, k: int | None = None) -> SparseTensor:
    """Return the rows of ``x`` that ``keep`` names; the extent stays.

    Args:
        x: ``[B, C, *spatial]``.
        keep: bool ``[N]`` or ``[N, 1]``, one entry per site; or integer ``[M]``, numbers of rows;
            or, with ``k``, scores, floating point ``[N]`` or ``[N, 1]``.
        k: how many sites of each sample to keep, those of the largest scores; of equal ones those
            that come first in ascending order of the sites.

    Returns:
        The kept rows, in their order in ``x``, or in that of the numbers; gradients reach them
        alone. Where all are kept, on the sites of ``x``.

    Raises:
        SparseConvError: ``keep`` of another kind or shape, or on another device; numbers that
            are no rows, or come twice.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 3], [0, 1]]))
        >>> sc.prune(x, x.features[:, 0] > 1).coords
        tensor([[0, 1]])
        >>> sc.prune(x, x.features, k=1).coords
        tensor([[0, 1]])
    """
    _check_operands(x)
    rows = _kept_rows(x, keep, k)
    if rows is None:
        return x
    few = _rows_at(x, rows, x.coords, x.sites.spatial_shape, x.sites.lower, x.grid)
    few.sites.lead_back_as(x.sites)
    return few


def _kept_rows(x: SparseTensor, keep: Any, k: int | None) -> Tensor | None:
    """Return the rows to keep, int64 ``[M]``; None where they are all, in their order."""
    if k is None and isinstance(keep, Tensor) and keep.dtype in INTEGERS:
        return _checked_rows(x, keep)
    if k is None:
        check_bools("keep", keep, "; numbers of rows are integers, scores take k=")
    else:
        check_floating("keep", keep)
    if tuple(keep.shape) not in ((x.num_sites,), (x.num_sites, 1)):
        raise SparseConvValueError(
            f"keep: must have shape ({x.num_sites},), one entry per site, got {tuple(keep.shape)}"
        )
    check_device("keep", keep, x.device)
    kept = keep.reshape(-1)
    if k is not None:
        kept = _best(x, kept.detach(), check_int("k", k, least=0))
    return None if bool(kept.all()) else torch.nonzero(kept)[:, 0]


def _checked_rows(x: SparseTensor, rows: Tensor) -> Tensor:
    """Return numbers of rows; raise unless they differ and are there."""
    check_device("keep", rows, x.device)
    if rows.ndim != 1:
        raise SparseConvValueError(
            f"keep: numbers of rows must have shape (M,), got {tuple(rows.shape)}"
        )
    rows = rows.long()
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < x.num_sites:
        raise SparseConvValueError(
            f"keep: numbers of rows must lie in 0 to {x.num_sites - 1}, got {int(rows.min())} to "
            f"{int(rows.max())}"
        )
    if torch.unique(rows).numel() != rows.numel():
        raise SparseConvValueError("keep: names a row twice")
    return rows


def _best(x: SparseTensor, scores: Tensor, k: int) -> Tensor:
    """Return bool ``[N]``: the ``k`` largest scores of each sample."""
    order, starts = x.sites.samples.ascending
    order = order[torch.sort(scores[order], descending=True, stable=True).indices]
    samples = x.sites.shared_coords[:, 0].long()
    order = order[torch.sort(samples[order], stable=True).indices]
    place = torch.arange(x.num_sites, device=x.device) - starts[samples[order]]
    kept = torch.zeros(x.num_sites, dtype=torch.bool, device=x.device)
    kept[order] = place < k
    return kept


def crop(x: SparseTensor, low: int | Sequence[int], high: int | Sequence[int]) -> SparseTensor:
    """Return the sites in a box, ``x.dense()[..., low:high]``, with the box's corner at 0.

    Args:
        x: ``[B, C, *spatial]``.
        low, high: voxels, int or one per axis; ``low <= coordinate < high``. A box that sticks out
            of the grid is empty there.

    Returns:
        ``[B, C, *(high - low)]``, rows in the order of ``x``.

    Raises:
        SparseConvError: bounds that are not integers, or ``high`` not above ``low``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 3], [0, 1]]), (5,))
        >>> sc.crop(x, 2, 4).coords
        tensor([[0, 1]])
    """
    _check_operands(x)
    axes = len(x.spatial_shape)
    lows, highs = (
        per_axis(name, value, axes, -LARGEST) for name, value in (("low", low), ("high", high))
    )
    if any(top <= bottom for bottom, top in zip(lows, highs, strict=True)):
        raise SparseConvValueError(
            f"high: must exceed low on every axis, got low {lows} and high {highs}"
        )
    spatial = x.coords[:, 1:]
    inside = (spatial >= spatial.new_tensor(lows)) & (spatial < spatial.new_tensor(highs))
    coords = x.coords - x.coords.new_tensor((0, *lows))
    extent = tuple(top - bottom for bottom, top in zip(lows, highs, strict=True))
    cut = [axis for axis in range(axes) if extent[axis] != x.spatial_shape[axis]]
    grid = change(x.grid, lambda own: own.moved([-entry for entry in lows]).cut(cut))
    return _rows_at(x, torch.nonzero(inside.all(dim=1))[:, 0], coords, extent, (0,) * axes, grid)


def _rows_at(
    x: SparseTensor, rows: Tensor, coords: Tensor, spatial_shape: Ints, lower: Ints, grid: Grids
) -> SparseTensor:
    """Return ``x`` at ``rows`` alone, which move to their rows of ``coords`` ``[N, 1 + D]``."""
    inferred = x.sites.inferred and spatial_shape == x.spatial_shape
    box = spatial_shape, x.batch_size, lower
    sites = sites_from_coords(coords[rows], *box, grid=grid, inferred=inferred)
    return SparseTensor.on_sites(x.features[rows], sites)


def _check_operands(*operands: SparseTensor) -> None:
    for operand in operands:
        check_kind("x, others", operand, SparseTensor, "SparseTensors")

"""The sites of the plain engine: sorted keys, found by binary search."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing
from sparseconv.core.rulebook import Rulebook


def bounds(coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest value per column."""
    low, high = (extreme.tolist() for extreme in torch.aminmax(coords, dim=0))
    return tuple(low), tuple(high)


def build_index(coords: Tensor, packing: Packing) -> Index:
    """Return the index: sorted keys, and no order where they come sorted."""
    keys = packing.pack(coords)
    if bool((keys[1:] >= keys[:-1]).all()):
        return Index(keys, None, packing)
    ascending, order = torch.sort(keys, stable=True)
    return Index(ascending, order, packing)


def ascends(keys: Tensor) -> bool:
    """Return whether each key is larger than the one before."""
    return bool((keys[1:] > keys[:-1]).all())


def lookup(index: Index, keys: Tensor) -> Tensor:
    """Return the rows of ``keys``, -1 where absent, by binary search."""
    position = _positions(index, keys)
    if index.order is None or position.numel() == 0:
        return position
    # an absent key's -1 reads the last row's entry, and is put back to -1 at once
    return torch.where(position < 0, position, index.order[position])


def _positions(index: Index, keys: Tensor) -> Tensor:
    if index.keys.numel() == 0:
        return torch.full_like(keys, -1)
    position = torch.searchsorted(index.keys, keys).clamp_(max=index.keys.numel() - 1)
    return position.masked_fill_(index.keys[position] != keys, -1)


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the keys of all sites that some input site reaches through some kernel cell."""
    coords = index.packing.unpack(index.keys)
    reached = []
    for cell in geometry.cells:
        target, whole = _targets(coords, geometry, cell)
        target = target[whole & packing.contains(target)]
        reached.append(torch.unique(packing.pack(target)))
    keys: Tensor = torch.unique(torch.cat(reached))
    return keys


def _targets(coords: Tensor, geometry: Geometry, cell: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return output coordinates ``[N, 1 + D]`` of inputs, and where they are whole numbers."""
    axes = (geometry.stride, geometry.padding, geometry.dilation)
    stride, padding, dilation = (coords.new_tensor(values) for values in axes)
    shift = coords.new_tensor(cell) * dilation - padding
    if geometry.kind is Kind.TRANSPOSED:
        target = coords[:, 1:] * stride + shift
        whole = torch.ones(coords.shape[0], dtype=torch.bool, device=coords.device)
    else:
        moved = coords[:, 1:] - shift
        whole = (moved % stride == 0).all(dim=1)
        target = torch.div(moved, stride, rounding_mode="floor")
    return torch.cat([coords[:, :1], target], dim=1), whole


def build_rulebook(fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
    """Return the pairs, cell by cell: one binary search per coarse site and cell."""
    coords = coarse.packing.unpack(coarse.keys)
    stride, padding, dilation = (
        coords.new_tensor(values)
        for values in (geometry.stride, geometry.padding, geometry.dilation)
    )
    fine_rows, coarse_rows, splits = [], [], [0]
    for cell in geometry.cells:
        source = coords[:, 1:] * stride - padding + coords.new_tensor(cell) * dilation
        source = torch.cat([coords[:, :1], source], dim=1)
        inside = fine.packing.contains(source)
        rows = torch.where(inside, lookup(fine, fine.packing.pack(source)), -1)
        hits = torch.nonzero(rows >= 0)[:, 0]
        fine_rows.append(rows[hits].int())
        coarse_rows.append((hits if coarse.order is None else coarse.order[hits]).int())
        splits.append(splits[-1] + hits.numel())
    return Rulebook(
        torch.cat(fine_rows),
        torch.cat(coarse_rows),
        tuple(splits),
        fine.keys.numel(),
        coarse.keys.numel(),
    )

"""The sites of the plain engine: sorted keys, found by binary search."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.index import MAX_DERIVED_CELLS, Index, Packing

ABSENT = MAX_DERIVED_CELLS  # larger than every key


def bounds(coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest value per column."""
    low, high = torch.stack(torch.aminmax(coords, dim=0)).tolist()
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
    if index.keys.numel() == 0:
        return torch.full_like(keys, -1)
    position, present = search(index.keys, keys)
    if index.order is not None:
        position = index.order[position]
    return torch.where(present, position, -1)


def search(ascending: Tensor, keys: Tensor, *, narrow: bool = False) -> tuple[Tensor, Tensor]:
    """Return where each key stands among the ``ascending`` ones, and whether it does.

    Where it does not, the position is that of a smaller one, or -1, which reads the last.
    """
    position = torch.searchsorted(ascending, keys, right=True, out_int32=narrow).sub_(1)
    return position, ascending[position] == keys

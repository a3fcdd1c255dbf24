"""Rows in a dense tensor."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from sparseconv.autograd.segments import place_rows
from sparseconv.core.index import Packing
from sparseconv.errors import SparseConvValueError


def to_dense(feats: Tensor, coords: Tensor, spatial_range: Any) -> Tensor:
    """Return ``[*spatial_range, C]`` with ``feats`` ``[N, C]`` at ``coords`` ``[N, 4]``.

    Raises:
        SparseConvValueError: coordinates outside of it.
    """
    shape = tuple(map(int, spatial_range))
    packing = Packing.dense(shape)
    if not bool(packing.contains(coords).all()):
        raise SparseConvValueError(f"coords: some lie outside of spatial_range {shape}")
    cells = feats.new_zeros(math.prod(shape), feats.shape[1])
    return place_rows(feats, packing.pack(coords), cells).reshape(*shape, -1)


__all__ = ["to_dense"]

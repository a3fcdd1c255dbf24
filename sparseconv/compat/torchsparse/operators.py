"""Several tensors made one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseconv.autograd.segments import group_rows, sum_rows
from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.errors import SparseConvValueError


def cat(inputs: Sequence[SparseTensor]) -> SparseTensor:
    """Return the channels of tensors on the same coordinates, side by side."""
    first = inputs[0]
    for x in inputs[1:]:
        first.check_same(x)
    return first.with_feats(torch.cat([x.feats for x in inputs], dim=1))


def generative_add(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """Return the sum on the union of both tensors' coordinates; absent rows count 0."""
    if a.stride != b.stride:
        raise SparseConvValueError(f"b: must have the stride of a, {a.stride}, got {b.stride}")
    larger, other = (a, b) if len(a.feats) >= len(b.feats) else (b, a)
    coords, rows = torch.unique(
        torch.cat([larger.coords, other.coords]), dim=0, return_inverse=True
    )
    feats = sum_rows(torch.cat([larger.feats, other.feats]), group_rows(rows, len(coords)))
    return larger.moved(feats, coords, larger.stride, larger.spatial_range)


__all__ = ["cat", "generative_add"]

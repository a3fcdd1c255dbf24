"""Hashes of coordinates, look-ups, and the ways between points and voxels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import gather_rows, group_rows, sum_rows
from sparseconv.core.arguments import check_floating, check_int, check_integers
from sparseconv.core.dtypes import summable
from sparseconv.errors import SparseConvValueError

_OFFSET, _PRIME = 14695981039346656037 - 2**64, 1099511628211  # of FNV-1a, 64 bits
_BITS = 60  # that are kept; the others are folded into them


def sphash(coords: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Return a hash of each row of ``coords``, or of each row moved by each offset.

    Args:
        coords: int32 ``[N, 4]``.
        offsets: int32 ``[K, 3]``, added to the first three columns, or None.

    Returns:
        int64 ``[N]``, with offsets ``[K, N]``.
    """
    check_integers("coords", coords)
    if coords.ndim != 2 or coords.shape[1] != 4:
        raise SparseConvValueError(f"coords: must have shape (N, 4), got {tuple(coords.shape)}")
    rows = coords.long()
    if offsets is not None:
        check_integers("offsets", offsets)
        steps = torch.nn.functional.pad(offsets.long(), (0, 1))
        rows = rows + steps[:, None]
    hashed = torch.full(rows.shape[:-1], _OFFSET, dtype=torch.int64, device=coords.device)
    for column in rows.unbind(-1):
        hashed = (hashed ^ (column & 0xFFFFFFFF)) * _PRIME
    folded: Tensor = ((hashed >> _BITS) & 0xF) ^ (hashed & (2**_BITS - 1))
    return folded


def sphashquery(queries: Tensor, references: Tensor) -> Tensor:
    """Return the place of each query among the references, -1 where it is none, int64.

    Args:
        queries: int64, of any shape.
        references: int64 ``[M]``; of equal ones the first counts.
    """
    check_integers("queries", queries)
    check_integers("references", references)
    if references.numel() == 0:
        return torch.full_like(queries, -1)
    ascending, order = torch.sort(references.reshape(-1), stable=True)
    place = torch.searchsorted(ascending, queries.contiguous()).clamp(max=len(order) - 1)
    return torch.where(ascending[place] == queries, order[place], -1)


def spcount(coords: Tensor, num: Any) -> Tensor:
    """Return how often each number from 0 to ``num - 1`` comes, int32; -1 counts nowhere."""
    check_integers("coords", coords)
    rows = coords.reshape(-1).long()
    return torch.bincount(rows[rows >= 0], minlength=check_int("num", int(num), least=0)).int()


def spvoxelize(feats: Tensor, coords: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of the rows that fall on each voxel, ``[M, C]``.

    Args:
        feats: ``[N, C]``.
        coords: integer ``[N]``, the voxel of each row, -1 for none.
        counts: integer ``[M]``, by which sums are divided; 0 gives 0.
    """
    check_integers("coords", coords)
    rows = coords.reshape(-1).long()
    kept = rows >= 0
    if not bool(kept.all()):
        feats, rows = feats[kept], rows[kept]
    total = sum_rows(summable(feats), group_rows(rows, len(counts)))
    return (total / counts.clamp(min=1)[:, None]).to(feats.dtype)


def spdevoxelize(feats: Tensor, coords: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the voxels near each point, ``[N, C]``.

    Args:
        feats: ``[M, C]``.
        coords: integer ``[N, 8]``, rows of ``feats``, -1 for none.
        weights: floating point ``[N, 8]``.
    """
    check_integers("coords", coords)
    check_floating("weights", weights)
    if coords.shape != weights.shape or coords.ndim != 2:
        raise SparseConvValueError(
            f"weights: must have the shape of coords, {tuple(coords.shape)}, got "
            f"{tuple(weights.shape)}"
        )
    total = feats.new_zeros(len(coords), feats.shape[1])
    for rows, share in zip(coords.long().unbind(1), weights.unbind(1), strict=True):
        corner = gather_rows(feats, group_rows(rows, len(feats)))
        total = total + corner * share[:, None].to(feats.dtype)
    return total


def calc_ti_weights(coords: Tensor, idx_query: Tensor, scale: float = 1) -> Tensor:
    """Return the trilinear weights of the eight voxels around each point, ``[N, 8]``.

    Args:
        coords: floating point ``[N, 3]``.
        idx_query: integer ``[N, 8]``, the last axis fastest; voxels of -1 weigh 0.
        scale: edge of a voxel.

    Returns:
        Weights that sum to 1 over the voxels that are there.
    """
    with torch.no_grad():
        points = coords[:, :3] / scale
        inside = points - points.floor()
        near = torch.stack([1 - inside, inside], dim=2)
        x, y, z = near.unbind(1)
        weights = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).flatten(1)
        weights = weights.masked_fill(idx_query == -1, 0)
        return weights / (weights.sum(dim=1, keepdim=True) + 1e-8)


__all__ = [
    "calc_ti_weights",
    "spcount",
    "spdevoxelize",
    "sphash",
    "sphashquery",
    "spvoxelize",
]

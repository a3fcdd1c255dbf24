"""Operands of one function brought to the rows of a sparse tensor."""

from __future__ import annotations

from numbers import Number
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sparseconv.core.arguments import came, check_device
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.tensor import SparseTensor

Operand: TypeAlias = SparseTensor | Tensor | float | bool | None


def first_sparse(*operands: Any) -> SparseTensor:
    """Return the first SparseTensor among ``operands``: the others are brought to its rows.

    Raises:
        SparseConvTypeError: there is none.
    """
    for operand in operands:
        if isinstance(operand, SparseTensor):
            return operand
    raise SparseConvTypeError("input: one operand must be a SparseTensor")


def rows_beside(x: SparseTensor, operand: Operand) -> Any:
    """Return ``operand`` in a shape that broadcasts against the rows ``[N, C]`` of ``x``.

    A SparseTensor must have the same set of sites, in any row order; a dense tensor broadcasts
    against the dense shape or has a row per site; anything else stays as it is.

    Raises:
        SparseConvError: sites, shapes or devices that do not fit.
    """
    if isinstance(operand, Tensor):
        return rows_of(operand, x)
    if not isinstance(operand, SparseTensor) or operand is x:
        return operand.features if isinstance(operand, SparseTensor) else operand
    if operand.channels not in (x.channels, 1) and x.channels != 1:
        raise SparseConvValueError(
            f"other: has {operand.channels} channels, the input has {x.channels}"
        )
    if x.sites.same_as(operand.sites):
        return operand.features
    rows = x.sites.rows_in(operand.sites)
    if rows is None or operand.num_sites != x.num_sites:
        raise SparseConvValueError(
            f"other: must live on the same sites, {x.sites}, got {operand.sites}; "
            f"sparseconv.union and sparseconv.intersect bring tensors together"
        )
    return operand.features[rows]


def rows_of(operand: Any, x: SparseTensor) -> Any:
    """Return a dense operand in a shape that broadcasts against the rows ``[N, C]`` of ``x``."""
    if operand is x:
        return x.features
    if isinstance(operand, Number):
        return operand
    if not isinstance(operand, Tensor):
        raise SparseConvTypeError(
            f"other: must be a number, a torch.Tensor or a SparseTensor, got {came(operand)}"
        )
    if operand.ndim == 0:
        return operand
    check_device("other", operand, x.device)
    by_row = operand.ndim == 2 and operand.shape in ((x.num_sites, x.channels), (x.num_sites, 1))
    by_grid = _broadcasts(operand, x)
    if by_row and by_grid and operand.numel() > 1:
        raise SparseConvValueError(
            f"other: shape {tuple(operand.shape)} fits the rows (N, C) and the grid "
            f"{tuple(x.shape)}; say which by x.replace(...) or by leading axes of 1"
        )
    if by_row:
        return operand
    if not by_grid:
        raise SparseConvValueError(
            f"other: shape {tuple(operand.shape)} neither broadcasts to the dense shape "
            f"{tuple(x.shape)} nor has one row per site, ({x.num_sites}, {x.channels})"
        )
    return _at_sites(operand.reshape((1,) * (x.ndim - operand.ndim) + operand.shape), x)


def _broadcasts(t: Tensor, x: SparseTensor) -> bool:
    """Return whether ``t`` broadcasts against the dense shape without making it larger."""
    if t.ndim > x.ndim:
        return False
    sizes = (1,) * (x.ndim - t.ndim) + tuple(t.shape)
    grows = x.channels == 1
    return all(
        size in (1, length) or (axis == 1 and grows)
        for axis, (size, length) in enumerate(zip(sizes, x.shape, strict=True))
    )


def _at_sites(t: Tensor, x: SparseTensor) -> Tensor:
    """Return the values ``[N or 1, C]`` of ``t`` ``[B or 1, C, *(spatial or 1)]`` at the sites."""
    if t.shape[0] == 1 and all(size == 1 for size in t.shape[2:]):
        return t.reshape(1, -1)
    if min(x.sites.lower) < 0 and any(size > 1 for size in t.shape[2:]):
        raise SparseConvValueError("other: no dense tensor meets sites at negative coordinates")
    columns = x.sites.shared_coords.long().unbind(1)
    sizes = (t.shape[0], *t.shape[2:])
    cells = [
        column if size > 1 else torch.zeros_like(column)
        for column, size in zip(columns, sizes, strict=True)
    ]
    return t.movedim(1, -1)[tuple(cells)]

"""Operands of one function brought to the rows of a sparse tensor."""

from __future__ import annotations

from numbers import Number
from typing import Any, TypeAlias

from torch import Tensor

from sparseconv.core.arguments import came, check_device
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.site_sets.broadcast import dense_rows, repeated, repeats
from sparseconv.tensor import SparseTensor

Operand: TypeAlias = SparseTensor | Tensor | float | bool | None


def first_sparse(*operands: Any) -> SparseTensor:
    """Return the SparseTensor among ``operands`` to whose rows the others are brought.

    It is the first one, unless that repeats along an axis in which another has more cells.

    Raises:
        SparseConvTypeError: there is none.
    """
    found: SparseTensor | None = None
    for operand in operands:
        if isinstance(operand, SparseTensor) and (found is None or _is_larger(operand, found)):
            found = operand
    if found is None:
        raise SparseConvTypeError("input: one operand must be a SparseTensor")
    return found


def _is_larger(x: SparseTensor, than: SparseTensor) -> bool:
    """Return whether the other tensor repeats along an axis of this one."""
    if x.sites is than.sites:
        return False
    both = repeats(x.sites, than.sites)
    return both is not None and any(both.second) and not any(both.first)


def rows_beside(x: SparseTensor, operand: Operand) -> Any:
    """Return ``operand`` in a shape that broadcasts against the rows ``[N, C]`` of ``x``.

    A SparseTensor must have the same set of sites, in any row order, or repeat along axes of extent
    1; a dense tensor broadcasts against the dense shape or has a row per site; anything else stays
    as it is.

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
    both = repeats(x.sites, operand.sites)
    if both is not None and not any(both.first):
        return repeated(operand, x.sites)
    rows = x.sites.rows_in(operand.sites)
    if rows is None or operand.num_sites != x.num_sites:
        raise SparseConvValueError(
            f"other: bring both together by sparseconv.union or sparseconv.intersect, they must "
            f"live on the same sites, {x.num_sites} of shape {tuple(x.shape)}, got "
            f"{operand.num_sites} of {tuple(operand.shape)}"
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
    return dense_rows(operand.reshape((1,) * (x.ndim - operand.ndim) + operand.shape), x.sites)


def _broadcasts(t: Tensor, x: SparseTensor) -> bool:
    """Return whether ``t`` broadcasts against the dense shape without making it larger.

    It asks for no extent that an axis of 1 fits anyhow: a graph does not know every one.
    """
    if t.ndim > x.ndim:
        return False
    for axis, size in enumerate(t.shape, start=x.ndim - t.ndim):
        if size == 1 or (axis == 1 and x.channels in (1, size)):
            continue
        if axis == 1 or size != (x.sites.extent[axis - 2] if axis else x.batch_size):
            return False
    return True

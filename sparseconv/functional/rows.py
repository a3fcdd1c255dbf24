"""Operands of one function brought to the rows of a sparse tensor."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import Tensor

from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.arithmetic import _rows
from sparseconv.tensor import SparseTensor

Operand: TypeAlias = SparseTensor | Tensor | float | bool | None


def first_sparse(*operands: Any) -> SparseTensor:
    """Return the first SparseTensor among ``operands``, whose rows the others have to meet.

    Raises:
        SparseConvTypeError: there is none.
    """
    for operand in operands:
        if isinstance(operand, SparseTensor):
            return operand
    raise SparseConvTypeError("input: one operand must be a SparseTensor")


def rows_beside(x: SparseTensor, operand: Operand) -> Any:
    """Return ``operand`` as something that meets the rows ``[N, C]`` of ``x``.

    A SparseTensor must have the same set of sites, in any row order; a dense tensor broadcasts
    against the dense shape or has a row per site; anything else stays as it is.

    Raises:
        SparseConvError: sites, shapes or devices that do not fit.
    """
    if isinstance(operand, Tensor):
        return _rows(operand, x)
    if not isinstance(operand, SparseTensor) or operand is x:
        return operand.features if isinstance(operand, SparseTensor) else operand
    if operand.channels not in (x.channels, 1) and x.channels != 1:
        raise SparseConvValueError(
            f"other: has {operand.channels} channels, the input has {x.channels}"
        )
    if x.sites.same_as(operand.sites):
        return operand.features
    rows, found = operand.sites.rows_of(x.coords)
    extent = (operand.batch_size, *operand.spatial_shape)
    same_set = operand.num_sites == x.num_sites and bool(found.all())
    if extent != (x.batch_size, *x.spatial_shape) or not same_set:
        raise SparseConvValueError(
            f"other: must live on the same sites, {x.sites}, got {operand.sites}; "
            f"sparseconv.union and sparseconv.intersect bring tensors together"
        )
    return operand.features[rows]

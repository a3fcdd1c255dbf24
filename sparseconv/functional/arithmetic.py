"""``+ - * /`` with a number, a tensor or another sparse tensor."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from sparseconv import memory
from sparseconv.dispatch import HANDLERS
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.site_sets import filled
from sparseconv.tensor import SparseTensor

# PyTorch reaches one operation under several names: x + y, torch.add, and a dense tensor's own
# operators when it stands on the left.
OPERATIONS: dict[Callable[..., Any], tuple[Callable[..., Any], ...]] = {
    torch.add: (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__),
    torch.sub: (torch.sub, torch.subtract, torch.Tensor.sub, torch.Tensor.__sub__),
    torch.mul: (torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.__mul__),
    torch.div: (torch.div, torch.true_divide, torch.Tensor.div, torch.Tensor.__truediv__),
}


def _elementwise(function: Callable[..., Tensor]) -> Callable[..., SparseTensor]:
    def operate(input: Any, other: Any, **options: Any) -> SparseTensor:
        """Apply the operation row by row.

        Operands on the same sites meet row by row; on different sites the result has the union,
        and an absent row counts 0. A number acts on every active site, and so does a dense tensor,
        which broadcasts as against the dense shape ``(B, C, *spatial)`` or has one row per site.
        """
        if options.get("out") is not None:
            raise SparseConvTypeError("out: nothing sparse is written in place; leave it out")
        sparse = input if isinstance(input, SparseTensor) else other
        if function is torch.sub and (isinstance(input, bool) or isinstance(other, bool)):
            raise SparseConvTypeError("other: PyTorch subtracts no bool; convert it to a number")
        if isinstance(input, SparseTensor) and isinstance(other, SparseTensor):
            sites, left, right = _on_common_sites(input, other)
            return SparseTensor.on_sites(memory.applied(function, left, right, **options), sites)
        left = _rows(input, sparse)
        right = _rows(other, sparse)
        return sparse.replace(function(left, right, **options))

    return operate


def _on_common_sites(x: SparseTensor, y: SparseTensor) -> tuple[Any, Tensor, Tensor]:
    """Return the sites that hold both, and the features of both on them."""
    if x.ndim != y.ndim or (x.channels != y.channels and 1 not in (x.channels, y.channels)):
        raise SparseConvValueError(f"other: shape {tuple(y.shape)} does not match {tuple(x.shape)}")
    if x.sites.same_as(y.sites):
        return x.sites, x.features, y.features
    sites, rows, other_rows = x.sites.unite(y.sites)
    count = sites.num_sites
    return sites, filled(x.features, rows, count), filled(y.features, other_rows, count)


def _rows(operand: Any, x: SparseTensor) -> Any:
    """Return the operand as something that meets the rows ``[N, C]`` of ``x``."""
    if operand is x:
        return x.features
    if isinstance(operand, Number):
        return operand
    if not isinstance(operand, Tensor):
        raise SparseConvTypeError(
            f"other: must be a number, a torch.Tensor or a SparseTensor, "
            f"got {type(operand).__name__}"
        )
    if operand.device != x.device and operand.ndim > 0:
        raise SparseConvTypeError(f"other: on {operand.device}, but the input is on {x.device}")
    if operand.ndim == 0:
        return operand
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
        size in (1, own) or (axis == 1 and grows)
        for axis, (size, own) in enumerate(zip(sizes, x.shape, strict=True))
    )


def _at_sites(t: Tensor, x: SparseTensor) -> Tensor:
    """Return the values ``[N or 1, C]`` of ``t`` ``[B or 1, C, *(spatial or 1)]`` at the sites."""
    if t.shape[0] == 1 and all(size == 1 for size in t.shape[2:]):
        return t.reshape(1, -1)
    if min(x.sites.lower) < 0 and any(size > 1 for size in t.shape[2:]):
        raise SparseConvValueError("other: no dense tensor meets sites at negative coordinates")
    columns = x.coords.long().unbind(1)
    sizes = (t.shape[0], *t.shape[2:])
    places = [
        column if size > 1 else torch.zeros_like(column)
        for column, size in zip(columns, sizes, strict=True)
    ]
    return t.movedim(1, -1)[tuple(places)]


for _function, _names in OPERATIONS.items():
    for _name in _names:
        HANDLERS[_name] = _elementwise(_function)
HANDLERS[torch.Tensor.__rsub__] = lambda input, other: _elementwise(torch.sub)(other, input)
HANDLERS[torch.Tensor.__rtruediv__] = lambda input, other: _elementwise(torch.div)(other, input)

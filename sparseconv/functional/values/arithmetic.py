"""``+ - * /`` with a number, a tensor or another sparse tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.elementwise import applied
from sparseconv.core.dispatch import HANDLERS
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.site_sets.broadcast import on_larger
from sparseconv.functional.site_sets.sets import filled
from sparseconv.functional.values.rows import rows_of
from sparseconv.tensor import SparseTensor

# PyTorch calls one operation by several names: x + y, torch.add, and the operators of a dense
# tensor when the left operand is dense.
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
        and an absent row counts 0. One that repeats along an axis of extent 1 acts at the sites of
        the other. A number acts on every active site, and so does a dense tensor,
        which broadcasts as against the dense shape ``(B, C, *spatial)`` or has one row per site.
        """
        if options.get("out") is not None:
            raise SparseConvTypeError("out: nothing sparse is written in place; leave it out")
        sparse = input if isinstance(input, SparseTensor) else other
        if function is torch.sub and (isinstance(input, bool) or isinstance(other, bool)):
            raise SparseConvTypeError("other: PyTorch subtracts no bool; convert it to a number")
        if isinstance(input, SparseTensor) and isinstance(other, SparseTensor):
            sites, *rows = _on_common_sites(input, other)
            return SparseTensor.on_sites(applied(function, *rows, **options), sites)
        rows = [rows_of(operand, sparse) for operand in (input, other)]
        return sparse.replace(applied(function, *rows, **options))

    return operate


def _on_common_sites(x: SparseTensor, y: SparseTensor) -> tuple[Any, Tensor, Tensor]:
    """Return the sites that hold both, and the features of both on them."""
    if x.ndim != y.ndim or (x.channels != y.channels and 1 not in (x.channels, y.channels)):
        raise SparseConvValueError(f"other: shape {tuple(y.shape)} does not match {tuple(x.shape)}")
    if x.sites.same_as(y.sites):
        return x.sites, x.features, y.features
    on_larger_one = on_larger(x, y)
    if on_larger_one is not None:
        return on_larger_one
    sites, rows, other_rows = x.sites.unite(y.sites)
    count = sites.num_sites
    return sites, filled(x.features, rows, count), filled(y.features, other_rows, count)


for _function, _names in OPERATIONS.items():
    for _name in _names:
        HANDLERS[_name] = _elementwise(_function)
HANDLERS[torch.Tensor.__rsub__] = lambda input, other: _elementwise(torch.sub)(other, input)
HANDLERS[torch.Tensor.__rtruediv__] = lambda input, other: _elementwise(torch.div)(other, input)

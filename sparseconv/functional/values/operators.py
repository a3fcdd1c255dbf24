"""Python's operators, and functions that write into the features of their first operand."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.dispatch import HANDLERS, implements
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.values.pointwise import PAIRWISE, UNARY, pairwise
from sparseconv.functional.values.rows import Operand, rows_beside
from sparseconv.tensor import SparseTensor

_BINARY: tuple[tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]], ...] = (
    (torch.pow, torch.Tensor.__pow__, torch.Tensor.__rpow__),
    (torch.remainder, torch.Tensor.__mod__, torch.Tensor.__rmod__),
    (torch.floor_divide, torch.Tensor.__floordiv__, torch.Tensor.__rfloordiv__),
)
OPERATORS = tuple(operator for _, *both in _BINARY for operator in both)


def _reflected(function: Callable[..., Tensor]) -> Callable[..., SparseTensor]:
    return pairwise(lambda input, other: function(other, input))


for _function, _operator, _turned in _BINARY:
    _text = f"the operator of torch.{_function.__name__}"
    implements(_operator, meaning=_text, law="as the function")(pairwise(_function))
    implements(_turned, meaning=f"{_text}, turned round", law="as the function")(
        _reflected(_function)
    )

ASSIGNMENTS = {
    torch.add: Tensor.__iadd__,
    torch.sub: Tensor.__isub__,
    torch.mul: Tensor.__imul__,
    torch.div: Tensor.__itruediv__,
}


def _in_place(name: str) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of the method ``name`` of a dense tensor."""

    def write(input: SparseTensor, *operands: Operand, **options: Any) -> SparseTensor:
        if not isinstance(input, SparseTensor):
            raise SparseConvTypeError(
                f"input: a dense tensor takes in no sparse one, leave out the underscore of {name}"
            )
        rows = [rows_beside(input, operand) for operand in operands]
        named = {option: rows_beside(input, value) for option, value in options.items()}
        for value in (*rows, *named.values()):
            _check_size(value, input)
        getattr(input.features, name)(*rows, **named)
        return input

    return write


def _check_size(value: Any, x: SparseTensor) -> None:
    if isinstance(value, Tensor) and value.ndim and value.shape[-1] not in (1, x.channels):
        raise SparseConvValueError(
            f"other: has {value.shape[-1]} channels, the tensor that is written has {x.channels}"
        )


def _assignment(
    function: Callable[..., Any], write: Callable[..., SparseTensor]
) -> Callable[..., SparseTensor]:
    """Return the meaning of ``x += y``: in place on the same sites, else a new tensor."""

    def operate(input: Any, other: Any) -> SparseTensor:
        in_place = isinstance(other, Number | Tensor)
        if isinstance(input, SparseTensor) and isinstance(other, SparseTensor):
            in_place = input.sites.same_as(other.sites)
        chosen = write if in_place else HANDLERS[function]
        return chosen(input, other)

    return operate


_functions: tuple[Any, ...] = (*UNARY, *PAIRWISE, *ASSIGNMENTS)
for _function in _functions:
    _name = f"{_function.__name__}_"
    _meaning = f"torch.{_function.__name__}, written into the features"
    if hasattr(Tensor, _name):
        _write = _in_place(_name)
        _names = [getattr(space, _name) for space in (torch, Tensor) if hasattr(space, _name)]
        implements(*_names, meaning=_meaning, law="operands on the same sites")(_write)
        if _function in ASSIGNMENTS:
            implements(
                ASSIGNMENTS[_function],
                meaning=_meaning,
                law="in place on the same sites; on different ones a new tensor on their union",
            )(_assignment(_function, _write))

"""What functions of values do on tensors whose channels are not axis 1 (``PermutedTensor``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import entries_of
from sparseconv.core.dispatch import HANDLERS, handler_of
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.permuted import (
    PermutedTensor,
    axis_number,
    on_permuted,
    run_channels_first,
    shown,
)
from sparseconv.functional.values.arithmetic import OPERATIONS
from sparseconv.functional.values.operators import ASSIGNMENTS, OPERATORS
from sparseconv.functional.values.pointwise import (
    ACTIVATIONS,
    COMPARISONS,
    OF_THREE,
    PAIRWISE,
    TESTS,
    UNARY,
)
from sparseconv.tensor import SparseTensor

# where a function takes the axes that it runs over, and those that it takes by default
_AXES: dict[Callable[..., Any], tuple[int, Any]] = {
    **dict.fromkeys((torch.sum, torch.mean, torch.var, torch.std, torch.max, torch.min), (1, None)),
    **dict.fromkeys((torch.amax, torch.amin), (1, ())),
    **dict.fromkeys((F.softmax, F.softmin, F.log_softmax), (1, None)),
    **dict.fromkeys((torch.softmax, torch.log_softmax), (1, None)),
    torch.norm: (2, None),
    F.glu: (1, -1),
    F.normalize: (2, 1),
    torch.chunk: (2, 0),
    torch.split: (2, 0),
    torch.cat: (1, 0),
    torch.concat: (1, 0),
    torch.concatenate: (1, 0),
}


def _elementwise(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a function of single values where they lie: operands are brought there."""
    operands = [*args, *kwargs.values()]
    views = [operand for operand in operands if isinstance(operand, PermutedTensor)]
    first = views[0]
    alike = all((view.channel_dim, view.ndim) == (first.channel_dim, first.ndim) for view in views)
    if not alike or any(isinstance(operand, SparseTensor) for operand in operands):
        return run_channels_first(function, args, kwargs)
    values = [_beside(operand, first) for operand in args]
    named = {name: _beside(operand, first) for name, operand in kwargs.items()}
    result = handler_of(function)(*values, **named)
    return shown(result, first.channel_dim) if isinstance(result, SparseTensor) else result


def _beside(operand: Any, view: PermutedTensor) -> Any:
    """Return an operand in the order of axes in which the values of a view lie."""
    if isinstance(operand, PermutedTensor):
        return operand.values
    if not isinstance(operand, Tensor) or operand.ndim == 0 or operand.ndim > view.ndim:
        return operand
    x, sizes = view.values, (1,) * (view.ndim - operand.ndim) + tuple(operand.shape)
    if operand.ndim == 2 < view.ndim and operand.shape[0] == x.num_sites:
        fits = zip(sizes, view.shape, strict=True)
        if not all(size in (1, length) for size, length in fits):
            return operand  # a row for each site
    wide = operand.reshape(sizes)
    return wide.unsqueeze(1) if view.channel_dim is None else wide.movedim(view.channel_dim, 1)


def _over_axes(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a function of named axes on the axes of the values that they show."""
    place, default = _AXES[function]
    views = args[0] if isinstance(args[0], list | tuple) else [args[0]]
    if not all(
        isinstance(view, PermutedTensor) and view.channel_dim == views[0].channel_dim
        for view in views
    ):
        return run_channels_first(function, args, kwargs)
    if len(args) > place and isinstance(args[place], Tensor | PermutedTensor):
        return _elementwise(function, args, kwargs)  # the larger of two
    view, named, rest = views[0], dict(kwargs), list(args)
    dim = rest[place] if len(rest) > place else named.pop("dim", default)
    values = [entry.values for entry in views]
    rest[0] = values if isinstance(args[0], list | tuple) else values[0]
    named_by_place = rest[place + 1 :]
    axes, gone = _axes_of_values(dim, view)
    if named_by_place or len(rest) > place:
        result = handler_of(function)(*rest[:place], axes, *named_by_place, **named)
    else:
        result = handler_of(function)(*rest, dim=axes, **named)
    return _shown(result, view, gone)


def _axes_of_values(dim: Any, view: PermutedTensor) -> tuple[Any, list[int]]:
    """Return the axes of the values that are meant, and the numbers under which they are shown."""
    if dim is None or isinstance(dim, bool) or dim == ():
        return dim, list(range(view.ndim))
    entries = entries_of(dim)
    chosen = [axis_number("dim", axis, view.ndim) for axis in ((dim,) if entries is None else dim)]
    axes = [view.axes[axis] for axis in chosen]
    return (axes[0] if entries is None else axes), chosen


def _shown(result: Any, view: PermutedTensor, gone: Sequence[int]) -> Any:
    """Return a result of the values as the view shows it."""
    place, ndim = view.channel_dim, view.values.ndim
    if isinstance(result, tuple):
        kind = type(result)
        parts = [_shown(part, view, gone) for part in result]
        return tuple(parts) if kind is tuple else kind(parts)
    if isinstance(result, SparseTensor):
        if place is not None and result.ndim < ndim:
            place -= sum(axis < place for axis in gone)
        return shown(result, place)
    if isinstance(result, Tensor) and result.ndim == ndim:
        return result[:, 0] if place is None else result.movedim(1, place)
    if isinstance(result, Tensor) and place is None and result.ndim:
        return result[..., 0]
    return result


def _over_last(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a function of the last axis, which shows the channels."""
    input, *rest = args
    if not isinstance(input, PermutedTensor):
        return run_channels_first(function, args, kwargs)
    if input.channel_dim != input.ndim - 1:
        raise SparseConvValueError(
            f"input: permute the channels to the last axis, they are axis {input.channel_dim} of "
            f"{input.ndim}"
        )
    return shown(handler_of(function)(input.values, *rest, **kwargs), input.channel_dim)


def _single_values() -> list[Callable[..., Any]]:
    """Return the functions of single values, those in place too."""
    named = [*UNARY, *PAIRWISE, *OF_THREE, *OPERATIONS]
    methods = [
        getattr(space, f"{function.__name__}_", None)
        for function in named
        for space in (torch, Tensor)
    ]
    names = [name for group in (*COMPARISONS, *OPERATIONS.values()) for name in group]
    others = (torch.where, F.dropout, F.alpha_dropout, Tensor.__rsub__, Tensor.__rtruediv__)
    pairs = [getattr(Tensor, function.__name__, function) for function in PAIRWISE]
    found = [*ACTIVATIONS, *TESTS, *named, *pairs, *methods, *names, *others, *OPERATORS]
    found += ASSIGNMENTS.values()
    return [function for function in found if function in HANDLERS]


on_permuted(*_single_values())(_elementwise)
on_permuted(*_AXES)(_over_axes)
on_permuted(F.linear, F.layer_norm, F.rms_norm)(_over_last)

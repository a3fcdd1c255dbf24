"""Elementwise functions of features, with large results in memory that has been used before.

The values are those of PyTorch's own functions. Where a result is small, on another device or part
of a graph, its own functions run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd import Rule
from sparseconv.memory import LEAST_BYTES, empty


def applied(function: Callable[..., Tensor], *operands: Any, **options: Any) -> Tensor:
    """Return ``function(*operands, **options)`` of a function whose result has their dtype.

    Args:
        function: of PyTorch's, one that takes ``out``.
        operands: tensors and numbers; the result has their common shape.
        options: of the function.
    """
    tensors = [entry for entry in operands if isinstance(entry, Tensor)]
    if not _is_large(tensors) or any(isinstance(entry, complex) for entry in operands):
        return function(*operands, **options)
    if not _on_tape(tensors):
        return _applied(function, operands, options)
    same = len(tensors) == len(operands) and len({entry.shape for entry in tensors}) == 1
    if function is torch.add and same and not options:
        return _Sum.call(*operands)
    return function(*operands, **options)


def relu(features: Tensor) -> Tensor:
    """Return ``max(features, 0)``."""
    if not _is_large([features]):
        return torch.relu(features)
    return _Relu.call(features)


def joined(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices ``[N, C_i]`` side by side."""
    if not _is_large(columns):
        return torch.cat(list(columns), dim=1)
    return _Joined.call(*columns)


class _Elementwise(Rule):
    """A rule that PyTorch's transforms of functions follow too."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""


class _Sum(_Elementwise):
    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        return _applied(torch.add, (left, right), {})

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], grads[0]


class _Relu(_Elementwise):
    @staticmethod
    def forward(features: Tensor) -> Tensor:
        return _applied(torch.clamp_min, (features, 0), {})

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (result,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            return (torch.where(result > 0, grads[0], 0),)
        out = empty(tuple(result.shape), result.dtype)
        torch.ops.aten.threshold_backward.grad_input(grads[0], result, 0, grad_input=out)
        return (out,)


class _Joined(_Elementwise):
    @staticmethod
    def forward(*columns: Tensor) -> Tensor:
        out = empty(
            (columns[0].shape[0], sum(entry.shape[1] for entry in columns)), columns[0].dtype
        )
        return torch.cat(columns, dim=1, out=out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.widths = [entry.shape[1] for entry in inputs]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(torch.split(grads[0], ctx.widths, dim=1))


def _applied(
    function: Callable[..., Tensor], operands: Sequence[Any], options: dict[str, Any]
) -> Tensor:
    tensors = [entry for entry in operands if isinstance(entry, Tensor)]
    shape = torch.broadcast_shapes(*(entry.shape for entry in tensors))
    return function(*operands, **options, out=empty(tuple(shape), tensors[0].dtype))


def _on_tape(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(entry.requires_grad for entry in tensors)


def _is_large(tensors: Sequence[Tensor]) -> bool:
    """Return whether the memory of a result is worth a thought: plain CPU tensors of one dtype."""
    first = tensors[0]
    if first.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if not all(entry.dtype == first.dtype and entry.device == first.device for entry in tensors):
        return False
    return first.dtype.is_floating_point and sum(t.nbytes for t in tensors) >= LEAST_BYTES

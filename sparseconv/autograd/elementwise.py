"""Elementwise functions of features: those between the layers of nearly every network.

They are PyTorch's own functions. Large results on the CPU lie in memory of the pool, which has been
used before: fresh memory takes longer to touch than the functions take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.rule import Rule, kept_inputs, traceable
from sparseconv.core.private_torch import count_modes
from sparseconv.engines.memory import empty

MUCH = 32768  # values, from which PyTorch's functions use several threads
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@traceable
def applied(function: Callable[..., Tensor], *operands: Any, **options: Any) -> Tensor:
    """Return ``function(*operands, **options)`` of a function whose result has their dtype.

    Args:
        function: of PyTorch's, one that takes ``out``.
        operands: tensors and numbers; the result has their common shape.
        options: of the function.
    """
    tensors = [entry for entry in operands if isinstance(entry, Tensor)]
    if not _is_much(tensors) or any(isinstance(entry, complex) for entry in operands):
        return function(*operands, **options)
    same = len(tensors) == len(operands) and len({entry.shape for entry in tensors}) == 1
    if function is torch.add and same and not options:
        return _Sum.call(*operands)
    if torch.is_grad_enabled() and any(entry.requires_grad for entry in tensors):
        return function(*operands, **options)
    shape = torch.broadcast_shapes(*(entry.shape for entry in tensors))
    return function(*operands, **options, out=empty(tuple(shape), tensors[0].dtype))


@traceable
def relu(features: Tensor) -> Tensor:
    """Return ``max(features, 0)``."""
    if not _is_much([features]):
        return torch.relu(features)
    return _Relu.call(features)


@traceable
def joined(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices ``[N, C_i]`` side by side."""
    if not _is_much(columns):
        return torch.cat(list(columns), dim=1)
    return _Joined.call(*columns)


class _Elementwise(Rule):
    """A rule of one of PyTorch's functions."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""


class _Sum(_Elementwise):
    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        return torch.add(left, right, out=empty(tuple(left.shape), left.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], grads[0]

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the sum of the tangents."""
        given = [entry for entry in tangents if entry is not None]
        return sum(given[1:], given[0])


class _Relu(_Elementwise):
    @staticmethod
    def forward(features: Tensor) -> Tensor:
        out = empty(tuple(features.shape), features.dtype)
        return torch.threshold(features, 0, 0, out=out)  # NaN stays NaN

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (result,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            return (torch.where(result > 0, grads[0], 0),)
        out = empty(tuple(result.shape), result.dtype)
        torch.ops.aten.threshold_backward(grads[0], result, 0, grad_input=out)
        return (out,)

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the tangent where the input is positive."""
        return torch.where(kept_inputs(ctx)[0] > 0, tangents[0], 0)


class _Joined(_Elementwise):
    @staticmethod
    def forward(*columns: Tensor) -> Tensor:
        shape = columns[0].shape[0], sum(entry.shape[1] for entry in columns)
        return torch.cat(columns, dim=1, out=empty(shape, columns[0].dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.widths = [entry.shape[1] for entry in inputs]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = torch.split(grads[0], ctx.widths, dim=1)
        if torch.is_grad_enabled():
            return parts
        return tuple(empty(tuple(entry.shape), entry.dtype).copy_(entry) for entry in parts)

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the tangents side by side."""
        pairs = zip(kept_inputs(ctx), tangents, strict=True)
        return torch.cat([torch.zeros_like(x) if t is None else t for x, t in pairs], dim=1)


def _is_much(tensors: Sequence[Tensor]) -> bool:
    """Return whether the result should lie in the pool: plain CPU tensors of one dtype."""
    first, values = tensors[0], 0
    if first.device.type != "cpu" or first.dtype not in _DTYPES or count_modes():
        return False
    for entry in tensors:
        if entry.dtype != first.dtype or entry.device != first.device:
            return False
        values += entry.numel()
    return values >= MUCH

"""Rows into the cells of a dense tensor, channels first, and back: each the other's adjoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparseconv.autograd.rule import Rule, kept_inputs, traceable
from sparseconv.core.arguments import Ints
from sparseconv.engines.memory import empty


@traceable
def planes_of_rows(values: Tensor, cells: Tensor, shape: Ints, fill: float = 0) -> Tensor:
    """Return the dense tensor ``[B, C, S]`` with a row's values at its cell; differentiable.

    Args:
        values: ``[N, C]``.
        cells: int64 ``[N]``, all different: ``sample * S + place``.
        shape: B and S, both at least 1.
        fill: the value of the other cells.
    """
    return _Planes.call(values, cells, shape, fill)


@traceable
def rows_of_planes(planes: Tensor, cells: Tensor) -> Tensor:
    """Return the rows ``[N, C]`` of ``planes`` ``[B, C, S]`` at different cells; differentiable."""
    return _Rows.call(planes, cells)


def composed_planes(values: Tensor, cells: Tensor, shape: Ints, fill: float = 0) -> Tensor:
    """Return :func:`planes_of_rows` by functions of PyTorch's that a graph can hold."""
    planes = values.new_full((shape[0], values.shape[1], shape[1]), fill)
    return planes.movedim(1, -1).index_put(_places(cells, shape[1]), values).movedim(-1, 1)


def composed_rows(planes: Tensor, cells: Tensor) -> Tensor:
    """Return :func:`rows_of_planes` by functions of PyTorch's that a graph can hold."""
    return planes.movedim(1, -1)[_places(cells, planes.shape[2])]


class _Planes(Rule):
    @staticmethod
    def forward(values: Tensor, cells: Tensor, shape: Ints, fill: float) -> Tensor:
        full = (shape[0], values.shape[1], shape[1])
        if values.device.type == "cpu":  # from the pool: fresh memory takes four times as long
            planes = empty(full, values.dtype).fill_(fill)
        else:
            planes = values.new_full(full, fill)
        planes.movedim(1, -1).index_put_(_places(cells, shape[1]), values)
        return planes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (cells,) = ctx.saved_tensors
        return _Rows.call(grads[0], cells), None, None, None

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the tangent's rows in their cells, 0 elsewhere."""
        _, cells, shape, _ = kept_inputs(ctx)
        return cls.call(tangents[0], cells, shape, 0)


class _Rows(Rule):
    @staticmethod
    def forward(planes: Tensor, cells: Tensor) -> Tensor:
        rows = planes.movedim(1, -1)[_places(cells, planes.shape[2])]
        return rows.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        planes, cells = inputs
        ctx.save_for_backward(cells)
        ctx.shape = planes.shape[0], planes.shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (cells,) = ctx.saved_tensors
        return _Planes.call(grads[0], cells, ctx.shape, 0), None


def _places(cells: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the sample and the place in it of each cell."""
    return cells.div(max(size, 1), rounding_mode="floor"), cells.remainder(max(size, 1))

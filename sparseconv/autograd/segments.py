"""The rules of sums over segments of rows, and of their adjoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, own
from sparseconv.core.transforms import transformed
from sparseconv.engines import Engine


class _SegmentSum(Rule):
    """Sums over segments of rows; its derivative hands each row its segment's gradient."""

    @staticmethod
    def forward(
        values: Tensor, order: Tensor, starts: Tensor, segment: Tensor, engine: Engine
    ) -> Tensor:
        return own(engine.segment_sum(values, order, starts))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, order, starts, segment, engine = inputs
        ctx.save_for_backward(order, starts, segment)
        ctx.engine = engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        order, starts, segment = ctx.saved_tensors
        spread = _SegmentGather.call(grads[0], order, starts, segment, ctx.engine)
        return spread, None, None, None, None


class _SegmentGather(Rule):
    """``out[n] = values[segment[n]]``, 0 where the segment is -1; derivative: the sums above."""

    @staticmethod
    def forward(
        values: Tensor,
        order: Tensor,
        starts: Tensor,
        segment: Tensor,
        engine: Engine,
    ) -> Tensor:
        if values.shape[0] == 0:
            return values.new_zeros(segment.numel(), values.shape[1])
        return values[segment].masked_fill_((segment < 0)[:, None], 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, order, starts, segment, engine = inputs
        ctx.save_for_backward(order, starts, segment)
        ctx.engine = engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        order, starts, segment = ctx.saved_tensors
        total = _SegmentSum.call(grads[0], order, starts, segment, ctx.engine)
        return total, None, None, None, None


def segment_sum(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return the sums ``[S, C]`` of ``values`` ``[N, C]`` over segments, in a fixed order.

    Args:
        values: ``[N, C]``.
        order: rows, those of one segment side by side.
        starts: int64 ``[S + 1]``, where each segment begins in ``order``.
        segment: int64 ``[N]``, the segment of each row, -1 for none.
    """
    return _SegmentSum.call(values, order, starts, segment, engines.for_tensor(values))


def segment_gather(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return ``values[segment]`` ``[N, C]``, zero where ``segment`` is -1: the sum's adjoint."""
    engine = engines.for_tensor(values)
    return _SegmentGather.call(values, order, starts, segment, engine)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return int64 ``[S, C]``: the row of each segment's first largest value, per column."""
    # the values of a transform have no memory that another engine could read
    engine = engines.get("torch") if transformed() else engines.for_tensor(values)
    return engine.segment_argmax(values.detach(), order, starts)

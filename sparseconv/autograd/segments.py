"""Rows that fall on one site: the rules of their sums, and what they are merged and spread by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, traceable
from sparseconv.core.dtypes import summable
from sparseconv.core.index import Groups
from sparseconv.core.private_torch import not_a_view
from sparseconv.engines import Engine
from sparseconv.errors import SparseConvValueError

REDUCTIONS = ("mean", "sum", "max", "min", "first", "last")


class _SegmentSum(Rule):
    """Sums over segments of rows; its derivative hands each row its segment's gradient."""

    @staticmethod
    def forward(
        values: Tensor, order: Tensor, starts: Tensor, segment: Tensor, engine: Engine
    ) -> Tensor:
        return not_a_view(engine.segment_sum(values, order, starts))

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


class _SegmentArgmax(Rule):
    """The row of each segment's first largest value, which has no derivative."""

    @staticmethod
    def forward(values: Tensor, order: Tensor, starts: Tensor, engine: Engine) -> Tensor:
        return not_a_view(engine.segment_argmax(values.detach(), order, starts))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return None: rows are numbered, not measured."""
        return None


@traceable
def segment_sum(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return the sums ``[S, C]`` of ``values`` ``[N, C]`` over segments, in a fixed order.

    Args:
        values: ``[N, C]``.
        order: rows, those of one segment side by side.
        starts: int64 ``[S + 1]``, where each segment begins in ``order``.
        segment: int64 ``[N]``, the segment of each row, -1 for none.
    """
    return _SegmentSum.call(values, order, starts, segment, engines.for_tensor(values))


@traceable
def segment_gather(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return ``values[segment]`` ``[N, C]``, zero where ``segment`` is -1: the sum's adjoint."""
    engine = engines.for_tensor(values)
    return _SegmentGather.call(values, order, starts, segment, engine)


@traceable
def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return int64 ``[S, C]``: the row of each segment's first largest value, per column."""
    return _SegmentArgmax.call(values.detach(), order, starts, engines.for_tensor(values))


def check_reduction(reduce: str) -> None:
    """Raise unless ``reduce`` is one of :data:`REDUCTIONS`."""
    if reduce not in REDUCTIONS:
        raise SparseConvValueError(f"reduce: must be one of {REDUCTIONS}, got {reduce!r}")


def reduce_groups(values: Tensor, groups: Groups, reduce: str) -> Tensor:
    """Return one row per site, ``[S, C]``, from ``values`` ``[N, C]``; differentiable.

    Rows are added in their own order, so the same rows give the same bits. Of equal largest
    values the first is taken, and the gradient goes to it alone.

    Raises:
        SparseConvValueError: unknown ``reduce``.
    """
    check_reduction(reduce)
    order, starts, site_of_row = groups
    if reduce == "sum":
        return segment_sum(values, order, starts, site_of_row)
    if reduce == "mean":
        # a sum of many rows, and their number, do not fit float16
        total = segment_sum(summable(values), order, starts, site_of_row)
        return (total / starts.diff()[:, None].to(total.dtype)).to(values.dtype)
    if reduce == "first":
        return values[order[starts[:-1]]]
    if reduce == "last":
        return values[order[starts[1:] - 1]]
    signed = values if reduce == "max" else -values
    best = segment_argmax(signed, order, starts)
    return torch.gather(values, 0, best)


def place_rows(values: Tensor, rows: Tensor, into: Tensor) -> Tensor:
    """Return ``into`` ``[N, C]`` with ``values`` ``[M, C]`` at its ``rows``, which differ.

    Autocast stays out: to move rows is no arithmetic, and it refuses one half beside another.
    """
    with torch.autocast(values.device.type, enabled=False):
        return into.index_copy(0, rows, values)


def group_rows(site_of_row: Tensor, num_sites: int) -> Groups:
    """Return the groups of rows that know their site, int64 ``[N]``, -1 for no site.

    Rows without a site are in no group. Groups may be empty.
    """
    ascending, order = torch.sort(site_of_row, stable=True)
    bounds = torch.arange(num_sites + 1, device=site_of_row.device)
    absent = torch.searchsorted(ascending, 0)
    starts = torch.searchsorted(ascending, bounds) - absent
    return Groups(order[absent:], starts, site_of_row)


def gather_rows(values: Tensor, groups: Groups) -> Tensor:
    """Return each row's site's values, ``[N, C]``, zero without a site: the sum's adjoint.

    The gradient adds a site's rows in their own order, where indexing would add them by atomics.
    """
    return segment_gather(values, *groups)


def sum_rows(values: Tensor, groups: Groups) -> Tensor:
    """Return the sum of each site's rows, ``[S, C]``, zero for a site without rows."""
    return segment_sum(values, *groups)

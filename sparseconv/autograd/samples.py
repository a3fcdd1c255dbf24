"""The rules of sums over the active sites of each sample, and sums that are taken as one.

The order of additions is that of :mod:`sparseconv.sites.samples`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, traceable
from sparseconv.autograd.segments import place_rows, segment_argmax
from sparseconv.engines import Engine
from sparseconv.sites.samples import Samples


class _SampleSum(Rule):
    """Sums over samples; its derivative hands each row its sample's gradient."""

    @staticmethod
    def forward(values: Tensor, samples: Samples, engine: Engine) -> Tensor:
        for order, starts in samples.levels:
            values = engine.segment_sum(values, order, starts)
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.samples, ctx.engine = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _SampleSpread.call(grads[0], ctx.samples, ctx.engine), None, None


class _SampleSpread(Rule):
    """``out[n] = values[sample of row n]``; its derivative is the sum."""

    @staticmethod
    def forward(values: Tensor, samples: Samples, engine: Engine) -> Tensor:
        if samples.sample_of_row is not None:
            return values[samples.sample_of_row]
        return values.expand(samples.num_rows, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.samples, ctx.engine = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _SampleSum.call(grads[0], ctx.samples, ctx.engine), None, None


@traceable
def sample_sum(values: Tensor, samples: Samples) -> Tensor:
    """Return the sums ``[S, C]`` of rows ``[N, C]`` over samples, differentiably.

    Half precisions should be widened first: every level rounds to the dtype of ``values``.
    """
    return _SampleSum.call(values, samples, engines.for_tensor(values))


def sample_statistics(values: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return each sample's sums ``[S, C]``, and those of the squares of what is off its mean.

    Outside autograd; float32 for half precisions. The rows are read once: blocks of them give sums
    and squares of their own, which are put together.
    """
    engine = engines.for_tensor(values)
    (order, starts), *levels = samples.levels
    sums, squares = engine.segment_statistics(values, order, starts)
    counts = samples.first_counts
    for above in levels:
        sums, squares, counts = engine.merge_statistics(sums, squares, counts, *above)
    return sums, squares


def composed_statistics(values: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return :func:`sample_statistics` by rules, for those who follow what is computed."""
    sums = sample_sum(values, samples)
    off = values - sample_spread(sums / samples.counts.clamp(min=1)[:, None], samples)
    return sums, sample_sum(off * off, samples)


def sample_moment(
    left: Tensor, right: Tensor, centre: Tensor, samples: Samples
) -> tuple[Tensor, Tensor]:
    """Return each sample's sums ``[S, C]`` of ``right``, and of ``(left - centre) * right``.

    Outside autograd; ``centre`` ``[S, C]``, float32 for half precisions. The rows are read once.
    """
    engine = engines.for_tensor(left)
    (order, starts), *levels = samples.levels
    if levels:
        centre = _of_blocks(centre, samples)
    total, along = engine.segment_moment(left, right, centre, order, starts)
    for order_above, starts_above in levels:
        total = engine.segment_sum(total, order_above, starts_above)
        along = engine.segment_sum(along, order_above, starts_above)
    return total, along


def _of_blocks(values: Tensor, samples: Samples) -> Tensor:
    """Return the entry ``[blocks, C]`` of ``values`` ``[S, C]`` of each first block's sample."""
    order, starts = samples.levels[0]
    if samples.sample_of_row is None:
        return values.expand(starts.numel() - 1, -1)
    return values[samples.sample_of_row[order[starts[:-1]]]]


@traceable
def sample_spread(values: Tensor, samples: Samples) -> Tensor:
    """Return each row's entry ``[N, C]`` of ``values`` ``[S, C]``: the adjoint of the sum."""
    return _SampleSpread.call(values, samples, engines.for_tensor(values))


@traceable
def sample_max(values: Tensor, samples: Samples) -> Tensor:
    """Return the largest value ``[S, C]`` of each sample, 0 where a sample has no row.

    Of equal values the first in ascending order of the sites gets the gradient. NaN is largest.
    """
    out = values.new_zeros(len(samples.numbers), values.shape[1])
    return place_rows(values.gather(0, sample_argmax(values, samples)), samples.full, out)


def sample_argmax(values: Tensor, samples: Samples) -> Tensor:
    """Return the row ``[S', C]`` of the largest value of each sample that has a row."""
    rows, held = None, values.detach()
    for order, starts in samples.levels[:-1]:
        best = segment_argmax(held, order, starts)
        rows = best if rows is None else rows.gather(0, best)
        held = values.detach().gather(0, rows)
    order, starts = samples.levels[-1]
    # a segment without rows has no largest one: the starts of the others still join up
    best = segment_argmax(held, order, torch.cat([starts[:-1][samples.full], starts[-1:]]))
    return best if rows is None else rows.gather(0, best)

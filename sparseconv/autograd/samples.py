"""Sums and maxima over the active sites of each sample, in an order that the sites alone decide.

A sample's rows are added in ascending order of their sites, in blocks of ``BLOCK`` and then blocks
of blocks. Blocks begin with the sample, so a sum has the same bits whatever the number of threads,
the order of the rows, and the samples beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.merging import place_rows
from sparseconv.autograd.rule import Rule
from sparseconv.autograd.segments import segment_argmax
from sparseconv.core.index import starts_of
from sparseconv.core.transforms import outside_transforms, transformed
from sparseconv.engines import Engine
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.sites.sites import Sites

BLOCK = 64


@dataclass(frozen=True, eq=False)
class Samples:
    """The rows of each sample, or of the whole batch as one.

    Attributes:
        num_rows: N.
        order: int64 ``[N]``, the rows in ascending order of their sites; None where they are.
        sample_of_row: int64 ``[N]``, or None where all rows are one sample.
        counts: int64 ``[S]``, the number of rows of each sample.
    """

    num_rows: int
    order: Tensor | None
    sample_of_row: Tensor | None
    counts: Tensor

    @cached_property
    @outside_transforms
    def levels(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """One ``(order, starts)`` per level of blocks.

        Block ``b`` holds the rows ``order[starts[b]:starts[b + 1]]`` of the level before; the
        blocks of the last level are the samples.
        """
        order, counts = self.order, self.counts
        if order is None:
            order = torch.arange(self.num_rows, device=counts.device)
        levels = []
        while counts.numel() and int(counts.max()) > BLOCK:
            blocks = (counts + BLOCK - 1) // BLOCK
            first = torch.repeat_interleave(starts_of(counts)[:-1], blocks)
            number = torch.arange(first.numel(), device=first.device)
            number = number - torch.repeat_interleave(starts_of(blocks)[:-1], blocks)
            starts = torch.cat([first + number * BLOCK, counts.sum()[None]])
            levels.append((order, starts))
            order, counts = torch.arange(first.numel(), device=first.device), blocks
        return (*levels, (order, starts_of(counts)))

    @cached_property
    @outside_transforms
    def some(self) -> Tensor:
        """The number of rows of each sample, int64 ``[S, 1]``; 1 where there is none."""
        return self.counts.clamp(min=1)[:, None]

    @cached_property
    @outside_transforms
    def first_counts(self) -> Tensor:
        """How many rows each block of the first level holds, int64."""
        return self.levels[0][1].diff()

    @cached_property
    @outside_transforms
    def learnt_from(self) -> tuple[Tensor | None, Tensor] | None:
        """The samples that have a variance, and ``n / (n - 1)`` of each, float64 ``[S', 1]``.

        The samples are None where they are all, and the whole is None where there are none.
        """
        enough = self.counts > 1
        if not bool(enough.any()):
            return None
        sites = self.counts[enough][:, None].double()
        return (None if bool(enough.all()) else enough), sites / (sites - 1)


@dataclass(frozen=True, eq=False)
class TracedSamples:
    """The rows of each sample, or of the whole batch as one, that a graph will know.

    Attributes:
        rows: ``[N, 0]``, carries the number of rows.
        lanes: ``[S, 0]``, carries the number of samples.
        handle: of the sites.
        whole: whether all rows are one sample.
    """

    rows: Tensor
    lanes: Tensor
    handle: Tensor
    whole: bool

    @property
    def counts(self) -> Tensor:
        """The number of rows of each sample, float32 ``[S]``."""
        ones = self.rows.new_ones(self.rows.shape[0], 1, dtype=torch.float32)
        return _ops().summed(ones, self.lanes, self.handle, self.whole)[:, 0]  # type: ignore[no-any-return]

    @property
    def some(self) -> Tensor:
        """The same as ``[S, 1]``, 1 where there is none."""
        return self.counts.clamp(min=1)[:, None]


AnySamples: TypeAlias = Samples | TracedSamples


def _ops() -> Any:
    """Return the operators of a graph; they are defined when one first asks for them."""
    from sparseconv.tracing import samples as traced_samples  # noqa: PLC0415  # defining operators takes its time

    return traced_samples


@outside_transforms
def samples_of(sites: Sites) -> AnySamples:
    """Return the rows of each sample of the batch."""
    if torch.compiler.is_compiling():
        lanes = _ops().sample_lanes(sites.rows, sites.handle)
        return TracedSamples(sites.rows, lanes, sites.handle, False)
    known: Samples | None = sites.index.tables.get("samples")
    if known is None or known.counts.numel() != sites.batch_size:
        batch = sites.coords[:, 0].long()
        counts = torch.bincount(batch, minlength=sites.batch_size)
        known = Samples(sites.num_sites, sites.index.order, batch, counts)
        sites.index.tables["samples"] = known
    return known


@outside_transforms
def whole_batch(sites: Sites) -> AnySamples:
    """Return all rows as one sample."""
    if torch.compiler.is_compiling():
        return TracedSamples(sites.rows, sites.rows.new_empty(1, 0), sites.handle, True)
    known: Samples | None = sites.index.tables.get("whole batch")
    if known is None:
        counts = torch.tensor([sites.num_sites], device=sites.device)
        known = Samples(sites.num_sites, sites.index.order, None, counts)
        sites.index.tables["whole batch"] = known
    return known


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


def sample_sum(values: Tensor, samples: AnySamples) -> Tensor:
    """Return the sums ``[S, C]`` of rows ``[N, C]`` over samples, differentiably.

    Half precisions should be widened first: every level rounds to the dtype of ``values``.
    """
    if isinstance(samples, TracedSamples):
        return _ops().summed(values, samples.lanes, samples.handle, samples.whole)  # type: ignore[no-any-return]
    return _SampleSum.call(values, samples, engines.for_tensor(values))


def sample_statistics(values: Tensor, samples: AnySamples) -> tuple[Tensor, Tensor]:
    """Return each sample's sums ``[S, C]``, and those of the squares of what is off its mean.

    Outside autograd; float32 for half precisions. The rows are read once: blocks of them give sums
    and squares of their own, which are put together.
    """
    if isinstance(samples, TracedSamples) or transformed():
        sums = sample_sum(values, samples)
        off = values - sample_spread(sums / samples.counts.clamp(min=1)[:, None], samples)
        return sums, sample_sum(off * off, samples)
    engine = engines.for_tensor(values)
    (order, starts), *levels = samples.levels
    sums, squares = engine.segment_statistics(values, order, starts)
    counts = samples.first_counts
    for above in levels:
        sums, squares, counts = engine.merge_statistics(sums, squares, counts, *above)
    return sums, squares


def sample_moment(
    left: Tensor, right: Tensor, centre: Tensor, samples: AnySamples
) -> tuple[Tensor, Tensor]:
    """Return each sample's sums ``[S, C]`` of ``right``, and of ``(left - centre) * right``.

    Outside autograd; ``centre`` ``[S, C]``, float32 for half precisions. The rows are read once.
    """
    if isinstance(samples, TracedSamples):
        off = left - sample_spread(centre, samples)
        return sample_sum(right, samples), sample_sum(off * right, samples)
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


def sample_spread(values: Tensor, samples: AnySamples) -> Tensor:
    """Return each row's entry ``[N, C]`` of ``values`` ``[S, C]``: the adjoint of the sum."""
    if isinstance(samples, TracedSamples):
        return _ops().spread(values, samples.rows, samples.handle, samples.whole)  # type: ignore[no-any-return]
    return _SampleSpread.call(values, samples, engines.for_tensor(values))


def sample_max(values: Tensor, samples: AnySamples) -> Tensor:
    """Return the largest value ``[S, C]`` of each sample, 0 where a sample has no row.

    Of equal values the first in ascending order of the sites gets the gradient. NaN is largest.
    """
    if isinstance(samples, TracedSamples):
        raise SparseConvNotImplementedError(
            "amax: a compiled graph has no largest value of a sample; pool outside of it"
        )
    rows, held = None, values.detach()
    for order, starts in samples.levels[:-1]:
        best = segment_argmax(held, order, starts)
        rows = best if rows is None else rows.gather(0, best)
        held = values.detach().gather(0, rows)
    order, starts = samples.levels[-1]
    full = torch.nonzero(samples.counts)[:, 0]
    # a segment without rows has no largest one: the starts of the others still join up
    best = segment_argmax(held, order, torch.cat([starts[:-1][full], starts[-1:]]))
    rows = best if rows is None else rows.gather(0, best)
    out = values.new_zeros(samples.counts.numel(), values.shape[1])
    return place_rows(values.gather(0, rows), full, out)

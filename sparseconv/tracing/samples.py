"""Sums over samples inside a compiled graph; see :mod:`sparseconv.tracing.operators`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.samples import sample_argmax, sample_spread, sample_sum
from sparseconv.core.private_torch import dynamic_size
from sparseconv.sites.batches import site_per_sample
from sparseconv.sites.samples import Samples
from sparseconv.tracing.handles import living, owning_handle


def _samples(handle: Tensor, whole: bool) -> Samples:
    sites = living(handle)
    return sites.whole_batch if whole else sites.samples


@torch.library.custom_op("sparseconv::sample_lanes", mutates_args=())
def sample_lanes(rows: Tensor, handle: Tensor) -> Tensor:
    """Return ``[S, 0]``, which carries the number of samples."""
    return rows.new_empty(living(handle).batch_size, 0)


@sample_lanes.register_fake
def _(rows, handle):  # type: ignore[no-untyped-def]
    return rows.new_empty(dynamic_size(), 0)


@torch.library.custom_op("sparseconv::cell_per_sample", mutates_args=())
def cell_per_sample(rows: Tensor, handle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return handle and ``[S', 0]`` of one site for each sample with sites, and those samples."""
    samples, sites = site_per_sample(living(handle))
    return owning_handle(sites), rows.new_empty(sites.num_sites, 0), samples.clone()


@cell_per_sample.register_fake
def _(rows, handle):  # type: ignore[no-untyped-def]
    count = dynamic_size()
    samples = rows.new_empty(count, dtype=torch.int64)
    return torch.empty_like(handle), rows.new_empty(count, 0), samples


@torch.library.custom_op("sparseconv::sample_largest", mutates_args=())
def sample_largest(values: Tensor, lanes: Tensor, handle: Tensor, whole: bool) -> Tensor:
    """Return the row of each sample's largest value, int64 ``[S, C]``, -1 where it has no row."""
    samples = _samples(handle, whole)
    rows = torch.full((lanes.shape[0], values.shape[1]), -1, device=values.device)
    return rows.index_copy_(0, samples.full, sample_argmax(values, samples))


@sample_largest.register_fake
def _(values, lanes, handle, whole):  # type: ignore[no-untyped-def]
    return values.new_empty(lanes.shape[0], values.shape[1], dtype=torch.int64)


@torch.library.custom_op("sparseconv::summed", mutates_args=())
def summed(values: Tensor, lanes: Tensor, handle: Tensor, whole: bool) -> Tensor:
    """Return the sums over samples, ``[S, C]``."""
    return sample_sum(values, _samples(handle, whole)).clone()


@summed.register_fake
def _(values, lanes, handle, whole):  # type: ignore[no-untyped-def]
    return values.new_empty(lanes.shape[0], values.shape[1])


@torch.library.custom_op("sparseconv::spread", mutates_args=())
def spread(values: Tensor, rows: Tensor, handle: Tensor, whole: bool) -> Tensor:
    """Return each row's entry of ``values`` ``[S, C]``, ``[N, C]``."""
    return sample_spread(values, _samples(handle, whole)).clone(
        memory_format=torch.contiguous_format
    )


@spread.register_fake
def _(values, rows, handle, whole):  # type: ignore[no-untyped-def]
    return values.new_empty(rows.shape[0], values.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, _, handle, ctx.whole = inputs
    ctx.save_for_backward(values.detach()[:, :0], handle)


def _back_from_sums(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rows, handle = ctx.saved_tensors
    return spread(grad.contiguous(), rows, handle, ctx.whole), None, None, None


def _back_from_rows(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    lanes, handle = ctx.saved_tensors
    return summed(grad.contiguous(), lanes, handle, ctx.whole), None, None, None


summed.register_autograd(_back_from_sums, setup_context=_save)
spread.register_autograd(_back_from_rows, setup_context=_save)

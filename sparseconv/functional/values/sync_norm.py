"""Batch normalisation over the active sites of all processes.

Two sums travel: of the values with their number, and of the squares of what is off the mean. Each
is summed over the processes again on the way back. ``torch.nn.SyncBatchNorm`` asks for the meaning
of its input through :mod:`sparseconv.integration.modules`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from sparseconv.autograd.normalise import affine
from sparseconv.autograd.rule import Rule
from sparseconv.autograd.samples import sample_spread, sample_sum
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.dtypes import wider
from sparseconv.functional.values.norm import check_channels
from sparseconv.sites.samples import Samples
from sparseconv.tensor import SparseTensor


@dispatched
def sync_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    process_group: Any = None,
) -> Tensor:
    """Return what batch normalisation in training makes of this process's part of the joined batch.

    Every process of the group has to call it, those without any value too, forwards and backwards.

    Args:
        input: ``[B, C, *spatial]``, or a SparseTensor: statistics over its active sites.
        running_mean, running_var: ``[C]``, moved towards the joined batch's, or None.
        weight, bias: ``[C]`` or None.
        momentum: share of the new statistics in the running ones.
        eps: added to the variance.
        process_group: of ``torch.distributed``, on any backend; None for all processes.
    """
    rows = input.movedim(1, -1)
    flat = rows.reshape(-1, input.shape[1])
    whole = Samples(None, None, (len(flat),), input.device)
    given = running_mean, running_var, weight, bias
    normal = _over_processes(flat, whole, given, momentum, eps, process_group)
    return normal.reshape(rows.shape).movedim(-1, 1)


@implements(sync_batch_norm)
def _sparse_sync_batch_norm(
    input: SparseTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    process_group: Any = None,
) -> SparseTensor:
    check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    given = running_mean, running_var, weight, bias
    whole = input.sites.whole_batch
    return input.replace(
        _over_processes(input.features, whole, given, momentum, eps, process_group)
    )


_torch_forward = torch.nn.SyncBatchNorm.forward


@implements(_torch_forward)
def _torch_sync_batch_norm(norm: torch.nn.SyncBatchNorm, input: SparseTensor) -> SparseTensor:
    """Return the same for PyTorch's module, which refuses processors but GPUs."""
    if norm.training and is_shared(norm.process_group):
        return cast(SparseTensor, in_training(norm, cast(Any, input), norm.process_group))
    return cast(SparseTensor, _torch_forward(norm, cast(Any, input)))


def is_shared(process_group: Any) -> bool:
    """Return whether there are several processes to share statistics."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    return distributed.get_world_size(process_group) > 1


def in_training(norm: Any, input: Tensor, process_group: Any) -> Tensor:
    """Call :func:`sync_batch_norm` as a module of batch normalisation that is in training does."""
    statistics: tuple[Any, Any] = (None, None)
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.track_running_stats:
        statistics = norm.running_mean, norm.running_var
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the mean of all batches
                momentum = 1 / float(norm.num_batches_tracked)
    return sync_batch_norm(
        input, *statistics, norm.weight, norm.bias, momentum, norm.eps, process_group
    )


class _SumOverProcesses(Rule):
    """The sum of every process's tensor; so is its derivative."""

    @staticmethod
    def forward(values: Tensor, group: Any) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.group = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _SumOverProcesses.call(grads[0], ctx.group), None


def _over_processes(
    rows: Tensor,
    whole: Samples,
    given: tuple[Tensor | None, ...],
    momentum: float,
    eps: float,
    group: Any,
) -> Tensor:
    """Return the normalised rows ``[N, C]``; move the running statistics."""
    running_mean, running_var, weight, bias = given
    wide = rows.to(wider(rows.dtype))
    sums = torch.cat([sample_sum(wide, whole)[0], wide.new_full((1,), len(rows))])
    sums = _SumOverProcesses.call(sums, group)
    count = sums[-1].detach()
    mean = sums[:-1] / count.clamp(min=1)
    centred = wide - sample_spread(mean[None], whole)
    squares = _SumOverProcesses.call(sample_sum(centred * centred, whole)[0], group)
    variance = squares / count.clamp(min=1)
    if float(count) > 1:  # fewer have no variance to learn from
        with torch.no_grad():
            unbiased = variance * count / (count - 1)
            for running, values in ((running_mean, mean), (running_var, unbiased)):
                if running is not None:
                    running.lerp_(values.to(running.dtype), momentum)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.to(scale.dtype)
    shift = torch.zeros_like(scale) if bias is None else bias.to(scale.dtype)
    return affine(centred, scale[None], shift[None], whole).to(rows.dtype)

"""Normalisation: statistics run over active sites only.

Every sum is one of :mod:`sparseconv.autograd.samples`: PyTorch's own batch normalisation adds
rows in an order that changes with the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.normalise import by_statistics, normalise
from sparseconv.autograd.samples import sample_spread
from sparseconv.core.arguments import check_device
from sparseconv.core.dispatch import implements, refuse
from sparseconv.core.dtypes import summable, tree_sum
from sparseconv.core.handles import DOORS
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.precision import widened
from sparseconv.sites.samples import Samples
from sparseconv.tensor import SparseTensor


@implements(
    F.batch_norm,
    meaning="normalise each channel over the active sites of the batch",
    law="statistics over active sites; with fewer than two sites the output is the bias and the "
    "running statistics stay",
)
def _sparse_batch_norm(
    input: SparseTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> SparseTensor:
    """Batch normalisation over the active sites of the whole batch.

    With fewer than two sites there is no variance to learn from: in training the output is then
    the bias (an empty output without any site), and the running statistics stay as they are.
    """
    check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if torch.compiler.is_compiling():
        normal = DOORS.operators["batch_norm"](
            summable(input.features),
            running_mean,
            running_var,
            weight,
            bias,
            training,
            momentum,
            eps,
        )
        return input.replace(normal.to(input.dtype))
    if not training:
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    features, sites = input.features, input.sites
    samples, channels = sites.whole_batch, max(features.shape[1], 1)
    normal, mean, variance = normalise(features, weight, bias, samples, channels, eps)
    _learn(running_mean, running_var, mean, variance, samples, momentum)
    return SparseTensor.unchecked(normal, sites)


@implements(
    F.instance_norm,
    meaning="normalise each channel over the active sites of each sample",
    law="statistics over active sites, per sample; a sample of one site gets the bias",
)
def _sparse_instance_norm(
    input: SparseTensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> SparseTensor:
    """Instance normalisation; running statistics are learnt from samples of two sites or more."""
    check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if not use_input_stats:
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    features, samples = input.features, input.sites.samples
    normal, mean, variance = normalise(features, weight, bias, samples, max(input.channels, 1), eps)
    _learn(running_mean, running_var, mean, variance, samples, momentum)
    return input.replace(normal)


@implements(
    F.group_norm,
    meaning="normalise each group of channels over the active sites of each sample",
    law="statistics over active sites, per sample",
)
def _sparse_group_norm(
    input: SparseTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> SparseTensor:
    check_channels(input, weight=weight, bias=bias)
    if not isinstance(num_groups, int) or num_groups < 1 or input.channels % num_groups:
        raise SparseConvValueError(
            f"num_groups: must divide the {input.channels} channels of the input, got {num_groups}"
        )
    input = widened(input, "group_norm")
    features, samples = input.features, input.sites.samples
    normal, _, _ = normalise(features, weight, bias, samples, num_groups, eps)
    return input.replace(normal)


@implements(
    F.layer_norm,
    meaning="normalise the channels of each active site",
    law="each site by itself; on a dense tensor LayerNorm takes the last axes, so there it is "
    "layer_norm(x.movedim(1, -1))",
)
def _sparse_layer_norm(
    input: SparseTensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> SparseTensor:
    """Layer normalisation over channels: ``normalized_shape`` is ``(C,)``."""
    _check_normalized_shape(input, normalized_shape)
    check_channels(input, weight=weight, bias=bias)
    input = widened(input, "layer_norm")
    normal = F.layer_norm(summable(input.features), (input.channels,), None, None, eps)
    return _scaled(input, normal, weight, bias)


@implements(
    F.rms_norm,
    meaning="divide the channels of each active site by their root mean square",
    law="each site by itself; on a dense tensor RMSNorm takes the last axes",
)
def _sparse_rms_norm(
    input: SparseTensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> SparseTensor:
    _check_normalized_shape(input, normalized_shape)
    check_channels(input, weight=weight)
    input = widened(input, "rms_norm")
    normal = F.rms_norm(summable(input.features), [input.channels], None, eps)
    return _scaled(input, normal, weight, None)


refuse(
    F.local_response_norm,
    instead="use torch.nn.LayerNorm or torch.nn.GroupNorm",
)


def _by_running(
    input: SparseTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> SparseTensor:
    """Return the input normalised by running statistics."""
    if running_mean is None or running_var is None:
        raise SparseConvValueError(
            "running_mean: in evaluation running_mean and running_var are needed, got None"
        )
    statistics = running_mean, running_var, weight, bias
    sites = input.sites
    normal = by_statistics(input.features, *statistics, eps, sites.whole_batch)
    return SparseTensor.unchecked(normal, sites)


def _learn(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    samples: Samples,
    momentum: float,
) -> None:
    """Move the running statistics towards those of the samples with two sites or more."""
    if running_mean is None and running_var is None:
        return
    if samples.learnt_from is None:
        return
    enough, unbiased = samples.learnt_from
    mean, variance = mean.detach(), variance.detach()
    if enough is not None:
        mean, variance = mean[enough], variance[enough]
    if running_mean is not None:
        _move(running_mean, mean, momentum)
    if running_var is not None:
        _move(running_var, variance * unbiased.to(variance.dtype), momentum)


def _move(running: Tensor, values: Tensor, momentum: float) -> None:
    """Move ``running`` ``[C]`` towards the mean of ``values`` ``[S, C]``."""
    running.lerp_((tree_sum(values) / values.shape[0]).to(running.dtype), momentum)


def _scaled(
    input: SparseTensor, normal: Tensor, weight: Tensor | None, bias: Tensor | None
) -> SparseTensor:
    """Return ``normal * weight + bias`` per channel, in the dtype of ``input``."""
    rows = input.sites.whole_batch
    if weight is not None:
        normal = normal * sample_spread(weight.to(normal.dtype)[None], rows)
    if bias is not None:
        normal = normal + sample_spread(bias.to(normal.dtype)[None], rows)
    return input.replace(normal.to(input.dtype))


def check_channels(input: SparseTensor, **parameters: Tensor | None) -> None:
    """Raise unless each of the ``parameters`` has an entry for each channel, on their device."""
    features = input.features
    for name, value in parameters.items():
        if value is None:
            continue
        if value.shape != features.shape[1:]:
            raise SparseConvValueError(
                f"{name}: the layer normalises {value.shape[0]} channels, the input has "
                f"{input.channels}"
            )
        if value.device != features.device:
            check_device(name, value, features.device)


def _check_normalized_shape(input: SparseTensor, normalized_shape: Sequence[int]) -> None:
    if tuple(normalized_shape) != (input.channels,):
        raise SparseConvValueError(
            f"normalized_shape: on a SparseTensor it is the channels alone, ({input.channels},), "
            f"got {tuple(normalized_shape)}"
        )

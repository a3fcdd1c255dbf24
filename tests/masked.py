"""A dense tensor and its active sites, run through PyTorch's layers by the laws of DESIGN.

Nothing of the library takes part: values are dense and set to 0 off the mask after each layer, and
the masks move by the site law alone (:func:`reached`, a max pooling or a convolution of the mask).
A convolution that keeps extent and centre keeps the mask too: the networks stand for those that
``sparseconv.submanifold`` returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
HANDLERS: dict[Callable[..., Any], Callable[..., Any]] = {}


def implements(*functions: Callable[..., Any]) -> Callable[..., Any]:
    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


class Masked:
    """Values ``[B, C, *spatial]``, 0 off the bool mask ``[B, 1, *spatial]``."""

    def __init__(self, t: Tensor, mask: Tensor) -> None:
        self.t, self.mask = torch.where(mask, t, 0.0), mask

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return HANDLERS[function](*args, **(kwargs or {}))

    @property
    def shape(self) -> torch.Size:
        return self.t.shape

    def dim(self) -> int:
        return self.t.ndim

    def size(self, axis: int) -> int:
        return self.t.shape[axis]

    def mean(self, dim: Sequence[int], keepdim: bool) -> Tensor:
        assert keepdim
        return moments(self.t, self.mask, tuple(dim))[0]

    def flatten(self, start_dim: int, end_dim: int) -> Tensor:
        return self.t.flatten(start_dim, end_dim)

    def __add__(self, other: Masked) -> Masked:
        return Masked(self.t + other.t, self.mask | other.mask)

    def __mul__(self, other: Tensor) -> Masked:
        return Masked(self.t * other, self.mask)


def moments(t: Tensor, mask: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and count over the active entries along ``axes``."""
    active = mask.expand_as(t).to(t.dtype)
    count = active.sum(axes, keepdim=True)
    mean = (t * active).sum(axes, keepdim=True) / count.clamp(min=1)
    variance = ((t - mean).square() * active).sum(axes, keepdim=True) / count.clamp(min=1)
    return mean, variance, count


def reached(mask: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """Return the windows that hold an active site, bool ``[B, 1, *output]``."""
    # max pooling pads half a window at most, a convolution more
    ones = torch.ones(1, 1, *kernel, dtype=torch.float64)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[mask.ndim - 2]
    return conv(mask.double(), ones, None, stride, padding, dilation) > 0


def channels(values: Tensor | None, like: Tensor) -> Tensor | float:
    return 1.0 if values is None else values.reshape(-1, *(1,) * (like.ndim - 2))


def shift(values: Tensor | None, like: Tensor) -> Tensor | float:
    return 0.0 if values is None else channels(values, like)


@implements(torch.conv1d, torch.conv2d, torch.conv3d)
def _conv(x, weight, bias, stride, padding, dilation, groups):
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.dim() - 2]
    y = conv(x.t, weight, bias, stride, padding, dilation, groups)
    kernel = tuple(weight.shape[2:])
    centred = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    odd = all(size % 2 for size in kernel)
    if odd and set(stride) == {1} and tuple(padding) == centred:
        return Masked(y, x.mask)
    return Masked(y, reached(x.mask, kernel, stride, padding, dilation))


@implements(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
def _conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation):
    conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[x.dim() - 2]
    ones = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
    mask = conv(x.mask.double(), ones, None, stride, padding, output_padding, 1, dilation) > 0
    y = conv(x.t, weight, bias, stride, padding, output_padding, groups, dilation)
    return Masked(y, mask)


@implements(*MAX_POOL.values())
def _max_pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    pool, options = MAX_POOL[x.dim() - 2], (kernel_size, stride, padding, dilation, ceil_mode)
    y = pool(torch.where(x.mask, x.t, -math.inf), *options)
    return Masked(y, pool(x.mask.double(), *options) > 0)


@implements(*AVG_POOL.values())
def _avg_pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    pool, options = AVG_POOL[x.dim() - 2], (kernel_size, stride, padding, ceil_mode)
    mask = MAX_POOL[x.dim() - 2](x.mask.double(), kernel_size, stride, padding, 1, ceil_mode) > 0
    if count_include_pad:
        return Masked(pool(x.t, *options, True, divisor_override), mask)
    total, active = (pool(t, *options, divisor_override=1) for t in (x.t, x.mask.double()))
    return Masked(total / active, mask)


@implements(F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
def _global_average(x, output_size):
    axes = tuple(range(2, x.dim()))
    return Masked(moments(x.t, x.mask, axes)[0], x.mask.any(1, True).amax(axes, True))


@implements(F.adaptive_max_pool2d, F.adaptive_max_pool3d)
def _global_maximum(x, output_size, return_indices):
    axes = tuple(range(2, x.dim()))
    values = torch.where(x.mask, x.t, -math.inf).flatten(2).max(dim=2).values
    return Masked(values.reshape(*values.shape, *(1 for _ in axes)), x.mask.amax(axes, True))


@implements(torch.flatten)
def _flatten(x, start_dim, end_dim=-1):
    return x.flatten(start_dim, end_dim)


@implements(F.interpolate)
def _interpolate(x, **options):
    return Masked(F.interpolate(x.t, **options), F.interpolate(x.mask.double(), **options) > 0)


@implements(torch.cat)
def _cat(tensors, dim):
    assert dim == 1
    mask = torch.stack([x.mask for x in tensors]).any(0)
    return Masked(torch.cat([x.t for x in tensors], 1), mask)


@implements(F.batch_norm)
def _batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps):
    mean, variance = (channels(entry, x.t) for entry in (running_mean, running_var))
    if training:
        mean, variance, count = moments(x.t, x.mask, (0, *range(2, x.dim())))
        if (sites := float(count.flatten()[0])) > 1:
            unbiased = variance.detach() * sites / (sites - 1)
            running_mean.lerp_(mean.detach().flatten(), momentum)
            running_var.lerp_(unbiased.flatten(), momentum)
    y = (x.t - mean) / (variance + eps).sqrt()
    return Masked(y * channels(weight, x.t) + shift(bias, x.t), x.mask)


@implements(F.group_norm)
def _group_norm(x, groups, weight, bias, eps):
    parts = x.t.unflatten(1, (groups, -1))
    mean, variance, _ = moments(parts, x.mask.unsqueeze(1), tuple(range(2, parts.ndim)))
    y = ((parts - mean) / (variance + eps).sqrt()).flatten(1, 2)
    return Masked(y * channels(weight, x.t) + shift(bias, x.t), x.mask)


@implements(F.instance_norm)
def _instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps):
    assert running_mean is None
    return _group_norm(x, x.shape[1], weight, bias, eps)


def _on_values(function: Callable[..., Tensor]) -> Callable[..., Masked]:
    def on_values(x: Masked, *args: Any, **options: Any) -> Masked:
        options.pop("inplace", None)
        return Masked(function(x.t, *args, **options), x.mask)

    return on_values


for _function in (
    F.relu,
    F.hardtanh,
    F.leaky_relu,
    F.silu,
    F.hardswish,
    F.prelu,
    torch.prelu,
    torch.log_softmax,
):
    implements(_function)(_on_values(_function))

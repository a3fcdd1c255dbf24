"""Normalisation inside a compiled graph, by operations that need no number of sites."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.normalise import Plan, composed
from sparseconv.core.dtypes import wider


def normalise(
    features: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: Any,
    groups: int,
    eps: float,
) -> tuple[Tensor, None, None]:
    """Return the normalised rows ``[N, C]``, without statistics for anyone to learn from."""
    channels, dtype = features.shape[1], wider(features.dtype)
    weight = features.new_ones(channels, dtype=dtype) if weight is None else weight.to(dtype)
    bias = features.new_zeros(channels, dtype=dtype) if bias is None else bias.to(dtype)
    return composed(features, weight, bias, Plan(samples, groups, eps)), None, None


def batch_norm(
    features: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Return the rows ``[N, C]`` normalised per channel; as the eager function, but for rounding.

    torch's own batch normalisation asks for the number of rows while it is traced, which a graph
    learns only when it runs.
    """
    if training or running_mean is None or running_var is None:
        count = torch.ones_like(features[:, 0]).sum()
        mean = features.sum(dim=0) / count.clamp(min=1)
        variance = (features - mean).square().sum(dim=0) / count.clamp(min=1)
        with torch.no_grad():
            enough = count > 1  # fewer sites have no variance to learn from
            unbiased = variance * count / (count - 1).clamp(min=1)
            for running, seen in ((running_mean, mean), (running_var, unbiased)):
                if running is not None:
                    moved = running.lerp(seen.to(running.dtype), momentum)
                    running.copy_(torch.where(enough, moved, running))
    else:
        mean, variance = running_mean.to(features.dtype), running_var.to(features.dtype)
    normal = (features - mean) * (variance + eps).rsqrt()
    if weight is not None:
        normal = normal * weight.to(normal.dtype)
    return normal if bias is None else normal + bias.to(normal.dtype)

"""Batch normalisation inside a compiled graph, by operations that need no number of sites."""

from __future__ import annotations

import torch
from torch import Tensor


def traced_batch_norm(
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

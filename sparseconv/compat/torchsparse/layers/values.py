"""Norms, activations, pooling over whole samples, and cropping."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sparseconv.compat.torchsparse.functional.levels import spcrop
from sparseconv.compat.torchsparse.functional.values import (
    fapply,
    global_avg_pool,
    global_max_pool,
)
from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.core.arguments import check_kind


class _OfFeatures(nn.Module):
    """A module of PyTorch's on the features."""

    def forward(self, input: Any) -> Any:
        """Return the same tensor with other features."""
        return fapply(input, super().forward)


class BatchNorm(_OfFeatures, nn.BatchNorm1d):
    """Batch normalisation over the rows."""


class ReLU(_OfFeatures, nn.ReLU):
    """The larger of each value and 0."""


class LeakyReLU(_OfFeatures, nn.LeakyReLU):
    """Each value, less below 0."""


class SiLU(_OfFeatures, nn.SiLU):
    """Each value times its sigmoid."""


class Identity(nn.Identity):
    """The tensor as it is."""


class InstanceNorm(nn.InstanceNorm1d):
    """Normalisation of each channel over the rows of each sample."""

    def forward(self, input: Any) -> Any:
        """Return the same tensor, normalised."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        learns = self.training or not self.track_running_stats
        normal: Any = F.instance_norm(
            input.on_sites,
            self.running_mean, self.running_var, self.weight, self.bias, learns,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return input.with_feats(normal.features)


class GroupNorm(nn.GroupNorm):
    """Normalisation of each group of channels over the rows of each sample."""

    def forward(self, input: Any) -> Any:
        """Return the same tensor, normalised."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        sizes = (self.num_groups, self.weight, self.bias, self.eps)
        normal: Any = F.group_norm(input.on_sites, *sizes)
        return input.with_feats(normal.features)


class GlobalAvgPool(nn.Module):
    """The mean over the rows of each sample, ``[B, C]``."""

    def forward(self, input: SparseTensor) -> Tensor:
        """Return a row for each sample."""
        return global_avg_pool(input)


class GlobalMaxPool(nn.Module):
    """The largest value over the rows of each sample, ``[B, C]``."""

    def forward(self, input: SparseTensor) -> Tensor:
        """Return a row for each sample."""
        return global_max_pool(input)


class SparseCrop(nn.Module):
    """The rows in a box; see :func:`spcrop`."""

    def __init__(self, coords_min: Any = None, coords_max: Any = None) -> None:
        super().__init__()
        self.coords_min, self.coords_max = coords_min, coords_max

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the rows in the box."""
        return spcrop(input, self.coords_min, self.coords_max)


__all__ = [
    "BatchNorm",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "Identity",
    "InstanceNorm",
    "LeakyReLU",
    "ReLU",
    "SiLU",
    "SparseCrop",
]

"""Normalisation over the rows of a batch, or of each sample."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from sparseconv.compat.minkowski.base import Tensor
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_kind
from sparseconv.nn import SyncBatchNorm


class MinkowskiBatchNorm(MinkowskiModuleBase):
    """``torch.nn.BatchNorm1d`` on the features, in the member ``bn``."""

    NORM: ClassVar[Any] = nn.BatchNorm1d

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.bn = self.NORM(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input: Tensor) -> Tensor:
        """Return the same kind as ``input``."""
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        return input.with_features(self.bn(input.F))

    def __repr__(self) -> str:
        """Return the arguments."""
        return f"{type(self).__name__}({self.bn.extra_repr()})"


class MinkowskiSyncBatchNorm(MinkowskiBatchNorm):
    """``sparseconv.nn.SyncBatchNorm`` on the features: over the rows of all processes."""

    NORM = SyncBatchNorm

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.bn.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """Return a module with its :class:`MinkowskiBatchNorm` replaced, weights kept."""
        if isinstance(module, MinkowskiBatchNorm) and not isinstance(module, cls):
            old = module.bn
            made = cls(
                old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats,
                process_group=process_group,
            ).train(module.training)  # fmt: skip
            made.bn._parameters.update(old._parameters)
            made.bn._buffers.update(old._buffers)
            return made
        for name, child in module.named_children():
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module


class MinkowskiInstanceNorm(MinkowskiModuleBase):
    """Normalisation of each channel over the sites of each sample, then weight and bias."""

    eps: float = 1e-8

    def __init__(self, num_features: int, dimension: int = -1) -> None:
        """Make the layer; ``dimension`` is what FCGF gives, and without effect."""
        super().__init__()
        self.num_features = num_features
        self.weight = nn.Parameter(torch.ones(1, num_features))
        self.bias = nn.Parameter(torch.zeros(1, num_features))

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        with torch.no_grad():
            self.weight.fill_(1)
            self.bias.zero_()

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the same tensor, normalised."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        normal: Any = F.instance_norm(input.on_sites, eps=self.eps)  # type: ignore[arg-type]
        return input.with_features(normal.features * self.weight + self.bias)

    def __repr__(self) -> str:
        """Return the number of channels, as MinkowskiEngine does."""
        return f"{type(self).__name__}(nchannels={self.num_features})"


class MinkowskiStableInstanceNorm(MinkowskiInstanceNorm):
    """The same with a larger number beside the variance."""

    eps = 1e-6


__all__ = [
    "MinkowskiBatchNorm",
    "MinkowskiInstanceNorm",
    "MinkowskiStableInstanceNorm",
    "MinkowskiSyncBatchNorm",
]

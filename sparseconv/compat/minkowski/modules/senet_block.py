"""The same blocks with a gate for each channel (Hu et al. 2018)."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparseconv.compat.minkowski.layers.broadcast import MinkowskiBroadcastMultiplication
from sparseconv.compat.minkowski.layers.pooling import MinkowskiGlobalPooling
from sparseconv.compat.minkowski.layers.values import (
    MinkowskiLinear,
    MinkowskiReLU,
    MinkowskiSigmoid,
)
from sparseconv.compat.minkowski.modules.resnet_block import BasicBlock, Bottleneck


class SELayer(nn.Module):
    """A gate for each channel of each sample, from the sample's mean.

    Args:
        channel: number of channels.
        reduction: by which the layer in the middle is narrower.
        D: number of spatial axes, without effect.
    """

    def __init__(self, channel: int, reduction: int = 16, D: int = -1) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            MinkowskiLinear(channel, channel // reduction),
            MinkowskiReLU(inplace=True),
            MinkowskiLinear(channel // reduction, channel),
            MinkowskiSigmoid(),
        )
        self.pooling = MinkowskiGlobalPooling()
        self.broadcast_mul = MinkowskiBroadcastMultiplication()

    def forward(self, x: Any) -> Any:
        """Return the gated tensor."""
        return self.broadcast_mul(x, self.fc(self.pooling(x)))


class SEBasicBlock(BasicBlock):
    """A :class:`BasicBlock` with a gate behind its layers."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        reduction: int = 16,
        D: int = -1,
    ) -> None:
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes, reduction, D)

    def forward(self, x: Any) -> Any:
        """Return the block's output."""
        return self._around(x, self.se(self._through(x)))


class SEBottleneck(Bottleneck):
    """A :class:`Bottleneck` with a gate behind its layers."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        D: int = 3,
        reduction: int = 16,
    ) -> None:
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes * self.expansion, reduction, D)

    def forward(self, x: Any) -> Any:
        """Return the block's output."""
        return self._around(x, self.se(self._through(x)))


__all__ = ["SEBasicBlock", "SEBottleneck", "SELayer"]

"""Blocks and networks under ``torchsparse.backbones``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from sparseconv.compat.torchsparse.layers.convolution import Conv3d
from sparseconv.compat.torchsparse.layers.values import BatchNorm, ReLU
from sparseconv.compat.torchsparse.level import AXES
from sparseconv.compat.torchsparse.operators import cat
from sparseconv.compat.torchsparse.sizes import make_ntuple


class SparseConvBlock(nn.Sequential):
    """A convolution, its norm, and an activation; arguments as of the convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        dilation: int = 1,
        transposed: bool = False,
    ) -> None:
        sizes = {"stride": stride, "dilation": dilation, "transposed": transposed}
        super().__init__(
            Conv3d(in_channels, out_channels, kernel_size, **sizes),
            BatchNorm(out_channels),
            ReLU(True),
        )


class SparseConvTransposeBlock(SparseConvBlock):
    """The same with a transposed convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, True)


class SparseResBlock(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv3d(in_channels, out_channels, kernel_size, stride, dilation=dilation),
            BatchNorm(out_channels),
            ReLU(True),
            Conv3d(out_channels, out_channels, kernel_size, dilation=dilation),
            BatchNorm(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or math.prod(make_ntuple(stride, AXES)) != 1:
            self.shortcut = nn.Sequential(
                Conv3d(in_channels, out_channels, 1, stride), BatchNorm(out_channels)
            )
        self.relu = ReLU(True)

    def forward(self, x: Any) -> Any:
        """Return the block's output."""
        return self.relu(self.main(x) + self.shortcut(x))


class SparseResUNet(nn.Module):
    """A U-Net of residual blocks, with a stage for each number of encoder channels.

    Args:
        stem_channels, encoder_channels, decoder_channels: widths, as many of both last ones.
        in_channels: of the input.
        width_multiplier: of all widths.
    """

    def __init__(
        self,
        stem_channels: int,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        *,
        in_channels: int = 4,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        widths = [
            int(width_multiplier * width)
            for width in (stem_channels, *encoder_channels, *decoder_channels)
        ]
        stages = len(encoder_channels)
        self.stem = nn.Sequential(
            *SparseConvBlock(in_channels, widths[0], 3), *SparseConvBlock(widths[0], widths[0], 3)
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(
                SparseConvBlock(widths[k], widths[k], 2, stride=2),
                SparseResBlock(widths[k], widths[k + 1], 3),
                SparseResBlock(widths[k + 1], widths[k + 1], 3),
            )
            for k in range(stages)
        )
        self.decoders = nn.ModuleList()
        for k in range(stages):
            before, after = widths[stages + k : stages + k + 2]
            self.decoders.append(
                nn.ModuleDict(
                    {
                        "upsample": SparseConvTransposeBlock(before, after, 2, stride=2),
                        "fuse": nn.Sequential(
                            SparseResBlock(after + widths[stages - 1 - k], after, 3),
                            SparseResBlock(after, after, 3),
                        ),
                    }
                )
            )

    def forward(self, x: Any) -> list[Any]:
        """Return the outputs of the stem, of each encoder, and of each decoder."""
        found = [self.stem(x)]
        for encoder in self.encoders:
            found.append(encoder(found[-1]))
        skips = found[:-1]
        for decoder in self.decoders:
            up = decoder["upsample"](found[-1])  # type: ignore[index]
            found.append(decoder["fuse"](cat([up, skips.pop()])))  # type: ignore[index]
        return found


class SparseResUNet42(SparseResUNet):
    """The U-Net with 42 layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(32, [32, 64, 128, 256], [256, 128, 96, 96], **kwargs)


class SparseResNet(nn.ModuleList):
    """Stages of residual blocks.

    Args:
        blocks: of each stage, number of blocks, channels, kernel size and stride.
        in_channels: of the input.
        width_multiplier: of all widths.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, int, Any, Any]],
        *,
        in_channels: int = 4,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        before = in_channels
        for count, channels, kernel_size, stride in blocks:
            width = int(channels * width_multiplier)
            stage = [SparseConvBlock(before, width, kernel_size, stride)]
            stage += [SparseResBlock(width, width, kernel_size) for _ in range(count - 1)]  # type: ignore[misc]
            self.append(nn.Sequential(*stage))
            before = width

    def forward(self, x: Any) -> list[Any]:
        """Return the output of each stage."""
        found = []
        for stage in self:
            x = stage(x)
            found.append(x)
        return found


class SparseResNet21D(SparseResNet):
    """The network of 21 layers for detection."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            [
                (3, 16, 3, 1),
                (3, 32, 3, 2),
                (3, 64, 3, 2),
                (3, 128, 3, 2),
                (1, 128, (1, 3, 1), (1, 2, 1)),
            ],
            **kwargs,
        )


__all__ = [
    "SparseConvBlock",
    "SparseConvTransposeBlock",
    "SparseResBlock",
    "SparseResNet",
    "SparseResNet21D",
    "SparseResUNet",
    "SparseResUNet42",
]

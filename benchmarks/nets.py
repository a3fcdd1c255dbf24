"""The networks that the benchmarks run: plain PyTorch modules and submanifold layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

import sparseconv as sc


def _normed(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm3d(channels))


class Residual(nn.Module):
    """Two submanifold convolutions and what they are added to."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _normed(sc.nn.SubmConv3d(c_in, c_out, 3, bias=False), c_out),
            nn.ReLU(),
            _normed(sc.nn.SubmConv3d(c_out, c_out, 3, bias=False), c_out),
        )
        project = _normed(sc.nn.SubmConv3d(c_in, c_out, 1, bias=False), c_out)
        self.shortcut = nn.Identity() if c_in == c_out else project
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, c_out, *spatial]`` on the sites of ``x``."""
        x = self.body(x) + self.shortcut(x)
        out: Tensor = self.last(x)
        return out


class MinkUNet(nn.Module):
    """U-Net of two residual blocks a level, 32-64-128-256 down and 256-128-96-96 up.

    Source:
        Choy et al. 2019, "4D Spatio-Temporal ConvNets" (arXiv 1904.08755), the MinkUNet18A family.
    """

    def __init__(self, c_in: int = 4, classes: int = 20) -> None:
        super().__init__()
        down, up = (32, 32, 64, 128, 256), (256, 128, 96, 96)
        self.stem = nn.Sequential(
            _normed(sc.nn.SubmConv3d(c_in, 32, 3, bias=False), 32),
            nn.ReLU(),
            _normed(sc.nn.SubmConv3d(32, 32, 3, bias=False), 32),
            nn.ReLU(),
        )
        self.downs, self.encoders, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        for fine, coarse in pairwise(down):
            strided = nn.Conv3d(fine, fine, 2, stride=2, bias=False)
            self.downs.append(nn.Sequential(_normed(strided, fine), nn.ReLU()))
            self.encoders.append(nn.Sequential(Residual(fine, coarse), Residual(coarse, coarse)))
        for (coarse, fine), skip in zip(pairwise((256, *up)), reversed(down[:-1]), strict=True):
            self.ups.append(sc.nn.InverseConv3d(coarse, fine, 2, stride=2, bias=False))
            self.decoders.append(
                nn.Sequential(Residual(fine + skip, fine), Residual(fine, fine)),
            )
        self.joins = nn.ModuleList(nn.Sequential(nn.BatchNorm3d(c), nn.ReLU()) for c in up)
        self.head = sc.nn.SubmConv3d(up[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one score per class and site, ``[B, classes, *spatial]``."""
        x = self.stem(x)
        skips = []
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, join, decoder in zip(self.ups, self.joins, self.decoders, strict=True):
            skip = skips.pop()
            x = torch.cat([join(up(x, like=skip)), skip], dim=1)
            del skip
            for block in decoder:  # called as a whole, it would hold its input to the end
                x = block(x)
        scores: Tensor = self.head(x)
        return scores


class SecondEncoder(nn.Sequential):
    """The middle encoder of a detector: 16-16, then three strides of 2 to 32, 64 and 64 channels.

    Source:
        Yan et al. 2018, "SECOND: Sparsely Embedded Convolutional Detection", figure 3.
    """

    def __init__(self, c_in: int = 4) -> None:
        def block(convolution: nn.Module, channels: int) -> list[nn.Module]:
            return [convolution, nn.BatchNorm3d(channels), nn.ReLU()]

        layers = block(sc.nn.SubmConv3d(c_in, 16, 3, bias=False), 16)
        layers += block(sc.nn.SubmConv3d(16, 16, 3, bias=False), 16)
        for fine, coarse in pairwise((16, 32, 64, 64)):
            strided = nn.Conv3d(fine, coarse, 3, stride=2, padding=1, bias=False)
            layers += block(strided, coarse)
            for _ in range(2):
                layers += block(sc.nn.SubmConv3d(coarse, coarse, 3, bias=False), coarse)
        super().__init__(*layers)


NETS = {"minkunet": MinkUNet, "second": SecondEncoder}

"""Encoders of detectors: SECOND's and VoxelNeXt's, with the names that OpenPCDet gives them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sparseconv import nn
from sparseconv.tensor import SparseTensor

_EPS, _MOMENTUM = 1e-3, 0.01  # of every norm


def _block(convolution: torch.nn.Module, planar: bool = False) -> torch.nn.Sequential:
    """Return a convolution, a norm and a ReLU."""
    norm: Any = torch.nn.BatchNorm2d if planar else torch.nn.BatchNorm3d
    channels: Any = convolution.out_channels
    return torch.nn.Sequential(convolution, norm(channels, _EPS, _MOMENTUM), torch.nn.ReLU())


def _subm(c_in: int, c_out: int) -> torch.nn.Sequential:
    return _block(nn.SubmConv3d(c_in, c_out, 3, bias=False))


def _strided(
    c_in: int, c_out: int, padding: tuple[int, int, int] = (1, 1, 1)
) -> torch.nn.Sequential:
    return _block(torch.nn.Conv3d(c_in, c_out, 3, 2, padding, bias=False))


class SECONDEncoder(torch.nn.Module):
    """The middle encoder of SECOND: from voxels to features that a bird's-eye-view head reads.

    Three strides of 2, then one of 2 along the height alone: 16, 32, 64, 64 and 128 channels. The
    first spatial axis is the height.

    Args:
        in_channels: channels of the input.

    Shape:
        Input ``[B, in_channels, Z, Y, X]``, sparse or dense; output ``[B, 128, Z', Y / 8, X / 8]``
        of the same kind. ``output.dense().flatten(1, 2)`` is the bird's-eye view.

    Source:
        Yan et al. 2018, "SECOND: Sparsely Embedded Convolutional Detection" (Sensors 18, 3337),
        figure 3; sizes as of OpenPCDet's ``VoxelBackBone8x``, whose weights load with
        ``sc.load_checkpoint``.

    Example:
        >>> import torch, sparseconv as sc
        >>> coords = torch.nn.functional.pad(torch.arange(40).expand(3, 40).t(), (1, 0))
        >>> x = sc.SparseTensor(torch.randn(40, 4), coords, (41, 48, 64))
        >>> sc.models.SECONDEncoder(4).eval()(x).shape
        torch.Size([1, 128, 2, 6, 8])
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv_input = _subm(in_channels, 16)
        self.conv1 = torch.nn.Sequential(_subm(16, 16))
        self.conv2 = torch.nn.Sequential(_strided(16, 32), _subm(32, 32), _subm(32, 32))
        self.conv3 = torch.nn.Sequential(_strided(32, 64), _subm(64, 64), _subm(64, 64))
        self.conv4 = torch.nn.Sequential(_strided(64, 64, (0, 1, 1)), _subm(64, 64), _subm(64, 64))
        self.conv_out = _block(torch.nn.Conv3d(64, 128, (3, 1, 1), (2, 1, 1), bias=False))

    def levels(self, input: Tensor) -> list[Tensor]:
        """Return the features at strides 1, 2, 4 and 8."""
        found = [self.conv1(self.conv_input(input))]
        for stage in (self.conv2, self.conv3, self.conv4):
            found.append(stage(found[-1]))
        return found

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, 128, Z', Y / 8, X / 8]``."""
        out: Tensor = self.conv_out(self.levels(input)[-1])
        return out


class _Residual(torch.nn.Module):
    """Two submanifold convolutions with a bias, and what they are added to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.SubmConv3d(channels, channels, 3)
        self.bn1 = torch.nn.BatchNorm3d(channels, _EPS, _MOMENTUM)
        self.conv2 = nn.SubmConv3d(channels, channels, 3)
        self.bn2 = torch.nn.BatchNorm3d(channels, _EPS, _MOMENTUM)

    def forward(self, input: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(input)))
        return torch.relu(self.bn2(self.conv2(x)) + input)


class VoxelNeXtEncoder(torch.nn.Module):
    """The encoder of VoxelNeXt: six levels, the last three of them added in the bird's-eye view.

    Features of strides 16 and 32 are put at the cells of stride 8 that their coordinates name, and
    everything is summed over the height: a map that stays sparse, for a head that predicts at
    active sites. The first spatial axis is the height.

    Args:
        in_channels: channels of the input.
        widths: channels at strides 1, 2, 4, 8, and at 16 and 32.
        out_channels: of the map.

    Shape:
        Input: a SparseTensor ``[B, in_channels, Z, Y, X]``; output one ``[B, out_channels, Y / 8,
        X / 8]``.

    Source:
        Chen et al. 2023, "VoxelNeXt: Fully Sparse VoxelNet for 3D Object Detection and Tracking"
        (arXiv 2303.11301), section 3.1; sizes as of OpenPCDet's ``VoxelResBackBone8xVoxelNeXt``.

    Example:
        >>> import torch, sparseconv as sc
        >>> coords = torch.nn.functional.pad(torch.arange(40).expand(3, 40).t(), (1, 0))
        >>> x = sc.SparseTensor(torch.randn(40, 4), coords, (41, 48, 64))
        >>> sc.models.VoxelNeXtEncoder(4).eval()(x).shape
        torch.Size([1, 128, 6, 8])
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        out_channels: int = 128,
    ) -> None:
        super().__init__()
        self.conv_input = _subm(in_channels, widths[0])
        self.conv1 = torch.nn.Sequential(_Residual(widths[0]), _Residual(widths[0]))
        stages = [*pairwise(widths), (widths[-1], widths[-1])]
        for number, (fine, coarse) in enumerate(stages, start=2):
            blocks = _strided(fine, coarse), _Residual(coarse), _Residual(coarse)
            self.add_module(f"conv{number}", torch.nn.Sequential(*blocks))
        last = torch.nn.Conv2d(widths[3], out_channels, 3, padding=1, bias=False)
        self.conv_out = _block(last, planar=True)
        self.shared_conv = torch.nn.Sequential(
            nn.SubmConv2d(out_channels, out_channels, 3),
            torch.nn.BatchNorm2d(out_channels),
            torch.nn.ReLU(),
        )

    def levels(self, input: Tensor) -> list[Tensor]:
        """Return the features at strides 1, 2, 4, 8, 16 and 32."""
        found = [self.conv1(self.conv_input(input))]
        for number in range(2, 7):
            found.append(self.get_submodule(f"conv{number}")(found[-1]))
        return found

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, out_channels, Y / 8, X / 8]``."""
        *_, fine, middle, coarse = (level.sum(2) for level in self.levels(input)[3:])
        joined = fine + _spread(middle, 2, fine) + _spread(coarse, 4, fine)
        out: Tensor = self.shared_conv(self.conv_out(joined))
        return out


def _spread(x: Any, step: int, like: Any) -> Any:
    """Return a map's features at ``step`` times their coordinates, on the extent of ``like``."""
    coords = x.coords * x.coords.new_tensor([1, step, step])
    return SparseTensor(x.features, coords, like.spatial_shape, like.batch_size)

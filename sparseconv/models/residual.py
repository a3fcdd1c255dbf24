"""Residual blocks, by the names that checkpoints of MinkowskiEngine's networks have."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sparseconv import nn
from sparseconv.errors import SparseConvValueError

SUBM = {1: nn.SubmConv1d, 2: nn.SubmConv2d, 3: nn.SubmConv3d, 4: nn.SubmConv4d}
STRIDED = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d, 4: nn.Conv4d}
NORM = {
    1: torch.nn.BatchNorm1d,
    2: torch.nn.BatchNorm2d,
    3: torch.nn.BatchNorm3d,
    4: nn.BatchNorm4d,
}


def check_dimensions(dimensions: int, most: int = 4) -> None:
    """Raise unless there are layers of so many spatial axes."""
    if dimensions not in range(1, most + 1):
        raise SparseConvValueError(f"dimensions: must be 1 to {most}, got {dimensions!r}")


def convolution(
    c_in: int, c_out: int, kernel_size: int, stride: int, dimensions: int
) -> torch.nn.Module:
    """Return a convolution without bias that keeps the sites where its stride is 1."""
    if stride == 1:
        return SUBM[dimensions](c_in, c_out, kernel_size, bias=False)
    padding = kernel_size // 2 if kernel_size % 2 else 0
    layer: torch.nn.Module = STRIDED[dimensions](
        c_in, c_out, kernel_size, stride, padding, bias=False
    )
    return layer


class BasicBlock(torch.nn.Module):
    """Two convolutions of three cells an axis, and what they are added to.

    Source:
        He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), figure 5.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, c_in: int, width: int, stride: int = 1, dimensions: int = 3) -> None:
        super().__init__()
        norm = NORM[dimensions]
        self.conv1 = convolution(c_in, width, 3, stride, dimensions)
        self.norm1 = norm(width)
        self.conv2 = convolution(width, width, 3, 1, dimensions)
        self.norm2 = norm(width)
        self.downsample = _shortcut(c_in, width, stride, dimensions)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, width, *output]``, sparse or dense as the input is."""
        x = torch.relu(self.norm1(self.conv1(input)))
        x = self.conv2(x)  # line by line, so that what was read is freed
        x = self.norm2(x)
        x = x + self.downsample(input)
        return torch.relu(x)


class Bottleneck(torch.nn.Module):
    """One cell, three cells an axis, one cell, four times as wide; and what they are added to.

    Source:
        He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), figure 5.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, c_in: int, width: int, stride: int = 1, dimensions: int = 3) -> None:
        super().__init__()
        norm, wide = NORM[dimensions], self.expansion * width
        self.conv1 = convolution(c_in, width, 1, 1, dimensions)
        self.norm1 = norm(width)
        self.conv2 = convolution(width, width, 3, stride, dimensions)
        self.norm2 = norm(width)
        self.conv3 = convolution(width, wide, 1, 1, dimensions)
        self.norm3 = norm(wide)
        self.downsample = _shortcut(c_in, wide, stride, dimensions)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, 4 * width, *output]``, sparse or dense as the input is."""
        x = torch.relu(self.norm1(self.conv1(input)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = self.conv3(x)  # line by line, so that what was read is freed
        x = self.norm3(x)
        x = x + self.downsample(input)
        return torch.relu(x)


Block = type[BasicBlock] | type[Bottleneck]
# by the number of layers that the name counts: the block, and the blocks of the four levels down
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    14: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


def _shortcut(c_in: int, c_out: int, stride: int, dimensions: int) -> torch.nn.Module:
    """Return what brings a block's input to its output's width and sites."""
    if stride == 1 and c_in == c_out:
        return torch.nn.Identity()
    projection = convolution(c_in, c_out, 1, stride, dimensions)
    return torch.nn.Sequential(projection, NORM[dimensions](c_out))


def level(
    block: Block, c_in: int, width: int, count: int, stride: int, dimensions: int
) -> torch.nn.Sequential:
    """Return the blocks of a level, the first of which has the stride."""
    blocks: list[torch.nn.Module] = [block(c_in, width, stride, dimensions)]
    for _ in range(count - 1):
        blocks.append(block(width * block.expansion, width, 1, dimensions))
    return torch.nn.Sequential(*blocks)

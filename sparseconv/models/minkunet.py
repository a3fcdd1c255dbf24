"""MinkUNet: the residual U-Net of the 4D spatio-temporal networks, in all its published sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv import nn
from sparseconv.errors import SparseConvValueError
from sparseconv.models.residual import (
    NORM,
    STRIDED,
    SUBM,
    BasicBlock,
    Block,
    Bottleneck,
    check_dimensions,
    convolution,
    level,
)

_INVERSE = {
    1: nn.InverseConv1d,
    2: nn.InverseConv2d,
    3: nn.InverseConv3d,
    4: nn.InverseConv4d,
}
_STEM = 32  # channels of the first convolution
_DOWN = (32, 64, 128, 256)
# by the number of layers: the block, and how many of them a level has down and up
_DEPTHS: dict[str, tuple[Block, tuple[int, int, int, int], int]] = {
    "14": (BasicBlock, (1, 1, 1, 1), 1),
    "18": (BasicBlock, (2, 2, 2, 2), 2),
    "34": (BasicBlock, (2, 3, 4, 6), 2),
    "50": (Bottleneck, (2, 3, 4, 6), 2),
    "101": (Bottleneck, (2, 3, 4, 23), 2),
}
# the widths on the way up, by name
_UP = {
    "14": (256, 128, 96, 96),
    "14A": (128, 128, 96, 96),
    "14B": (128, 128, 128, 128),
    "14C": (192, 192, 128, 128),
    "14D": (384, 384, 384, 384),
    "18": (256, 128, 96, 96),
    "18A": (128, 128, 96, 96),
    "18B": (128, 128, 128, 128),
    "18D": (384, 384, 384, 384),
    "34": (256, 128, 96, 96),
    "34A": (256, 128, 64, 64),
    "34B": (256, 128, 64, 32),
    "34C": (256, 128, 96, 96),
    "50": (256, 128, 96, 96),
    "101": (256, 128, 96, 96),
}


class MinkUNet(torch.nn.Module):
    """U-Net of residual blocks over four strides of 2: one label per site.

    On the way up, inverse convolutions lead back to the sites that were left, so the output lies on
    the input's sites. Modules have the names of MinkowskiEngine's example, so its checkpoints load:
    ``sc.load_checkpoint(model, file, "minkowski")``.

    Args:
        in_channels: channels of the input.
        num_classes: channels of the output.
        name: layers on the way down and a letter for the widths on the way up: ``"14"``,
            ``"14A"`` to ``"14D"``, ``"18"``, ``"18A"``, ``"18B"``, ``"18D"``, ``"34"``,
            ``"34A"`` to ``"34C"``, ``"50"``, ``"101"``.
        dimensions: spatial axes, 1 to 4.

    Shape:
        Input ``[B, in_channels, *spatial]``, sparse or dense; output ``[B, num_classes, *spatial]``
        of the same kind, on the same sites. ``spatial`` should be a multiple of 16.

    Raises:
        SparseConvValueError: another name, other dimensions.

    Source:
        Choy et al. 2019, "4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks"
        (arXiv 1904.08755), figure 4; sizes as of MinkowskiEngine's ``examples/minkunet.py``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, to_points = sc.voxelize(16 * torch.rand(300, 3), 1.0)
        >>> net = sc.models.MinkUNet(1, 5, "14A").eval()
        >>> net(x).channels, sum(p.numel() for p in net.parameters())
        (5, 8015045)
    """

    def __init__(
        self, in_channels: int, num_classes: int, name: str = "34C", dimensions: int = 3
    ) -> None:
        if name not in _UP:
            raise SparseConvValueError(f"name: must be one of {', '.join(_UP)}, got {name!r}")
        check_dimensions(dimensions)
        super().__init__()
        block, down_counts, up_count = _DEPTHS[name.rstrip("ABCD")]
        norm, inverse = NORM[dimensions], _INVERSE[dimensions]
        self.conv0p1s1 = convolution(in_channels, _STEM, 5, 1, dimensions)
        self.bn0 = norm(_STEM)
        width, skips = _STEM, [_STEM]
        self._downs, self._ups = [], []
        for place, (planes, count) in enumerate(zip(_DOWN, down_counts, strict=True)):
            down = f"conv{place + 1}p{2**place}s2", f"bn{place + 1}", f"block{place + 1}"
            self._downs.append(down)
            self.add_module(down[0], STRIDED[dimensions](width, width, 2, 2, bias=False))
            self.add_module(down[1], norm(width))
            self.add_module(down[2], level(block, width, planes, count, 1, dimensions))
            width = planes * block.expansion
            skips.append(width)
        skips.pop()
        for place, planes in enumerate(_UP[name], start=4):
            up = f"convtr{place}p{2 ** (8 - place)}s2", f"bntr{place}", f"block{place + 1}"
            self._ups.append(up)
            self.add_module(up[0], inverse(width, planes, 2, 2, bias=False))
            self.add_module(up[1], norm(planes))
            joined = planes + skips.pop()
            self.add_module(up[2], level(block, joined, planes, up_count, 1, dimensions))
            width = planes * block.expansion
        self.final = SUBM[dimensions](width, num_classes, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return one score per class and site, ``[B, num_classes, *spatial]``."""
        x = torch.relu(self.bn0(self.conv0p1s1(input)))
        skips = []
        for names in self._downs:
            convolution, norm, blocks = map(self.get_submodule, names)
            skips.append(x)
            x = blocks(torch.relu(norm(convolution(x))))
        for names in self._ups:
            convolution, norm, blocks = map(self.get_submodule, names)
            skip = skips.pop()
            x = torch.cat([torch.relu(norm(convolution(x, like=skip))), skip], dim=1)
            del skip  # the blocks need its memory
            x = blocks(x)
        scores: Tensor = self.final(x)
        return scores

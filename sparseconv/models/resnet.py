"""ResNet for points and voxels: an encoder of five levels, and one score per sample and class."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError
from sparseconv.models.residual import DEPTHS, STRIDED, check_dimensions, level

_STEM = 64  # channels of the first convolution
_WIDTHS = (64, 128, 256, 512)
_INSTANCE = {
    1: torch.nn.InstanceNorm1d,
    2: torch.nn.InstanceNorm2d,
    3: torch.nn.InstanceNorm3d,
}
_MAX_POOL = {1: torch.nn.MaxPool1d, 2: torch.nn.MaxPool2d, 3: torch.nn.MaxPool3d}
_EVERYWHERE = {
    1: torch.nn.AdaptiveMaxPool1d,
    2: torch.nn.AdaptiveMaxPool2d,
    3: torch.nn.AdaptiveMaxPool3d,
}


class ResNet(torch.nn.Module):
    """Residual network over strides of 4 to 64, then a global maximum: scores per sample.

    Modules have the names of MinkowskiEngine's example; its strided layers put their output sites
    elsewhere (the cells that hold an input, where PyTorch's law takes every cell whose window
    reaches one), so its checkpoints load and give other numbers.

    Args:
        in_channels: channels of the input.
        num_classes: channels of the output.
        depth: 14, 18, 34, 50 or 101 layers.
        dimensions: spatial axes, 1 to 3.

    Shape:
        Input ``[B, in_channels, *spatial]``, sparse or dense; output dense ``[B, num_classes]``.

    Raises:
        SparseConvValueError: another depth, other dimensions.

    Source:
        He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), table 1;
        for points as of MinkowskiEngine's ``examples/resnet.py``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, _ = sc.voxelize(64 * torch.rand(300, 3), 1.0)
        >>> sc.models.ResNet(1, 10, depth=14).eval()(x).shape
        torch.Size([1, 10])
    """

    def __init__(
        self, in_channels: int, num_classes: int, depth: int = 18, dimensions: int = 3
    ) -> None:
        if depth not in DEPTHS:
            raise SparseConvValueError(f"depth: must be one of {[*DEPTHS]}, got {depth!r}")
        check_dimensions(dimensions, most=3)
        super().__init__()
        block, counts = DEPTHS[depth]
        strided, instance = STRIDED[dimensions], _INSTANCE[dimensions]
        self.conv1 = torch.nn.Sequential(
            strided(in_channels, _STEM, 3, 2, 1, bias=False),
            instance(_STEM, affine=True),
            torch.nn.ReLU(),
            _MAX_POOL[dimensions](2, 2),
        )
        width = _STEM
        for number, (planes, count) in enumerate(zip(_WIDTHS, counts, strict=True), start=1):
            self.add_module(f"layer{number}", level(block, width, planes, count, 2, dimensions))
            width = planes * block.expansion
        self.conv5 = torch.nn.Sequential(
            torch.nn.Dropout(),
            strided(width, width, 3, 3, 1, bias=False),
            instance(width, affine=True),
            torch.nn.GELU(),
        )
        self.glob_pool = _EVERYWHERE[dimensions](1)
        self.final = torch.nn.Linear(width, num_classes)

    def levels(self, input: Tensor) -> list[Tensor]:
        """Return the features after the stem and each of the four levels, strides 4 to 64."""
        found = [self.conv1(input)]
        for number in range(1, 5):
            found.append(self.get_submodule(f"layer{number}")(found[-1]))
        return found

    def forward(self, input: Tensor) -> Tensor:
        """Return one score per sample and class, ``[B, num_classes]``."""
        x = self.glob_pool(self.conv5(self.levels(input)[-1]))
        dense = x if isinstance(x, Tensor) else x.dense()
        scores: Tensor = self.final(dense.flatten(1))
        return scores

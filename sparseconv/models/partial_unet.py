"""U-Net of partial convolutions: fills what a mask says is missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv import nn
from sparseconv.errors import SparseConvValueError

_PARTIAL = {1: nn.PartialConv1d, 2: nn.PartialConv2d, 3: nn.PartialConv3d}
_PLAIN = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}


class PartialUNet(torch.nn.Module):
    """U-Net whose features travel with their masks, all the way to the output.

    On the way down, strided partial convolutions halve the resolution, and a place becomes valid
    as soon as its window holds one valid place: a wholly masked region fills from its rim inwards.
    On the way up, features and masks are repeated to the finer grid (nearest neighbour) and joined
    to those kept from the way down, the input and its mask last. What nothing valid has reached
    is 0 in the output and invalid in its mask.

    Args:
        in_channels, out_channels: channels of the input and of the output.
        widths: channels per level, from the finest to the coarsest; two levels or more.
        dimensions: spatial axes, 1 to 3.
        normalize: ``"ratio"``, ``"mean"`` or, to see what the partial convolutions are worth,
            ``"none"``: the same network of plain convolutions, holes filled with 0.

    Raises:
        SparseConvValueError: fewer than two ``widths``, other ``dimensions``; and what the layers
            raise.

    Shape:
        Input ``[B, in_channels, *spatial]`` and mask, bool ``[B, 1, *spatial]`` or per channel;
        output ``[B, out_channels, *spatial]`` and its mask, bool ``[B, 1, *spatial]``. Any extent:
        the grid is widened to whole strides with places that are invalid.

    Source:
        Liu et al. 2018, "Image Inpainting for Irregular Holes Using Partial Convolutions" (arXiv
        1804.07723), section 3.2; no normalisation between the layers, for small batches.

    Example:
        >>> import torch
        >>> from sparseconv.models import PartialUNet
        >>> image, mask = torch.rand(1, 3, 30, 17), torch.rand(1, 1, 30, 17) < 0.7
        >>> y, filled = PartialUNet(3, 3, widths=(8, 16, 16))(image, mask)
        >>> y.shape, bool(filled.all())
        (torch.Size([1, 3, 30, 17]), True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (32, 64, 96, 96, 96),
        dimensions: int = 2,
        normalize: str = "ratio",
    ) -> None:
        if dimensions not in _PARTIAL:
            raise SparseConvValueError(f"dimensions: must be 1, 2 or 3, got {dimensions!r}")
        if len(widths) < 2:
            raise SparseConvValueError(f"widths: must have two entries or more, got {widths!r}")
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)

        def level(c_in: int, c_out: int, stride: int = 1) -> _Level:
            return _Level(c_in, c_out, stride, dimensions, normalize)

        self.first = level(in_channels, widths[0])
        pairs = list(pairwise(widths))
        self.downs = torch.nn.ModuleList([level(fine, coarse, 2) for fine, coarse in pairs])
        self.inner = torch.nn.ModuleList([level(coarse, coarse) for _, coarse in pairs])
        self.ups = torch.nn.ModuleList([level(fine + coarse, fine) for fine, coarse in pairs])
        joined = widths[0] + in_channels
        self.last = _convolution(joined, out_channels, 1, dimensions, normalize)

    def forward(self, input: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the filled tensor and its mask.

        Args:
            input: ``[B, in_channels, *spatial]``; what lies under mask 0 is never read.
            mask: bool, ``[B, 1, *spatial]`` or ``[B, in_channels, *spatial]``, True where valid.
        """
        size = input.shape[2:]
        extra = [pad for length in reversed(size) for pad in (0, -length % self.stride)]
        x, m = F.pad(torch.where(mask, input, 0.0), extra), F.pad(mask, extra)
        start = (x, m)
        x, m = self.first(x, m)
        skips = []
        for down, inner in zip(self.downs, self.inner, strict=True):
            skips.append((x, m))
            x, m = inner(*down(x, m))
        for up, skip in reversed(list(zip(self.ups, skips, strict=True))):
            x, m = up(*_joined(_twice(x, m), skip))
        y, m = _apply(self.last, *_joined((x, m), start))
        for axis, length in enumerate(size):
            y, m = y.narrow(2 + axis, 0, length), m.narrow(2 + axis, 0, length)
        return y, m[:, :1]


class _Level(torch.nn.Module):
    """One convolution and its activation; the mask comes out shared by all channels."""

    def __init__(self, c_in: int, c_out: int, stride: int, dimensions: int, normalize: str) -> None:
        super().__init__()
        self.conv = _convolution(c_in, c_out, stride, dimensions, normalize)
        # no layer normalises, so PyTorch's default would make the signal smaller layer by layer
        torch.nn.init.kaiming_normal_(self.conv.get_parameter("weight"), 0.1)
        torch.nn.init.zeros_(self.conv.get_parameter("bias"))
        self.activation = torch.nn.LeakyReLU(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y, mask = _apply(self.conv, x, mask)
        return self.activation(y), mask[:, :1]


def _convolution(
    c_in: int, c_out: int, stride: int, dimensions: int, normalize: str
) -> torch.nn.Module:
    if normalize == "none":
        return _PLAIN[dimensions](c_in, c_out, 3, stride, 1)
    return _PARTIAL[dimensions](c_in, c_out, 3, stride, 1, normalize=normalize)


def _apply(conv: torch.nn.Module, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the convolution and its mask; a plain one counts 0 as a value like any other."""
    if isinstance(conv, tuple(_PARTIAL.values())):
        y, mask = conv(x, mask)
        return y, mask
    y = conv(x)
    return y, y.new_ones(y[:, :1].shape, dtype=torch.bool)


def _joined(skip: tuple[Tensor, Tensor], up: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the channels of both side by side, and so a mask per channel where masks differ."""
    x = torch.cat([skip[0], up[0]], dim=1)
    if torch.equal(skip[1], up[1]):
        return x, skip[1]
    masks = [mask.expand(-1, part.shape[1], *part.shape[2:]) for part, mask in (skip, up)]
    mask = torch.empty_like(x, dtype=torch.bool)  # in the memory format of x
    return x, torch.cat(masks, dim=1, out=mask)


def _twice(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and mask with every place repeated to two per axis."""
    for axis in range(2, x.ndim):
        mask = mask.repeat_interleave(2, dim=axis)
    return F.interpolate(x, scale_factor=2), mask

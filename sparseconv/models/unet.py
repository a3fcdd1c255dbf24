"""U-Net: one label per site (or per dense cell), from context at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sparseconv import nn
from sparseconv.errors import SparseConvValueError

_SUBM = {1: nn.SubmConv1d, 2: nn.SubmConv2d, 3: nn.SubmConv3d}
_INVERSE = {1: nn.InverseConv1d, 2: nn.InverseConv2d, 3: nn.InverseConv3d}
_STRIDED = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
_SUBM_PARTIAL = {1: nn.SubmPartialConv1d, 2: nn.SubmPartialConv2d, 3: nn.SubmPartialConv3d}
_STRIDED_PARTIAL = {1: nn.PartialConv1d, 2: nn.PartialConv2d, 3: nn.PartialConv3d}
_NORM = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}


class UNet(torch.nn.Module):
    """U-Net of submanifold convolutions: the output lives on the input's sites.

    On the way down, strided convolutions halve the resolution; on the way up, inverse convolutions
    lead back to the very sites that were left, where the features kept from the way down (the
    skip) are joined to theirs. A dense tensor is taken too: there every site is active.

    With ``kernel_size=1`` every window holds its own site alone, those of the strided and inverse
    layers included: a network of the same widths and depth that sees no neighbour, which tells
    what the neighbourhood is worth.

    Args:
        in_channels: channels of the input.
        num_classes: channels of the output.
        widths: channels per level, from the finest to the coarsest; one level or more.
        kernel_size: of the submanifold convolutions, odd.
        dimensions: spatial axes, 1 to 3.
        convolutions: submanifold convolutions per level, on the way down and on the way up.
        partial: partial convolutions in the place of the submanifold and the strided ones, with
            the same weights: sums do not depend on how many neighbours happen to be there. (Of the
            inverse ones every window holds one site.)

    Raises:
        SparseConvValueError: an empty ``widths``, ``convolutions`` below 1, other ``dimensions``;
            and what the layers raise.

    Shape:
        Input ``[B, in_channels, *spatial]``, sparse or dense; output ``[B, num_classes, *spatial]``
        of the same kind. ``spatial`` should be a multiple of ``2 ** (len(widths) - 1)``: what lies
        beyond the last whole window of a strided layer, that layer does not read.

    Source:
        Ronneberger et al. 2015, "U-Net" (arXiv 1505.04597), figure 1; Graham et al. 2018, "3D
        Semantic Segmentation with Submanifold Sparse Convolutional Networks" (arXiv 1711.10275);
        Choy et al. 2019, "4D Spatio-Temporal ConvNets" (arXiv 1904.08755), the MinkUNet.

    Example:
        >>> import torch, sparseconv as sc
        >>> from sparseconv.models import UNet
        >>> x, to_points = sc.voxelize(8 * torch.rand(500, 3), 1.0)
        >>> y = UNet(1, 6, widths=(8, 16))(x)
        >>> y.channels, y.sites is x.sites, to_points(y).shape
        (6, True, torch.Size([500, 6]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        kernel_size: int = 3,
        dimensions: int = 3,
        convolutions: int = 2,
        partial: bool = False,
    ) -> None:
        _check(widths, dimensions, convolutions)
        super().__init__()
        step = 1 if kernel_size == 1 else 2
        subm = (_SUBM_PARTIAL if partial else _SUBM)[dimensions]
        strided = (_STRIDED_PARTIAL if partial else _STRIDED)[dimensions]
        inverse, norm = _INVERSE[dimensions], _NORM[dimensions]

        def level(c_in: int, c_out: int) -> torch.nn.Sequential:
            """Return the submanifold convolutions of one level."""
            layers: list[torch.nn.Module] = []
            for channels in (c_in, *(c_out,) * (convolutions - 1)):
                convolution = subm(channels, c_out, kernel_size, bias=False)
                layers += [convolution, norm(c_out), torch.nn.ReLU()]
            return torch.nn.Sequential(*layers)

        self.encoders = torch.nn.ModuleList([level(in_channels, widths[0])])
        self.downs, self.ups, self.joins, self.decoders = (torch.nn.ModuleList() for _ in range(4))
        for fine, coarse in pairwise(widths):
            down = strided(fine, coarse, step, stride=step, bias=False)
            self.downs.append(torch.nn.Sequential(down, norm(coarse), torch.nn.ReLU()))
            self.encoders.append(level(coarse, coarse))
            self.ups.append(inverse(coarse, fine, step, stride=step, bias=False))
            self.joins.append(torch.nn.Sequential(norm(fine), torch.nn.ReLU()))
            self.decoders.append(level(2 * fine, fine))
        self.head = _SUBM[dimensions](widths[0], num_classes, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return one score per class and site, ``[B, num_classes, *spatial]``.

        Args:
            input: ``[B, in_channels, *spatial]``, a SparseTensor or dense.
        """
        x = self.encoders[0](input)
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        ways_up = zip(self.ups, self.joins, self.decoders, strict=True)
        for up, join, decoder in reversed(list(ways_up)):
            skip = skips.pop()
            x = torch.cat([skip, join(up(x, like=skip))], dim=1)
            del skip  # the decoder needs its memory
            x = decoder(x)
        scores: Tensor = self.head(x)
        return scores


def _check(widths: Sequence[int], dimensions: int, convolutions: int) -> None:
    if dimensions not in _STRIDED:
        raise SparseConvValueError(f"dimensions: must be 1, 2 or 3, got {dimensions!r}")
    if len(widths) < 1:
        raise SparseConvValueError(f"widths: must have one entry per level, got {widths!r}")
    if convolutions < 1:
        raise SparseConvValueError(f"convolutions: must be at least 1, got {convolutions!r}")

"""Deformable convolution modules: the layer learns where each kernel cell looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparseconv import functional
from sparseconv.core.arguments import Size, check_int
from sparseconv.core.foreign_names import native_keywords
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import AnyTensor, Input
from sparseconv.nn.conv import SubmConv1d, SubmConv2d, SubmConv3d, _Conv

_CONV: dict[int, Callable[..., torch.nn.Module]] = {
    1: torch.nn.Conv1d,
    2: torch.nn.Conv2d,
    3: torch.nn.Conv3d,
}
_SUBM: dict[int, Callable[..., torch.nn.Module]] = {1: SubmConv1d, 2: SubmConv2d, 3: SubmConv3d}


class _DeformConv(_Conv):
    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        modulated: bool = False,
        offset_groups: int = 1,
        submanifold: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the layer; see the class."""
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            device,
            dtype,
        )
        _check_offset_groups(offset_groups, in_channels)
        self.submanifold = submanifold
        cells = offset_groups * self.weight[0, 0].numel()
        self.offset = self._guide(cells * self.dimensions)
        self.modulation = self._guide(cells) if modulated else None

    def _guide(self, channels: int) -> torch.nn.Module:
        """Return the zero-initialised convolution, over the same windows, of ``channels``."""
        options: dict[str, Any] = {"device": self.weight.device, "dtype": self.weight.dtype}
        kernel, dilation = self.kernel_size, self.dilation
        guide: torch.nn.Module
        if not self.submanifold:
            options |= {"stride": self.stride, "padding": self.padding}
            guide = _CONV[self.dimensions](
                self.in_channels, channels, kernel, dilation=dilation, **options
            )
        elif set(self.stride) != {1} or self.padding != (0,) * self.dimensions:
            raise SparseConvValueError(
                f"submanifold: needs stride 1 and no padding of its own, got stride {self.stride} "
                f"and padding {self.padding}"
            )
        else:
            guide = _SUBM[self.dimensions](
                self.in_channels, channels, kernel, dilation=dilation, **options
            )
        for parameter in guide.parameters():
            torch.nn.init.zeros_(parameter)
        return guide

    def reset_parameters(self) -> None:
        """Initialise the kernel as torch does, and put every sample back onto the grid."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith(("offset.", "modulation.")):
                torch.nn.init.zeros_(parameter)

    def forward(self, input: AnyTensor, like: Input | None = None) -> AnyTensor:
        """Return :func:`sparseconv.functional.deform_conv` of ``input`` at the learned offsets."""
        share = None
        if self.modulation is not None:
            share = torch.sigmoid(self._guided(self.modulation, input, like))
        return functional.deform_conv(
            input,
            self._guided(self.offset, input, like),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            share,
            submanifold=self.submanifold,
            like=like,
        )

    def _guided(self, guide: Any, input: Input, like: Input | None) -> Any:
        """Return what the guide makes of the input, on the sites of ``like``."""
        if like is None:
            return guide(input)
        if self.submanifold:
            return guide(input, like=like)
        window = self.stride, self.padding, self.dilation
        return functional.conv(input, guide.weight, guide.bias, *window, like=like)


class DeformConv1d(_DeformConv):
    """Deformable convolution over one axis; arguments as of :class:`DeformConv2d`."""

    dimensions = 1


class DeformConv2d(_DeformConv):
    """Deformable convolution over two axes: every kernel cell reads where its offset points.

    The offsets come from a convolution over the same windows, ``layer.offset``, that starts at
    zero: a fresh layer is the plain convolution. With ``modulated=True`` (v2) a second one,
    ``layer.modulation``, tells through a sigmoid how much each sample counts: a fresh layer is
    half the plain convolution. Takes a SparseTensor or a dense tensor ``[B, C_in, *spatial]``.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride, padding, dilation: int or one per axis, as of ``torch.nn.Conv2d``.
        groups: divides both channel counts.
        bias: whether to learn a bias.
        modulated: v2 rather than v1.
        offset_groups: groups of input channels that are moved each in its own way.
        submanifold: keep the input's sites: an odd kernel, stride 1, padding left out.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no such layer can have.

    Source:
        Dai et al. 2017, "Deformable Convolutional Networks" (arXiv 1703.06211); Zhu et al. 2019,
        "Deformable ConvNets v2" (arXiv 1811.11168).

    Example:
        >>> import torch, sparseconv as sc
        >>> layer = sc.nn.DeformConv2d(3, 8, 3, padding=1, modulated=True)
        >>> x = torch.randn(1, 3, 6, 6)
        >>> plain = torch.nn.functional.conv2d(x, layer.weight, None, padding=1)
        >>> torch.allclose(layer(x) - layer.bias[:, None, None], plain / 2, atol=1e-6)
        True
    """

    dimensions = 2


class DeformConv3d(_DeformConv):
    """Deformable convolution over three axes; arguments as of :class:`DeformConv2d`."""

    dimensions = 3


def _check_offset_groups(offset_groups: int, in_channels: int) -> None:
    if in_channels % check_int("offset_groups", offset_groups, least=1):
        raise SparseConvValueError(
            f"offset_groups: must divide the {in_channels} input channels, got {offset_groups}"
        )

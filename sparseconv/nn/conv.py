"""Convolution modules that PyTorch lacks; weights, initialisation and state as torch's own."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch

from sparseconv import functional
from sparseconv.core.arguments import Size, check_int, per_axis
from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.core.private_torch import ConvNd
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import AnyTensor, Input
from sparseconv.sites.borders import MODES

PADDING_MODES = ("zeros", *MODES)


class _Conv(ConvNd):
    """What the modules below share: torch's own base class, which holds and initialises weights."""

    dimensions: ClassVar[int]
    kind: ClassVar[Kind] = Kind.REGULAR
    transposed_weight: ClassVar[bool] = False

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_channels(in_channels, out_channels, groups)
        geometry = make_geometry(
            per_axis("kernel_size", kernel_size, self.dimensions),
            stride=stride,
            padding=padding,
            dilation=dilation,
            kind=self.kind,
        )
        super().__init__(
            in_channels,
            out_channels,
            geometry.kernel_size,
            geometry.stride,
            padding if isinstance(padding, str) else geometry.padding,
            geometry.dilation,
            self.transposed_weight,
            (0,) * self.dimensions,
            groups,
            bias,
            "zeros",
            device=device,
            dtype=dtype,
        )


class _SubmConv(_Conv):
    kind = Kind.SUBMANIFOLD

    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        """Make the layer; see the class."""
        super().__init__(
            in_channels, out_channels, kernel_size, 1, 0, dilation, groups, bias, device, dtype
        )
        if padding_mode not in PADDING_MODES:
            raise SparseConvValueError(
                f"padding_mode: must be one of {PADDING_MODES}, got {padding_mode!r}"
            )
        self.padding_mode = cast(Any, padding_mode)

    def forward(self, input: AnyTensor, like: Input | None = None) -> AnyTensor:
        """Return :func:`sparseconv.functional.subm_conv` of ``input``, at the sites of ``like``."""
        window = (self.dilation, self.groups)
        if self.padding_mode == "zeros":
            return functional.subm_conv(input, self.weight, self.bias, *window, like=like)
        mode = self.padding_mode
        return functional.subm_conv(
            input, self.weight, self.bias, *window, like=like, padding_mode=mode
        )


class SubmConv1d(_SubmConv):
    """Submanifold convolution over one axis; arguments as of :class:`SubmConv3d`."""

    dimensions = 1


class SubmConv2d(_SubmConv):
    """Submanifold convolution over two axes; arguments as of :class:`SubmConv3d`."""

    dimensions = 2


class SubmConv3d(_SubmConv):
    """Submanifold convolution over three axes: the output sites are the input sites.

    Takes a SparseTensor ``[B, C_in, *spatial]``, or a dense tensor, where every site is active.
    Weight ``[C_out, C_in / groups, *kernel]``, as of ``torch.nn.Conv3d``; stride 1 and "same"
    padding are what submanifold means.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size: int or one per axis, odd.
        dilation: int or one per axis.
        groups: divides both channel counts.
        bias: whether to learn a bias.
        device, dtype: of the parameters.
        padding_mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``: what lies
            beyond the ends of the axes. An axis that the input's grid calls circular always wraps.

    Raises:
        SparseConvError: an even kernel, groups that do not divide the channels.

    Source:
        Graham and van der Maaten 2017, "Submanifold Sparse Convolutional Networks".

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 1, 1], [0, 5, 5, 5]]))
        >>> sc.nn.SubmConv3d(4, 8, 3)(x).sites is x.sites
        True
    """

    dimensions = 3


class SubmConv4d(_SubmConv):
    """Submanifold convolution over four axes; arguments as of :class:`SubmConv3d`."""

    dimensions = 4


class Conv4d(_Conv):
    """Convolution over four axes, for space and time together.

    Takes a SparseTensor (regular site law) or a dense tensor ``[B, C_in, T, X, Y, Z]``. Arguments
    and weight layout as of ``torch.nn.Conv3d``, with four axes.

    Raises:
        SparseConvError: an argument that no convolution can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.Conv4d(2, 4, 3, stride=2, padding=1)(torch.zeros(1, 2, 4, 4, 4, 4)).shape
        torch.Size([1, 4, 2, 2, 2, 2])
    """

    dimensions = 4

    def forward(self, input: AnyTensor, like: Input | None = None) -> AnyTensor:
        """Return :func:`sparseconv.functional.conv4d` of ``input``, at the sites of ``like``."""
        window = (self.stride, self.padding, self.dilation, self.groups)
        return functional.conv4d(input, self.weight, self.bias, *window, like=like)


class _InverseConv(_Conv):
    transposed_weight = True

    def forward(self, input: AnyTensor, like: Input | None = None) -> AnyTensor:
        """Return :func:`sparseconv.functional.inverse_conv` of ``input``.

        Args:
            input: the tensor to bring back.
            like: a tensor on the sites to return to, where the input does not know them.
        """
        window = (self.stride, self.padding, self.dilation, self.groups)
        return functional.inverse_conv(input, self.weight, self.bias, *window, like=like)


class InverseConv1d(_InverseConv):
    """Inverse of a strided convolution over one axis; see :class:`InverseConv3d`."""

    dimensions = 1


class InverseConv2d(_InverseConv):
    """Inverse of a strided convolution over two axes; see :class:`InverseConv3d`."""

    dimensions = 2


class InverseConv3d(_InverseConv):
    """Inverse of a strided convolution over three axes: back on the sites that it read.

    Takes the arguments of the strided layer that it undoes; a SparseTensor finds the way back by
    itself, or by ``layer(x, like=skip)``. On a dense tensor it is a transposed convolution. Weight
    ``[C_in, C_out / groups, *kernel]``, as of ``torch.nn.ConvTranspose3d``: a convolution and its
    adjoint can share one tensor.

    Args:
        in_channels, out_channels: channel counts of this layer.
        kernel_size, stride, padding, dilation: as of the strided layer.
        groups: divides both channel counts.
        bias: whether to learn a bias.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no convolution can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 1, 1], [0, 5, 5, 5]]))
        >>> down = torch.nn.Conv3d(4, 8, 2, stride=2)(x)
        >>> sc.nn.InverseConv3d(8, 4, 2, stride=2)(down).sites is x.sites
        True
    """

    dimensions = 3


class InverseConv4d(_InverseConv):
    """Inverse of a strided convolution over four axes; see :class:`InverseConv3d`."""

    dimensions = 4


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    named = (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups))
    for name, value in named:
        check_int(name, value, least=1)
    if in_channels % groups or out_channels % groups:
        raise SparseConvValueError(
            f"groups: {groups} must divide in_channels {in_channels} and out_channels "
            f"{out_channels}"
        )

"""Locally connected modules: unshared weights."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from sparseconv import functional
from sparseconv.core.arguments import Size, check_int, per_axis
from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.geometry import make_geometry
from sparseconv.functional.checks import AnyTensor


class _LocallyConnected(torch.nn.Module):
    dimensions: ClassVar[int]

    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        input_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the layer; see the class."""
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check_int(name, value, least=1)
        geometry = make_geometry(
            per_axis("kernel_size", kernel_size, self.dimensions),
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = (
            geometry.kernel_size,
            geometry.stride,
            geometry.dilation,
        )
        self.padding = padding if isinstance(padding, str) else geometry.padding
        self.input_size = per_axis("input_size", input_size, self.dimensions)
        output = geometry.output_shape(self.input_size)
        shape = (*output, out_channels, in_channels, *geometry.kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        shape = (out_channels, *output)
        self.bias: torch.nn.Parameter | None
        if bias:
            self.bias = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch's convolutions do: uniform in ``1 / sqrt(fan_in)``."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        torch.nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: AnyTensor) -> AnyTensor:
        """Return :func:`sparseconv.functional.locally_connected` of ``input``."""
        return functional.locally_connected(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"input_size={self.input_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, bias={self.bias is not None}"
        )


class LocallyConnected1d(_LocallyConnected):
    """Locally connected layer over one axis; see :class:`LocallyConnected2d`."""

    dimensions = 1


class LocallyConnected2d(_LocallyConnected):
    """A convolution over two axes with unshared weights: each output position has its own.

    Takes a SparseTensor (regular site law) or a dense tensor ``[B, C_in, *input_size]``. Weight
    ``[*output, C_out, C_in, *kernel]``, bias ``[C_out, *output]``.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size: int or one per axis.
        input_size: the input's spatial extent, int or one per axis: it fixes the output positions.
        stride, padding, dilation: as of ``torch.nn.Conv2d``.
        bias: whether to learn a bias, one per output position and channel.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no layer can have; an input of another extent.

    Example:
        >>> import torch, sparseconv as sc
        >>> layer = sc.nn.LocallyConnected2d(1, 2, 3, input_size=(5, 4))
        >>> layer.weight.shape, layer(torch.zeros(1, 1, 5, 4)).shape
        (torch.Size([3, 2, 2, 1, 3, 3]), torch.Size([1, 2, 3, 2]))
    """

    dimensions = 2

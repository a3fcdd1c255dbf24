"""Convolutions: regular, transposed, generative, channelwise; weights as MinkowskiEngine's."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor as TorchTensor
from torch import nn

from sparseconv.compat.minkowski.constants import ConvolutionMode
from sparseconv.compat.minkowski.kernel import KernelGenerator
from sparseconv.compat.minkowski.layers.windows import WindowModule
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.convolution.products import product


class MinkowskiConvolutionBase(WindowModule):
    """Base of the convolutions.

    The kernel is ``[K, C_in, C_out]``, the first axis of its cells fastest, or ``[C_in, C_out]``
    where it has one cell and stride 1; a bias is ``[1, C_out]``.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride, dilation: int or one per axis; without effect beside
            ``kernel_generator``.
        bias: whether to learn a bias.
        kernel_generator: the shape of the kernel.
        is_transpose: whether it goes back to a finer tensor stride.
        expand_coordinates: whether the output is every site that an input reaches.
        convolution_mode: taken without effect.
        dimension: number of spatial axes.

    Raises:
        SparseConvError: an argument that no layer can have.
    """

    checkpoint_layout: ClassVar[str] = "minkowski"  # as sparseconv.load_checkpoint names it

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        expand_coordinates: bool = False,
        convolution_mode: Any = ConvolutionMode.DEFAULT,
        dimension: int = -1,
    ) -> None:
        super().__init__()
        check_int("dimension", dimension, least=1)
        if kernel_generator is None:
            kernel_generator = KernelGenerator(kernel_size, stride, dilation, dimension=dimension)
        kernel_generator.expand_coordinates = expand_coordinates
        self.in_channels, self.out_channels = in_channels, out_channels
        self.is_transpose, self.dimension = is_transpose, dimension
        self.kernel_generator, self.convolution_mode = kernel_generator, convolution_mode
        cells = kernel_generator.kernel_volume
        self.use_mm = cells == 1 and kernel_generator.requires_strided_coordinates
        shape = (in_channels, out_channels) if self.use_mm else (cells, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(1, out_channels))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(is_transpose)

    @property
    def kernel_size(self) -> list[int]:
        """Kernel size per axis."""
        return self.kernel_generator.kernel_size

    @property
    def stride(self) -> list[int]:
        """Stride per axis."""
        return self.kernel_generator.kernel_stride

    @property
    def transposed(self) -> bool:
        """Whether it goes back to a finer tensor stride."""
        return self.is_transpose

    def reset_parameters(self, is_transpose: bool = False) -> None:
        """Draw kernel and bias as MinkowskiEngine does, the same numbers from the same seed."""
        channels = self.out_channels if is_transpose else self.in_channels
        bound = 1.0 / math.sqrt(channels * self.kernel_generator.kernel_volume)
        with torch.no_grad():
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def forward(self, input: SparseTensor, coordinates: Any = None) -> SparseTensor:
        """Return the convolution of ``input``.

        Args:
            input: ``[N, C_in]``.
            coordinates: on which to compute, instead of the layer's own: a SparseTensor, a key, or
                integer ``[M, 1 + D]``.

        Raises:
            SparseConvError: channels or dtypes that do not fit; a tensor stride that the layer
                cannot go back from.
        """
        if torch.compiler.is_compiling():  # what a manager finds is no part of a graph
            outside: SparseTensor = torch.compiler.disable(self.forward)(input, coordinates)
            return outside
        self.check_input(input)
        if input.shape[1] != self.in_channels:
            raise SparseConvValueError(
                f"input: must have {self.in_channels} channels, got {input.shape[1]}"
            )
        bias = None if self.bias is None else self.bias.reshape(-1)
        if self.use_mm:
            rows: TorchTensor = nn.functional.linear(input.F, self.kernel.T, bias)
            return input.with_features(rows)
        key, rulebook = self.plan(input, coordinates)
        return input.at(product(input.F, self.kernel[:, None], bias, rulebook), key)

    def __repr__(self) -> str:
        """Return the arguments."""
        kernel = self.kernel_generator
        return (
            f"{type(self).__name__}(in={self.in_channels}, out={self.out_channels}, "
            f"kernel_size={kernel.kernel_size}, stride={kernel.kernel_stride}, "
            f"dilation={kernel.kernel_dilation})"
        )


class MinkowskiConvolution(MinkowskiConvolutionBase):
    """Convolution; with a stride the output lies on the sites of the stride that hold an input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: Any = ConvolutionMode.DEFAULT,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiConvolutionBase`."""
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator,
            False, expand_coordinates, convolution_mode, dimension,
        )  # fmt: skip


class MinkowskiConvolutionTranspose(MinkowskiConvolutionBase):
    """Transposed convolution, back to the coordinates of the finer tensor stride.

    Where the manager has none, or with ``expand_coordinates``, to every site that an input reaches.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: Any = ConvolutionMode.DEFAULT,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiConvolutionBase`."""
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator,
            True, expand_coordinates, convolution_mode, dimension,
        )  # fmt: skip


class MinkowskiGenerativeConvolutionTranspose(MinkowskiConvolutionBase):
    """Transposed convolution to every site that an input reaches, which are new."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        convolution_mode: Any = ConvolutionMode.DEFAULT,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiConvolutionBase`."""
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator,
            True, True, convolution_mode, dimension,
        )  # fmt: skip


class MinkowskiChannelwiseConvolution(WindowModule):
    """Convolution of each channel by itself; the kernel is ``[K, C]``, a bias ``[1, C]``."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiConvolutionBase`."""
        super().__init__()
        check_int("dimension", dimension, least=1)
        self.kernel_generator = kernel_generator or KernelGenerator(
            kernel_size, stride, dilation, dimension=dimension
        )
        self.in_channels, self.dimension = in_channels, dimension
        self.kernel_shape = (self.kernel_generator.kernel_volume, in_channels)
        self.kernel = nn.Parameter(torch.empty(self.kernel_shape))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(1, in_channels))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw kernel and bias as MinkowskiEngine does, the same numbers from the same seed."""
        bound = 1.0 / math.sqrt(self.kernel.numel())
        with torch.no_grad():
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def forward(self, input: SparseTensor, coords: Any = None) -> SparseTensor:
        """Return the convolution of ``input``, on ``coords`` where they are given."""
        if torch.compiler.is_compiling():
            outside: SparseTensor = torch.compiler.disable(self.forward)(input, coords)
            return outside
        self.check_input(input)
        if input.shape[1] != self.in_channels:
            raise SparseConvValueError(
                f"input: must have {self.in_channels} channels, got {input.shape[1]}"
            )
        key, rulebook = self.plan(input, coords)
        bias = None if self.bias is None else self.bias.reshape(-1)
        return input.at(product(input.F, self.kernel[..., None, None], bias, rulebook), key)


__all__ = [
    "MinkowskiChannelwiseConvolution",
    "MinkowskiConvolution",
    "MinkowskiConvolutionBase",
    "MinkowskiConvolutionTranspose",
    "MinkowskiGenerativeConvolutionTranspose",
]

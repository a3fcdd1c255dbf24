"""The convolutions of spconv by name, for one to four axes."""

from __future__ import annotations

from typing import ClassVar

from sparseconv.compat.spconv.constants import ConvAlgo
from sparseconv.compat.spconv.layers.convolution import SparseConvolution
from sparseconv.core.arguments import Size


class _Conv(SparseConvolution):
    dimensions: ClassVar[int]
    is_transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ) -> None:
        """Make the layer; arguments as of :class:`SparseConvolution`."""
        super().__init__(
            self.dimensions, in_channels, out_channels, kernel_size, stride, padding, dilation,
            groups, bias, transposed=self.is_transposed, indice_key=indice_key, algo=algo,
            fp32_accum=fp32_accum, record_voxel_count=record_voxel_count, name=name,
            large_kernel_fast_algo=large_kernel_fast_algo,
        )  # fmt: skip


class _SubM(SparseConvolution):
    dimensions: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ) -> None:
        """Make the layer; arguments as of :class:`SparseConvolution`."""
        super().__init__(
            self.dimensions, in_channels, out_channels, kernel_size, stride, padding, dilation,
            groups, bias, True, indice_key=indice_key, algo=algo, fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo, name=name,
        )  # fmt: skip


class _Inverse(SparseConvolution):
    dimensions: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        indice_key: str | None = None,
        bias: bool = True,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ) -> None:
        """Make the layer; arguments as of :class:`SparseConvolution`."""
        super().__init__(
            self.dimensions, in_channels, out_channels, kernel_size, bias=bias, inverse=True,
            indice_key=indice_key, algo=algo, fp32_accum=fp32_accum, name=name,
            large_kernel_fast_algo=large_kernel_fast_algo,
        )  # fmt: skip


class _Transpose(_Conv):
    is_transposed = True


class SubMConv1d(_SubM):
    """Submanifold convolution over one axis: the output lies on the input's sites."""

    dimensions = 1


class SubMConv2d(_SubM):
    """Submanifold convolution over two axes: the output lies on the input's sites."""

    dimensions = 2


class SubMConv3d(_SubM):
    """Submanifold convolution over three axes: the output lies on the input's sites."""

    dimensions = 3


class SubMConv4d(_SubM):
    """Submanifold convolution over four axes: the output lies on the input's sites."""

    dimensions = 4


class SparseConv1d(_Conv):
    """Convolution over one axis: a window that holds a site gives one."""

    dimensions = 1


class SparseConv2d(_Conv):
    """Convolution over two axes: a window that holds a site gives one."""

    dimensions = 2


class SparseConv3d(_Conv):
    """Convolution over three axes: a window that holds a site gives one."""

    dimensions = 3


class SparseConv4d(_Conv):
    """Convolution over four axes: a window that holds a site gives one."""

    dimensions = 4


class SparseConvTranspose1d(_Transpose):
    """Transposed convolution over one axis: every site that an input reaches."""

    dimensions = 1


class SparseConvTranspose2d(_Transpose):
    """Transposed convolution over two axes: every site that an input reaches."""

    dimensions = 2


class SparseConvTranspose3d(_Transpose):
    """Transposed convolution over three axes: every site that an input reaches."""

    dimensions = 3


class SparseConvTranspose4d(_Transpose):
    """Transposed convolution over four axes: every site that an input reaches."""

    dimensions = 4


class SparseInverseConv1d(_Inverse):
    """Inverse over one axis: back on the sites that the layer with its key read."""

    dimensions = 1


class SparseInverseConv2d(_Inverse):
    """Inverse over two axes: back on the sites that the layer with its key read."""

    dimensions = 2


class SparseInverseConv3d(_Inverse):
    """Inverse over three axes: back on the sites that the layer with its key read."""

    dimensions = 3


class SparseInverseConv4d(_Inverse):
    """Inverse over four axes: back on the sites that the layer with its key read."""

    dimensions = 4


__all__ = [
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
]

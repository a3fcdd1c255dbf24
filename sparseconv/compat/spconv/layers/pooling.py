"""Pooling over windows and over whole samples."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sparseconv.autograd.windows import window_max
from sparseconv.compat.spconv.constants import ConvAlgo
from sparseconv.compat.spconv.layers.containers import SparseModule
from sparseconv.compat.spconv.layers.pairs import WindowModule, pairs_of
from sparseconv.compat.spconv.tensor import SparseConvTensor, expand_nd
from sparseconv.core.arguments import Size
from sparseconv.functional.pooling.global_pool import global_avg_pool, global_max_pool
from sparseconv.functional.pooling.on_sites import window_mean


class _Pool(WindowModule):
    """What the poolings over windows share."""

    def __init__(
        self,
        ndim: int,
        kernel_size: Size = 3,
        stride: Size | None = 1,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        subm: bool = False,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ) -> None:
        """Make the layer.

        Args:
            ndim: number of spatial axes, 1 to 4.
            kernel_size, padding, dilation: int or one per axis.
            stride: the same; ``kernel_size`` where it is None.
            indice_key: under which later layers find this one's sites.
            subm: output on the input's sites; stride and padding are then without effect.
            algo: taken without effect.
            record_voxel_count: whether to keep the largest number of output sites in a buffer.
            name: in messages.
        """
        super().__init__(name)
        self.ndim = ndim
        self.kernel_size = expand_nd(ndim, kernel_size)
        self.stride = list(self.kernel_size) if stride is None else expand_nd(ndim, stride)
        self.padding = expand_nd(ndim, padding)
        self.dilation = expand_nd(ndim, dilation)
        self.subm, self.indice_key, self.algo = subm, indice_key, algo
        self.record_voxels(record_voxel_count and not subm)
        _ = self.geometry  # checks it

    def pooled(self, features: Tensor, rulebook: Any) -> Tensor:
        """Return the rows of the output."""
        raise NotImplementedError

    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        """Return the pooled tensor.

        Raises:
            SparseConvError: indices that repeat a site or lie outside of the shape; a key that was
                used for another geometry; an output size below 1.
        """
        if torch.compiler.is_compiling():  # what a key finds is no part of a graph
            outside: SparseConvTensor = torch.compiler.disable(self.forward)(input)
            return outside
        pairs = pairs_of(self, input, self.geometry, self.subm)
        rows = self.pooled(input.features, pairs.rulebook)
        return self.output(input, rows, pairs)

    def extra_repr(self) -> str:
        """Return the arguments that are not at their defaults."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", 0), ("dilation", 1)):
            if any(entry != default for entry in getattr(self, name)):
                text += f", {name}={getattr(self, name)}"
        return text


class SparseMaxPool(_Pool):
    """Base of max pooling: the largest value of the sites in each window.

    Attributes:
        from_zero: whether 0 counts in every window. spconv computes so: set it, on a layer or on
            this class, for weights that were trained with it.
    """

    from_zero: bool = False

    def pooled(self, features: Tensor, rulebook: Any) -> Tensor:
        """Return the largest value of each window."""
        largest = window_max(features, rulebook)
        return largest.clamp(min=0) if self.from_zero else largest


class SparseAvgPool(_Pool):
    """Base of average pooling: over the sites in each window, not over its cells."""

    def pooled(self, features: Tensor, rulebook: Any) -> Tensor:
        """Return the mean of each window."""
        return window_mean(features, rulebook)


class _Named(_Pool):
    dimensions: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ) -> None:
        """Make the layer; the stride is ``kernel_size`` where it is left out."""
        super().__init__(
            self.dimensions, kernel_size, stride, padding, dilation, indice_key, algo=algo,
            record_voxel_count=record_voxel_count, name=name,
        )  # fmt: skip


class SparseMaxPool1d(_Named, SparseMaxPool):
    """Max pooling over one axis."""

    dimensions = 1


class SparseMaxPool2d(_Named, SparseMaxPool):
    """Max pooling over two axes."""

    dimensions = 2


class SparseMaxPool3d(_Named, SparseMaxPool):
    """Max pooling over three axes."""

    dimensions = 3


class SparseMaxPool4d(_Named, SparseMaxPool):
    """Max pooling over four axes."""

    dimensions = 4


class SparseAvgPool1d(_Named, SparseAvgPool):
    """Average pooling over one axis."""

    dimensions = 1


class SparseAvgPool2d(_Named, SparseAvgPool):
    """Average pooling over two axes."""

    dimensions = 2


class SparseAvgPool3d(_Named, SparseAvgPool):
    """Average pooling over three axes."""

    dimensions = 3


class SparseGlobalMaxOrAvgPool(SparseModule):
    """Pooling over the sites of each sample, ``[B, C]``; by the mean or the largest value."""

    def __init__(self, is_mean: bool, name: str | None = None) -> None:
        super().__init__(name)
        self.is_mean = is_mean

    def forward(self, input: SparseConvTensor) -> Tensor:
        """Return a row for each sample."""
        return (global_avg_pool if self.is_mean else global_max_pool)(input.sparse)


class SparseGlobalAvgPool(SparseGlobalMaxOrAvgPool):
    """The mean over the sites of each sample, ``[B, C]``; 0 for a sample without any."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(True, name)


class SparseGlobalMaxPool(SparseGlobalMaxOrAvgPool):
    """The largest value over the sites of each sample, ``[B, C]``."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(False, name)


ALL_POOL_LAYERS = {
    *(SparseMaxPool, SparseMaxPool1d, SparseMaxPool2d, SparseMaxPool3d, SparseMaxPool4d),
    *(SparseAvgPool, SparseAvgPool1d, SparseAvgPool2d, SparseAvgPool3d),
}

__all__ = [
    "ALL_POOL_LAYERS",
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxOrAvgPool",
    "SparseGlobalMaxPool",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
]

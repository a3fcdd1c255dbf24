"""Pooling over windows, its transpose, and pooling over whole samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor as TorchTensor

from sparseconv.autograd.samples import sample_max, sample_sum
from sparseconv.autograd.windows import window_max, window_sum
from sparseconv.compat.minkowski.base import Tensor
from sparseconv.compat.minkowski.constants import PoolingMode
from sparseconv.compat.minkowski.field import TensorField
from sparseconv.compat.minkowski.kernel import KernelGenerator
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.layers.windows import WindowModule
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_int, check_kind
from sparseconv.core.dtypes import summable
from sparseconv.core.rulebook import Rulebook
from sparseconv.functional.pooling.on_sites import window_mean
from sparseconv.sites.samples import Samples


class MinkowskiPoolingBase(WindowModule):
    """Base of the poolings over windows.

    A window as wide as its stride begins on its site; others lie as those of a convolution. Only
    sites count: an average is over those that are there.

    Args:
        kernel_size, stride, dilation: int or one per axis; without effect beside
            ``kernel_generator``.
        kernel_generator: the shape of the window.
        is_transpose: whether it goes back to a finer tensor stride.
        pooling_mode: what it does with the values.
        dimension: number of spatial axes.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = 1,
        dilation: Any = 1,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        pooling_mode: PoolingMode = PoolingMode.LOCAL_AVG_POOLING,
        dimension: int = -1,
    ) -> None:
        super().__init__()
        check_int("dimension", dimension, least=1)
        self.kernel_generator = kernel_generator or KernelGenerator(
            kernel_size, stride, dilation, dimension=dimension
        )
        self.is_transpose, self.dimension = is_transpose, dimension
        self.pooling_mode = pooling_mode

    def pooled(self, features: TorchTensor, rulebook: Rulebook) -> TorchTensor:
        """Return the rows of the output."""
        if self.is_transpose or self.pooling_mode is PoolingMode.LOCAL_SUM_POOLING:
            return window_sum(features, rulebook)
        if self.pooling_mode is PoolingMode.LOCAL_MAX_POOLING:
            return window_max(features, rulebook)
        return window_mean(features, rulebook)

    def forward(self, input: SparseTensor, coordinates: Any = None) -> SparseTensor:
        """Return the pooled tensor, on ``coordinates`` where they are given."""
        if torch.compiler.is_compiling():
            outside: SparseTensor = torch.compiler.disable(self.forward)(input, coordinates)
            return outside
        self.check_input(input)
        key, rulebook = self.plan(input, coordinates, pool=True)
        return input.at(self.pooled(input.F, rulebook), key)


class _Pooling(MinkowskiPoolingBase):
    mode: PoolingMode

    def __init__(
        self,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiPoolingBase`."""
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, False, self.mode, dimension
        )


class MinkowskiAvgPooling(_Pooling):
    """The mean of the sites in each window."""

    mode = PoolingMode.LOCAL_AVG_POOLING


class MinkowskiSumPooling(_Pooling):
    """The sum of the sites in each window."""

    mode = PoolingMode.LOCAL_SUM_POOLING


class MinkowskiMaxPooling(_Pooling):
    """The largest value of the sites in each window, 0 where there is none."""

    mode = PoolingMode.LOCAL_MAX_POOLING


class MinkowskiPoolingTranspose(MinkowskiPoolingBase):
    """The sum of the values whose windows hold a site, back at the finer tensor stride."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any,
        dilation: Any = 1,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        dimension: int = -1,
    ) -> None:
        """Make the layer; see :class:`MinkowskiPoolingBase`."""
        check_int("dimension", dimension, least=1)
        kernel_generator = kernel_generator or KernelGenerator(
            kernel_size, stride, dilation,
            expand_coordinates=expand_coordinates, dimension=dimension,
        )  # fmt: skip
        super().__init__(kernel_size, stride, dilation, kernel_generator, True, dimension=dimension)


class MinkowskiGlobalPooling(MinkowskiModuleBase):
    """Pooling over the rows of each sample, one row a sample; 0 for a sample without any."""

    default = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX

    def __init__(self, mode: PoolingMode | None = None) -> None:
        super().__init__()
        self.pooling_mode = self.default if mode is None else mode
        check_kind("mode", self.pooling_mode, PoolingMode, "a PoolingMode")

    def forward(self, input: Tensor, coordinates: Any = None) -> SparseTensor:
        """Return the rows of the samples, at the origin."""
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        manager, is_field = input.coordinate_manager, isinstance(input, TensorField)
        samples = _samples_of(input) if is_field else manager.sites(input.key).samples
        rows = self._pooled(input.F, samples)
        key = manager.origin_of(len(rows), rows.device)
        return SparseTensor(rows, coordinate_map_key=key, coordinate_manager=manager)

    def _pooled(self, features: TorchTensor, samples: Samples) -> TorchTensor:
        _, kind, *_ = self.pooling_mode.name.split("_")
        if kind == "MAX":
            return sample_max(features, samples)
        total = sample_sum(summable(features), samples)
        if kind == "AVG":
            total = total / samples.counts.clamp(min=1)[:, None]
        return total.to(features.dtype)

    def __repr__(self) -> str:
        """Return the mode."""
        return f"{type(self).__name__}(mode={self.pooling_mode})"


class MinkowskiGlobalSumPooling(MinkowskiGlobalPooling):
    """The sum over the rows of each sample."""

    default = PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX


class MinkowskiGlobalAvgPooling(MinkowskiGlobalPooling):
    """The mean over the rows of each sample."""

    default = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX


class MinkowskiGlobalMaxPooling(MinkowskiGlobalPooling):
    """The largest value over the rows of each sample."""

    default = PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX


def _samples_of(field: Tensor) -> Samples:
    """Return the rows of each sample of a field."""
    sample = field.C[:, 0].long()
    counts = tuple(torch.bincount(sample).tolist())
    order = torch.sort(sample, stable=True).indices
    return Samples(order, sample, counts, field.device)


__all__ = [
    "MinkowskiAvgPooling",
    "MinkowskiGlobalAvgPooling",
    "MinkowskiGlobalMaxPooling",
    "MinkowskiGlobalPooling",
    "MinkowskiGlobalSumPooling",
    "MinkowskiMaxPooling",
    "MinkowskiPoolingBase",
    "MinkowskiPoolingTranspose",
    "MinkowskiSumPooling",
]

"""Max, average and power-average pooling over windows.

The site law is that of a convolution: a window that holds an active site gives one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.windows import window_max, window_sum
from sparseconv.core.arguments import Size, check_int, per_axis
from sparseconv.core.dispatch import dispatched, implements, refuse
from sparseconv.core.dtypes import summable
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvValueError,
)
from sparseconv.functional.pooling.dense import dense_avg_pool4d, dense_max_pool4d
from sparseconv.functional.pooling.geometry import pool_geometry, sparse_pool_geometry
from sparseconv.functional.precision import widened
from sparseconv.tensor import SparseTensor

_NO_INDICES = (
    "pool without return_indices; an index into the dense grid means nothing to sparse features, "
    "and the way back is sparseconv.nn.InverseConv"
)


@dispatched
def max_pool4d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Max pooling over four axes; torch stops at three.

    Args:
        input: ``[B, C, *spatial]`` with four spatial axes, a SparseTensor or dense.
        kernel_size: int or one per axis.
        stride: the same; ``kernel_size`` where left out.
        padding: cells of minus infinity on both sides, at most half of the window.
        dilation: int or one per axis.
        ceil_mode: whether a window may end behind the padding.

    Returns:
        ``[B, C, *output]``, of the input's kind.

    Raises:
        SparseConvError: an argument that no pooling can have, an output size below 1.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.functional.max_pool4d(torch.zeros(1, 2, 4, 4, 4, 4), 2).shape
        torch.Size([1, 2, 2, 2, 2, 2])
    """
    shape = tuple(input.shape)
    geometry = pool_geometry(shape, 4, kernel_size, stride, padding, dilation, ceil_mode)
    return dense_max_pool4d(input, geometry, ceil_mode)


@dispatched
def avg_pool4d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Average pooling over four axes; torch stops at three.

    Args:
        input: ``[B, C, *spatial]`` with four spatial axes, a SparseTensor or dense.
        kernel_size: int or one per axis.
        stride: the same; ``kernel_size`` where left out.
        padding: cells of zeros on both sides, at most half of the window.
        ceil_mode: whether a window may end behind the padding.
        count_include_pad: whether padding, and an inactive site, counts in the divisor.
        divisor_override: the divisor, instead of a count.

    Returns:
        ``[B, C, *output]``, of the input's kind.

    Raises:
        SparseConvError: an argument that no pooling can have, an output size below 1.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.functional.avg_pool4d(torch.ones(1, 1, 2, 2, 2, 2), 2).item()
        1.0
    """
    shape = tuple(input.shape)
    geometry = pool_geometry(shape, 4, kernel_size, stride, padding, ceil_mode=ceil_mode)
    check_divisor(divisor_override)
    return dense_avg_pool4d(input, geometry, ceil_mode, count_include_pad, divisor_override)


def _sparse_max_pool(dimensions: int) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of max pooling over ``dimensions`` axes."""

    def max_pool(
        input: SparseTensor,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> SparseTensor:
        if return_indices:
            raise SparseConvNotImplementedError(f"return_indices: must be False; {_NO_INDICES}")
        geometry = sparse_pool_geometry(
            input, dimensions, kernel_size, stride, padding, dilation, ceil_mode
        )
        sites, rulebook = input.sites.convolve(geometry)
        features = widened(input, f"max_pool{dimensions}d").features
        return SparseTensor.unchecked(window_max(features, rulebook), sites)

    return max_pool


def _sparse_avg_pool(dimensions: int) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of average pooling over ``dimensions`` axes."""

    def avg_pool(
        input: SparseTensor,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> SparseTensor:
        check_divisor(divisor_override)
        geometry = sparse_pool_geometry(
            input, dimensions, kernel_size, stride, padding, ceil_mode=ceil_mode
        )
        sites, rulebook = input.sites.convolve(geometry)
        x = widened(input, f"avg_pool{dimensions}d").features
        if divisor_override is not None:
            average = window_sum(x, rulebook, divisor_override)
        elif count_include_pad and geometry.padding_end == geometry.padding:
            # no window ends behind the padding
            average = window_sum(x, rulebook, math.prod(geometry.kernel_size))
        else:
            # the sum of a window overflows float16 long before its average does
            total = window_sum(summable(x), rulebook)
            if count_include_pad:
                cells = input.sites.padded_cells(sites, geometry)[:, None].to(total.dtype)
            else:
                cells = window_sum(total.new_ones(x.shape[0], 1), rulebook)
            average = (total / cells).to(x.dtype)
        return SparseTensor.unchecked(average, sites)

    return avg_pool


def _sparse_lp_pool(dimensions: int) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of power-average pooling over ``dimensions`` axes."""
    average, maximum = _sparse_avg_pool(dimensions), _sparse_max_pool(dimensions)

    def lp_pool(
        input: SparseTensor,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
    ) -> SparseTensor:
        x = input.features
        if norm_type == math.inf:
            return maximum(input.replace(x.abs()), kernel_size, stride, ceil_mode=ceil_mode)
        if norm_type == -math.inf:
            negative = maximum(input.replace(-x.abs()), kernel_size, stride, ceil_mode=ceil_mode)
            return negative.replace(-negative.features)
        if norm_type == 0:
            raise SparseConvValueError("norm_type: must not be 0")
        mean = average(input.replace(x.pow(norm_type)), kernel_size, stride, ceil_mode=ceil_mode)
        cells = math.prod(per_axis("kernel_size", kernel_size, dimensions))
        # as in PyTorch, relu makes the derivative of the root 0 where the sum is 0
        y = mean.features
        return mean.replace((y.sign() * y.abs().relu()).mul(cells).pow(1.0 / norm_type))

    return lp_pool


def check_divisor(divisor: Any) -> None:
    """Raise unless this is None or a divisor of averages."""
    if divisor is None:
        return
    if check_int("divisor_override", divisor) == 0:
        raise SparseConvValueError("divisor_override: must not be 0")


_MAX: dict[int, tuple[Callable[..., Any], ...]] = {
    1: (torch.max_pool1d, F.max_pool1d),
    2: (torch.max_pool2d, F.max_pool2d),
    3: (torch.max_pool3d, F.max_pool3d),
    4: (max_pool4d,),
}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d, 4: avg_pool4d}
_POWER = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}

for _axes, _functions in _MAX.items():
    implements(
        *_functions,
        meaning="largest value of the active sites in each window",
        law="an inactive site counts minus infinity; sites as of a convolution",
    )(_sparse_max_pool(_axes))
for _axes, _average in AVERAGE.items():
    implements(
        _average,
        meaning="sum over each window by the window's size, or by its number of active sites",
        law="an inactive site counts 0, and in the divisor as padding does (count_include_pad); "
        "sites as of a convolution",
    )(_sparse_avg_pool(_axes))
for _axes, _power in _POWER.items():
    implements(
        _power,
        meaning="p-norm of the active sites in each window",
        law="an inactive site counts 0; sites as of a convolution",
    )(_sparse_lp_pool(_axes))
refuse(
    F.max_pool1d_with_indices,
    F.max_pool2d_with_indices,
    F.max_pool3d_with_indices,
    F.max_unpool1d,
    F.max_unpool2d,
    F.max_unpool3d,
    instead=_NO_INDICES,
)

"""Partial pooling: over the valid values of each window; the mask is max-pooled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.windows import window_max, window_sum
from sparseconv.core.arguments import Size, per_axis
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Geometry, make_geometry
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.convolution import masks
from sparseconv.functional.convolution.partial import partial_conv
from sparseconv.tensor import SparseTensor

_MAX_POOL: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@dispatched
def partial_max_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    mask: Tensor | None = None,
) -> Any:
    """Return the largest valid value of each window, 0 where none is; the mask is max-pooled.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense, 1 to 3 spatial axes.
        kernel_size, stride, padding, dilation: as of torch's max pooling; any padding is allowed.
        mask: as of :func:`sparseconv.functional.partial_conv`.

    Returns:
        y ``[B, C, *output]`` of the input's kind; ``(y, mask)`` where a mask was given.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what pooling cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[-1.0, 5.0]]]), torch.tensor([[[True, False]]])
        >>> sc.functional.partial_max_pool(x, 2, mask=mask)
        (tensor([[[-1.]]]), tensor([[[True]]]))
    """
    geometry = _geometry(input, kernel_size, stride, padding, dilation)
    geometry.output_shape(tuple(input.shape[2:]))
    valid = masks.dense_mask(mask, input)
    pads = [pad for pad in reversed(geometry.padding) for _ in range(2)]
    values = F.pad(masks.hidden(input, valid, -torch.inf), pads, value=-torch.inf)
    pool = _MAX_POOL[geometry.dimensions]
    y = pool(values, geometry.kernel_size, geometry.stride, 0, geometry.dilation)
    coverage = masks.dense_coverage(valid, geometry, input.shape[1], "ratio", input.dtype)
    y = masks.hidden(y, coverage.reached)
    return y if mask is None else (y, coverage.reached)


@implements(partial_max_pool)
def _sparse_partial_max_pool(
    input: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    mask: Tensor | None = None,
) -> Any:
    geometry = _geometry(input, kernel_size, stride, padding, dilation)
    mask = masks.row_mask(mask, input)
    sites, rulebook = input.sites.convolve(geometry)
    if mask is None:
        return SparseTensor.unchecked(window_max(input.features, rulebook), sites)
    y = window_max(masks.hidden(input.features, mask, -torch.inf), rulebook)
    reached = window_sum(mask.to(torch.float32), rulebook) > 0
    return SparseTensor.unchecked(masks.hidden(y, reached), sites), reached


@dispatched
def partial_avg_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    mask: Tensor | None = None,
) -> Any:
    """Return the mean of the valid values of each window, 0 where none is; the mask is max-pooled.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense, 1 to 3 spatial axes.
        kernel_size, stride, padding: as of torch's average pooling; any padding is allowed.
        mask: as of :func:`sparseconv.functional.partial_conv`.

    Returns:
        y ``[B, C, *output]`` of the input's kind; ``(y, mask)`` where a mask was given.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what pooling cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[3.0, 5.0]]]), torch.tensor([[[True, False]]])
        >>> sc.functional.partial_avg_pool(x, 2, mask=mask)
        (tensor([[[3.]]]), tensor([[[True]]]))
    """
    geometry = _geometry(input, kernel_size, stride, padding, 1)
    channels = input.shape[1]
    ones = input.new_ones(channels, 1, *geometry.kernel_size)
    window = (geometry.stride, geometry.padding, 1, channels)
    return partial_conv(input, ones, None, *window, mask=mask, normalize="mean")


@implements(partial_avg_pool)
def _sparse_partial_avg_pool(
    input: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    mask: Tensor | None = None,
) -> Any:
    geometry = _geometry(input, kernel_size, stride, padding, 1)
    mask = masks.row_mask(mask, input)
    sites, rulebook = input.sites.convolve(geometry)
    if mask is None:
        factor = masks.row_factor(sites, rulebook, geometry, "mean", input.dtype)
        total = window_sum(input.features, rulebook)
        return SparseTensor.unchecked(masks.normalised(total, factor, None), sites)
    total = window_sum(masks.hidden(input.features, mask), rulebook)
    window = (sites, rulebook, geometry)
    coverage = masks.row_coverage(mask, *window, input.channels, "mean", input.dtype)
    y = masks.normalised(total, coverage.factor, None)
    return SparseTensor.unchecked(y, sites), coverage.reached


def _geometry(
    input: Tensor | SparseTensor,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
) -> Geometry:
    axes = input.ndim - 2
    if axes not in _MAX_POOL:
        raise SparseConvValueError(f"input: pooling takes 1 to 3 spatial axes, got {axes}")
    kernel = per_axis("kernel_size", kernel_size, axes)
    steps = kernel if stride is None else stride
    return make_geometry(kernel, stride=steps, padding=padding, dilation=dilation)

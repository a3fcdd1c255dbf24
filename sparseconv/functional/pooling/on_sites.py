"""Max and average pooling over any number of axes, on sites that the caller may choose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.windows import window_max, window_sum
from sparseconv.core.arguments import Size
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.dtypes import summable
from sparseconv.core.geometry import Geometry, site_law
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution.dense import first_of, with_ends
from sparseconv.functional.convolution.products import check_extent, target_sites
from sparseconv.functional.pooling.geometry import check_pooling
from sparseconv.functional.pooling.pool import AVERAGE, check_divisor, max_pool4d
from sparseconv.functional.precision import widened
from sparseconv.tensor import SparseTensor

_MAX: dict[int, Callable[..., Tensor]] = {
    1: F.max_pool1d,
    2: F.max_pool2d,
    3: F.max_pool3d,
    4: max_pool4d,
}


@dispatched
def max_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    *,
    like: Input | None = None,
    sites: str = "reached",
) -> Tensor:
    """Max pooling over 1 to 4 axes, at the sites of ``like`` where that is given.

    Torch's own functions and modules do the same at the sites of the regular site law.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense.
        kernel_size: int or one per axis.
        stride: the same; ``kernel_size`` where left out.
        padding: cells of minus infinity on both sides, at most half of the window.
        dilation: int or one per axis.
        like, sites: as of :func:`conv`; a site whose window holds no input gets 0.

    Returns:
        ``[B, C, *output]``, of the input's kind.

    Raises:
        SparseConvError: an argument that no pooling can have, an output size below 1.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 1], [0, 4]]), (5,))
        >>> sc.functional.max_pool(x, 3, stride=2, padding=1, sites="strided").coords
        tensor([[0, 0],
                [0, 2]])
    """
    geometry = _geometry(input.ndim - 2, (kernel_size, stride, padding, dilation), sites)
    shape = check_extent(geometry, input, like)
    starts, ends = zip(*geometry.pads(tuple(input.shape[2:])), strict=True)
    padded = with_ends(input, starts, ends, -math.inf)
    window = geometry.kernel_size, geometry.stride, 0, geometry.dilation
    return first_of(_MAX[geometry.dimensions](padded, *window), shape)


@implements(max_pool)
def _sparse_max_pool(
    input: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    *,
    like: SparseTensor | None = None,
    sites: str = "reached",
) -> SparseTensor:
    geometry = _geometry(input.ndim - 2, (kernel_size, stride, padding, dilation), sites)
    target, rulebook = input.sites.convolve(geometry, target_sites(like, input))
    features = widened(input, f"max_pool{geometry.dimensions}d").features
    return SparseTensor.unchecked(window_max(features, rulebook), target)


@dispatched
def avg_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    like: Input | None = None,
    sites: str = "reached",
) -> Tensor:
    """Average pooling over 1 to 4 axes, at the sites of ``like`` where that is given.

    Torch's own functions and modules do the same at the sites of the regular site law. With
    ``divisor_override=1`` it is a sum.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense.
        kernel_size: int or one per axis.
        stride: the same; ``kernel_size`` where left out.
        padding: cells of zeros on both sides, at most half of the window.
        count_include_pad: whether what is not there counts in the divisor: padding, and inactive
            sites.
        divisor_override: the divisor, instead of a count.
        like, sites: as of :func:`conv`; a site whose window holds no input gets 0.

    Returns:
        ``[B, C, *output]``, of the input's kind.

    Raises:
        SparseConvError: an argument that no pooling can have, an output size below 1.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 0], [0, 1]]), (5,))
        >>> sc.functional.avg_pool(x, 3, 1, 1, False, sites="strided").features.flatten()
        tensor([2., 2.])
    """
    geometry = _geometry(input.ndim - 2, (kernel_size, stride, padding), sites)
    check_divisor(divisor_override)
    shape = check_extent(geometry, input, like)
    sums = _dense_sums(input, geometry, shape)
    if divisor_override is not None:
        return sums / divisor_override
    if count_include_pad:
        return sums / geometry.num_cells
    cells = _dense_sums(torch.ones_like(input[:, :1]), geometry, shape)
    return sums / cells.round().clamp(min=1)


@implements(avg_pool)
def _sparse_avg_pool(
    input: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    like: SparseTensor | None = None,
    sites: str = "reached",
) -> SparseTensor:
    geometry = _geometry(input.ndim - 2, (kernel_size, stride, padding), sites)
    check_divisor(divisor_override)
    target, rulebook = input.sites.convolve(geometry, target_sites(like, input))
    x = widened(input, f"avg_pool{geometry.dimensions}d").features
    if divisor_override is not None or count_include_pad:
        divisor = geometry.num_cells if divisor_override is None else divisor_override
        return SparseTensor.unchecked(window_sum(x, rulebook, divisor), target)
    return SparseTensor.unchecked(window_mean(x, rulebook), target)


def window_mean(features: Tensor, rulebook: Any) -> Tensor:
    """Return the mean of the rows in each window, 0 where a window holds no row."""
    # the sum of a window overflows float16 long before its average does
    total = window_sum(summable(features), rulebook)
    rows = window_sum(total.new_ones(features.shape[0], 1), rulebook)
    return (total / rows.clamp(min=1)).to(features.dtype)


def _geometry(dimensions: int, window: tuple[Any, ...], sites: str) -> Geometry:
    """Return the checked geometry of a pooling; what depends on the extent is not checked."""
    return replace(check_pooling(dimensions, *window), kind=site_law(sites))


def _dense_sums(input: Tensor, geometry: Geometry, shape: tuple[int, ...]) -> Tensor:
    """Return the sums over windows of ``[B, C, *spatial]``."""
    starts, ends = zip(*geometry.pads(tuple(input.shape[2:])), strict=True)
    pool = AVERAGE[geometry.dimensions]
    averages = pool(with_ends(input, starts, ends), geometry.kernel_size, geometry.stride)
    return first_of(averages, shape) * geometry.num_cells

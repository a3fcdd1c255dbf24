"""Dense pooling over four axes: the last three by torch, then the first.

Both kinds of pooling are separable: a largest value is the largest of largest values, and every
divisor of an average is a product over the axes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.geometry import Geometry


def dense_max_pool4d(input: Tensor, geometry: Geometry, ceil_mode: bool) -> Tensor:
    """Return the largest values of ``[B, C, T, X, Y, Z]`` over windows."""
    size, stride, padding, dilation = (
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
    )
    pooled: Tensor = F.max_pool3d(
        input.transpose(1, 2).flatten(0, 1),
        size[1:],
        stride[1:],
        padding[1:],
        dilation[1:],
        ceil_mode,
    )
    planes = _planes(pooled, input.shape[0])
    pooled = F.max_pool2d(
        planes.flatten(3),
        (size[0], 1),
        (stride[0], 1),
        (padding[0], 0),
        (dilation[0], 1),
        ceil_mode,
    )
    largest: Tensor = pooled.unflatten(3, planes.shape[3:])
    return largest


def dense_avg_pool4d(
    input: Tensor,
    geometry: Geometry,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Return the averages of ``[B, C, T, X, Y, Z]`` over windows."""
    size, stride, padding = geometry.kernel_size, geometry.stride, geometry.padding
    divisor = None if divisor_override is None else 1
    pooled = F.avg_pool3d(
        input.transpose(1, 2).flatten(0, 1),
        size[1:],
        stride[1:],
        padding[1:],
        ceil_mode,
        count_include_pad,
        divisor,
    )
    planes = _planes(pooled, input.shape[0])
    pooled = F.avg_pool2d(
        planes.flatten(3),
        (size[0], 1),
        (stride[0], 1),
        (padding[0], 0),
        ceil_mode,
        count_include_pad,
        divisor,
    )
    total: Tensor = pooled.unflatten(3, planes.shape[3:])
    return total if divisor_override is None else total / divisor_override


def _planes(pooled: Tensor, batch: int) -> Tensor:
    """Return ``[B * T, C, X, Y, Z]`` as ``[B, C, T, X, Y, Z]``."""
    planes: Tensor = pooled.unflatten(0, (batch, -1)).transpose(1, 2)
    return planes

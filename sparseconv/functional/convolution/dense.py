"""Dense convolution by a geometry: its padding may differ at the two ends, over 1 to 4 axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Ints
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input


def dense_conv(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
) -> Tensor:
    """Return the convolution of ``[B, C_in, *spatial]``, of any kind but the transposed."""
    if geometry.kind is Kind.STRIDED:
        shape = tuple(input.shape[2:])
        starts, ends = zip(*geometry.pads(shape), strict=True)
        conv, window = _CONV[geometry.dimensions], (geometry.stride, 0, geometry.dilation)
        full = conv(with_ends(input, starts, ends), weight, bias, *window, groups)
        return first_of(full, geometry.output_shape(shape))
    more = [end - start for start, end in zip(geometry.padding, geometry.padding_end, strict=True)]
    if any(more):
        input = with_ends(input, [0] * len(more), more)
    conv = _CONV[geometry.dimensions]
    return conv(input, weight, bias, geometry.stride, geometry.padding, geometry.dilation, groups)


def dense_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    groups: int,
    size: Ints,
) -> Tensor:
    """Return the adjoint of a convolution, ``[B, C_out, *size]``.

    What the convolution never read is 0, and what it read of its padding is cut off.
    """
    conv = _CONV_TRANSPOSE[geometry.dimensions]
    full = conv(input, weight, None, geometry.stride, 0, 0, groups, geometry.dilation)
    starts = [-padding for padding in geometry.padding]
    ends = [
        wanted - start - length
        for wanted, start, length in zip(size, starts, full.shape[2:], strict=True)
    ]
    result = with_ends(full, starts, ends)
    return result if bias is None else result + bias.reshape(-1, *(1,) * geometry.dimensions)


def inverse_size(geometry: Geometry, shape: Ints, like: Input | None) -> Ints:
    """Return the extent of a dense inverse: that of ``like``, or the shortest that fits."""
    if geometry.kind is Kind.STRIDED:
        least = tuple(
            (n - 1) * stride + 1 for n, stride in zip(shape, geometry.stride, strict=True)
        )
        return _size_of(like, least, geometry)
    none = (0,) * geometry.dimensions
    full = replace(geometry, kind=Kind.TRANSPOSED, padding=none, padding_end=none)
    both = zip(full.output_shape(shape), geometry.padding, geometry.padding_end, strict=True)
    least = tuple(length - start - end for length, start, end in both)
    if like is None and min(least) < 1:
        raise SparseConvValueError(
            f"padding: {geometry.padding} gives an output size of {least}; every axis must have at "
            f"least 1"
        )
    return _size_of(like, least, geometry)


def _size_of(like: Input | None, least: Ints, geometry: Geometry) -> Ints:
    """Return the extent of ``like``; raise unless the layer leads from it to ``least``'s output."""
    if like is None:
        return least
    size = tuple(like.shape[2:])
    fits = len(size) == len(least) and all(
        low <= length < low + stride
        for low, length, stride in zip(least, size, geometry.stride, strict=True)
    )
    if not fits:
        raise SparseConvValueError(
            f"like: spatial shape {size} is not what the strided layer can have read; it maps "
            f"{least} up to stride - 1 more per axis to the input's shape"
        )
    return size


def with_ends(
    input: Tensor, starts: Sequence[int], ends: Sequence[int], value: float = 0
) -> Tensor:
    """Return ``[B, C, *spatial]`` with so many cells of ``value`` more on each axis, or less."""
    both = zip(reversed(starts), reversed(ends), strict=True)
    return F.pad(input, [pad for pair in both for pad in pair], value=value)


def first_of(full: Tensor, shape: Ints) -> Tensor:
    """Return the first ``shape`` cells of ``[B, C, *spatial]``."""
    for axis, length in enumerate(shape, start=2):
        full = full.narrow(axis, 0, length)
    return full


def _conv4d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints | int,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Return the convolution of ``[B, C_in, T, X, Y, Z]``.

    Each cell of the kernel's first axis is a 3D convolution of the slices that it meets.
    """
    padding = (padding,) * 4 if isinstance(padding, int) else padding
    padded = F.pad(input, (0, 0) * 3 + (padding[0], padding[0]))
    window = dilation[0] * (weight.shape[2] - 1) + 1
    steps = (padded.shape[2] - window) // stride[0] + 1
    total = None
    for cell in range(weight.shape[2]):
        first = cell * dilation[0]
        slices = padded[:, :, first : first + (steps - 1) * stride[0] + 1 : stride[0]]
        flat = slices.transpose(1, 2).flatten(0, 1)
        part = F.conv3d(
            flat, weight[:, :, cell], None, stride[1:], padding[1:], dilation[1:], groups
        )
        total = part if total is None else total + part
    assert total is not None  # a kernel has at least one cell
    result: Tensor = total.unflatten(0, (-1, steps)).transpose(1, 2)
    return result if bias is None else result + bias.reshape(-1, 1, 1, 1, 1)


def _conv_transpose4d(
    input: Tensor,
    weight: Tensor,
    bias: None,
    stride: Ints,
    padding: int,
    output_padding: int,
    groups: int,
    dilation: Ints,
) -> Tensor:
    """Return the full transposed convolution (no padding) of ``[B, C_in, T, X, Y, Z]``."""
    batch, _, steps = input.shape[:3]
    flat = input.transpose(1, 2).flatten(0, 1)
    length = (steps - 1) * stride[0] + dilation[0] * (weight.shape[2] - 1) + 1
    total = None
    for cell in range(weight.shape[2]):
        part = F.conv_transpose3d(
            flat,
            weight[:, :, cell],
            bias,
            stride[1:],
            padding,
            output_padding,
            groups,
            dilation[1:],
        ).unflatten(0, (batch, steps))
        full = torch.zeros(batch, length, *part.shape[2:], dtype=part.dtype, device=part.device)
        first = cell * dilation[0]
        full[:, first : first + (steps - 1) * stride[0] + 1 : stride[0]] = part
        total = full if total is None else total + full
    assert total is not None  # a kernel has at least one cell
    return total.transpose(1, 2)


_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d, 4: _conv4d}
_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
    4: _conv_transpose4d,
}

"""Dense convolution over four axes, as a sum of torch's over three."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Ints


def dense_conv4d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Return the convolution of ``input`` ``[B, C_in, T, X, Y, Z]``.

    Each cell of the kernel's first axis is a 3D convolution of the slices that it meets.
    """
    strides = (stride,) * 4 if isinstance(stride, int) else stride
    padded = F.pad(input, (0, 0) * 3 + (padding[0], padding[0]))
    window = dilation[0] * (weight.shape[2] - 1) + 1
    steps = (padded.shape[2] - window) // strides[0] + 1
    total = None
    for cell in range(weight.shape[2]):
        first = cell * dilation[0]
        slices = padded[:, :, first : first + (steps - 1) * strides[0] + 1 : strides[0]]
        flat = slices.transpose(1, 2).flatten(0, 1)
        part = F.conv3d(
            flat, weight[:, :, cell], None, strides[1:], padding[1:], dilation[1:], groups
        )
        total = part if total is None else total + part
    assert total is not None  # a kernel has at least one cell
    result: Tensor = total.unflatten(0, (-1, steps)).transpose(1, 2)
    return result if bias is None else result + bias.reshape(-1, 1, 1, 1, 1)


def dense_conv_transpose4d(
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
            None,
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

"""Partial convolutions and pooling: sums over the valid values, made up for the missing ones."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.reference.convolution import conv, conv_transpose
from sparseconv.reference.meetings import (
    Ints,
    Padding,
    Window,
    at,
    masked,
    per_axis,
    per_channel,
    positions,
)
from sparseconv.reference.pooling import max_pool


def _normalised(
    total: Tensor, count: Tensor, whole: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return whole / count * total + bias where count > 0, else 0; and where that is."""
    reached = count > 0
    y = whole / torch.where(reached, count, 1.0) * total
    if bias is not None:
        y = y + bias.double().reshape(-1, *[1] * (total.dim() - 2))
    return torch.where(reached, y, 0.0), reached


def partial_conv(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    normalize: str = "ratio",
) -> tuple[Tensor, Tensor]:
    """Convolve the valid values alone, and make up for the missing ones (partial convolution).

    y[b, o, p] = bias[o] + |1| / sum(m) * sum_k sum_c weight[o, c, k] m[b, c, q] x[b, c, q]

    with q = s p + d k - pad, where sum(m), of the mask over the same k and c (those of o's group),
    is positive; 0 where it is not. |1| is the number of all k and c, padding included. With
    `normalize` "mean" the factor is 1 / sum(m), counted per input channel.

    Args:
        x: ``[B, in, *spatial]``; what lies outside the mask is never read, NaN there is harmless.
        mask: m, bool ``[B, *spatial]``, ``[B, 1, *spatial]`` or ``[B, in, *spatial]``.
        weight: ``[out, in / groups, *kernel]``.
        bias: ``[out]`` or None.
        stride, padding, dilation, groups: as of `conv`.
        normalize: "ratio" or "mean".

    Returns:
        y ``[B, out, *output_size]`` and its mask [sum(m) > 0], bool of the same shape.

    Source: Liu et al. 2018 (arXiv 1804.07723), equations 1 and 2; "mean": Uhrig et al. 2017
    (arXiv 1708.06500), equation 3.

    >>> x, mask = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[True, False, False]]])
    >>> y, reached = partial_conv(x, mask, torch.ones(1, 1, 2))
    >>> y.tolist(), reached.tolist()
    ([[[2.0, 0.0]]], [[[True, False]]])
    """
    window = stride, padding, dilation, groups
    total = conv(masked(x, mask), weight, None, *window)
    count = conv(per_channel(mask, x), torch.ones_like(weight), None, *window)
    whole = weight[0].numel() if normalize == "ratio" else weight.shape[1]
    return _normalised(total, count, torch.tensor(whole).double(), bias)


def subm_partial_conv(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Ints = 1,
    groups: int = 1,
    normalize: str = "ratio",
) -> tuple[Tensor, Tensor]:
    """Apply the formula of `partial_conv` at the active sites alone; no other site is made valid.

    A site is active where any channel is valid.

    Args:
        x: ``[B, in, *spatial]``.
        mask: m, as in `partial_conv`.
        weight: ``[out, in / groups, *kernel]``, odd kernel.
        bias: ``[out]`` or None.
        dilation, groups: as of `conv`; normalize: as of `partial_conv`.

    Returns:
        y ``[B, out, *spatial]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[True, True, False]]])
    >>> subm_partial_conv(x, mask, torch.ones(1, 1, 3))[0].tolist()
    [[[4.5, 4.5, 0.0]]]
    """
    y, reached = partial_conv(x, mask, weight, bias, 1, "same", dilation, groups, normalize)
    reached = reached & per_channel(mask, x).any(dim=1, keepdim=True)
    return torch.where(reached, y, 0.0), reached


def partial_conv_transpose(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    normalize: str = "ratio",
) -> tuple[Tensor, Tensor]:
    """Scatter the valid values alone, and make up for the missing ones.

    y[b, o, q] = bias[o] + |1| / sum(m) * sum of weight[c, o, k] m[b, c, p] x[b, c, p]

    over c, p, k with s p + d k - pad = q. |1| is the number of terms that this sum has on an input
    without border: it depends on q's place between two strides.

    Args:
        x: ``[B, in, *spatial]``.
        mask: m, as in `partial_conv`.
        weight: ``[in, out / groups, *kernel]``.
        bias: ``[out]`` or None.
        stride, padding, output_padding, dilation, groups: as of `conv_transpose`.
        normalize: as of `partial_conv`.

    Returns:
        y ``[B, out, *transposed_output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])
    >>> partial_conv_transpose(x, mask, torch.ones(1, 1, 2))[0].tolist()
    [[[2.0, 2.0, 0.0]]]
    """
    options = stride, padding, output_padding, dilation, groups
    total = conv_transpose(masked(x, mask), weight, None, *options)
    count = conv_transpose(per_channel(mask, x), torch.ones_like(weight), None, *options)
    whole = torch.full_like(total, len(weight) / groups)
    if normalize == "ratio":
        window = Window.of(weight.shape[2:], stride, padding, dilation)
        for q in positions(total.shape[2:]):
            whole[at(q)] *= window.num_cells_onto(q)
    return _normalised(total, count, whole, bias)


def partial_max_pool(
    x: Tensor, mask: Tensor, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[Tensor, Tensor]:
    """Take the largest valid value of each window; the mask is max-pooled.

    y[b, c, p] = max of x[b, c, q] over k with m[b, c, q], q = s p + d k - pad; 0 without any

    Args:
        x: ``[B, C, *spatial]``.
        mask: m, as in `partial_conv`.
        kernel: One number or one per axis; likewise the next arguments.
        stride, padding, dilation: as of `conv`.

    Returns:
        y ``[B, C, *output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[-1.0, 2.0, 4.0]]]), torch.tensor([[[True, False, False]]])
    >>> partial_max_pool(x, mask, 2)[0].tolist()
    [[[-1.0, 0.0]]]
    """
    y = max_pool(x, kernel, stride, padding, dilation, mask=mask)
    reached = y > -torch.inf
    return torch.where(reached, y, 0.0), reached


def partial_avg_pool(
    x: Tensor, mask: Tensor, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[Tensor, Tensor]:
    """Average the valid values of each window: `partial_conv` of each channel by 1 / |1|.

    y[b, c, p] = sum_k m[b, c, q] x[b, c, q] / sum_k m[b, c, q], q = s p + d k - pad; 0 without any

    Args:
        x: ``[B, C, *spatial]``.
        mask: m, as in `partial_conv`.
        kernel: One number or one per axis; likewise the next arguments.
        stride, padding, dilation: as of `conv`.

    Returns:
        y ``[B, C, *output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]])
    >>> partial_avg_pool(x, mask, 2)[0].tolist()
    [[[2.0, 3.0]]]
    """
    channels, axes = x.shape[1], x.dim() - 2
    ones = torch.ones(channels, 1, *per_axis(kernel, axes), dtype=torch.float64)
    return partial_conv(x, mask, ones, None, stride, padding, dilation, channels, "mean")

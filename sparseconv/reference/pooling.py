"""Pooling: what travels along a meeting is a value of an active site."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparseconv.reference.meetings import (
    Ints,
    Position,
    Window,
    at,
    masked,
    output_size,
    per_axis,
    per_channel,
    positions,
    zeros,
)


def pool_size(
    length: int,
    kernel: int,
    stride: int,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Count the windows of a pooling along one axis.

    As `output_size`; with `ceil_mode` also a window that ends behind the padding, unless it starts
    behind the input:  L' = ceil((L + 2 pad - d (K - 1) - 1) / s) + 1, less one where
    (L' - 1) s >= L + pad.

    >>> pool_size(5, 2, 2), pool_size(5, 2, 2, ceil_mode=True)
    (2, 3)
    """
    if not ceil_mode:
        return output_size(length, kernel, stride, padding, dilation)
    windows = -(-(length + 2 * padding - dilation * (kernel - 1) - 1) // stride) + 1
    return windows - 1 if (windows - 1) * stride >= length + padding else windows


def _pool_window(
    size: Sequence[int],
    kernel: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
) -> tuple[Window, Position]:
    """Return the window of a pooling and its output size; a stride left out is the kernel."""
    kernel = per_axis(kernel, len(size))
    window = Window.of(kernel, kernel if stride is None else stride, padding, dilation)
    axes = zip(size, kernel, window.stride, window.padding, window.dilation, strict=True)
    return window, tuple(pool_size(*axis, ceil_mode) for axis in axes)


def max_pool(
    x: Tensor,
    kernel: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Take the largest active value of each window.

    y[b, c, p] = max over k of x[b, c, s p + d k - pad] where m is 1 there; minus infinity elsewhere

    Args:
        x: ``[B, C, *spatial]``; what lies outside the mask is never read.
        kernel: One number or one per axis; likewise the next arguments.
        stride: s, the kernel where left out.
        padding: pad.
        dilation: d.
        ceil_mode: As in `pool_size`.
        mask: m, bool ``[B, *spatial]``; everything where left out.

    Returns:
        ``[B, C, *pool_size]``, minus infinity where a window holds no active site.

    >>> max_pool(torch.tensor([[[-3.0, -2.0, -5.0, -4.0]]]), 2).tolist()
    [[[-2.0, -4.0]]]
    """
    window, out = _pool_window(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    values = masked(x, mask, -torch.inf)
    y = torch.full((*x.shape[:2], *out), -torch.inf, dtype=torch.float64)
    for p, _, q in window.meetings(out, x.shape[2:]):
        y[p] = torch.maximum(y[p].clone(), values[q])
    return y


def avg_pool(
    x: Tensor,
    kernel: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Average each window; an inactive site counts as padding does.

    y[b, c, p] = sum over k of m x[b, c, s p + k - pad], divided by

    * `divisor_override` where it is given;
    * with `count_include_pad` the number of the window's cells inside the padded input (a window
      of `ceil_mode` sticks out of it);
    * else the number of the window's active sites.

    Args:
        x: ``[B, C, *spatial]``; what lies outside the mask is never read.
        kernel: One number or one per axis; likewise the next arguments.
        stride: s, the kernel where left out.
        padding: pad.
        ceil_mode: As in `pool_size`.
        count_include_pad: Whether padding counts in the divisor.
        divisor_override: The divisor, instead of a count.
        mask: m, bool ``[B, *spatial]``; everything where left out.

    Returns:
        ``[B, C, *pool_size]``, 0 where a window holds no active site.

    >>> avg_pool(torch.tensor([[[1.0, 2.0, 4.0]]]), 2, 1, padding=1).tolist()
    [[[0.5, 1.5, 3.0, 2.0]]]
    """
    size = x.shape[2:]
    window, out = _pool_window(size, kernel, stride, padding, 1, ceil_mode)
    values, active = masked(x, mask), per_channel(mask, x)
    y, count = (zeros(len(x), x.shape[1], out) for _ in range(2))
    for p, _, q in window.meetings(out, size):
        y[p] += values[q]
        count[p] += active[q]
    for p in positions(out):
        first = window.reads(p, (0,) * len(p))
        axes = zip(first, window.kernel, size, window.padding, strict=True)
        if divisor_override is not None:
            count[at(p)] = divisor_override
        elif count_include_pad:
            count[at(p)] = math.prod(min(k, n + pad - q) for q, k, n, pad in axes)
    return y / torch.where(count == 0, 1.0, count)


def lp_pool(
    x: Tensor,
    p: float,
    kernel: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Take the p-norm of each window: (sum over k of m x^p)^(1/p).

    A window of `ceil_mode` that sticks out of the input counts as a whole one, as in PyTorch: its
    sum is scaled by its cells over those inside.

    >>> lp_pool(torch.tensor([[[3.0, 4.0]]]), 2, 2).tolist()
    [[[5.0]]]
    """
    cells = math.prod(per_axis(kernel, x.dim() - 2))
    powers = masked(x, mask) ** p
    mean = avg_pool(powers, kernel, stride, ceil_mode=ceil_mode, mask=mask)
    root: Tensor = (mean * cells) ** (1.0 / p)
    return root

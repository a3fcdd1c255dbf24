"""Convolutions: what travels along a meeting is x, weighted; their gradients and site laws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseconv.reference.meetings import (
    Ints,
    Padding,
    Window,
    masked,
    per_axis,
    zeros,
)


def _split(t: Tensor, axis: int, groups: int) -> Tensor:
    """Split one axis into groups: [.., n, ..] -> [.., groups, n / groups, ..], in float64."""
    shape = (*t.shape[:axis], groups, t.shape[axis] // groups, *t.shape[axis + 1 :])
    return t.double().reshape(shape)


def mix(values: Tensor, cell: Tensor, groups: int) -> Tensor:
    """Sum over the input channels of each group: [B, in] with [out, in / groups] -> [B, out]."""
    v, w = _split(values, 1, groups), _split(cell, 0, groups)
    return torch.einsum("bgi,goi->bgo", v, w).flatten(1)


def mix_back(values: Tensor, cell: Tensor, groups: int) -> Tensor:
    """Sum over the output channels, the adjoint of `mix`: [B, out] -> [B, in]."""
    v, w = _split(values, 1, groups), _split(cell, 0, groups)
    return torch.einsum("bgo,goi->bgi", v, w).flatten(1)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve (correlate, as every network does): each output sums its window of the input.

    y[b, o, p] = bias[o] + sum_k sum_c weight[o, c, k] x[b, c, s p + d k - pad]

    where c runs over the input channels of o's group.

    Args:
        x: ``[B, in, *spatial]``.
        weight: ``[out, in / groups, *kernel]``.
        bias: ``[out]`` or None.
        stride: s, one number or one per axis; likewise `padding` and `dilation`.
        padding: pad on both sides, ``"valid"`` (0) or ``"same"`` (as many outputs as inputs).
        dilation: d.
        groups: Number of channel groups.

    Returns:
        ``[B, out, *output_size]``.

    >>> conv(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[10.0, 1.0]]])).tolist()
    [[[12.0, 23.0]]]
    """
    window = Window.of(weight.shape[2:], stride, padding, dilation)
    size = x.shape[2:]
    out = window.out(size)
    y = zeros(len(x), len(weight), out, bias)
    for p, k, q in window.meetings(out, size):
        y[p] += mix(x[q], weight[k], groups)
    return y


def conv_input_grad(
    grad: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Differentiate a loss E by the input of `conv`: correlate with the flipped kernel.

    dE/dx[b, c, q] = sum_k sum_o weight[o, c, K - 1 - k] g[b, o, q + d k - (d (K - 1) - pad)]

    g is dE/dy with s - 1 zeros between neighbours, g[s p] = dE/dy[p]; it is padded by
    d (K - 1) - pad, which crops it where negative; the stride of this correlation is 1.

    Args:
        grad: dE/dy, ``[B, out, *output_size]``.
        weight: ``[out, in / groups, *kernel]``.
        input_size: The input's shape, ``[*spatial]`` or ``[B, in, *spatial]``.
        stride, padding, dilation, groups: as of `conv`.

    Returns:
        dE/dx, ``[B, in, *spatial]``.

    Source: Dumoulin and Visin 2016 (arXiv 1603.07285), relationships 8 to 14.

    >>> conv_input_grad(torch.ones(1, 1, 2), torch.tensor([[[10.0, 1.0]]]), [3]).tolist()
    [[[10.0, 11.0, 1.0]]]
    """
    kernel = weight.shape[2:]
    axes = len(kernel)
    forward = Window.of(kernel, stride, padding, dilation)
    between = [s * (n - 1) + 1 for s, n in zip(forward.stride, grad.shape[2:], strict=True)]
    spread = zeros(grad.shape[0], grad.shape[1], between)
    steps = [slice(None), slice(None), *(slice(None, None, s) for s in forward.stride)]
    spread[tuple(steps)] = grad.double()
    reach = zip(forward.dilation, kernel, forward.padding, strict=True)
    window = Window.of(kernel, 1, [d * (k - 1) - pad for d, k, pad in reach], dilation)
    flipped = weight.flip(*range(2, axes + 2))
    size = tuple(input_size)[-axes:]
    x_grad = zeros(len(grad), groups * weight.shape[1], size)
    for q, k, p in window.meetings(size, spread.shape[2:]):
        x_grad[q] += mix_back(spread[p], flipped[k], groups)
    return x_grad


def conv_weight_grad(
    x: Tensor,
    grad: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Differentiate a loss E by the weight of `conv`: correlate input and output gradient.

    dE/dweight[o, c, k] = sum_b sum_p dE/dy[b, o, p] x[b, c, s p + d k - pad]

    Args:
        x: ``[B, in, *spatial]``.
        grad: dE/dy, ``[B, out, *output_size]``.
        kernel_size: One number or one per axis.
        stride, padding, dilation, groups: as of `conv`.

    Returns:
        dE/dweight, ``[out, in / groups, *kernel]``.

    >>> conv_weight_grad(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.ones(1, 1, 2), 2).tolist()
    [[[3.0, 5.0]]]
    """
    axes = x.dim() - 2
    window = Window.of(per_axis(kernel_size, axes), stride, padding, dilation)
    w_grad = zeros(grad.shape[1], x.shape[1] // groups, window.kernel)
    for p, k, q in window.meetings(grad.shape[2:], x.shape[2:]):
        ends = _split(grad[p], 1, groups), _split(x[q], 1, groups)
        cell = torch.einsum("bgo,bgi->goi", *ends)
        w_grad[k] += cell.flatten(0, 1)
    return w_grad


def conv_bias_grad(grad: Tensor) -> Tensor:
    """Differentiate a loss E by the bias of `conv`: dE/dbias[o] = sum_b sum_p dE/dy[b, o, p].

    Args:
        grad: dE/dy, ``[B, out, *output_size]``.

    Returns:
        dE/dbias, ``[out]``.

    >>> conv_bias_grad(torch.ones(2, 1, 3)).tolist()
    [6.0]
    """
    return grad.double().transpose(0, 1).flatten(1).sum(1)


def _scatter(x: Tensor, weight: Tensor, y: Tensor, window: Window, groups: int) -> Tensor:
    """Add weight[k]^T x[p] to y at q for every meeting: the adjoint of the loop in `conv`."""
    for p, k, q in window.meetings(x.shape[2:], y.shape[2:]):
        y[q] += mix_back(x[p], weight[k], groups)
    return y


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Scatter every input over its window: the adjoint of `conv` with the same weight.

    y[b, o, q] = bias[o] + sum of weight[c, o, k] x[b, c, p] over c, p, k with s p + d k - pad = q

    Args:
        x: ``[B, in, *spatial]``.
        weight: ``[in, out / groups, *kernel]``.
        bias: ``[out]`` or None.
        stride: s of the convolution whose adjoint this is; likewise the next arguments.
        padding: pad, which crops the output on both sides.
        output_padding: Cells added behind the end of the output.
        dilation: d.
        groups: Number of channel groups.

    Returns:
        ``[B, out, *transposed_output_size]``.

    >>> conv_transpose(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[10.0, 1.0]]])).tolist()
    [[[10.0, 21.0, 2.0]]]
    """
    window = Window.of(weight.shape[2:], stride, padding, dilation)
    size = window.transposed_out(x.shape[2:], output_padding)
    y = zeros(len(x), groups * weight.shape[1], size, bias)
    return _scatter(x, weight, y, window, groups)


def subm_conv(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve at the active sites alone, reading active sites alone (submanifold convolution).

    y[b, o, p] = m[b, p] (bias[o] + sum_k sum_c weight[o, c, k] m[b, q] x[b, c, q])

    with q = p + d (k - (K - 1) / 2): stride 1, odd kernel, centred.

    Args:
        x: ``[B, in, *spatial]``; what lies outside the mask is never read, NaN there is harmless.
        mask: m, bool ``[B, *spatial]`` or ``[B, 1, *spatial]``.
        weight: ``[out, in / groups, *kernel]``, odd kernel.
        bias: ``[out]`` or None.
        dilation, groups: as of `conv`.

    Returns:
        ``[B, out, *spatial]``, zero outside the mask.

    Source: Graham and van der Maaten 2017 (arXiv 1706.01307), section 2.

    >>> x, mask = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[True, True, False]])
    >>> subm_conv(x, mask, torch.ones(1, 1, 3)).tolist()
    [[[3.0, 3.0, 0.0]]]
    """
    y = conv(masked(x, mask), weight, bias, padding="same", dilation=dilation, groups=groups)
    return masked(y, mask)


def conv_sites(
    mask: Tensor, kernel: Ints, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1
) -> Tensor:
    """Find the active outputs of `conv`: those whose window holds at least one active input.

    m'[b, p] = or_k m[b, s p + d k - pad]

    Args:
        mask: m, bool ``[B, *spatial]``.
        kernel: One number or one per axis; likewise the next arguments.
        stride: s.
        padding: As in `conv`.
        dilation: d.

    Returns:
        Bool ``[B, *output_size]``.

    >>> conv_sites(torch.tensor([[False, False, False, True]]), 2, stride=2).tolist()
    [[False, True]]
    """
    size = mask.shape[1:]
    window = Window.of(per_axis(kernel, len(size)), stride, padding, dilation)
    out = window.out(size)
    reached = torch.zeros(len(mask), *out, dtype=torch.bool)
    for p, _, q in window.meetings(out, size):
        reached[p] |= mask[q]
    return reached


def conv_transpose_sites(
    mask: Tensor,
    kernel: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Find the active outputs of `conv_transpose`: every site that an active input reaches.

    m'[b, q] = or of m[b, p] over all p, k with s p + d k - pad = q

    Args:
        mask: m, bool ``[B, *spatial]``.
        kernel: One number or one per axis; likewise the next arguments.
        stride, padding, output_padding, dilation: as of `conv_transpose`.

    Returns:
        Bool ``[B, *transposed_output_size]``.

    >>> conv_transpose_sites(torch.tensor([[False, True]]), 2, stride=3).tolist()
    [[False, False, False, True, True]]
    """
    size = mask.shape[1:]
    window = Window.of(per_axis(kernel, len(size)), stride, padding, dilation)
    out = window.transposed_out(size, output_padding)
    reached = torch.zeros(len(mask), *out, dtype=torch.bool)
    for p, _, q in window.meetings(size, out):
        reached[q] |= mask[p]
    return reached


def inverse_conv(
    x: Tensor,
    weight: Tensor,
    like_mask: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Bring values back to the sites that a strided convolution read: its adjoint, at those sites.

    y[b, o, q] = m[b, q] (bias[o] + sum of weight[c, o, k] x[b, c, p] over s p + d k - pad = q)

    so that <conv(u, weight), x> = <u, y> for every u that is zero outside m, without bias.

    Args:
        x: ``[B, in, *coarse]``, zero at inactive sites.
        weight: ``[in, out / groups, *kernel]``, the convolution's own tensor.
        like_mask: m, bool ``[B, *spatial]`` or ``[B, 1, *spatial]``; its extent is the output's.
        bias: ``[out]`` or None.
        stride, padding, dilation, groups: as of `conv`.

    Returns:
        ``[B, out, *spatial]``, zero outside the mask.

    >>> like = torch.tensor([[True, False, False, True]])
    >>> inverse_conv(torch.tensor([[[3.0, 5.0]]]), torch.ones(1, 1, 2), like, stride=2).tolist()
    [[[3.0, 0.0, 0.0, 5.0]]]
    """
    window = Window.of(weight.shape[2:], stride, padding, dilation)
    size = like_mask.shape[-len(window.kernel) :]
    y = zeros(len(x), groups * weight.shape[1], size, bias)
    return masked(_scatter(x, weight, y, window, groups), like_mask)

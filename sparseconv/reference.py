"""The operators written straight from their definitions, in float64, for any number of axes D.

Every convolution here is one list of meetings: output position ``p`` meets input position

    q = s * p + d * k - pad                    (stride s, dilation d, ``pad`` cells of padding)

through kernel cell ``k``, for all ``p`` and ``k``, and positions outside the input hold zero. The
operators differ only in what travels along a meeting: the convolution carries x from q to p, its
adjoint carries values from p to q, the weight gradient multiplies both ends, the site laws carry
"active". Shapes: x is ``[B, C, *spatial]``, weight ``[out, in / groups, *kernel]``, mask
``[B, *spatial]``. Slow on purpose: this file teaches, and it judges the fast code in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | Sequence[int] | str
Position: TypeAlias = tuple[int, ...]
Index: TypeAlias = tuple[EllipsisType | int, ...]


def _at(position: Sequence[int]) -> Index:
    """Index a tensor at one position of its last axes, all of its batch and channels."""
    everything: Index = (...,)
    return everything + tuple(position)


class _Window(NamedTuple):
    """One entry per axis; `padding` counts cells in front of the input, `behind` those after it."""

    kernel: Position
    stride: Position
    padding: Position
    behind: Position
    dilation: Position

    def meetings(self, out: Sequence[int], size: Sequence[int]) -> Iterator[tuple[Index, ...]]:
        """Yield every (p, k, q) with q = s p + d k - pad, p inside `out` and q inside `size`."""
        for p in product(*map(range, out)):
            for k in product(*map(range, self.kernel)):
                terms = zip(self.stride, p, self.dilation, k, self.padding, strict=True)
                q = tuple(s * a + d * c - pad for s, a, d, c, pad in terms)
                if all(0 <= b < length for b, length in zip(q, size, strict=True)):
                    yield _at(p), _at(k), _at(q)

    def out(self, size: Sequence[int]) -> Position:
        """Return how many times the window fits into each axis of the padded `size`."""
        padded = (a + b + c for a, b, c in zip(size, self.padding, self.behind, strict=True))
        steps = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple(output_size(n, k, s, 0, d) for n, k, s, d in steps)


def _per_axis(value: Ints, axes: int) -> Position:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _window(kernel: Sequence[int], stride: Ints, padding: Padding, dilation: Ints) -> _Window:
    axes = len(kernel)
    steps = _per_axis(dilation, axes)
    front = behind = _per_axis(0 if isinstance(padding, str) else padding, axes)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
        # An odd total puts the extra cell behind the input, as torch does.
        front = tuple(t // 2 for t in total)
        behind = tuple(t - t // 2 for t in total)
    return _Window(tuple(kernel), _per_axis(stride, axes), front, behind, steps)


def _split(t: Tensor, axis: int, groups: int) -> Tensor:
    """Split one axis into groups: [.., n, ..] -> [.., groups, n / groups, ..], in float64."""
    shape = (*t.shape[:axis], groups, t.shape[axis] // groups, *t.shape[axis + 1 :])
    return t.double().reshape(shape)


def _mix(values: Tensor, cell: Tensor, groups: int) -> Tensor:
    """Sum over the input channels of each group: [B, in] with [out, in / groups] -> [B, out]."""
    v, w = _split(values, 1, groups), _split(cell, 0, groups)
    return torch.einsum("bgi,goi->bgo", v, w).flatten(1)


def _mix_back(values: Tensor, cell: Tensor, groups: int) -> Tensor:
    """Sum over the output channels, the adjoint of `_mix`: [B, out] -> [B, in]."""
    v, w = _split(values, 1, groups), _split(cell, 0, groups)
    return torch.einsum("bgo,goi->bgi", v, w).flatten(1)


def _start(batch: int, channels: int, size: Sequence[int], bias: Tensor | None = None) -> Tensor:
    y = torch.zeros(batch, channels, *size, dtype=torch.float64)
    return y if bias is None else y + bias.double().reshape(-1, *[1] * len(size))


def _plain(mask: Tensor, axes: int) -> Tensor:
    """Bring a mask to [B, *spatial] from that or from [B, 1, *spatial]."""
    return mask[:, 0] if mask.dim() == axes + 2 else mask


def output_size(
    length: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Count the positions of a window along one axis.

    L' = floor((L + 2 pad - d (K - 1) - 1) / s) + 1

    Args:
        length: L, cells of the input; `padding` is added on both sides.
        kernel: K, cells of the kernel, `dilation` apart.
        stride: s, cells between neighbouring windows.
        padding: pad.
        dilation: d.

    Returns:
        L', below 1 where the window does not fit.

    Source: Dumoulin and Visin 2016 (arXiv 1603.07285), relationship 6; dilation, section 5.1.

    >>> output_size(32, 3, stride=2, padding=1)
    16
    """
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def transposed_output_size(
    length: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """Count the cells of a transposed convolution along one axis; it inverts `output_size`.

    L' = s (L - 1) - 2 pad + d (K - 1) + output_padding + 1

    Args:
        length: L, cells of the input.
        kernel: K.
        stride: s of the convolution whose adjoint this is; likewise the next arguments.
        padding: pad.
        output_padding: Cells behind the end that the strided convolution did not read.
        dilation: d.

    Returns:
        L'.

    >>> transposed_output_size(16, 3, stride=2, padding=1, output_padding=1)
    32
    """
    return stride * (length - 1) - 2 * padding + dilation * (kernel - 1) + output_padding + 1


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
    window = _window(weight.shape[2:], stride, padding, dilation)
    size = x.shape[2:]
    out = window.out(size)
    y = _start(len(x), len(weight), out, bias)
    for p, k, q in window.meetings(out, size):
        y[p] += _mix(x[q], weight[k], groups)
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
        stride: As given to `conv`, likewise the next arguments.
        padding: pad.
        dilation: d.
        groups: Number of channel groups.

    Returns:
        dE/dx, ``[B, in, *spatial]``.

    Source: Dumoulin and Visin 2016 (arXiv 1603.07285), relationships 8 to 14.

    >>> conv_input_grad(torch.ones(1, 1, 2), torch.tensor([[[10.0, 1.0]]]), [3]).tolist()
    [[[10.0, 11.0, 1.0]]]
    """
    kernel = weight.shape[2:]
    axes = len(kernel)
    forward = _window(kernel, stride, padding, dilation)
    spread = _zeros_between(grad, forward.stride)
    reach = zip(forward.dilation, kernel, forward.padding, strict=True)
    window = _window(kernel, 1, [d * (k - 1) - pad for d, k, pad in reach], dilation)
    flipped = weight.flip(*range(2, axes + 2))
    size = tuple(input_size)[-axes:]
    x_grad = _start(len(grad), groups * weight.shape[1], size)
    for q, k, p in window.meetings(size, spread.shape[2:]):
        x_grad[q] += _mix_back(spread[p], flipped[k], groups)
    return x_grad


def _zeros_between(grad: Tensor, stride: Position) -> Tensor:
    size = [s * (n - 1) + 1 for s, n in zip(stride, grad.shape[2:], strict=True)]
    spread = _start(grad.shape[0], grad.shape[1], size)
    for p in product(*map(range, grad.shape[2:])):
        spread[_at([s * a for s, a in zip(stride, p, strict=True)])] = grad[_at(p)]
    return spread


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
        stride: As given to `conv`, likewise the next arguments.
        padding: pad.
        dilation: d.
        groups: Number of channel groups.

    Returns:
        dE/dweight, ``[out, in / groups, *kernel]``.

    >>> conv_weight_grad(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.ones(1, 1, 2), 2).tolist()
    [[[3.0, 5.0]]]
    """
    axes = x.dim() - 2
    window = _window(_per_axis(kernel_size, axes), stride, padding, dilation)
    w_grad = _start(grad.shape[1], x.shape[1] // groups, window.kernel)
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


def _scatter(x: Tensor, weight: Tensor, y: Tensor, window: _Window, groups: int) -> Tensor:
    """Add weight[k]^T x[p] to y at q for every meeting: the adjoint of the loop in `conv`."""
    for p, k, q in window.meetings(x.shape[2:], y.shape[2:]):
        y[q] += _mix_back(x[p], weight[k], groups)
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
    window = _window(weight.shape[2:], stride, padding, dilation)
    size = _transposed_out(window, x.shape[2:], output_padding)
    y = _start(len(x), groups * weight.shape[1], size, bias)
    return _scatter(x, weight, y, window, groups)


def _transposed_out(window: _Window, size: Sequence[int], output_padding: Ints) -> Position:
    extra = _per_axis(output_padding, len(size))
    kernel, stride, padding, _, dilation = window
    axes = zip(size, kernel, stride, padding, extra, dilation, strict=True)
    return tuple(transposed_output_size(*axis) for axis in axes)


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
        dilation: d, one number or one per axis.
        groups: Number of channel groups.

    Returns:
        ``[B, out, *spatial]``, zero outside the mask.

    Source: Graham and van der Maaten 2017 (arXiv 1706.01307), section 2.

    >>> x, mask = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[True, True, False]])
    >>> subm_conv(x, mask, torch.ones(1, 1, 3)).tolist()
    [[[3.0, 3.0, 0.0]]]
    """
    active = _plain(mask, x.dim() - 2).unsqueeze(1)
    seen = torch.where(active, x.double(), 0.0)
    y = conv(seen, weight, bias, padding="same", dilation=dilation, groups=groups)
    return torch.where(active, y, 0.0)


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
    window = _window(_per_axis(kernel, len(size)), stride, padding, dilation)
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
        stride: s.
        padding: pad.
        output_padding: Cells added behind the end of the output.
        dilation: d.

    Returns:
        Bool ``[B, *transposed_output_size]``.

    >>> conv_transpose_sites(torch.tensor([[False, True]]), 2, stride=3).tolist()
    [[False, False, False, True, True]]
    """
    size = mask.shape[1:]
    window = _window(_per_axis(kernel, len(size)), stride, padding, dilation)
    out = _transposed_out(window, size, output_padding)
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
        stride: s of the convolution to undo; likewise the next arguments.
        padding: pad.
        dilation: d.
        groups: Number of channel groups.

    Returns:
        ``[B, out, *spatial]``, zero outside the mask.

    >>> like = torch.tensor([[True, False, False, True]])
    >>> inverse_conv(torch.tensor([[[3.0, 5.0]]]), torch.ones(1, 1, 2), like, stride=2).tolist()
    [[[3.0, 0.0, 0.0, 5.0]]]
    """
    window = _window(weight.shape[2:], stride, padding, dilation)
    like = _plain(like_mask, x.dim() - 2)
    y = _start(len(x), groups * weight.shape[1], like.shape[1:], bias)
    return torch.where(like.unsqueeze(1), _scatter(x, weight, y, window, groups), 0.0)


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
) -> tuple[_Window, Position]:
    """Return the window of a pooling and its output size; a stride left out is the kernel."""
    kernel = _per_axis(kernel, len(size))
    window = _window(kernel, kernel if stride is None else stride, padding, dilation)
    axes = zip(size, kernel, window.stride, window.padding, window.dilation, strict=True)
    return window, tuple(pool_size(*axis, ceil_mode) for axis in axes)


def _everywhere(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask as [B, 1, *spatial], all true where it is left out."""
    if mask is None:
        return torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool)
    return _plain(mask, x.dim() - 2).unsqueeze(1)


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
    lowest = torch.tensor(-torch.inf, dtype=torch.float64)
    seen = torch.where(_everywhere(x, mask), x.double(), lowest)
    y = torch.full((*x.shape[:2], *out), -torch.inf, dtype=torch.float64)
    for p, _, q in window.meetings(out, x.shape[2:]):
        y[p] = torch.maximum(y[p].clone(), seen[q])
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
    active = _everywhere(x, mask)
    seen = torch.where(active, x.double(), 0.0)
    y = _start(len(x), x.shape[1], out)
    count = _start(len(x), 1, out)
    for p, _, q in window.meetings(out, size):
        y[p] += seen[q]
        count[p] += active[q]
    for p in product(*map(range, out)):
        axes = zip(p, window.stride, window.padding, window.kernel, size, strict=True)
        cells = [min(s * a - pad + k, n + pad) - (s * a - pad) for a, s, pad, k, n in axes]
        if divisor_override is not None:
            count[_at(p)] = divisor_override
        elif count_include_pad:
            count[_at(p)] = math.prod(cells)
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
    cells = math.prod(_per_axis(kernel, x.dim() - 2))
    powers = torch.where(_everywhere(x, mask), x.double(), 0.0) ** p
    mean = avg_pool(powers, kernel, stride, ceil_mode=ceil_mode, mask=mask)
    root: Tensor = (mean * cells) ** (1.0 / p)
    return root


Tap: TypeAlias = tuple[int, float]


def _nearest_tap(p: int, step: float, length: int, exact: bool) -> list[Tap]:
    place = math.floor((p + 0.5) * step) if exact else math.floor(p * step)
    return [(min(place, length - 1), 1.0)]


def _linear_taps(p: int, step: float, length: int, align_corners: bool) -> list[Tap]:
    place = p * step if align_corners else max((p + 0.5) * step - 0.5, 0.0)
    left = min(math.floor(place), length - 1)
    share = min(place - left, 1.0)
    if left == length - 1:
        return [(left, 1.0)]
    return [(q, w) for q, w in ((left, 1.0 - share), (left + 1, share)) if w > 0]


def interpolate(
    x: Tensor,
    size: Sequence[int],
    mode: str = "nearest",
    align_corners: bool = False,
    steps: Sequence[float] | None = None,
) -> Tensor:
    """Resample to another extent, axis by axis.

    Output p reads the input at ``step p`` (nearest), ``step (p + 1/2)`` (nearest-exact), both
    rounded down, or, linearly between its two neighbours, at ``step (p + 1/2) - 1/2``, not below
    0 (with `align_corners` at ``step p``).

    Args:
        x: ``[B, C, *spatial]``.
        size: The output's extent.
        mode: ``"nearest"``, ``"nearest-exact"`` or ``"linear"``.
        align_corners: Whether the corner cells' centres meet; then step = (L - 1) / (L' - 1).
        steps: step per axis, L / L' where left out; 1 / `scale_factor` in PyTorch.

    Returns:
        ``[B, C, *size]``.

    >>> interpolate(torch.tensor([[[1.0, 3.0]]]), [4], "linear").tolist()
    [[[1.0, 1.5, 2.5, 3.0]]]
    """
    taps = []
    for axis, (length, out) in enumerate(zip(x.shape[2:], size, strict=True)):
        step = length / out if steps is None else steps[axis]
        if align_corners:
            step = (length - 1) / (out - 1) if out > 1 else 0.0
        if mode == "linear":
            taps.append([_linear_taps(p, step, length, align_corners) for p in range(out)])
        else:
            exact = mode == "nearest-exact"
            taps.append([_nearest_tap(p, step, length, exact) for p in range(out)])
    y = _start(len(x), x.shape[1], size)
    for p in product(*map(range, size)):
        for corner in product(*(taps[axis][place] for axis, place in enumerate(p))):
            weight = math.prod(w for _, w in corner)
            y[_at(p)] += weight * x.double()[_at([q for q, _ in corner])]
    return y


def sample_linear(x: Tensor, position: Tensor) -> Tensor:
    """Read x between its cells, N-linearly; outside it holds zero.

    x(q) = sum_i x[i] prod_a max(0, 1 - |q_a - i_a|)

    Args:
        x: ``[C, *spatial]``.
        position: q, ``[D]``.

    Returns:
        ``[C]``.

    Source: Dai et al. 2017 (arXiv 1703.06211), equations 3 and 4.

    >>> sample_linear(torch.tensor([[10.0, 20.0]]), torch.tensor([0.25])).item()
    12.5
    """
    values = x.double()
    for q in position.double():
        cells = torch.arange(values.shape[1], dtype=torch.float64)
        near = (1 - (q - cells).abs()).clamp(min=0)
        values = torch.tensordot(values, near, dims=([1], [0]))
    return values


def deform_conv(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve with a kernel whose cells are moved, one by one, at every output position.

    y[b, o, p] = bias[o] + sum_k sum_c weight[o, c, k] m[b, h, k, p] x(b, c, q)
    with q = s p + d k - pad + delta[b, h, k, p], read by `sample_linear`

    where c runs over the input channels of o's group and h is the offset group of c.

    Args:
        x: ``[B, in, *spatial]``.
        offset: delta, ``[B, H * K * D, *out]``: for each of H offset groups and each of the K
            kernel cells the D shifts, in cells, first axis first.
        weight: ``[out, in / groups, *kernel]``; it tells the number of groups.
        bias: ``[out]`` or None.
        stride: s, one number or one per axis; likewise `padding` and `dilation`.
        padding: pad on both sides.
        dilation: d.
        mask: m, ``[B, H * K, *out]``, the modulation; None counts as 1.

    Returns:
        ``[B, out, *output_size]``.

    Source: Dai et al. 2017 (arXiv 1703.06211), equation 2; with the mask Zhu et al. 2019 (arXiv
    1811.11168), equation 1.

    >>> x, half = torch.tensor([[[10.0, 20.0, 30.0]]]), torch.full((1, 1, 3), 0.5)
    >>> deform_conv(x, half, torch.ones(1, 1, 1)).tolist()
    [[[15.0, 25.0, 15.0]]]
    """
    kernel, groups = weight.shape[2:], x.shape[1] // weight.shape[1]
    axes, cells = len(kernel), list(product(*map(range, kernel)))
    window = _window(kernel, stride, padding, dilation)
    out = window.out(x.shape[2:])
    offset_groups = offset.shape[1] // (len(cells) * axes)
    shifts = offset.double().reshape(len(x), offset_groups, len(cells), axes, *out)
    share = torch.ones_like(shifts[:, :, :, 0]) if mask is None else mask.double()
    share = share.reshape(shifts[:, :, :, 0].shape)
    y = _start(len(x), len(weight), out, bias)
    for p in product(*map(range, out)):
        for number, k in enumerate(cells):
            terms = zip(window.stride, p, window.dilation, k, window.padding, strict=True)
            q = torch.tensor([s * a + d * c - pad for s, a, d, c, pad in terms]).double()
            read = [
                share[b, h, number][_at(p)] * sample_linear(part, q + shifts[b, h, number][_at(p)])
                for b, sample in enumerate(x)
                for h, part in enumerate(sample.chunk(offset_groups))
            ]
            y[_at(p)] += _mix(torch.cat(read).reshape(len(x), -1), weight[_at(k)], groups)
    return y


def _per_channel(mask: Tensor, x: Tensor) -> Tensor:
    """Bring a mask to x's own shape from [B, *spatial], [B, 1, *spatial] or [B, C, *spatial]."""
    return (mask if mask.dim() == x.dim() else mask.unsqueeze(1)).expand(x.shape)


def _channel_counts(valid: Tensor, groups: int, channels: int) -> Tensor:
    """Count the valid channels of each group: [B, in] -> [B, channels], group by group."""
    counts = valid.double().reshape(len(valid), groups, -1).sum(2)
    return counts.repeat_interleave(channels // groups, 1)


def _normalised(
    total: Tensor, count: Tensor, window: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return window / count * total + bias where count > 0, else 0; and where that is."""
    reached = count > 0
    y = window / torch.where(reached, count, 1.0) * total
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
        stride: s, one number or one per axis.
        padding: As in `conv`.
        dilation: d.
        groups: Number of channel groups.
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
    window = _window(weight.shape[2:], stride, padding, dilation)
    valid = _per_channel(mask, x)
    seen = torch.where(valid, x.double(), 0.0)
    out = window.out(x.shape[2:])
    total, count = (_start(len(x), len(weight), out) for _ in range(2))
    for p, k, q in window.meetings(out, x.shape[2:]):
        total[p] += _mix(seen[q], weight[k], groups)
        count[p] += _channel_counts(valid[q], groups, len(weight))
    size = weight[0].numel() if normalize == "ratio" else weight.shape[1]
    return _normalised(total, count, torch.tensor(size, dtype=torch.float64), bias)


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
        dilation: d, one number or one per axis.
        groups: Number of channel groups.
        normalize: "ratio" or "mean".

    Returns:
        y ``[B, out, *spatial]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[True, True, False]]])
    >>> subm_partial_conv(x, mask, torch.ones(1, 1, 3))[0].tolist()
    [[[4.5, 4.5, 0.0]]]
    """
    y, reached = partial_conv(x, mask, weight, bias, 1, "same", dilation, groups, normalize)
    reached = reached & _per_channel(mask, x).any(dim=1, keepdim=True)
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
        stride: s of the convolution whose adjoint this is; likewise the next arguments.
        padding: pad.
        output_padding: Cells added behind the end of the output.
        dilation: d.
        groups: Number of channel groups.
        normalize: "ratio" or "mean".

    Returns:
        y ``[B, out, *transposed_output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])
    >>> partial_conv_transpose(x, mask, torch.ones(1, 1, 2))[0].tolist()
    [[[2.0, 2.0, 0.0]]]
    """
    window = _window(weight.shape[2:], stride, padding, dilation)
    valid = _per_channel(mask, x)
    size = _transposed_out(window, x.shape[2:], output_padding)
    channels = groups * weight.shape[1]
    total, count, full = (_start(len(x), channels, size) for _ in range(3))
    _scatter(torch.where(valid, x.double(), 0.0), weight, total, window, groups)
    in_group = len(weight) // groups
    for p, _, q in window.meetings(x.shape[2:], size):
        count[q] += _channel_counts(valid[p], groups, channels)
    for q in product(*map(range, size)):
        for k in product(*map(range, window.kernel)):
            terms = zip(q, window.padding, window.dilation, k, window.stride, strict=True)
            if all((at + pad - d * cell) % s == 0 for at, pad, d, cell, s in terms):
                full[_at(q)] += in_group
    if normalize == "mean":
        full = torch.full_like(full, in_group)
    return _normalised(total, count, full, bias)


def partial_max_pool(
    x: Tensor, mask: Tensor, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[Tensor, Tensor]:
    """Take the largest valid value of each window; the mask is max-pooled.

    y[b, c, p] = max of x[b, c, q] over k with m[b, c, q], q = s p + d k - pad; 0 without any

    Args:
        x: ``[B, C, *spatial]``.
        mask: m, as in `partial_conv`.
        kernel: One number or one per axis; likewise the next arguments.
        stride: s.
        padding: pad.
        dilation: d.

    Returns:
        y ``[B, C, *output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[-1.0, 2.0, 4.0]]]), torch.tensor([[[True, False, False]]])
    >>> partial_max_pool(x, mask, 2)[0].tolist()
    [[[-1.0, 0.0]]]
    """
    axes = x.dim() - 2
    window = _window(_per_axis(kernel, axes), stride, padding, dilation)
    out = window.out(x.shape[2:])
    seen = torch.where(_per_channel(mask, x), x.double(), -torch.inf)
    y = _start(len(x), x.shape[1], out) - torch.inf
    for p, _, q in window.meetings(out, x.shape[2:]):
        y[p] = torch.maximum(y[p], seen[q])
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
        stride: s.
        padding: pad.
        dilation: d.

    Returns:
        y ``[B, C, *output_size]`` and its mask, bool of the same shape.

    >>> x, mask = torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]])
    >>> partial_avg_pool(x, mask, 2)[0].tolist()
    [[[2.0, 3.0]]]
    """
    channels, axes = x.shape[1], x.dim() - 2
    ones = torch.ones(channels, 1, *_per_axis(kernel, axes), dtype=torch.float64)
    return partial_conv(x, mask, ones, None, stride, padding, dilation, channels, "mean")

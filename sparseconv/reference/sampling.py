"""Values between cells: interpolation and deformable convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import torch
from torch import Tensor

from sparseconv.reference.convolution import mix
from sparseconv.reference.meetings import Ints, Window, at, positions, zeros

Tap: TypeAlias = tuple[int, float]


def _nearest_tap(p: int, step: float, length: int, exact: bool) -> list[Tap]:
    nearest = math.floor((p + 0.5) * step) if exact else math.floor(p * step)
    return [(min(nearest, length - 1), 1.0)]


def _linear_taps(p: int, step: float, length: int, align_corners: bool) -> list[Tap]:
    q = p * step if align_corners else max((p + 0.5) * step - 0.5, 0.0)
    lower = min(math.floor(q), length - 1)
    share = min(q - lower, 1.0)
    if lower == length - 1:
        return [(lower, 1.0)]
    return [(cell, w) for cell, w in ((lower, 1.0 - share), (lower + 1, share)) if w > 0]


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
    y = zeros(len(x), x.shape[1], size)
    for p in positions(size):
        for corner in product(*(taps[axis][entry] for axis, entry in enumerate(p))):
            weight = math.prod(w for _, w in corner)
            y[at(p)] += weight * x.double()[at([q for q, _ in corner])]
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
        stride, padding, dilation: as of `conv`.
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
    axes, cells = len(kernel), list(positions(kernel))
    window = Window.of(kernel, stride, padding, dilation)
    out = window.out(x.shape[2:])
    offset_groups = offset.shape[1] // (len(cells) * axes)
    shifts = offset.double().reshape(len(x), offset_groups, len(cells), axes, *out)
    share = torch.ones_like(shifts[:, :, :, 0]) if mask is None else mask.double()
    share = share.reshape(shifts[:, :, :, 0].shape)
    y = zeros(len(x), len(weight), out, bias)
    for p in positions(out):
        for number, k in enumerate(cells):
            q = torch.tensor(window.reads(p, k)).double()
            read = [
                share[b, h, number][at(p)] * sample_linear(part, q + shifts[b, h, number][at(p)])
                for b, sample in enumerate(x)
                for h, part in enumerate(sample.chunk(offset_groups))
            ]
            y[at(p)] += mix(torch.cat(read).reshape(len(x), -1), weight[at(k)], groups)
    return y

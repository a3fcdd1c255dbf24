"""The one list of meetings that every operator over windows goes through.

Output position ``p`` meets input position

    q = s * p + d * k - pad                    (stride s, dilation d, ``pad`` cells of padding)

through kernel cell ``k``, for all ``p`` and ``k``, and positions outside the input hold zero.
"""

from __future__ import annotations

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


def at(position: Sequence[int]) -> Index:
    """Index a tensor at one position of its last axes, all of its batch and channels."""
    everything: Index = (...,)
    return everything + tuple(position)


def positions(size: Sequence[int]) -> Iterator[Position]:
    """Yield every position of a grid, the last axis fastest."""
    return product(*map(range, size))


class Window(NamedTuple):
    """One entry per axis; `padding` counts cells in front of the input, `behind` those after it."""

    kernel: Position
    stride: Position
    padding: Position
    behind: Position
    dilation: Position

    @classmethod
    def of(
        cls, kernel: Sequence[int], stride: Ints, padding: Padding = 0, dilation: Ints = 1
    ) -> Window:
        """Make the window of a layer from its arguments; `padding` may be ``"same"``."""
        axes = len(kernel)
        steps = per_axis(dilation, axes)
        front = behind = per_axis(0 if isinstance(padding, str) else padding, axes)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
            # An odd total puts the extra cell behind the input, as torch does.
            front = tuple(t // 2 for t in total)
            behind = tuple(t - t // 2 for t in total)
        return cls(tuple(kernel), per_axis(stride, axes), front, behind, steps)

    def reads(self, p: Position, k: Position) -> Position:
        """Return the input position q = s p + d k - pad, inside the input or not."""
        terms = zip(self.stride, p, self.dilation, k, self.padding, strict=True)
        return tuple(s * a + d * c - pad for s, a, d, c, pad in terms)

    def meetings(self, out: Sequence[int], size: Sequence[int]) -> Iterator[tuple[Index, ...]]:
        """Yield every (p, k, q) with q = s p + d k - pad, p inside `out` and q inside `size`."""
        for p in positions(out):
            for k in positions(self.kernel):
                q = self.reads(p, k)
                if all(0 <= b < length for b, length in zip(q, size, strict=True)):
                    yield at(p), at(k), at(q)

    def num_cells_onto(self, q: Position) -> int:
        """Count the kernel cells k that lead from some p, inside or not, to q = s p + d k - pad."""
        return sum(
            all((a - b) % s == 0 for a, b, s in zip(q, reads, self.stride, strict=True))
            for reads in (self.reads((0,) * len(q), k) for k in positions(self.kernel))
        )

    def out(self, size: Sequence[int]) -> Position:
        """Return how many times the window fits into each axis of the padded `size`."""
        padded = (a + b + c for a, b, c in zip(size, self.padding, self.behind, strict=True))
        steps = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple(output_size(n, k, s, 0, d) for n, k, s, d in steps)

    def transposed_out(self, size: Sequence[int], output_padding: Ints) -> Position:
        """Return the extent that the transposed window makes of `size`."""
        extra = per_axis(output_padding, len(size))
        axes = zip(size, self.kernel, self.stride, self.padding, extra, self.dilation, strict=True)
        return tuple(transposed_output_size(*axis) for axis in axes)


def per_axis(value: Ints, axes: int) -> Position:
    """Return one number, or one per axis, as one per axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def zeros(batch: int, channels: int, size: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Return float64 zeros ``[B, C, *size]``, or the bias of each channel."""
    y = torch.zeros(batch, channels, *size, dtype=torch.float64)
    return y if bias is None else y + bias.double().reshape(-1, *[1] * len(size))


def per_channel(mask: Tensor | None, x: Tensor) -> Tensor:
    """Bring a mask to x's shape from [B, *spatial], [B, 1, *spatial] or [B, C, *spatial].

    A mask that is left out holds everywhere.
    """
    if mask is None:
        return torch.ones(x.shape, dtype=torch.bool)
    return (mask if mask.dim() == x.dim() else mask.unsqueeze(1)).expand(x.shape)


def masked(x: Tensor, mask: Tensor | None, fill: float = 0.0) -> Tensor:
    """Return x in float64 with `fill` outside the mask: what lies there, NaN too, is not read."""
    return torch.where(per_channel(mask, x), x.double(), fill)


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

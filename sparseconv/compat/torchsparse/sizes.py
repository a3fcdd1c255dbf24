"""Sizes per axis, and the steps of a kernel."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError


def make_ntuple(x: Any, ndim: int) -> Ints:
    """Return a number, or one per axis, as a tuple of ``ndim`` ints."""
    entries = (x,) * ndim if isinstance(x, int) else tuple(int(entry) for entry in x)
    if len(entries) != ndim:
        raise SparseConvValueError(f"x: must have {ndim} entries, one per axis, got {entries}")
    return entries


@functools.lru_cache(maxsize=64)
def make_tensor(x: Any, dtype: torch.dtype, device: Any) -> Tensor:
    """Return a tensor of a tuple, the same one again for the same arguments."""
    return torch.tensor(x, dtype=dtype, device=device)


def make_divisible(x: int, divisor: int) -> int:
    """Return the smallest multiple of ``divisor`` that is not below ``x``."""
    return (x + divisor - 1) // divisor * divisor


def first_is_fastest(size: Ints) -> bool:
    """Return whether the first axis of a kernel runs fastest: where it has an odd number of cells.

    TorchSparse took the order of odd kernels from MinkowskiEngine.
    """
    return math.prod(size) % 2 == 1


def steps_of(size: Ints) -> list[Ints]:
    """Return the steps to a kernel's cells, in their order; cell ``(k - 1) // 2`` is the site."""
    axes = [range(-((k - 1) // 2), k // 2 + 1) for k in size]
    if first_is_fastest(size):
        return [step[::-1] for step in itertools.product(*reversed(axes))]
    return list(itertools.product(*axes))


def get_kernel_offsets(
    size: Any, stride: Any = 1, dilation: Any = 1, device: Any = "cpu"
) -> Tensor:
    """Return the steps to a kernel's cells times stride and dilation, int32 ``[K, 3]``.

    Args:
        size, stride, dilation: int or one per axis.
        device: where they lie.
    """
    kernel, steps, dilations = (make_ntuple(n, 3) for n in (size, stride, dilation))
    scale = torch.tensor(steps, dtype=torch.int32) * torch.tensor(dilations, dtype=torch.int32)
    return (torch.tensor(steps_of(kernel), dtype=torch.int32) * scale).to(device)


__all__ = ["get_kernel_offsets", "make_divisible", "make_ntuple", "make_tensor"]

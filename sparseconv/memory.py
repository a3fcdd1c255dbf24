"""Memory for large results on the CPU.

A fresh allocation of many megabytes comes from the system in pages of 4 kB, and touching them for
the first time takes several times as long as writing to them: more than most layers without a
matrix product. NumPy asks for huge pages instead, and PyTorch takes its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_BYTES = 2**22  # below, the C library hands out memory that has been touched before
ALIGNMENT = 64  # a vector of AVX-512, and a cache line


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a contiguous CPU tensor of unset numbers, which is no view of another."""
    count = 1
    for size in shape:
        count *= size
    size = count * dtype.itemsize
    if size < LEAST_BYTES:
        return torch.empty(shape, dtype=dtype)
    block = np.empty(size + ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % ALIGNMENT
    storage = torch.from_numpy(block[offset : offset + size]).untyped_storage()
    strides = torch.empty(shape, device="meta").stride()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)


def applied(function: Callable[..., Tensor], *operands: Tensor, **options: Any) -> Tensor:
    """Return ``function(*operands, **options)`` of an elementwise function, in the memory above."""
    if not _helps(operands):
        return function(*operands, **options)
    shape = torch.broadcast_shapes(*(entry.shape for entry in operands))
    return function(*operands, **options, out=empty(tuple(shape), operands[0].dtype))


def joined(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices ``[N, C_i]`` side by side, in the memory above."""
    if not _helps(columns):
        return torch.cat(list(columns), dim=1)
    width = sum(entry.shape[1] for entry in columns)
    out = empty((columns[0].shape[0], width), columns[0].dtype)
    return torch.cat(list(columns), dim=1, out=out)


def _helps(operands: Sequence[Tensor]) -> bool:
    """Return whether a result may be given its memory: on the CPU, outside autograd and graphs."""
    first = operands[0]
    if first.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled() and any(entry.requires_grad for entry in operands):
        return False
    return all(entry.dtype == first.dtype for entry in operands)

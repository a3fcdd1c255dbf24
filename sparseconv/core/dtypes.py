"""Dtypes of features, the dtypes that sums are kept in, and a sum that always has the same bits."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = np.ndarray[Any, Any]

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
INT32 = torch.iinfo(torch.int32)


def wider(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums of ``dtype`` are kept in: float32 for half precisions."""
    return torch.float32 if dtype in HALVES else dtype


def summable(x: Tensor) -> Tensor:
    """Return ``x`` in a dtype in which long sums keep their digits: halves in float32."""
    return x.float() if x.dtype in HALVES else x


def tree_sum(parts: Tensor) -> Tensor:
    """Return the sum over the first axis by adding halves: entry by entry, the same bits."""
    if parts.shape[0] == 0:
        return parts.sum(dim=0)
    while parts.shape[0] > 1:
        half = parts.shape[0] // 2
        paired = parts[:half] + parts[half : 2 * half]
        parts = torch.cat([paired, parts[2 * half :]]) if parts.shape[0] % 2 else paired
    return parts[0]

"""Initialisation of kernels ``[K, C_in, C_out]``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Fill a kernel with normal numbers, as ``torch.nn.init.kaiming_normal_`` does a weight.

    Args:
        tensor: ``[K, C_in, C_out]``, or a matrix ``[C_out, C_in]``.
        a, nonlinearity: as there.
        mode: ``"fan_in"`` or ``"fan_out"``.
    """
    if mode.lower() not in ("fan_in", "fan_out"):
        raise SparseConvValueError(f"mode: must be 'fan_in' or 'fan_out', got {mode!r}")
    cells = tensor.shape[0] if tensor.ndim > 2 else 1
    last = mode.lower() == ("fan_out" if tensor.ndim > 2 else "fan_in")
    fan = tensor.shape[-1 if last else -2] * cells
    name: Any = nonlinearity
    gain = torch.nn.init.calculate_gain(name, a)
    with torch.no_grad():
        return tensor.normal_(0, gain / math.sqrt(fan))


__all__ = ["kaiming_normal_"]

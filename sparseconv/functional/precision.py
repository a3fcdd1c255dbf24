"""The dtypes of torch.autocast, for functions that do not run PyTorch's operator of their name.

Autocast chooses the dtype by the operator, so a function that runs PyTorch's own on the rows needs
nothing of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.dtypes import HALVES
from sparseconv.tensor import SparseTensor

_ACCELERATED = frozenset({"group_norm", "layer_norm", "interpolate", "sum", "norm"})
if torch.__version__ >= "2.12":  # earlier versions run it in the dtype of the input
    _ACCELERATED |= {"rms_norm"}

# What autocast runs in float32, by device. Other devices follow CUDA's list.
FLOAT32: dict[str, frozenset[str]] = {
    "cpu": frozenset(
        {"avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d"},
    ),
    "cuda": _ACCELERATED,
}


def lowered(x: Tensor) -> Tensor:
    """Return ``x`` in the dtype in which autocast runs convolutions and matrix products."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


def widened(x: SparseTensor, function: str) -> SparseTensor:
    """Return ``x`` in float32 if autocast runs ``function`` in float32, else unchanged.

    Args:
        x: the input of the function.
        function: its name in PyTorch.
    """
    device = x.device.type
    if x.dtype not in HALVES or not torch.is_autocast_enabled(device):
        return x
    return x.float() if function in FLOAT32.get(device, _ACCELERATED) else x

"""The dtypes of torch.autocast, for what is computed here from other operators than PyTorch's own.

A function that runs PyTorch's operator of the same name on the rows needs nothing of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.dtypes import HALVES
from sparseconv.tensor import SparseTensor

_ACCELERATED = frozenset({"group_norm", "layer_norm", "interpolate", "sum", "norm"})
if torch.__version__ >= "2.12":  # since then; before it ran in the dtype that it was given
    _ACCELERATED |= {"rms_norm"}

# What autocast runs in float32, by device; devices that are not named follow CUDA's list.
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
    """Return ``x`` in float32 where autocast runs ``function`` so, else as it is.

    Args:
        x: the input of the function.
        function: its name in PyTorch.
    """
    device = x.device.type
    if x.dtype not in HALVES or not torch.is_autocast_enabled(device):
        return x
    return x.float() if function in FLOAT32.get(device, _ACCELERATED) else x

"""The rows of each sample side by side, filled up to the longest sample: attention's own layout."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.autograd.segments import place_rows
from sparseconv.core.arguments import check_floating
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.samples import Samples


def padded_rows(values: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return ``values`` ``[N, C]`` as ``[B, L, C]``, and bool ``[B, L]``: where a row is.

    A sample's rows stand in ascending order of their sites, and 0 behind them.
    """
    length, places = samples.padded
    batch, channels = samples.counts.numel(), values.shape[1]
    flat = place_rows(values, places, values.new_zeros(batch * length, channels))
    steps = torch.arange(length, device=values.device)
    return flat.reshape(batch, length, channels), steps < samples.counts[:, None]


def rows_of_padded(padded: Tensor, samples: Samples) -> Tensor:
    """Return the rows ``[N, C]`` of ``padded`` ``[B, L, C]``; what is behind a sample is not read.

    Raises:
        SparseConvTypeError, SparseConvValueError: no floating point tensor, or another B or L.
    """
    check_floating("padded", padded)
    length, places = samples.padded
    batch = samples.counts.numel()
    if padded.ndim != 3 or tuple(padded.shape[:2]) != (batch, length):
        raise SparseConvValueError(
            f"padded: must have shape ({batch}, {length}, C), as of to_padded(), got "
            f"{tuple(padded.shape)}"
        )
    return padded.flatten(0, 1)[places]


def jagged_rows(values: Tensor, samples: Samples) -> Tensor:
    """Return ``values`` ``[N, C]`` as a jagged nested tensor, rows in ascending order."""
    order, offsets = samples.ascending
    return torch.nested.nested_tensor_from_jagged(values[order], offsets)


def rows_of_jagged(nested: Tensor, samples: Samples) -> Tensor:
    """Return the rows ``[N, C]`` of a jagged nested tensor.

    Raises:
        SparseConvValueError: it is no jagged one, or has another number of rows.
    """
    order, _ = samples.ascending
    if not nested.is_nested or nested.layout is not torch.jagged:
        raise SparseConvValueError("nested: must be a jagged nested tensor, as of to_nested()")
    rows = nested.values()
    if rows.ndim != 2 or rows.shape[0] != samples.num_rows:
        raise SparseConvValueError(
            f"nested: must hold {samples.num_rows} rows of channels, as of to_nested(), got values "
            f"of shape {tuple(rows.shape)}"
        )
    return rows[torch.argsort(order)]

"""Samples made a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.errors import SparseConvValueError


def sparse_collate(inputs: Sequence[SparseTensor]) -> SparseTensor:
    """Return samples, whose ``coords`` are ``[N, 3]``, as one tensor with ``[N, 4]``.

    Raises:
        SparseConvValueError: samples of different strides.
    """
    kind, stride = type(inputs[0]), inputs[0].stride
    coords = []
    for number, x in enumerate(inputs):
        if x.stride != stride:
            raise SparseConvValueError(f"inputs: must have one stride, got {stride} and {x.stride}")
        rows = torch.as_tensor(x.coords)
        sample = torch.full((len(rows), 1), number, dtype=torch.int32, device=rows.device)
        coords.append(torch.cat([rows, sample] if kind.BATCH_LAST else [sample, rows], dim=1))
    feats = torch.cat([torch.as_tensor(x.feats) for x in inputs])
    return kind(feats, torch.cat(coords), stride)


def sparse_collate_fn(inputs: Sequence[Any]) -> Any:
    """Return samples that are dictionaries as one, entry by entry; for a data loader.

    Tensors and arrays are stacked, sparse tensors collated, and what else there is becomes a list.
    """
    if not isinstance(inputs[0], dict):
        return inputs
    return {name: _collated([sample[name] for sample in inputs]) for name in inputs[0]}


def _collated(entries: list[Any]) -> Any:
    first = entries[0]
    if isinstance(first, dict):
        return sparse_collate_fn(entries)
    if isinstance(first, SparseTensor):
        return sparse_collate(entries)
    if isinstance(first, (np.ndarray, torch.Tensor)):
        return torch.stack([torch.as_tensor(entry) for entry in entries])
    return entries


__all__ = ["sparse_collate", "sparse_collate_fn"]

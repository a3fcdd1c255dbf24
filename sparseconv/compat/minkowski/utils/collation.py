"""Samples made a batch: the sample's number before its coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError

_DTYPES = (torch.int32, torch.float32)


def batched_coordinates(
    coords: Sequence[Any], dtype: torch.dtype = torch.int32, device: Any = None
) -> Tensor:
    """Return the coordinates of several samples as one ``[N, 1 + D]``, batch first.

    Args:
        coords: ``[N_b, D]`` of each sample, tensors or arrays.
        dtype: int32, which rounds down, or float32.
        device: where the result lies; that of the first sample where left out.

    Raises:
        SparseConvValueError: no sample, samples of other axes, another dtype.
    """
    if dtype not in _DTYPES:
        raise SparseConvValueError(f"dtype: must be one of {_DTYPES}, got {dtype}")
    samples = [_tensor(sample) for sample in coords]
    axes = {sample.shape[1] if sample.ndim == 2 else None for sample in samples}
    if len(axes) != 1 or None in axes:
        raise SparseConvValueError(
            f"coords: must be samples of shape (N, D), got {[tuple(s.shape) for s in samples]}"
        )
    device = samples[0].device if device is None else device
    rows = []
    for number, sample in enumerate(samples):
        whole = sample.floor() if dtype == torch.int32 and sample.is_floating_point() else sample
        batch = torch.full((len(sample), 1), number, dtype=dtype, device=device)
        rows.append(torch.cat([batch, whole.to(device=device, dtype=dtype)], dim=1))
    return torch.cat(rows)


def sparse_collate(
    coords: Sequence[Any],
    feats: Sequence[Any],
    labels: Sequence[Any] | None = None,
    dtype: torch.dtype = torch.int32,
    device: Any = None,
) -> tuple[Any, ...]:
    """Return coordinates, features and, where there are any, labels of several samples as one.

    Args:
        coords, dtype, device: as of :func:`batched_coordinates`.
        feats: ``[N_b, C]`` of each sample, tensors or arrays.
        labels: of each sample; what are no tensors or arrays stays a list.

    Raises:
        SparseConvValueError: samples with other numbers of rows.
    """
    batch = batched_coordinates(coords, dtype, device)
    rows = torch.cat([_tensor(sample) for sample in feats])
    if len(rows) != len(batch):
        raise SparseConvValueError(
            f"feats: must have one row for each of {len(batch)} coordinates, got {len(rows)}"
        )
    if labels is None:
        return batch, rows
    found = [_tensor(s) if isinstance(s, np.ndarray) else s for s in labels]
    if found and isinstance(found[0], Tensor):
        return batch, rows, torch.cat(found)
    return batch, rows, found


def batch_sparse_collate(
    data: Sequence[Any], dtype: torch.dtype = torch.int32, device: Any = None
) -> tuple[Any, ...]:
    """Return samples ``(coords, feats)`` or ``(coords, feats, labels)`` as one batch."""
    coords, feats, *rest = zip(*data, strict=True)
    return sparse_collate(coords, feats, rest[0] if rest else None, dtype=dtype, device=device)


class SparseCollation:
    """Collate samples ``(coords, feats, labels)``; for ``collate_fn`` of a data loader.

    Args:
        limit_numpoints: samples behind so many points are left out, with a warning; -1 for none.
        dtype, device: as of :func:`batched_coordinates`.
    """

    def __init__(
        self, limit_numpoints: int = -1, dtype: torch.dtype = torch.int32, device: Any = None
    ) -> None:
        self.limit_numpoints, self.dtype, self.device = limit_numpoints, dtype, device

    def __call__(self, list_data: Sequence[Any]) -> tuple[Any, ...]:
        """Return the batch."""
        kept: list[Any] = []
        total = 0
        for sample in list_data:
            total += len(sample[0])
            if 0 < self.limit_numpoints < total:
                warnings.warn(
                    f"limit_numpoints: {self.limit_numpoints} points hold {len(kept)} of "
                    f"{len(list_data)} samples; the others are left out",
                    stacklevel=2,
                )
                break
            kept.append(sample)
        return batch_sparse_collate(kept, self.dtype, self.device)


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


__all__ = ["SparseCollation", "batch_sparse_collate", "batched_coordinates", "sparse_collate"]

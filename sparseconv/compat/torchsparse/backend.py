"""The hash table that programs take from ``torchsparse.backend``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.torchsparse.functional.points import sphash, sphashquery
from sparseconv.compat.torchsparse.sizes import make_ntuple, steps_of


class GPUHashTable:
    """Places of keys, or of coordinates; counted from 1, and 0 for what is not there.

    Args:
        args: memory, or a size, which is not needed.
    """

    def __init__(self, *args: Any) -> None:
        self._keys: Tensor | None = None

    def insert_vals(self, keys: Tensor) -> None:
        """Keep int64 keys ``[M]``."""
        self._keys = keys

    def insert_coords(self, coords: Tensor) -> None:
        """Keep int32 coordinates ``[M, 4]``, the sample last."""
        self._keys = sphash(coords)

    def lookup_vals(self, keys: Tensor) -> Tensor:
        """Return the place of each key, int32 ``[N]``."""
        kept = keys.new_zeros(0) if self._keys is None else self._keys
        return (sphashquery(keys, kept) + 1).int()

    def lookup_coords(
        self, coords: Tensor, kernel_size: Any, stride: Any, kernel_volume: Any = None
    ) -> Tensor:
        """Return the place of what each kernel cell meets, int32 ``[N, K]``.

        Args:
            coords: int32 ``[N, 4]``, the sample last.
            kernel_size, stride: one per axis.
            kernel_volume: K, without effect.
        """
        steps = torch.tensor(steps_of(make_ntuple(kernel_size, 3)), dtype=torch.int32)
        moved = coords.clone()
        moved[:, :3] *= coords.new_tensor(make_ntuple(stride, 3))
        return self.lookup_vals(sphash(moved, steps.to(coords.device))).T.contiguous()


__all__ = ["GPUHashTable"]

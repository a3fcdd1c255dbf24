"""The tensor of spconv 1.x."""

from __future__ import annotations

from torch import Tensor

from sparseconv.compat.spconv import tensor as current


class SparseConvTensor(current.SparseConvTensor):
    """A tensor whose features can be set, as those of spconv 1.x can."""

    @property
    def features(self) -> Tensor:
        """The features ``[N, C]``."""
        return self._features

    @features.setter
    def features(self, val: Tensor) -> None:
        self._features = val


__all__ = ["SparseConvTensor"]

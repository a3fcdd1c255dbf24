"""``spconv.pytorch``: every name that models take from it."""

from __future__ import annotations

from sparseconv.compat.spconv.tensor import SparseConvTensor

__version__ = "2.3.8"

__all__ = ["SparseConvTensor"]

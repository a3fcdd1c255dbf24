"""Normalisation modules that PyTorch lacks."""

from __future__ import annotations

from sparseconv.core.private_torch import BatchNorm
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input


class BatchNorm4d(BatchNorm):
    """Batch normalisation over four spatial axes; arguments and state as of ``BatchNorm3d``.

    Takes a SparseTensor (statistics over active sites) or a dense tensor ``[B, C, T, X, Y, Z]``.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.BatchNorm4d(3)(torch.randn(2, 3, 2, 2, 2, 2)).shape
        torch.Size([2, 3, 2, 2, 2, 2])
    """

    def _check_input_dim(self, input: Input) -> None:
        if input.ndim != 6:
            raise SparseConvValueError(
                f"input: must have shape (B, C, T, X, Y, Z), got {tuple(input.shape)}"
            )

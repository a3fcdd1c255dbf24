"""Normalisation modules that PyTorch lacks."""

from __future__ import annotations

from typing import Any

import torch

from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.private_torch import BatchNorm
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input
from sparseconv.functional.values.sync_norm import in_training, is_shared


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


class SyncBatchNorm(BatchNorm):
    """Batch normalisation over the sites of all processes, on any device and backend.

    Arguments and state as of ``torch.nn.SyncBatchNorm``, which takes SparseTensors too but refuses
    to run on CPUs. In one process, and in evaluation, it is batch normalisation.

    Example:
        >>> import torch, sparseconv as sc
        >>> net = torch.nn.Sequential(sc.nn.SubmConv3d(1, 2, 3), torch.nn.BatchNorm3d(2))
        >>> type(sc.nn.SyncBatchNorm.convert_sync_batchnorm(net)[1])
        <class 'sparseconv.nn.norm.SyncBatchNorm'>
    """

    @native_keywords
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def forward(self, input: Any) -> Any:
        """Return ``input`` ``[B, C, ...]``, normalised."""
        if self.training and is_shared(self.process_group):
            self._check_input_dim(input)
            return in_training(self, input, self.process_group)
        return super().forward(input)

    def _check_input_dim(self, input: Input) -> None:
        if input.ndim < 2:
            raise SparseConvValueError(
                f"input: must have shape (B, C, ...), got {tuple(input.shape)}"
            )

    @classmethod
    def convert_sync_batchnorm(
        cls, module: torch.nn.Module, process_group: Any = None
    ) -> torch.nn.Module:
        """Return ``module`` with this in the place of all batch normalisation in it."""
        if isinstance(module, BatchNorm) and not isinstance(module, cls):
            sizes = module.num_features, module.eps, module.momentum
            made = cls(*sizes, module.affine, module.track_running_stats, process_group)
            made.training = module.training
            kept = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, entry in kept:
                setattr(made, name, entry)
            return made
        for name, child in module.named_children():
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module

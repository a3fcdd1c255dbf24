"""A row for each sample, at all of the sample's sites."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor as TorchTensor

from sparseconv.autograd.samples import sample_spread
from sparseconv.compat.minkowski.constants import BroadcastMode
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_kind
from sparseconv.errors import SparseConvValueError


def spread(input: SparseTensor, input_glob: SparseTensor) -> TorchTensor:
    """Return for each row of ``input`` the row of its sample, ``[N, C]``.

    Raises:
        SparseConvError: operands that are no tensors, or another number of samples.
    """
    for name, operand in (("input", input), ("input_glob", input_glob)):
        check_kind(name, operand, SparseTensor, "a SparseTensor")
    samples = input.sites.samples
    if len(input_glob) != len(samples.numbers):
        raise SparseConvValueError(
            f"input_glob: must have one row for each of {len(samples.numbers)} samples, got "
            f"{len(input_glob)}"
        )
    return sample_spread(input_glob.F, samples)


class MinkowskiBroadcastBase(MinkowskiModuleBase):
    """Base of the operations of each row with its sample's."""

    mode: ClassVar[BroadcastMode | None] = None

    def __init__(self, operation_type: BroadcastMode | None = None) -> None:
        super().__init__()
        self.operation_type = self.mode if operation_type is None else operation_type
        check_kind("operation_type", self.operation_type, BroadcastMode, "a BroadcastMode")

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        """Return ``input`` plus, or times, its sample's row of ``input_glob``."""
        rows = spread(input, input_glob)
        add = self.operation_type is BroadcastMode.ELEMENTWISE_ADDITON
        return input.with_features(input.F + rows if add else input.F * rows)

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return type(self).__name__


class MinkowskiBroadcastAddition(MinkowskiBroadcastBase):
    """Each row plus its sample's."""

    mode = BroadcastMode.ELEMENTWISE_ADDITON


class MinkowskiBroadcastMultiplication(MinkowskiBroadcastBase):
    """Each row times its sample's."""

    mode = BroadcastMode.ELEMENTWISE_MULTIPLICATION


class MinkowskiBroadcast(MinkowskiModuleBase):
    """Each sample's row at all of its sites."""

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        """Return the rows of ``input_glob`` on the sites of ``input``."""
        return input.with_features(spread(input, input_glob))

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return type(self).__name__


class MinkowskiBroadcastConcatenation(MinkowskiBroadcast):
    """Each row beside its sample's."""

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        """Return the channels of both."""
        rows: Any = spread(input, input_glob)
        return input.with_features(torch.cat([input.F, rows], dim=1))


__all__ = [
    "MinkowskiBroadcast",
    "MinkowskiBroadcastAddition",
    "MinkowskiBroadcastBase",
    "MinkowskiBroadcastConcatenation",
    "MinkowskiBroadcastMultiplication",
]

"""Several tensors made one, and several modules on one tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparseconv.compat.spconv.functional import sparse_add
from sparseconv.compat.spconv.layers.containers import SparseModule
from sparseconv.compat.spconv.tensor import SparseConvTensor


class JoinTable(SparseModule):
    """The channels of several tensors on the same indices, side by side."""

    def forward(self, input: list[SparseConvTensor]) -> SparseConvTensor:
        """Return the tensors of the list as one."""
        rows = [input[0].features, *(input[0].rows_of(x) for x in input[1:])]
        return input[0].replace_feature(torch.cat(rows, dim=1))

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the extent that gives ``out_size``: the same."""
        return out_size


class AddTable(SparseModule):
    """The sum of several tensors on the same indices."""

    def forward(self, input: list[SparseConvTensor]) -> SparseConvTensor:
        """Return the tensors of the list as one."""
        total = input[0].features
        for x in input[1:]:
            total = total + input[0].rows_of(x)
        return input[0].replace_feature(total)

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the extent that gives ``out_size``: the same."""
        return out_size


class ConcatTable(SparseModule):
    """Several modules on one input."""

    def forward(self, input: Any) -> list[Any]:
        """Return the list of what each makes of ``input``."""
        return [module(input) for module in self._modules.values()]  # type: ignore[misc]

    def add(self, module: nn.Module) -> ConcatTable:
        """Append a module; returns the table itself."""
        self.add_module(str(len(self._modules)), module)
        return self

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the extent that gives ``out_size``, by the first module."""
        return self._modules["0"].input_spatial_size(out_size)  # type: ignore[union-attr,operator]


class AddTableMisaligned(SparseModule):
    """The sum of several tensors, on the union of their indices."""

    def forward(self, input: list[SparseConvTensor]) -> SparseConvTensor:
        """Return the tensors of the list as one."""
        return sparse_add(*input)

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the extent that gives ``out_size``: the same."""
        return out_size


__all__ = ["AddTable", "AddTableMisaligned", "ConcatTable", "JoinTable"]

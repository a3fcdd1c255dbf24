"""Modules that hold others, and those that act on each value alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from sparseconv.compat.spconv.tensor import SparseConvTensor
from sparseconv.errors import SparseConvValueError


class SparseModule(nn.Module):
    """Base of the modules that take a tensor as it is, and not its features alone."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._sparse_unique_name = ""


class SparseSequential(SparseModule):
    """Modules one after the other; those that are not sparse get the features.

    Args:
        args: modules, or one ``OrderedDict`` of them.
        kwargs: more modules by name.

    Example:
        >>> import torch
        >>> from sparseconv.compat.spconv import pytorch as spconv
        >>> net = spconv.SparseSequential(spconv.SubMConv2d(1, 4, 3), torch.nn.ReLU())
        >>> indices = torch.tensor([[0, 1, 2], [0, 1, 3]], dtype=torch.int32)
        >>> net(spconv.SparseConvTensor(torch.ones(2, 1), indices, [5, 6], 1))
        SparseConvTensor[shape=torch.Size([2, 4])]
    """

    def __init__(self, *args: Any, **kwargs: nn.Module) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = list(args[0].items())
        else:
            named = [(str(number), module) for number, module in enumerate(args)]
        for name, module in [*named, *kwargs.items()]:
            if name in self._modules:
                raise SparseConvValueError(f"{name}: names two modules; every name may come once")
            self.add_module(name, module)

    def __getitem__(self, idx: int) -> nn.Module:
        """Return a module by its number."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f"index {idx} is out of range for {len(self)} modules")
        return list(self._modules.values())[idx]  # type: ignore[return-value]

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        """Go through the modules."""
        return iter(self._modules.values())  # type: ignore[arg-type]

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Append a module, named by its number where no name is given."""
        name = str(len(self._modules)) if name is None else name
        if name in self._modules:
            raise KeyError(f"{name}: names a module already")
        self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        """Return what the last module makes of ``input``."""
        for module in self._modules.values():
            if isinstance(module, SPARSE) or not isinstance(input, SparseConvTensor):
                input = module(input)  # type: ignore[misc]
            elif input.num_rows != 0:
                input = input.replace_feature(module(input.features))  # type: ignore[misc]
        return input


class ToDense(SparseModule):
    """The dense tensor ``[B, C, *spatial]``."""

    def forward(self, x: SparseConvTensor) -> Tensor:
        """Return ``x.dense()``."""
        return x.dense()


class RemoveGrid(SparseModule):
    """Drop the grid that a caller allocated, which is not used here."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return ``x`` without its grid."""
        x.grid = None
        return x


class _OfFeatures(nn.Module):
    """A module of PyTorch's that takes a tensor of spconv's too, and acts on its features."""

    def forward(self, input: Any) -> Any:
        """Return the same kind as ``input``."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))
        return super().forward(input)


class SparseBatchNorm(_OfFeatures, nn.BatchNorm1d):
    """Batch normalisation over the rows."""


class SparseSyncBatchNorm(_OfFeatures, nn.SyncBatchNorm):
    """Batch normalisation over the rows of all processes."""


class SparseReLU(_OfFeatures, nn.ReLU):
    """The larger of each value and 0."""


class SparseIdentity(_OfFeatures, nn.Identity):
    """The input as it is."""


Identity = SparseIdentity
# spconv lists SparseReLU and SparseBatchNorm; the others take their tensors as well
SPARSE = (SparseModule, _OfFeatures)


def is_spconv_module(module: nn.Module) -> bool:
    """Return whether a module takes the tensor itself."""
    return isinstance(module, SPARSE)


def assign_name_for_sparse_modules(module: nn.Module) -> None:
    """Give each sparse module its path, which messages about an ``indice_key`` then say."""
    for name, child in module.named_modules():
        if isinstance(child, SparseModule):
            child._sparse_unique_name = name


__all__ = [
    "Identity",
    "RemoveGrid",
    "SparseBatchNorm",
    "SparseIdentity",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SparseSyncBatchNorm",
    "ToDense",
    "assign_name_for_sparse_modules",
    "is_spconv_module",
]

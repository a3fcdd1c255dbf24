"""Several tensors made one, modules side by side, and the ways from and to dense tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor as TorchTensor
from torch import nn

from sparseconv.autograd.dense import rows_of_planes
from sparseconv.compat.minkowski.base import Tensor
from sparseconv.compat.minkowski.field import TensorField
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_kind, check_tensor
from sparseconv.errors import SparseConvValueError


def _joined(tensors: Sequence[Any], function: Callable[[list[TorchTensor]], TorchTensor]) -> Any:
    """Return a function of the features of tensors on the same coordinates."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tensors[0]
    if len(tensors) < 2:  # one is joined with nothing
        raise SparseConvValueError(f"sparse_tensors: must be at least 2, got {len(tensors)}")
    for x in tensors:
        check_kind("sparse_tensors", x, Tensor, "SparseTensors or TensorFields")
    first = tensors[0]
    return first.with_features(function([first.F, *(first._rows_of(x) for x in tensors[1:])]))


def cat(*sparse_tensors: Any) -> Any:
    """Return the channels of several tensors on the same coordinates, side by side."""
    return _joined(sparse_tensors, lambda rows: torch.cat(rows, dim=-1))


def sum(*sparse_tensors: Any) -> Any:  # its name there
    """Return the sum of several tensors on the same coordinates."""
    return _joined(sparse_tensors, lambda rows: torch.stack(rows).sum(0))


def mean(*sparse_tensors: Any) -> Any:
    """Return the mean of several tensors on the same coordinates."""
    return _joined(sparse_tensors, lambda rows: torch.stack(rows).mean(0))


def var(*sparse_tensors: Any) -> Any:
    """Return the variance of several tensors on the same coordinates, over all of them."""
    return _joined(sparse_tensors, lambda rows: torch.stack(rows).var(0, correction=0))


class MinkowskiStackCat(nn.Sequential):
    """Several modules on one input, their channels side by side."""

    def forward(self, x: Any) -> Any:
        """Return the modules' outputs as one."""
        return cat([module(x) for module in self])


class MinkowskiStackSum(nn.Sequential):
    """Several modules on one input, summed."""

    def forward(self, x: Any) -> Any:
        """Return the modules' outputs as one."""
        return sum([module(x) for module in self])


class MinkowskiStackMean(nn.Sequential):
    """The mean of several modules on one input."""

    def forward(self, x: Any) -> Any:
        """Return the modules' outputs as one."""
        return mean([module(x) for module in self])


class MinkowskiStackVar(nn.Sequential):
    """The variance of several modules on one input."""

    def forward(self, x: Any) -> Any:
        """Return the modules' outputs as one."""
        return var([module(x) for module in self])


def dense_coordinates(shape: Sequence[int]) -> TorchTensor:
    """Return the coordinates of all cells of ``[B, C, *spatial]``, int32 ``[N, 1 + D]``."""
    return torch.cartesian_prod(
        *(torch.arange(int(size), dtype=torch.int32) for size in (shape[0], *shape[2:]))
    ).reshape(-1, len(shape) - 1)


def to_sparse(
    x: TorchTensor, format: str | None = None, coordinates: Any = None, device: Any = None
) -> SparseTensor:
    """Return the sites of a dense tensor where any channel is not 0.

    Args:
        x: ``[B, C, *spatial]``, or as ``format`` says.
        format: where the batch (B, the first) and the channels (C) lie, such as ``"BXXC"``.
        coordinates: without effect, as there.
        device: where the result lies.
    """
    check_tensor("x", x)
    channel = 1 if format is None else format.find("C")
    fits = format is None or (len(format) == x.ndim and format[0] == "B" and format.count("C") == 1)
    if not fits:
        raise SparseConvValueError(
            f"format: must name {x.ndim} axes, the first B and one C, got {format!r}"
        )
    x = x.movedim(channel, 1)
    active = (x.detach() != 0).any(dim=1)
    rows = rows_of_planes(x.flatten(2), torch.nonzero(active.flatten())[:, 0])
    return SparseTensor(rows, torch.nonzero(active).int(), device=device or x.device)


def to_sparse_all(dense_tensor: TorchTensor, coordinates: Any = None) -> SparseTensor:
    """Return all cells of ``[B, C, *spatial]``; ``coordinates`` are their own where left out."""
    check_tensor("dense_tensor", dense_tensor)
    if coordinates is None:
        coordinates = dense_coordinates(dense_tensor.shape).to(dense_tensor.device)
    rows = dense_tensor.movedim(1, -1).reshape(-1, dense_tensor.shape[1])
    return SparseTensor(rows, coordinates)


class MinkowskiToSparseTensor(MinkowskiModuleBase):
    """From a dense tensor, or a field, to a sparse tensor.

    Args:
        remove_zeros: whether to leave out cells whose channels are all 0.
        coordinates: of all cells, where none is left out.
    """

    def __init__(self, remove_zeros: bool = True, coordinates: Any = None) -> None:
        super().__init__()
        self.remove_zeros, self.coordinates = remove_zeros, coordinates

    def forward(self, input: Any) -> SparseTensor:
        """Return the sparse tensor."""
        if isinstance(input, TensorField):
            return input.sparse()
        if self.remove_zeros and self.coordinates is None:
            return to_sparse(input)
        return to_sparse_all(input, self.coordinates)


class MinkowskiToDenseTensor(MinkowskiModuleBase):
    """To a dense tensor of a shape, ``[B, C, *spatial]``."""

    def __init__(self, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, input: SparseTensor) -> TorchTensor:
        """Return the dense tensor."""
        return input.dense(shape=self.shape)[0]


class MinkowskiToFeature(MinkowskiModuleBase):
    """To the features alone."""

    def forward(self, x: Tensor) -> TorchTensor:
        """Return the features ``[N, C]``."""
        check_kind("x", x, Tensor, "a SparseTensor or a TensorField")
        return x.F  # type: ignore[no-any-return]


__all__ = [
    "MinkowskiStackCat",
    "MinkowskiStackMean",
    "MinkowskiStackSum",
    "MinkowskiStackVar",
    "MinkowskiToDenseTensor",
    "MinkowskiToFeature",
    "MinkowskiToSparseTensor",
    "cat",
    "dense_coordinates",
    "mean",
    "sum",
    "to_sparse",
    "to_sparse_all",
    "var",
]

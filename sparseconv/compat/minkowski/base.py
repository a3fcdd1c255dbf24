"""What sparse tensors and tensor fields share, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor as TorchTensor

from sparseconv.autograd.segments import group_rows, place_rows, reduce_groups
from sparseconv.compat.minkowski.constants import REDUCTIONS, SparseTensorQuantizationMode
from sparseconv.compat.minkowski.manager import CoordinateManager, CoordinateMapKey
from sparseconv.core.arguments import check_device, check_kind, check_tensor
from sparseconv.errors import SparseConvTypeError, SparseConvValueError

Self = TypeVar("Self", bound="Tensor")
Method = TypeVar("Method", bound=Callable[..., Any])
Mode = SparseTensorQuantizationMode


class MismatchError(SparseConvValueError, AssertionError):
    """Operands of different coordinates; MinkowskiEngine asserts that they are the same."""


def outside_graphs(method: Method) -> Method:
    """Return a method that graphs call and do not follow: what keys say is no part of them."""
    return cast(Method, torch.compiler.disable(method))


class Tensor:
    """What sparse tensors and tensor fields share."""

    field_class: ClassVar[Any]  # set by the module of fields

    def __init__(self, features: TorchTensor, manager: CoordinateManager, mode: Mode) -> None:
        self._F = features
        self._C: TorchTensor | None = None
        self._manager = manager
        self.quantization_mode = mode

    @property
    def key(self) -> CoordinateMapKey:
        """The key of the coordinates."""
        raise NotImplementedError

    @property
    def coordinates(self) -> TorchTensor:
        """The coordinates ``[N, 1 + D]``, batch first."""
        raise NotImplementedError

    def with_features(self: Self, features: TorchTensor) -> Self:
        """Return other features on the same coordinates."""
        raise NotImplementedError

    C = property(lambda self: self.coordinates, doc="The coordinates ``[N, 1 + D]``, batch first.")
    coordinate_manager = property(lambda self: self._manager, doc="Who keeps the coordinates.")
    coordinate_key = property(lambda self: self.key, doc="The key of the coordinates.")
    tensor_stride = property(
        lambda self: self.key.get_tensor_stride(), doc="The tensor stride, one per axis."
    )
    D = property(lambda self: self._manager.D, doc="Number of spatial axes.")
    dimension = property(lambda self: self._manager.D, doc="Number of spatial axes.")
    F = property(lambda self: self._F, doc="The features ``[N, C]``.")
    features = property(lambda self: self._F, doc="The features ``[N, C]``.")
    shape = property(lambda self: self._F.shape, doc="Shape of the features.")
    device = property(lambda self: self._F.device, doc="Device of the features.")
    dtype = property(lambda self: self._F.dtype, doc="Dtype of the features.")
    requires_grad = property(
        lambda self: self._F.requires_grad, doc="Whether autograd follows the features."
    )

    def requires_grad_(self, requires_grad: bool = True) -> None:
        """Let autograd follow the features, or not."""
        self._F.requires_grad_(requires_grad)

    def float(self: Self) -> Self:
        """Turn the features into float32, in place."""
        self._F = self._F.float()
        return self

    def double(self: Self) -> Self:
        """Turn the features into float64, in place."""
        self._F = self._F.double()
        return self

    def detach(self: Self) -> Self:
        """Detach the features, in place."""
        self._F = self._F.detach()
        return self

    def get_device(self) -> int:
        """Return the number of the features' device, -1 for the CPU."""
        return self._F.get_device()

    def size(self, *dim: int) -> Any:
        """Return the shape of the features, or an entry of it."""
        return self._F.size(*dim)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._F)

    @property
    def _batchwise_row_indices(self) -> list[TorchTensor]:
        raise NotImplementedError

    decomposition_permutations = property(
        lambda self: self._batchwise_row_indices, doc="The rows of each sample."
    )

    @property
    def decomposed_coordinates(self) -> list[TorchTensor]:
        """The coordinates of each sample, ``[N_b, D]``."""
        return [self.coordinates[rows, 1:] for rows in self._batchwise_row_indices]

    @property
    def decomposed_features(self) -> list[TorchTensor]:
        """The features of each sample, ``[N_b, C]``."""
        return [self._F[rows] for rows in self._batchwise_row_indices]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[TorchTensor], list[TorchTensor]]:
        """The coordinates and the features of each sample."""
        return self.decomposed_coordinates, self.decomposed_features

    def coordinates_at(self, batch_index: int) -> TorchTensor:
        """Return the coordinates of a sample, ``[N_b, D]``."""
        return self.coordinates[self._batchwise_row_indices[batch_index], 1:]

    def features_at(self, batch_index: int) -> TorchTensor:
        """Return the features of a sample, ``[N_b, C]``."""
        return self._F[self._batchwise_row_indices[batch_index]]

    def coordinates_and_features_at(self, batch_index: int) -> tuple[TorchTensor, TorchTensor]:
        """Return the coordinates and the features of a sample."""
        return self.coordinates_at(batch_index), self.features_at(batch_index)

    @outside_graphs
    def _rows_of(self, other: Any) -> Any:
        """Return the rows of an operand on the same coordinates, or what is no tensor of these."""
        if not isinstance(other, Tensor):
            return other
        self.check_manager(other)
        if type(other) is not type(self) or other.key != self.key:
            raise MismatchError(
                f"other: must lie on the same coordinates, {self.key}, got {other.key}"
            )
        return other._F

    def check_manager(self, other: Tensor) -> None:
        """Raise unless both tensors have one manager."""
        if other._manager is not self._manager:
            raise MismatchError(
                "other: must share the coordinate manager; make it with coordinate_manager= of "
                "this one"
            )

    @outside_graphs
    def _joined(self: Self, other: Any, function: Callable[[Any, Any], TorchTensor]) -> Self:
        return self.with_features(function(self._F, self._rows_of(other)))

    def __add__(self: Self, other: Any) -> Self:
        """Return the sum with a tensor, rows or a number."""
        return self._joined(other, torch.add)

    __radd__ = __add__

    def __sub__(self: Self, other: Any) -> Self:
        """Return the difference from a tensor, rows or a number."""
        return self._joined(other, torch.sub)

    def __mul__(self: Self, other: Any) -> Self:
        """Return the product with a tensor, rows or a number."""
        return self._joined(other, torch.mul)

    __rmul__ = __mul__

    def __truediv__(self: Self, other: Any) -> Self:
        """Return the quotient by a tensor, rows or a number."""
        return self._joined(other, torch.div)

    def __pow__(self: Self, power: Any) -> Self:
        """Return the features to a power."""
        return self.with_features(self._F**power)

    def __neg__(self: Self) -> Self:
        """Return the negative."""
        return self.with_features(-self._F)

    def __iadd__(self: Self, other: Any) -> Self:
        """Add a tensor on the same coordinates, rows or a number."""
        self._F = self._F + self._rows_of(other)
        return self

    def __isub__(self: Self, other: Any) -> Self:
        """Subtract a tensor on the same coordinates, rows or a number."""
        self._F = self._F - self._rows_of(other)
        return self

    def __imul__(self: Self, other: Any) -> Self:
        """Multiply by a tensor on the same coordinates, rows or a number."""
        self._F = self._F * self._rows_of(other)
        return self

    def __itruediv__(self: Self, other: Any) -> Self:
        """Divide by a tensor on the same coordinates, rows or a number."""
        self._F = self._F / self._rows_of(other)
        return self

    def __repr__(self) -> str:
        """Return coordinates, features and key."""
        return (
            f"{type(self).__name__}(\n  coordinates={self.coordinates}\n  features={self._F}\n"
            f"  {self.key}\n  coordinate_manager={self._manager}\n  spatial dimension={self.D})"
        )


def check_where(name: str, coordinates: Any, key: Any, manager: Any) -> None:
    """Raise unless there are coordinates, or a key and its manager."""
    if manager is not None:
        check_kind("coordinate_manager", manager, CoordinateManager, "a CoordinateManager")
    if coordinates is not None:
        check_tensor("coordinates", coordinates)
        if key is not None:
            raise SparseConvTypeError(f"{name}: stands in place of coordinates; leave one out")
        return
    check_kind(name, key, CoordinateMapKey, "a CoordinateMapKey, or give coordinates")
    if manager is None:
        raise SparseConvTypeError(f"coordinate_manager: must come with {name}")


def check_rows(features: TorchTensor, coordinates: TorchTensor) -> None:
    """Raise unless features and coordinates have as many rows, on one device."""
    if len(features) != len(coordinates):
        raise SparseConvValueError(
            f"features: must have one row for each of the {len(coordinates)} coordinates, got "
            f"{len(features)}"
        )
    check_device("features", features, coordinates.device, "coordinates")


def merged(features: TorchTensor, rows: TorchTensor, num_sites: int, mode: Mode) -> TorchTensor:
    """Return one row for each site, of the rows that fall on it, 0 where none does.

    Raises:
        SparseConvValueError: a mode that merges none.
    """
    if mode not in REDUCTIONS:
        raise SparseConvValueError(
            f"quantization_mode: must merge rows, since some share a site, got {mode}"
        )
    present, places = torch.unique(rows, return_inverse=True)
    found = reduce_groups(features, group_rows(places, len(present)), REDUCTIONS[mode])
    if len(present) == num_sites:
        return found
    return place_rows(found, present, found.new_zeros(num_sites, found.shape[1]))

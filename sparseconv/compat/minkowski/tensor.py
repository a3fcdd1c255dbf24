"""The sparse tensor of MinkowskiEngine: features, and the key of their coordinates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor as TorchTensor

from sparseconv.autograd.dense import planes_of_rows
from sparseconv.autograd.segments import place_rows
from sparseconv.compat.minkowski.base import (
    Mode,
    Tensor,
    check_rows,
    check_where,
    merged,
    outside_graphs,
)
from sparseconv.compat.minkowski.kernel import convert_to_int_list
from sparseconv.compat.minkowski.manager import CoordinateManager, CoordinateMapKey
from sparseconv.compat.minkowski.shared import manager_for
from sparseconv.core.arguments import check_kind, check_tensor
from sparseconv.core.index import Packing
from sparseconv.errors import SparseConvValueError
from sparseconv.points.sampling import check_points, sample_linear
from sparseconv.tensor import SparseTensor as Native


class SparseTensor(Tensor):
    """Features on a set of coordinates, under the names of MinkowskiEngine 0.5.

    Args:
        features: ``[N, C]``.
        coordinates: integer ``[N, 1 + D]``, batch first, multiples of the tensor stride; floats are
            rounded down, with a warning.
        tensor_stride: int or one per axis.
        coordinate_map_key, coordinate_manager: coordinates that are there already.
        quantization_mode: what becomes of rows that share a site.
        allocator_type, minkowski_algorithm: taken without effect.
        requires_grad: whether autograd follows the features.
        device: where the tensor lies.

    Raises:
        SparseConvError: features or coordinates of another kind or shape; no coordinates, or a key
            that the manager does not have.

    Example:
        >>> import torch
        >>> from sparseconv.compat import minkowski as ME
        >>> coords = torch.tensor([[0, -1, 2], [0, -1, 3]], dtype=torch.int32)
        >>> x = ME.SparseTensor(torch.ones(2, 4), coords)
        >>> down = ME.MinkowskiConvolution(4, 8, kernel_size=3, stride=2, dimension=2)(x)
        >>> down.C.tolist(), down.tensor_stride
        ([[0, -2, 2]], [2, 2])
    """

    def __init__(
        self,
        features: TorchTensor,
        coordinates: TorchTensor | None = None,
        tensor_stride: Any = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: Mode = Mode.RANDOM_SUBSAMPLE,
        allocator_type: Any = None,
        minkowski_algorithm: Any = None,
        requires_grad: bool | None = None,
        device: Any = None,
    ) -> None:
        check_tensor("features", features)
        check_kind("quantization_mode", quantization_mode, Mode, "a SparseTensorQuantizationMode")
        if features.ndim != 2:
            raise SparseConvValueError(
                f"features: must have shape (N, C), got {tuple(features.shape)}"
            )
        features = features if device is None else features.to(device)
        check_where("coordinate_map_key", coordinates, coordinate_map_key, coordinate_manager)
        if coordinates is not None:
            coordinates = coordinates if device is None else coordinates.to(device)
            coordinate_manager = coordinate_manager or manager_for(coordinates.shape[1] - 1)
            stride = convert_to_int_list(tensor_stride, coordinate_manager.D)
            check_rows(features, coordinates)
            key, (kept, rows) = coordinate_manager.insert_and_map(_whole(coordinates), stride)
            coordinate_map_key, self.unique_index, self.inverse_mapping = key, kept, rows
            if len(kept) != len(rows):
                features = merged(features, rows, len(kept), quantization_mode)
        assert coordinate_manager is not None and coordinate_map_key is not None
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        super().__init__(features, coordinate_manager, quantization_mode)
        self.coordinate_map_key = coordinate_map_key
        sites = coordinate_manager.sites(coordinate_map_key)
        if sites.num_sites != len(features):
            raise SparseConvValueError(
                f"features: must have one row for each of the {sites.num_sites} coordinates, got "
                f"{len(features)}"
            )

    @property
    def key(self) -> CoordinateMapKey:
        """The key of the coordinates."""
        return self.coordinate_map_key

    @property
    def coordinates(self) -> TorchTensor:
        """The coordinates, int32 ``[N, 1 + D]``, batch first."""
        if self._C is None:
            self._C = self._manager.get_coordinates(self.coordinate_map_key)
        return self._C

    @property
    def _batchwise_row_indices(self) -> list[TorchTensor]:
        return self._manager.origin_map(self.coordinate_map_key)[1]

    @property
    def sites(self) -> Any:
        """The sites that layers read: steps of the tensor stride, axes in the reverse order."""
        return self._manager.sites(self.coordinate_map_key)

    @property
    def on_sites(self) -> Native:
        """The features on these sites."""
        return Native.on_sites(self._F, self.sites)

    def with_features(self, features: TorchTensor) -> SparseTensor:
        """Return other features on the same coordinates."""
        return self.at(features, self.coordinate_map_key)

    def at(self, features: TorchTensor, key: CoordinateMapKey) -> SparseTensor:
        """Return features at another key of the same manager, as layers make them."""
        new = SparseTensor.__new__(SparseTensor)
        Tensor.__init__(new, features, self._manager, Mode.RANDOM_SUBSAMPLE)
        new.coordinate_map_key = key
        return new

    @outside_graphs
    def _joined(self, other: Any, function: Callable[[Any, Any], TorchTensor]) -> SparseTensor:
        """Return a function of both; on other coordinates the union, where absent rows count 0."""
        if not isinstance(other, SparseTensor) or other.key == self.key:
            return super()._joined(other, function)
        self.check_manager(other)
        out = CoordinateMapKey(1 + self.D)
        (_, rows), (_, others) = self._manager.union_map([self.key, other.key], out)
        own = self._F.new_zeros(self._manager.size(out), self.shape[1])
        own = place_rows(self._F, rows, own)
        return self.at(place_rows(function(own[others], other._F), others, own), out)

    def sparse(
        self,
        min_coords: TorchTensor | None = None,
        max_coords: TorchTensor | None = None,
        contract_coords: bool = True,
    ) -> tuple[TorchTensor, TorchTensor, TorchTensor]:
        """Return torch's sparse tensor ``[B, *spatial, C]``, its first coordinates and the stride.

        Args:
            min_coords, max_coords: int32 ``[D]``, both inside; of the tensor where left out.
            contract_coords: whether cells are steps of the tensor stride.
        """
        cells, first, size = self._cells(min_coords, max_coords, contract_coords)
        shape = (self.sites.batch_size, *size, self.shape[1])
        made = torch.sparse_coo_tensor(cells.T, self._F, shape, check_invariants=True)
        return made, first, torch.tensor(self.tensor_stride, dtype=torch.int32)

    def dense(
        self,
        shape: Sequence[int] | None = None,
        min_coordinate: TorchTensor | None = None,
        contract_stride: bool = True,
    ) -> tuple[TorchTensor, TorchTensor, TorchTensor]:
        """Return the dense tensor ``[B, C, *spatial]``, its first coordinates and the stride.

        Args:
            shape: of the dense tensor; as large as the coordinates need where left out. Its entry
                for channels may be any.
            min_coordinate: int32 ``[D]``, the coordinates of its first cell, 0 where left out.
            contract_stride: whether cells are steps of the tensor stride.

        Raises:
            SparseConvValueError: coordinates outside of it.
        """
        low = torch.zeros(self.D, dtype=torch.int32) if min_coordinate is None else min_coordinate
        cells, first, size = self._cells(low, None, contract_stride)
        grid = (self.sites.batch_size, *size)
        if shape is not None:
            grid = (int(shape[0]), *map(int, shape[2:]))
        packing = Packing.dense(grid)
        if not bool(packing.contains(cells).all()):
            raise SparseConvValueError(
                f"shape: coordinates lie outside of {grid} (batch first) from {first.tolist()} on; "
                f"give min_coordinate, or a larger shape"
            )
        planes = planes_of_rows(self._F, packing.pack(cells), (grid[0], math.prod(grid[1:])))
        stride = torch.tensor(self.tensor_stride, dtype=torch.int32)
        return planes.reshape(grid[0], self.shape[1], *grid[1:]), first, stride

    def _cells(
        self, low: TorchTensor | None, high: TorchTensor | None, contract: bool
    ) -> tuple[TorchTensor, TorchTensor, list[int]]:
        """Return each row's cell ``[N, 1 + D]``, the first coordinates, and the extent."""
        coords = self.coordinates.long()
        steps = coords.new_tensor(self.tensor_stride).clamp(min=1)
        spatial = coords[:, 1:]
        first = spatial.amin(0) if low is None else low.reshape(-1).to(spatial)
        if bool((first % steps).any()):
            raise SparseConvValueError(
                f"min_coordinate: must be a multiple of the tensor stride {self.tensor_stride}"
            )
        cells = spatial - first
        end = cells.amax(0) if high is None else high.reshape(-1).to(spatial) - first
        if contract:
            cells, end = cells // steps, end // steps
        return torch.cat([coords[:, :1], cells], dim=1), first.int(), (end + 1).tolist()

    def slice(self, X: Tensor) -> Any:
        """Return the features at each point, or row, that ``X`` was made from: a tensor field."""
        return self._sliced(X, lambda rows: self._F[rows])

    def cat_slice(self, X: Tensor) -> Any:
        """Return the same beside the features of ``X``."""
        return self._sliced(X, lambda rows: torch.cat([self._F[rows], X.F], dim=1))

    def _sliced(self, x: Tensor, features: Callable[[TorchTensor], TorchTensor]) -> Any:
        check_kind("X", x, Tensor, "a SparseTensor or a TensorField")
        if not isinstance(x, SparseTensor):
            rows = x.inverse_mapping(self.coordinate_map_key)  # type: ignore[attr-defined]
            return x.with_features(features(rows))
        if x.key != self.key or not hasattr(x, "inverse_mapping"):
            raise SparseConvValueError(f"X: must lie on the same coordinates, {self.key}")
        rows = x.inverse_mapping
        return self.field_class(
            features(rows), self.coordinates[rows].to(self.dtype),
            coordinate_manager=self._manager, quantization_mode=Mode.UNWEIGHTED_AVERAGE,
        )  # fmt: skip

    def features_at_coordinates(self, query_coordinates: TorchTensor) -> TorchTensor:
        """Return the features between sites, N-linear, ``[M, C]``; an absent site counts 0.

        Args:
            query_coordinates: floating point ``[M, 1 + D]``, batch first.
        """
        points = self._manager.on_level(query_coordinates, self.coordinate_map_key.key[0])
        check_points(points, self.sites)
        return sample_linear(self._F, self.sites, points, renormalise=False)

    def interpolate(self, X: Any) -> Any:
        """Return the features at the points of a tensor field."""
        return X.with_features(self.features_at_coordinates(X.C.to(self.dtype)))


def _whole(coordinates: TorchTensor) -> TorchTensor:
    """Return coordinates as int32, with a warning where they were not integers."""
    if not coordinates.is_floating_point():
        return coordinates.int()
    warnings.warn("coordinates: floats are rounded down; pass integers", stacklevel=4)
    return coordinates.floor().int()


__all__ = ["SparseTensor"]

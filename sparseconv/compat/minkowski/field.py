"""Features at continuous coordinates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor as TorchTensor

from sparseconv.autograd.segments import group_rows, sum_rows
from sparseconv.compat.minkowski.base import Mode, Tensor, check_rows, check_where, merged
from sparseconv.compat.minkowski.constants import REDUCTIONS
from sparseconv.compat.minkowski.manager import CoordinateManager, CoordinateMapKey
from sparseconv.compat.minkowski.shared import manager_for
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_tensor
from sparseconv.errors import SparseConvValueError


class TensorField(Tensor):
    """Features at continuous coordinates, of which a sparse tensor is made and sliced back.

    Args:
        features: ``[N, C]``.
        coordinates: ``[N, 1 + D]``, batch first.
        tensor_stride: int or one per axis.
        coordinate_field_map_key, coordinate_manager: coordinates that are there already.
        quantization_mode: what becomes of points that share a site.
        allocator_type, minkowski_algorithm: taken without effect.
        requires_grad: whether autograd follows the features.
        device: where the field lies.

    Raises:
        SparseConvError: features or coordinates of another kind or shape; no coordinates.

    Example:
        >>> import torch
        >>> from sparseconv.compat import minkowski as ME
        >>> points = torch.tensor([[0, 0.2, 1.5], [0, 0.7, 1.1], [0, 3.0, -0.5]])
        >>> field = ME.TensorField(torch.tensor([[1.0], [3.0], [5.0]]), points)
        >>> x = field.sparse()
        >>> x.C.tolist(), x.F.tolist()
        ([[0, 0, 1], [0, 3, -1]], [[2.0], [5.0]])
        >>> x.slice(field).F.flatten()
        tensor([2., 2., 5.])
    """

    def __init__(
        self,
        features: TorchTensor,
        coordinates: TorchTensor | None = None,
        tensor_stride: Any = 1,
        coordinate_field_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: Mode = Mode.UNWEIGHTED_AVERAGE,
        allocator_type: Any = None,
        minkowski_algorithm: Any = None,
        requires_grad: bool | None = None,
        device: Any = None,
    ) -> None:
        check_tensor("features", features)
        if quantization_mode not in REDUCTIONS:
            raise SparseConvValueError(
                f"quantization_mode: must be one of {list(REDUCTIONS)}, got {quantization_mode}"
            )
        features = features if device is None else features.to(device)
        name = "coordinate_field_map_key"
        check_where(name, coordinates, coordinate_field_map_key, coordinate_manager)
        if coordinates is not None:
            coordinates = coordinates if device is None else coordinates.to(device)
            if not coordinates.is_floating_point():
                coordinates = coordinates.float()
            check_rows(features, coordinates)
            coordinate_manager = coordinate_manager or manager_for(coordinates.shape[1] - 1)
            coordinate_field_map_key = coordinate_manager.insert_field(coordinates, tensor_stride)
        assert coordinate_manager is not None and coordinate_field_map_key is not None
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        super().__init__(features, coordinate_manager, quantization_mode)
        self.coordinate_field_map_key = coordinate_field_map_key
        self._splat: dict[CoordinateMapKey, Any] = {}

    @property
    def key(self) -> CoordinateMapKey:
        """The key of the coordinates."""
        return self.coordinate_field_map_key

    @property
    def coordinates(self) -> TorchTensor:
        """The coordinates, floating point ``[N, 1 + D]``, batch first."""
        return self._manager.get_coordinate_field(self.coordinate_field_map_key)

    @property
    def _batchwise_row_indices(self) -> list[TorchTensor]:
        return self._manager.origin_field_map(self.coordinate_field_map_key)[1]

    def with_features(self, features: TorchTensor) -> TensorField:
        """Return other features on the same coordinates."""
        new = TensorField.__new__(TensorField)
        Tensor.__init__(new, features, self._manager, self.quantization_mode)
        new.coordinate_field_map_key, new._splat = self.coordinate_field_map_key, self._splat
        return new

    def sparse(
        self,
        tensor_stride: Any = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        quantization_mode: Mode | None = None,
    ) -> SparseTensor:
        """Return the sparse tensor of the sites that the points fall on.

        Args:
            tensor_stride: int or one per axis.
            coordinate_map_key: of sites that are there already; points beside them are left out.
            quantization_mode: what becomes of points that share a site.
        """
        mode = quantization_mode or self.quantization_mode
        features = self._F
        if coordinate_map_key is None:
            key, (_, rows) = self._manager.field_to_sparse_insert_and_map(self.key, tensor_stride)
        else:
            key = coordinate_map_key
            points, rows = self._manager.field_to_sparse_map(self.key, key)
            features = features[points]
        num_sites = self._manager.size(key)
        if not (num_sites == len(rows) and coordinate_map_key is None):
            features = merged(features, rows, num_sites, mode)
        return _placed(features, key, self._manager)

    def splat(self) -> SparseTensor:
        """Return the sparse tensor of the sites around each point, by N-linear shares."""
        offsets = torch.cartesian_prod(*[torch.arange(2)] * self.D).reshape(-1, self.D)
        offsets = torch.nn.functional.pad(offsets, (1, 0)).to(self.device)
        corners = (self.coordinates.floor().long()[:, None] + offsets).flatten(0, 1)
        key, _ = self._manager.insert_and_map(corners.int())
        rows, points, weights = self._manager.interpolation_map_weight(key, self.coordinates)
        shares = self._F[points] * weights[:, None].to(self.dtype)
        return _placed(
            sum_rows(shares, group_rows(rows, self._manager.size(key))), key, self._manager
        )

    def inverse_mapping(self, sparse_tensor_map_key: CoordinateMapKey) -> TorchTensor:
        """Return the row of a sparse tensor that each point falls on, int64 ``[N]``.

        Raises:
            SparseConvValueError: a point falls beside all of its sites.
        """
        rows, found = self._manager.rows_at(sparse_tensor_map_key, self.coordinates)
        if not bool(found.all()):
            raise SparseConvValueError(
                f"X: {int((~found).sum())} of {len(found)} points fall on no site of "
                f"{sparse_tensor_map_key}"
            )
        return rows


def _placed(
    features: TorchTensor, key: CoordinateMapKey, manager: CoordinateManager
) -> SparseTensor:
    return SparseTensor(features, coordinate_map_key=key, coordinate_manager=manager)


Tensor.field_class = TensorField

__all__ = ["TensorField"]

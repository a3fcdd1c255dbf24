"""The tensors of TorchSparse: features, integer coordinates and a stride; or points."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from torch import Tensor

from sparseconv.compat.place import Place
from sparseconv.compat.torchsparse.caches import TensorCache, new_cache
from sparseconv.compat.torchsparse.dense import to_dense
from sparseconv.compat.torchsparse.level import AXES, LEVELS
from sparseconv.compat.torchsparse.sizes import make_ntuple
from sparseconv.core.arguments import Ints, check_device
from sparseconv.errors import SparseConvValueError
from sparseconv.tensor import SparseTensor as Native

Self = TypeVar("Self", bound="SparseTensor")


class SparseTensor:
    """Features and integer coordinates, under the names of TorchSparse 2.x.

    Repeated coordinates are found when a layer with a window reads them.

    Args:
        feats: ``[N, C]``.
        coords: ``[N, 4]``: the sample, then three axes, in steps of the stride. (In TorchSparse 1.4
            and 2.0: three axes as multiples of the stride, then the sample.)
        stride: int or one per axis.
        spatial_range: the dense shape ``(B, X, Y, Z)``, where it is known; 2.x only.

    Example:
        >>> import torch
        >>> from sparseconv.compat import torchsparse
        >>> coords = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 3]], dtype=torch.int32)
        >>> x = torchsparse.SparseTensor(torch.ones(2, 4), coords)
        >>> y = torchsparse.nn.Conv3d(4, 8, 2, stride=2)(x)
        >>> y.C.tolist(), y.s
        ([[0, 0, 0, 1]], (2, 2, 2))
    """

    BATCH_LAST: ClassVar[bool] = False

    def __init__(self, feats: Any, coords: Any, stride: Any = 1, spatial_range: Any = None) -> None:
        self.feats = feats
        self.coords = coords
        self.stride: Ints = make_ntuple(stride, AXES)
        self.spatial_range = None if spatial_range is None else tuple(map(int, spatial_range))
        self._caches = new_cache()

    @property
    def F(self) -> Any:
        """The features ``[N, C]``."""
        return self.feats

    @F.setter
    def F(self, feats: Any) -> None:
        self.feats = feats

    @property
    def C(self) -> Any:
        """The coordinates ``[N, 4]``."""
        return self.coords

    @C.setter
    def C(self, coords: Any) -> None:
        self.coords = coords

    @property
    def s(self) -> Ints:
        """The stride, one per axis."""
        return self.stride

    @s.setter
    def s(self, stride: Any) -> None:
        self.stride = make_ntuple(stride, AXES)

    @property
    def place(self) -> Place:
        """Where the rows lie; tensors on the same coordinates have the same place."""
        return self._caches.keep(LEVELS.of_indices(self.coords))

    @property
    def sites(self) -> Any:
        """The sites that layers read.

        Raises:
            SparseConvError: coordinates that repeat or are not integers; another number of rows.
        """
        sites = self.place.sites_on(self.stride, self.BATCH_LAST)
        if self.feats.shape[0] != sites.num_sites:
            raise SparseConvValueError(
                f"feats: must have one row for each of {sites.num_sites} coordinates, got "
                f"{self.feats.shape[0]}"
            )
        check_device("feats", self.feats, sites.device, "coords")
        return sites

    @property
    def on_sites(self) -> Native:
        """The features on these sites."""
        return Native.on_sites(self.feats, self.sites)

    def with_feats(self: Self, feats: Any) -> Self:
        """Return other features on the same coordinates."""
        return self.moved(feats, self.coords, self.stride, self.spatial_range)

    def moved(self: Self, feats: Any, coords: Any, stride: Ints, spatial_range: Any) -> Self:
        """Return what a layer makes of this tensor; both share what layers leave."""
        new = self.__class__.__new__(self.__class__)
        new.feats, new.coords, new.stride = feats, coords, stride
        new.spatial_range, new._caches = spatial_range, self._shared()
        return new

    def _shared(self) -> TensorCache:
        return self._caches

    def cpu(self: Self) -> Self:
        """Move features and coordinates to the CPU, in place."""
        return self.to("cpu")

    def cuda(self: Self) -> Self:
        """Move features and coordinates to the GPU, in place."""
        return self.to("cuda")

    def half(self: Self) -> Self:
        """Turn the features into float16, in place."""
        self.feats = self.feats.half()
        return self

    def detach(self: Self) -> Self:
        """Detach the features, in place."""
        self.coords, self.feats = self.coords.detach(), self.feats.detach()
        return self

    def to(self: Self, device: Any, non_blocking: bool = True) -> Self:
        """Move features and coordinates, in place."""
        self.coords = self.coords.to(device, non_blocking=non_blocking)
        self.feats = self.feats.to(device, non_blocking=non_blocking)
        return self

    def dense(self) -> Tensor:
        """Return the dense tensor ``[*spatial_range, C]``.

        Raises:
            SparseConvValueError: the dense shape is not known.
        """
        if self.spatial_range is None:
            raise SparseConvValueError("spatial_range: must be given to make a dense tensor")
        return to_dense(self.feats, self.coords, self.spatial_range)

    def check_same(self, other: SparseTensor) -> None:
        """Raise unless another tensor lies on the same coordinates, row by row."""
        mine, others = self.coords, other.coords
        same = mine is others or (mine.shape == others.shape and bool((mine == others).all()))
        if not same or self.stride != other.stride:
            raise SparseConvValueError(
                "other: must lie on the same coordinates in the same order; TorchSparse would add "
                "row by row what lies elsewhere; generative_add adds on the union"
            )

    def __add__(self: Self, other: Self) -> Self:
        """Return the sum with a tensor on the same coordinates."""
        self.check_same(other)
        return self.with_feats(self.feats + other.feats)

    def __repr__(self) -> str:
        """Return shape and stride."""
        return f"{type(self).__name__}(feats={tuple(self.feats.shape)}, stride={self.stride})"


class PointTensor:
    """Features at points, and what was found out about the voxels around them.

    Args:
        feats: ``[N, C]``.
        coords: ``[N, 4]``.
        idx_query, weights: by stride, the rows of voxels near each point, and their weights.
    """

    def __init__(self, feats: Any, coords: Any, idx_query: Any = None, weights: Any = None) -> None:
        self.F, self.C = feats, coords
        self.idx_query = {} if idx_query is None else idx_query
        self.weights = {} if weights is None else weights
        self.additional_features: dict[str, Any] = {"idx_query": {}, "counts": {}}

    def cuda(self) -> PointTensor:
        """Move features and coordinates to the GPU, in place."""
        return self.to("cuda")

    def detach(self) -> PointTensor:
        """Detach the features, in place."""
        self.F, self.C = self.F.detach(), self.C.detach()
        return self

    def to(self, device: Any, non_blocking: bool = True) -> PointTensor:
        """Move features and coordinates, in place."""
        self.F = self.F.to(device, non_blocking=non_blocking)
        self.C = self.C.to(device, non_blocking=non_blocking)
        return self

    def __add__(self, other: PointTensor) -> PointTensor:
        """Return the sum of the features at the same points."""
        new = PointTensor(self.F + other.F, self.C, self.idx_query, self.weights)
        new.additional_features = self.additional_features
        return new


class _Negative:
    allowed = False


def get_allow_negative_coordinates() -> bool:
    """Return whether strided layers keep sites below 0."""
    return _Negative.allowed


def set_allow_negative_coordinates(allow_negative_coordinates: bool) -> None:
    """Let strided layers keep sites below 0, or not."""
    _Negative.allowed = allow_negative_coordinates


__all__ = [
    "PointTensor",
    "SparseTensor",
    "get_allow_negative_coordinates",
    "set_allow_negative_coordinates",
]

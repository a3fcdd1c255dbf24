"""The tensor of spconv: features and integer indices, which a layer turns into sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import ProxyableClassMeta  # type: ignore[attr-defined]

from sparseconv.autograd.dense import planes_of_rows
from sparseconv.compat.place import Place
from sparseconv.compat.spconv.place import place_of_indices
from sparseconv.core.arguments import (
    Ints,
    came,
    check_device,
    check_integers,
    check_tensor,
    plain,
)
from sparseconv.core.index import Packing
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.tensor import SparseTensor

Self = TypeVar("Self", bound="SparseConvTensor")


class SparseConvTensor(metaclass=ProxyableClassMeta):  # torch.fx can follow who makes one
    """Features and where they lie, under the names of spconv 2.x.

    Repeated indices, and indices outside of the shape, are found when a layer reads them.

    Args:
        features: ``[N, C]``.
        indices: integer ``[N, 1 + D]``: the sample, then the axes in the order of
            ``spatial_shape``.
        spatial_shape: the dense extent, one entry per axis.
        batch_size: number of samples.
        grid, voxel_num, benchmark, permanent_thrust_allocator, enable_timer, force_algo: taken as
            spconv takes them, and kept where it keeps them, without effect.
        indice_dict: what layers with an ``indice_key`` left; a new dict where left out.

    Raises:
        SparseConvTypeError, SparseConvValueError: features or indices of another kind or shape.

    Example:
        >>> import torch
        >>> from sparseconv.compat.spconv import pytorch as spconv
        >>> indices = torch.tensor([[0, 1, 2], [0, 1, 3]], dtype=torch.int32)
        >>> x = spconv.SparseConvTensor(torch.ones(2, 4), indices, [5, 6], 1)
        >>> y = x.replace_feature(x.features * 2)
        >>> y.indices is x.indices, y.dense().shape
        (True, torch.Size([1, 4, 5, 6]))
    """

    def __init__(
        self,
        features: Tensor,
        indices: Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        grid: Tensor | None = None,
        voxel_num: Tensor | None = None,
        indice_dict: dict[str, Any] | None = None,
        benchmark: bool = False,
        permanent_thrust_allocator: bool = False,
        enable_timer: bool = False,
        force_algo: Any = None,
    ) -> None:
        check_tensor("features", features)
        _check_indices(indices)
        self._features = features
        self._place = place_of_indices(indices)
        self.spatial_shape = _extent(spatial_shape, indices.shape[1] - 1)
        self.batch_size = batch_size
        self.indice_dict = {} if indice_dict is None else indice_dict
        self.grid: Tensor | None = torch.empty(0) if grid is None else grid
        self.voxel_num = voxel_num
        self.benchmark = benchmark
        self.benchmark_record: dict[str, Any] = {}
        self.thrust_allocator = None
        self._timer = None
        self.force_algo = force_algo
        self.int8_scale = None

    @classmethod
    def from_dense(cls: type[Self], x: Tensor) -> Self:
        """Return the sites of a dense ``[B, *spatial, C]`` where any channel is not 0.

        Gradients flow back into ``x``.
        """
        active = (x.detach() != 0).any(dim=-1)
        rows = x.flatten(0, -2)[torch.nonzero(active.flatten())[:, 0]]
        return cls(rows, torch.nonzero(active).int(), list(x.shape[1:-1]), x.shape[0])

    @property
    def features(self) -> Tensor:
        """The features ``[N, C]``."""
        return self._features

    @features.setter
    def features(self, val: Tensor) -> None:
        raise SparseConvValueError(
            "features: can't be set; use x = x.replace_feature(features), which makes a new tensor"
        )

    @property
    def indices(self) -> Tensor:
        """The indices ``[N, 1 + D]``, batch first."""
        return self._place.indices

    @indices.setter
    def indices(self, val: Tensor) -> None:
        _check_indices(val)
        self._place = place_of_indices(val)

    @property
    def place(self) -> Place:
        """Where the rows lie; tensors on the same indices have the same place."""
        return self._place

    @property
    def num_rows(self) -> int:
        """Number of indices N."""
        return self._place.num_rows

    @property
    def sites(self) -> Any:
        """The sites that layers read, shared by all tensors on the same indices.

        Raises:
            SparseConvTypeError, SparseConvValueError: rows that repeat a site or lie outside of the
                grid; another number of features than of indices.
        """
        sites = self._place.sites_on(tuple(self.spatial_shape), plain(self.batch_size))
        features = self._features
        if features.shape[0] != sites.num_sites:
            raise SparseConvValueError(
                f"features: must have one row for each of the {sites.num_sites} indices, got "
                f"{features.shape[0]}"
            )
        if features.device != sites.device:
            check_device("features", features, sites.device, "indices")
        return sites

    @property
    def sparse(self) -> SparseTensor:
        """The same features on the same sites as a :class:`sparseconv.SparseTensor`."""
        return SparseTensor.on_sites(self._features, self.sites)

    @property
    def spatial_size(self) -> int:
        """Number of cells of the dense extent, of one sample."""
        return math.prod(self.spatial_shape)

    @property
    def sparity(self) -> float:
        """Share of the cells that are active, under the name that spconv gave it."""
        return float(self._place.num_rows / self.spatial_size / self.batch_size)

    @property
    def is_quantized(self) -> bool:
        """Whether the features are 8-bit integers, which no layer here takes."""
        return self._features.dtype == torch.qint8

    def __repr__(self) -> str:
        """Return the shape of the features, as spconv does."""
        return f"SparseConvTensor[shape={self._features.shape}]"

    def find_indice_pair(self, key: str | None) -> Any:
        """Return what the layer with this ``indice_key`` left, None where none has."""
        return None if key is None else self.indice_dict.get(key)

    def replace_feature(self: Self, feature: Tensor) -> Self:
        """Return other features on the same indices."""
        return self._with(feature)

    def shadow_copy(self: Self) -> Self:
        """Return another tensor with the same members."""
        return self._with(self._features)

    def moved(
        self: Self,
        features: Tensor,
        place: Place,
        spatial_shape: Sequence[int],
        indice_dict: dict[str, Any],
    ) -> Self:
        """Return what a layer makes of this tensor, at another place."""
        return self._with(
            features, place, spatial_shape=list(spatial_shape), indice_dict=indice_dict
        )

    def _with(self: Self, features: Tensor, place: Place | None = None, **members: Any) -> Self:
        """Return a tensor with these members, and the others as they are."""
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update(self.__dict__)
        new._features = features
        if place is not None:
            new._place = place
        new.__dict__.update(members)
        return new

    def select_by_index(self: Self, valid_indices: Tensor) -> Self:
        """Return some rows, by number or by mask, without what layers left in ``indice_dict``."""
        place = place_of_indices(self.indices[valid_indices])
        return self._with(self._features[valid_indices], place, indice_dict={})

    def minus(self: Self) -> Self:
        """Return the negative."""
        return self._with(-self._features)

    def dense(self, channels_first: bool = True) -> Tensor:
        """Return the dense tensor ``[B, C, *spatial]``, 0 where there is no site.

        Args:
            channels_first: whether the channels come before the spatial axes, or last.
        """
        grid = (plain(self.batch_size), *self.spatial_shape)
        cells = Packing.dense(grid).pack(self.sites.shared_coords)
        planes = planes_of_rows(self._features, cells, (grid[0], math.prod(grid[1:])))
        dense = planes.reshape(grid[0], self._features.shape[1], *grid[1:])
        return dense if channels_first else dense.movedim(1, -1).contiguous()

    def __add__(self: Self, other: Self | Tensor) -> Self:
        """Return the sum with a tensor on the same indices, or with rows or a number."""
        return self._with(self._features + self._operand(other))

    __radd__ = __add__

    def __iadd__(self: Self, other: Self | Tensor) -> Self:
        """Add a tensor on the same indices, or rows or a number."""
        self._features = self._features + self._operand(other)
        return self

    def _operand(self, other: Any) -> Any:
        """Return the rows of an operand, or what is no tensor of this kind as it is."""
        return self.rows_of(other) if isinstance(other, SparseConvTensor) else other

    def rows_of(self, other: SparseConvTensor) -> Tensor:
        """Return the features of another tensor, which must lie on the same indices.

        Raises:
            SparseConvValueError: it lies elsewhere, or its rows come in another order.
        """
        if other._place is not self._place and not torch.equal(other.indices, self.indices):
            raise SparseConvValueError(
                "other: must lie on the same indices in the same order; spconv would add row by "
                "row what lies elsewhere; functional.sparse_add adds on the union"
            )
        return other._features

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the members and the indices; what layers left stays behind."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_place", "indice_dict")
        } | {"indices": self.indices}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the members back."""
        self.__dict__.update(state)
        self.indices = self.__dict__.pop("indices")
        self.indice_dict = {}


def scatter_nd(indices: Tensor, updates: Tensor, shape: Sequence[int]) -> Tensor:
    """Return zeros of ``shape`` with ``updates`` at ``indices``, as TensorFlow's function does.

    Args:
        indices: integer ``[..., K]``, the first K axes of the result.
        updates: ``[..., *shape[K:]]``.
        shape: of the result.
    """
    result = torch.zeros(*shape, dtype=updates.dtype, device=updates.device)
    axes = indices.shape[-1]
    rows = updates.reshape(-1, *shape[axes:])
    return result.index_put(tuple(indices.reshape(-1, axes).long().unbind(1)), rows)


def expand_nd(ndim: int, val: Any) -> list[int]:
    """Return one number, or one per axis, as a list of ``ndim`` ints."""
    values = [val] * ndim if isinstance(val, int) else [int(entry) for entry in val]
    if len(values) != ndim:
        raise SparseConvValueError(f"must have {ndim} entries, one per axis, got {values}")
    return values


def _check_indices(indices: Any) -> None:
    check_integers("indices", indices)
    if indices.ndim != 2:
        raise SparseConvValueError(
            f"indices: must have shape (N, 1 + D) with the sample in column 0, got "
            f"{tuple(indices.shape)}"
        )


def _extent(spatial_shape: Any, axes: int) -> list[int]:
    """Return the dense extent as a list of ints."""
    if not hasattr(spatial_shape, "__len__"):
        raise SparseConvTypeError(
            f"spatial_shape: must hold one integer per axis, got {came(spatial_shape)}"
        )
    shape: Ints = tuple(int(size) for size in spatial_shape)
    if len(shape) != axes:
        raise SparseConvValueError(
            f"spatial_shape: must have {axes} entries, one per spatial column of indices, got "
            f"{list(shape)}"
        )
    return list(shape)


__all__ = ["SparseConvTensor", "expand_nd", "scatter_nd"]

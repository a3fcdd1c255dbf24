"""The coordinate manager: levels, and the maps between them and to continuous coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.minkowski.constants import RegionType
from sparseconv.compat.minkowski.kernel import block, check_region, convert_to_int_list, window
from sparseconv.compat.minkowski.keys import CoordinateMapKey, Key, ratio
from sparseconv.compat.minkowski.levels import Levels
from sparseconv.core.arguments import check_floating
from sparseconv.core.geometry import Kind
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError


class CoordinateManager(Levels):
    """The coordinates of all tensors that were made of one input, and their kernel maps.

    Args:
        D: number of spatial axes.
        num_threads, coordinate_map_type, allocator_type, minkowski_algorithm: taken without effect.
    """

    def __init__(
        self,
        D: int = 0,  # their name for it
        num_threads: int = -1,
        coordinate_map_type: Any = None,
        allocator_type: Any = None,
        minkowski_algorithm: Any = None,
    ) -> None:
        super().__init__(D)
        self.minkowski_algorithm = minkowski_algorithm
        self._fields: dict[Key, Tensor] = {}
        self._field_maps: dict[tuple[Key, Key], tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        """Return the sets and their sizes."""
        sizes = ", ".join(f"{key}: {sites.num_sites}" for key, sites in self._levels.items())
        return f"CoordinateManager(D={self.D}, {{{sizes}}})"

    def origin_map(self, key: CoordinateMapKey) -> tuple[Tensor, list[Tensor]]:
        """Return the numbers of the samples, and the rows of each."""
        sites = self.sites(key)
        samples = sites.shared_coords[:, 0].long()
        rows = torch.sort(samples, stable=True).indices
        counts = torch.bincount(samples, minlength=sites.batch_size).tolist()
        return torch.arange(sites.batch_size, device=sites.device), list(rows.split(counts))

    def stride_map(
        self, in_key: CoordinateMapKey, stride_key: CoordinateMapKey
    ) -> tuple[Tensor, Tensor]:
        """Return the rows of a key, and the row of the coarser key that each falls into."""
        stride = ratio(stride_key.key[0], in_key.key[0])[::-1]
        rulebook = self.sites(in_key).convolve(block(stride), self.sites(stride_key))[1]
        order = torch.argsort(rulebook.in_rows)
        return rulebook.in_rows[order].long(), rulebook.out_rows[order].long()

    def union_map(self, in_keys: Sequence[CoordinateMapKey], out_key: CoordinateMapKey) -> Any:
        """Return for each key its rows and their rows in the union, whose key ``out_key`` gets."""
        sites = self.sites(in_keys[0])
        moved = [torch.arange(sites.num_sites, device=sites.device)]
        for key in in_keys[1:]:
            sites, before, rows = sites.unite(self.sites(key))
            moved = [before[own] for own in moved] + [rows]
        out_key.set_key(self.insert(sites, in_keys[0].key[0]).key)
        return [torch.stack([torch.arange(len(rows)).to(rows), rows]) for rows in moved]

    def kernel_map(
        self,
        in_key: Any,
        out_key: Any,
        stride: Any = 1,
        kernel_size: Any = 3,
        dilation: Any = 1,
        region_type: Any = None,
        region_offset: Any = None,
        is_transpose: bool = False,
        is_pool: bool = False,
    ) -> dict[int, Tensor]:
        """Return the pairs of each kernel cell that has any, int32 ``[2, P]``: input, output."""
        keys = [self._get_coordinate_map_key(key) for key in (in_key, out_key)]
        numbers = [tuple(convert_to_int_list(n, self.D)) for n in (kernel_size, stride, dilation)]
        if region_type is not None and set(numbers[0]) != {1}:  # one cell is every region
            check_region(RegionType(region_type), region_offset)
        rulebook = self.pairs(keys[0], keys[1], numbers, is_transpose, is_pool)
        pairs = torch.stack([rulebook.in_rows, rulebook.out_rows])
        cells = pairs.split([end - start for start, end in pairwise(rulebook.splits)], dim=1)
        return {cell: both for cell, both in enumerate(cells) if both.shape[1]}

    get_kernel_map = kernel_map

    def pairs(
        self,
        in_key: CoordinateMapKey,
        out_key: CoordinateMapKey,
        numbers: Sequence[Sequence[int]],
        transposed: bool = False,
        pool: bool = False,
    ) -> Rulebook:
        """Return the pairs of a layer between two sets, by its kernel size, stride and dilation.

        The step between both sets is that of their tensor strides, whatever the layer's stride.
        """
        kernel, stride, dilation = (tuple(entries[::-1]) for entries in numbers)
        source, target = self.sites(in_key), self.sites(out_key)
        levels = (out_key, in_key) if transposed else (in_key, out_key)
        step = ratio(levels[1].key[0], levels[0].key[0])[::-1]
        if pool and kernel == stride == step:
            geometry = block(step)
        else:
            geometry = window(kernel, step, dilation, Kind.STRIDED)
        if transposed:
            return source.inverse(geometry, target)[1]
        return source.convolve(geometry, target)[1]

    def insert_field(
        self, coordinates: Tensor, tensor_stride: Any, string_id: str = ""
    ) -> CoordinateMapKey:
        """Return the key of new continuous coordinates, floating point ``[N, 1 + D]``."""
        check_floating("coordinates", coordinates)
        stride = tuple(convert_to_int_list(tensor_stride, self.D))
        key = self._free(self._fields, stride, string_id)
        self._fields[key] = coordinates
        return CoordinateMapKey(*key)

    def get_coordinate_field(self, key: CoordinateMapKey) -> Tensor:
        """Return the continuous coordinates of a key.

        Raises:
            SparseConvValueError: this manager has none.
        """
        if key.key not in self._fields:
            raise SparseConvValueError(
                f"coordinate_field_map_key: {key.key} is none of this manager's, "
                f"{list(self._fields)}"
            )
        return self._fields[key.key]

    def field_to_sparse_insert_and_map(
        self,
        field_map_key: CoordinateMapKey,
        sparse_tensor_stride: Any,
        sparse_tensor_string_id: str = "",
    ) -> tuple[CoordinateMapKey, tuple[Tensor, Tensor]]:
        """Return the key of the sites that a field falls on, and the maps of ``insert_and_map``."""
        stride = convert_to_int_list(sparse_tensor_stride, self.D)
        coords = _on_stride(self.get_coordinate_field(field_map_key), stride)
        key, maps = self.insert_and_map(coords, stride, sparse_tensor_string_id)
        points = torch.arange(len(coords), device=coords.device)
        self._field_maps[field_map_key.key, key.key] = points, maps[1]
        return key, maps

    def exists_field_to_sparse(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> bool:
        """Return whether a field was mapped to a key."""
        return (field_map_key.key, sparse_map_key.key) in self._field_maps

    def field_to_sparse_keys(self, field_map_key: CoordinateMapKey) -> list[CoordinateMapKey]:
        """Return the keys that a field was mapped to."""
        own = field_map_key.key
        return [CoordinateMapKey(*key) for field, key in self._field_maps if field == own]

    def field_to_sparse_map(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> tuple[Tensor, Tensor]:
        """Return the rows of a field that fall on a site of a key, and these sites' rows.

        Points that fall beside all of them are left out.
        """
        pair = field_map_key.key, sparse_map_key.key
        if pair not in self._field_maps:
            field = self.get_coordinate_field(field_map_key)
            rows, found = self.rows_at(sparse_map_key, field)
            self._field_maps[pair] = torch.nonzero(found)[:, 0], rows[found]
        return self._field_maps[pair]

    get_field_to_sparse_map = field_to_sparse_map

    def rows_at(self, key: CoordinateMapKey, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row of a key that each point ``[M, 1 + D]`` falls on, and whether there is."""
        coords = _on_stride(points, key.get_tensor_stride())
        return self.sites(key).rows_of(self.on_level(coords, key.key[0]))

    def origin_field_map(self, key: CoordinateMapKey) -> tuple[Tensor, list[Tensor]]:
        """Return the numbers of the samples of a field, and the rows of each."""
        samples = self.get_coordinate_field(key)[:, 0].long()
        counts = torch.bincount(samples).tolist()
        rows = torch.sort(samples, stable=True).indices
        return torch.arange(len(counts), device=samples.device), list(rows.split(counts))

    def interpolation_map_weight(
        self, key: CoordinateMapKey, samples: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what N-linear interpolation at points reads: rows, points, and weights."""
        points = self.on_level(samples, key.key[0])
        base = points.floor()
        base[:, 0] = points[:, 0]
        corners = torch.cartesian_prod(*[torch.arange(2)] * self.D).reshape(-1, self.D).to(points)
        found_rows, found_points, weights = [], [], []
        for corner in corners:
            place = base.clone()
            place[:, 1:] += corner
            rows, found = self.sites(key).rows_of(place.long())
            weight = (1 - (points - place)[:, 1:].abs()).prod(dim=1)
            found &= weight > 0
            found_rows.append(rows[found])
            found_points.append(torch.nonzero(found)[:, 0])
            weights.append(weight[found])
        return torch.cat(found_rows), torch.cat(found_points), torch.cat(weights)


def _on_stride(points: Tensor, stride: Sequence[int]) -> Tensor:
    """Return the coordinates of the sites of a tensor stride that points fall on, int32."""
    steps = points.new_tensor(stride)
    spatial = torch.div(points[:, 1:], steps, rounding_mode="floor").int() * steps.int()
    return torch.cat([points[:, :1].int(), spatial], dim=1)


__all__ = ["CoordinateManager", "CoordinateMapKey"]

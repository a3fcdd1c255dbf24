"""Coordinates by key: a tensor stride and a name, as MinkowskiEngine keeps them.

A level's sites hold coordinates divided by the tensor stride, on axes without an end. Their axes
lie in the reverse order: MinkowskiEngine's kernels have the first axis fastest and ours the last,
so that a kernel ``[K, C_in, C_out]`` is ours as it lies in memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.minkowski.kernel import block, convert_to_int_list
from sparseconv.compat.minkowski.keys import CoordinateMapKey, Key, by, times
from sparseconv.core.arguments import Ints, check_integers, check_kind
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.handles import next_number
from sparseconv.core.index import Index
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.sites.sites import Sites


class Levels:
    """The sites of all tensors that were made of one input."""

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise SparseConvValueError(f"D: must be at least 1, got {dimension}")
        self.D = dimension
        self._levels: dict[Key, Sites] = {}
        self._named = 0

    def sites(self, key: CoordinateMapKey) -> Sites:
        """Return the sites of a key.

        Raises:
            SparseConvValueError: this manager has none.
        """
        found = self._levels.get(key.key)
        if found is None:
            raise SparseConvValueError(
                f"coordinate_map_key: {key.key} is none of this manager's, {list(self._levels)}"
            )
        return found

    def exists(self, key: CoordinateMapKey) -> bool:
        """Return whether the manager has coordinates of a key."""
        return key.key in self._levels

    def insert(self, sites: Sites, stride: Ints, name: str = "") -> CoordinateMapKey:
        """Return the key of new sites, by another name where the name is taken."""
        most = max([sites.batch_size, *(own.batch_size for own in self._levels.values())])
        for key, own in self._levels.items():
            if own.batch_size < most:
                self._levels[key] = _of_batch(own, most)
        free = self._free(self._levels, stride, name)
        self._levels[free] = sites if sites.batch_size == most else _of_batch(sites, most)
        return CoordinateMapKey(*free)

    def _free(self, taken: dict[Key, Any], stride: Ints, name: str) -> Key:
        key = stride, name
        while key in taken:
            self._named += 1
            key = stride, f"{name}-{self._named}" if name else str(self._named)
        return key

    def get_random_string_id(self, tensor_stride: Any, string_id: str = "") -> Key:
        """Return a key that is not taken."""
        return self._free(self._levels, tuple(tensor_stride), string_id)

    def get_unique_coordinate_map_key(self, tensor_stride: Any) -> CoordinateMapKey:
        """Return a key of a tensor stride that is not taken."""
        stride = convert_to_int_list(tensor_stride, self.D)
        return CoordinateMapKey(*self.get_random_string_id(stride))

    def insert_and_map(
        self, coordinates: Tensor, tensor_stride: Any = 1, string_id: str = ""
    ) -> tuple[CoordinateMapKey, tuple[Tensor, Tensor]]:
        """Return the key of new coordinates, which rows are kept, and where each row went.

        Args:
            coordinates: integer ``[N, 1 + D]``, batch first, multiples of the tensor stride.
            tensor_stride: int or one per axis.
            string_id: the name of the set.

        Returns:
            The key; the first row of each site, int64 ``[M]``, in their order; and the site of each
            row, int64 ``[N]``.

        Raises:
            SparseConvError: coordinates that are not integers, or no multiples.
        """
        stride = tuple(convert_to_int_list(tensor_stride, self.D))
        sites, kept, rows = self._grouped(coordinates, stride)
        return self.insert(sites, stride, string_id), (kept, rows)

    def _grouped(self, coordinates: Tensor, stride: Ints) -> tuple[Sites, Tensor, Tensor]:
        """Return the sites of coordinates, the first row of each, and the site of each row."""
        check_integers("coordinates", coordinates)
        if coordinates.ndim != 2 or coordinates.shape[1] != 1 + self.D:
            raise SparseConvValueError(
                f"coordinates: must have shape (N, {1 + self.D}), batch first, got "
                f"{tuple(coordinates.shape)}"
            )
        spatial = coordinates[:, 1:]
        steps = spatial.new_tensor(stride).clamp(min=1)
        if bool((spatial % steps).any()):
            raise SparseConvValueError(
                f"coordinates: must be multiples of the tensor stride, {list(stride)}"
            )
        level = self.on_level(coordinates, stride)
        sites, groups = grouped_sites(level, (None,) * self.D, None)
        first = groups.order[groups.starts[:-1]]
        kept = first.sort().values
        row_of_key = torch.searchsorted(kept, first)
        index = sites.index
        in_order = bool((row_of_key.diff() > 0).all())
        index = Index(index.keys, None if in_order else row_of_key, index.packing)
        record = replace(sites.record, index=index, number=next_number())
        return Sites(record), kept, row_of_key[groups.site_of_row]

    def on_level(self, coordinates: Tensor, stride: Ints) -> Tensor:
        """Return coordinates or points ``[N, 1 + D]`` in the steps and axes of a level's sites."""
        steps = coordinates.new_tensor(stride).clamp(min=1)
        whole = None if coordinates.is_floating_point() else "floor"
        level = torch.div(coordinates[:, 1:], steps, rounding_mode=whole).flip(1)
        return torch.cat([coordinates[:, :1], level], dim=1)

    def stride(self, key: CoordinateMapKey, stride: Any, string_id: str = "") -> CoordinateMapKey:
        """Return the key of the next level: the sites of a stride that hold one of these."""
        steps = tuple(convert_to_int_list(stride, self.D))
        own, name = key.key
        new = times(own, steps), string_id or name
        if new not in self._levels:
            self._levels[new] = self.sites(key).convolve(block(steps[::-1]))[0]
        return CoordinateMapKey(*new)

    def region(
        self, key: CoordinateMapKey, geometry: Geometry, always: bool
    ) -> tuple[CoordinateMapKey, Rulebook | None]:
        """Return the key of every site that inputs reach, and the pairs where they were made.

        Where the level has a set without a name already, that is taken, unless ``always``.
        """
        steps = geometry.stride[::-1]
        own = key.key[0]
        level = by(own, steps) if geometry.kind is Kind.TRANSPOSED else times(own, steps)
        if not always and (level, "") in self._levels:
            return CoordinateMapKey(level, ""), None
        sites, rulebook = self.sites(key).convolve(geometry)
        return self.insert(sites, level), rulebook

    def origin(self) -> CoordinateMapKey:
        """Return the key of one site for each sample, at the origin."""
        some = next(iter(self._levels.values()))
        return self.origin_of(some.batch_size, some.device)

    def origin_of(self, batch_size: int, device: torch.device) -> CoordinateMapKey:
        """Return the same for so many samples."""
        key = (0,) * self.D, ""
        found = self._levels.get(key)
        if found is None or found.num_sites != batch_size:
            coords = torch.zeros(batch_size, 1 + self.D, dtype=torch.int32, device=device)
            coords[:, 0] = torch.arange(batch_size)
            self._levels[key] = self._grouped(coords, key[0])[0]
        return CoordinateMapKey(*key)

    def size(self, coordinate_map_key: CoordinateMapKey) -> int:
        """Return the number of sites of a key."""
        return self.sites(coordinate_map_key).num_sites

    def _get_coordinate_map_key(self, key_or_tensor_strides: Any) -> CoordinateMapKey:
        """Return a key, or the first of a tensor stride."""
        if isinstance(key_or_tensor_strides, CoordinateMapKey):
            return key_or_tensor_strides
        stride = tuple(convert_to_int_list(key_or_tensor_strides, self.D))
        for key in self._levels:
            if key[0] == stride:
                return CoordinateMapKey(*key)
        raise SparseConvValueError(f"tensor_stride: no coordinates have {list(stride)}")

    def get_coordinates(self, coords_key_or_tensor_strides: Any) -> Tensor:
        """Return the coordinates of a key, int32 ``[N, 1 + D]``, batch first."""
        key = self._get_coordinate_map_key(coords_key_or_tensor_strides)
        coords = self.sites(key).shared_coords
        spatial = coords[:, 1:].flip(1) * coords.new_tensor(key.key[0])
        return torch.cat([coords[:, :1], spatial], dim=1).int()

    def number_of_unique_batch_indices(self) -> int:
        """Return the number of samples."""
        return self.size(self.origin())

    def key_of(self, coordinates: Any, stride: Ints) -> CoordinateMapKey:
        """Return the key of a tensor, a key, or coordinates of a tensor stride.

        Raises:
            SparseConvTypeError: something else.
        """
        if isinstance(coordinates, CoordinateMapKey):
            return coordinates
        if isinstance(coordinates, Tensor):
            return self.insert_and_map(coordinates, stride)[0]
        key = getattr(coordinates, "coordinate_map_key", None)
        check_kind("coordinates", key, CoordinateMapKey, "a SparseTensor, a key or coordinates")
        if coordinates.coordinate_manager is not self:
            raise SparseConvValueError("coordinates: belong to another coordinate manager")
        assert isinstance(key, CoordinateMapKey)
        return key


def _of_batch(sites: Sites, batch_size: int) -> Sites:
    """Return the same sites of a larger batch."""
    return Sites(replace(sites.record, batch_size=batch_size, parents=(), number=next_number()))

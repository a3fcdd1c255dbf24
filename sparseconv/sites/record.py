"""The unchanging part of a set of sites, and the site law: which sites a layer makes active."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.arguments import Ints
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.grid import Grids, change, common, wrapping
from sparseconv.core.handles import next_number
from sparseconv.core.index import Index, Packing, to_device
from sparseconv.core.private_torch import outside_transforms
from sparseconv.core.remember import remembered
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError
from sparseconv.sites.borders import with_borders
from sparseconv.sites.samples import Samples


class Around(NamedTuple):
    """Sites on axes that wrap around, repeated beyond both ends, for a layer without padding there.

    Attributes:
        record: the sites and their copies.
        rows: int64, the row that each of them is.
        geometry: of the layer, on these.
    """

    record: SiteRecord
    rows: Tensor
    geometry: Geometry


NO_END = 2**62  # beyond every window


class Later:
    """A set of sites, ``make(*args)``, that is made when somebody first asks for it."""

    def __init__(self, make: Callable[..., SiteRecord], *args: Any) -> None:
        self._make: tuple[Callable[..., SiteRecord], tuple[Any, ...]] | None = make, args
        self._record: SiteRecord | None = None

    @property
    def record(self) -> SiteRecord:
        """The sites; what makes them is let go."""
        if self._make is not None:
            make, args = self._make
            self._record, self._make = make(*args), None
        return cast(SiteRecord, self._record)


class Parent:
    """The sites that a set was strided from, and how.

    Args:
        geometry: of the strided layer.
        source: the sites that it read, or what will make them.
        rulebook: its pairs, where they are known.
    """

    def __init__(
        self, geometry: Geometry, source: SiteRecord | Later, rulebook: Rulebook | None = None
    ) -> None:
        self.geometry = geometry
        self.source = source
        self._rulebook = rulebook

    @property
    def record(self) -> SiteRecord:
        """The sites that the layer read."""
        return self.source.record if isinstance(self.source, Later) else self.source

    def rulebook(self, child: SiteRecord) -> Rulebook:
        """Return the pairs of the layer, from the parent to ``child``, whose parent this is."""
        if self._rulebook is None:
            self._rulebook = self.record.pairs(child, self.geometry)
        return self._rulebook

    def of_others(self) -> Parent:
        """Return the same of other sites on the same grid."""
        return Parent(self.geometry, self.source)


@dataclass(eq=False)
class SiteRecord:
    """What never changes about a set of sites; tensors share it through ``Sites``.

    Attributes:
        index: packed keys in ascending order and the rows that they came from.
        spatial_shape: dense extent per axis.
        batch_size: number of samples, empty ones counted.
        lower: smallest legal coordinate per axis: 0, or negative for an axis without an end: one
            that was asked for, or that has negative coordinates and no ``spatial_shape``.
        coords_dtype: integer dtype in which coordinates are shown.
        grid: where the sites lie in the world, None where nobody knows.
        inferred: whether nobody gave the extent; strided layers then leave no site out.
        parents: where inverse layers lead back to; several for a union.
        number: by which the living ``Sites`` are found.
    """

    index: Index
    spatial_shape: Ints
    batch_size: int
    lower: Ints
    coords_dtype: torch.dtype = torch.int64
    grid: Grids = None
    inferred: bool = False
    parents: tuple[Parent, ...] = ()
    number: int = field(default_factory=next_number, repr=False)

    @property
    def num_sites(self) -> int:
        """Number of active sites N."""
        return self.index.keys.numel()

    @cached_property
    def ways(self) -> dict[Geometry, Parent]:
        """Where each strided layer leads back to, by its geometry: the latest of each.

        Layers in between may have changed which sites are active, but not the grid.
        """
        found = {parent.geometry: parent for parent in reversed(self.parents)}
        for parent in self.parents:
            if parent.geometry.keeps_grid:
                for geometry, older in parent.record.ways.items():
                    found.setdefault(geometry, older.of_others())
        return found

    def add_parents(self, parents: Iterable[Parent]) -> None:
        """Let inverse layers lead back to these first."""
        new = tuple(parents)
        known = {parent.geometry for parent in new}
        self.parents = new + tuple(own for own in self.parents if own.geometry not in known)
        self.__dict__.pop("ways", None)

    @cached_property
    @remembered
    def coords(self) -> Tensor:
        """Coordinates ``[N, 1 + D]`` in row order, batch first."""
        packing = self.index.packing
        coords = packing.unpack(self.index.keys)
        limits = torch.iinfo(self.coords_dtype)  # sites derived from others may lie beyond
        if min(packing.lower) >= limits.min and max(packing.upper) <= limits.max:
            coords = coords.to(self.coords_dtype)
        if self.index.order is None:
            return coords
        in_rows = torch.empty_like(coords)
        in_rows[self.index.order] = coords
        return in_rows

    @cached_property
    @remembered
    def splits(self) -> tuple[int, ...]:
        """Where the rows of each sample begin, and the last ends, in ascending order."""
        keys, packing = self.index.keys, self.index.packing
        if self.batch_size < 2:
            return (0,) if self.batch_size == 0 else (0, self.num_sites)
        places = (sample - packing.lower[0] for sample in range(self.batch_size))
        first = [min(max(place, 0), packing.extent[0]) * packing.weights[0] for place in places]
        starts = torch.searchsorted(keys, to_device(first, keys.device)).tolist()
        return (*starts, self.num_sites)

    @cached_property
    @remembered
    def samples(self) -> Samples:
        """The rows of each sample."""
        numbers = tuple(b - a for a, b in pairwise(self.splits))
        return Samples(self.index.order, self.coords[:, 0].long(), numbers, self.index.keys.device)

    @cached_property
    def whole_batch(self) -> Samples:
        """All rows as one sample."""
        return Samples(self.index.order, None, (self.num_sites,), self.index.keys.device)

    @outside_transforms
    def rows_of(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Look up coordinates through the hash index; see ``Sites.rows_of``."""
        packing = self.index.packing
        coords = coords.long()
        inside = packing.contains(coords)
        engine = engines.for_tensor(self.index.keys)
        rows = engine.lookup(self.index, torch.where(inside, packing.pack(coords), -1))
        return rows, rows >= 0

    @remembered
    def copied(self, copy: Callable[[Tensor], Tensor]) -> SiteRecord:
        """Return the same sites in other memory, without a way back to their parent."""
        keys, order = copy(self.index.keys), self.index.order
        index = Index(keys, None if order is None else copy(order), self.index.packing)
        return replace(self, index=index, parents=(), number=next_number())

    @remembered
    def united(self, other: SiteRecord) -> tuple[SiteRecord, Tensor]:
        """Return the union, ascending, and where the rows of both went, int64 ``[N + M]``."""
        both = self, other
        boxes = [record.index.packing for record in both if record.num_sites]
        boxes = boxes or [self.index.packing]
        low = tuple(map(min, *(box.lower for box in boxes), boxes[0].lower))
        high = tuple(map(max, *(box.upper for box in boxes), boxes[0].upper))
        packing = Packing.around(low, high)
        keys = torch.cat([packing.pack(record.coords) for record in both])
        unique, rows = torch.unique(keys, return_inverse=True)
        lower = tuple(map(min, self.lower, other.lower))
        shape = tuple(map(max, self.spatial_shape, other.spatial_shape))
        grid = common("other", self.grid, other.grid)
        index = Index(unique, None, packing)
        inferred = self.inferred and other.inferred
        site_set = (shape, self.batch_size, lower, self.coords_dtype, grid, inferred)
        united = SiteRecord(index, *site_set)
        united.parents = self._parents_with(other)
        return united, rows

    def _parents_with(self, other: SiteRecord) -> tuple[Parent, ...]:
        """Return the parents of the union with another set: those of either, or of both united."""
        parents = []
        for geometry in {**self.ways, **other.ways}:
            mine, others = self.ways.get(geometry), other.ways.get(geometry)
            if mine is None or others is None or mine.source is others.source:
                parents += [parent.of_others() for parent in (mine or others,) if parent]
                continue
            first, second = mine.record, others.record
            both = first if first is second else Later(_union, first, second)
            parents.append(Parent(geometry, both))
        return tuple(parents)

    @remembered
    def pairs(self, target: SiteRecord, geometry: Geometry) -> Rulebook:
        """Return the rulebook of a layer from these sites to ``target``."""
        engine = engines.for_tensor(self.index.keys)
        around = self.turned(geometry)
        if geometry.kind is Kind.STRIDED:
            geometry = geometry.as_regular
        if around is not None:
            book = engine.build_rulebook(around.record.index, target.index, around.geometry)
            rows = around.rows[book.in_rows.long()].to(book.in_rows.dtype)
            return Rulebook(rows, book.out_rows, book.splits, self.num_sites, book.n_out)
        if geometry.kind is Kind.TRANSPOSED:
            return engine.build_rulebook(target.index, self.index, geometry).transposed
        return engine.build_rulebook(self.index, target.index, geometry)

    @outside_transforms
    def padded_cells(self, target: SiteRecord, geometry: Geometry) -> Tensor:
        """Return the cells of each window in the padded grid; see ``Sites.padded_cells``."""
        first = target.coords[:, 1:].long()
        first = first * first.new_tensor(geometry.stride) - first.new_tensor(geometry.padding)
        both = zip(self.spatial_shape, geometry.padding, self.lower, strict=True)
        ends = [NO_END if low < 0 else length + padding for length, padding, low in both]
        end = first.new_tensor(ends)
        last = torch.minimum(first + first.new_tensor(geometry.kernel_size), end)
        return (last - first).prod(dim=1)

    def shape_under(self, geometry: Geometry) -> Ints:
        """Return the output's extent; an axis that is open ends behind the last site reached."""
        closed = tuple(
            0 if low < 0 else size for low, size in zip(self.lower, self.spatial_shape, strict=True)
        )
        shape = geometry.output_shape(closed, whole=self.inferred)
        _, high = geometry.reach(self.index.packing.lower[1:], self.index.packing.upper[1:])
        return tuple(
            max(top + 1, 0) if low < 0 else size
            for top, low, size in zip(high, self.lower, shape, strict=True)
        )

    def _grid_under(self, geometry: Geometry, shape: Ints) -> Grids:
        """Return the grid of a layer's outputs: an axis wraps where they make a whole turn, too."""
        if self.grid is None:
            return None
        cut = [
            axis
            for axis, (old, new, stride) in enumerate(
                zip(self.spatial_shape, shape, geometry.stride, strict=True)
            )
            if (old * stride != new if geometry.kind is Kind.TRANSPOSED else new * stride != old)
        ]
        return change(self.grid, lambda own: own.under(geometry).cut(cut))

    @remembered
    def turned(self, geometry: Geometry) -> Around | None:
        """Return what a layer reads where axes wrap around; None where it reads over no seam.

        Raises:
            SparseConvError: a window so wide, or a layer of a kind, that no single pass serves it.
        """
        wraps = zip(wrapping(self.grid), self.lower, strict=False)
        axes = [axis for axis, (turns, low) in enumerate(wraps) if turns and low == 0]
        ends = geometry.pads(self.spatial_shape)
        pads = tuple(end if axis in axes else (0, 0) for axis, end in enumerate(ends))
        if geometry.kind is Kind.TRANSPOSED:
            _check_transposed(geometry, self.spatial_shape, axes)
            return None
        if self.num_sites == 0 or not any(map(any, pads)):
            return None
        shape = self.shape_under(geometry)
        for axis in axes:
            if (shape[axis] - 1) * geometry.stride[axis] >= max(self.spatial_shape[axis], 1):
                raise SparseConvValueError(
                    f"padding: must be at most 'same' on axis {2 + axis}, which wraps around, got "
                    f"{geometry.padding[axis]} for kernel_size={geometry.kernel_size[axis]}"
                )
        coords, rows = with_borders(self.coords.long(), self.spatial_shape, pads, "circular")
        box = tuple(coords.amin(0).tolist()), tuple(coords.amax(0).tolist())
        index = engines.for_tensor(coords).build_index(coords, Packing.around(*box))
        wide = tuple(n + sum(pad) for n, pad in zip(self.spatial_shape, pads, strict=True))
        record = replace(
            self, index=index, spatial_shape=wide, grid=None, parents=(), number=next_number()
        )
        return Around(record, rows, geometry.unpadded(axes))

    def reached(self, geometry: Geometry, shape: Ints) -> SiteRecord:
        """Return the record of the sites that the site law makes active, in ascending order."""
        if geometry.kind is Kind.STRIDED:
            return self.reached(geometry.block, shape)
        around = self.turned(geometry)
        if around is not None:
            record = around.record.reached(around.geometry, shape)
            return replace(record, grid=self._grid_under(geometry, shape), number=next_number())
        packing = self.index.packing
        rest = self.coords_dtype, self._grid_under(geometry, shape), self.inferred
        below, _ = geometry.reach(self.lower, self.lower)
        low, high = geometry.reach(packing.lower[1:], packing.upper[1:])
        # an axis that starts at 0 ends there and at its extent; one with negative coordinates is
        # open at both ends, so that a scene may be shifted
        floor = tuple(
            min(bottom, first, -1) if lowest < 0 else 0
            for bottom, first, lowest in zip(below, low, self.lower, strict=True)
        )
        low = tuple(map(max, low, floor))
        high = tuple(
            top if lowest < 0 else min(top, size - 1)
            for top, size, lowest in zip(high, shape, self.lower, strict=True)
        )
        if self.num_sites == 0 or any(top < bottom for bottom, top in zip(low, high, strict=True)):
            empty = Index(self.index.keys[:0], None, Packing.around((0, *floor), (0, *floor)))
            return SiteRecord(empty, shape, self.batch_size, floor, *rest)
        target = Packing.around((packing.lower[0], *low), (packing.upper[0], *high))
        engine = engines.for_tensor(self.index.keys)
        index = Index(engine.reached_keys(self.index, geometry, target), None, target)
        return SiteRecord(index, shape, self.batch_size, floor, *rest)


def _union(first: SiteRecord, second: SiteRecord) -> SiteRecord:
    """Return the union of two sets."""
    return first.united(second)[0]


def _check_transposed(geometry: Geometry, spatial_shape: Ints, axes: list[int]) -> None:
    """Raise where a transposed layer would write over the seam of an axis that wraps around."""
    shape = geometry.output_shape(spatial_shape)
    for axis in axes:
        window = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        whole = shape[axis] == spatial_shape[axis] * geometry.stride[axis]
        if geometry.padding[axis] or (whole and window > geometry.stride[axis]):
            raise SparseConvNotImplementedError(
                f"input: use sparseconv.nn.InverseConv, or a kernel as wide as the stride without "
                f"padding: a transposed convolution does not write over the seam of axis "
                f"{2 + axis}, which wraps around"
            )

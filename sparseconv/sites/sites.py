"""Sites: the active sites of a batch, their index, and the rulebooks cached on them.

Two objects, so that reference counting alone frees everything:

* :class:`SiteRecord` holds what never changes: coordinates, extent, index, and the record of the
  sites that it was strided from. References point from child to parent only.
* :class:`Sites` is what tensors share: a record and the caches of what was derived from it.
  References point from parent to child only.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.arguments import Ints, check_device
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.handles import LIVING, next_number
from sparseconv.core.index import Index
from sparseconv.core.packing import Packing
from sparseconv.core.rulebook import Rulebook, Taps
from sparseconv.core.transforms import outside_transforms
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.samples import Samples
from sparseconv.sites.taps import sparse_taps


class Union(NamedTuple):
    """The sites of two sets together, ascending, and where each set's rows went, int64."""

    sites: Sites
    rows: Tensor
    other_rows: Tensor


class Parent(NamedTuple):
    """The sites that a set was strided from, and how."""

    record: SiteRecord
    geometry: Geometry
    rulebook: Rulebook


@dataclass(eq=False)
class SiteRecord:
    """The unchanging part of :class:`Sites`.

    Attributes:
        index: packed keys in ascending order and the rows that they came from.
        spatial_shape: dense extent per axis.
        batch_size: number of samples, empty ones counted.
        lower: smallest legal coordinate per axis: 0, or negative where the tensor was made from
            negative coordinates without a ``spatial_shape``.
        coords_dtype: integer dtype in which coordinates are shown.
        parent: where an inverse layer leads back to.
        number: by which its living :class:`Sites` are found.
    """

    index: Index
    spatial_shape: Ints
    batch_size: int
    lower: Ints
    coords_dtype: torch.dtype = torch.int64
    parent: Parent | None = None
    number: int = field(default_factory=next_number, repr=False)

    @cached_property
    @outside_transforms
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
    @outside_transforms
    def samples(self) -> Samples:
        """The rows of each sample."""
        batch = self.coords[:, 0].long()
        counts = torch.bincount(batch, minlength=self.batch_size)
        return Samples(batch.numel(), self.index.order, batch, counts)

    @cached_property
    @outside_transforms
    def whole_batch(self) -> Samples:
        """All rows as one sample."""
        keys = self.index.keys
        counts = torch.tensor([keys.numel()], device=keys.device)
        return Samples(keys.numel(), self.index.order, None, counts)

    def sites(self) -> Sites:
        """Return the living :class:`Sites` of this record, or a new one with empty caches."""
        living: Sites | None = LIVING.get(self.number)
        return Sites(self) if living is None else living


class Sites:
    """An immutable set of active sites, shared by all tensors that live on it.

    Made by :class:`sparseconv.SparseTensor`; equal only to itself (see :meth:`same_as`).
    """

    def __init__(self, record: SiteRecord) -> None:
        """Wrap ``record`` with empty caches."""
        self._record = record
        self._rulebooks: dict[Geometry, Rulebook] = {}
        self._children: dict[Geometry, Sites] = {}
        self._given: weakref.WeakKeyDictionary[Sites, dict[Geometry, Rulebook]] = (
            weakref.WeakKeyDictionary()
        )
        self._unions: weakref.WeakKeyDictionary[Sites, Union] = weakref.WeakKeyDictionary()
        self._moved: weakref.WeakValueDictionary[torch.device, Sites] = (
            weakref.WeakValueDictionary()
        )
        LIVING[record.number] = self

    @property
    def coords(self) -> Tensor:
        """Coordinates ``[N, 1 + D]`` in row order, batch first."""
        return self._record.coords

    @property
    def index(self) -> Index:
        """Packed keys in ascending order and the rows that they came from."""
        return self._record.index

    @property
    def row_order(self) -> Tensor | None:
        """The rows in ascending order of their sites, int64 ``[N]``; None where they are."""
        return self._record.index.order

    @property
    def samples(self) -> Samples:
        """The rows of each sample."""
        return self._record.samples

    @property
    def whole_batch(self) -> Samples:
        """All rows as one sample."""
        return self._record.whole_batch

    @property
    def number(self) -> int:
        """The number by which a graph finds these sites while they live."""
        return self._record.number

    @property
    def dimensions(self) -> int:
        """Number of spatial axes D."""
        return len(self._record.spatial_shape)

    @property
    def spatial_shape(self) -> Ints:
        """Dense extent per axis."""
        return self._record.spatial_shape

    @property
    def lower(self) -> Ints:
        """Smallest legal coordinate per axis, 0 unless negative coordinates were given."""
        return self._record.lower

    @property
    def batch_size(self) -> int:
        """Number of samples, empty ones counted."""
        return self._record.batch_size

    @property
    def grid(self) -> Ints:
        """Extent of the dense grid, ``(B, *spatial)``."""
        return (self.batch_size, *self.spatial_shape)

    @property
    def num_sites(self) -> int:
        """Number of active sites N."""
        return self.index.keys.numel()

    @property
    def device(self) -> torch.device:
        """Where the coordinates live."""
        return self.index.keys.device

    @property
    def rulebooks(self) -> dict[Geometry, Rulebook]:
        """A copy of the cache: the rulebooks built so far, by geometry."""
        return dict(self._rulebooks)

    def __repr__(self) -> str:
        """Return the number of sites and the extent."""
        return (
            f"Sites({self.num_sites} sites, batch_size={self.batch_size}, "
            f"spatial_shape={self.spatial_shape}, device={self.device})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle coordinates and extent; caches and the way back to parent sites stay behind."""
        record, index = self._record, self.index
        site_set = (record.spatial_shape, record.batch_size, record.lower, record.coords_dtype)
        return _rebuild, (index.keys, index.order, index.packing, *site_set)

    @outside_transforms
    def rows_of(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Look up coordinates through the hash index.

        Args:
            coords: integer ``[M, 1 + D]``, anywhere, on the sites' device.

        Returns:
            rows int64 ``[M]`` (-1 where absent) and found bool ``[M]``.
        """
        packing = self.index.packing
        coords = coords.long()
        inside = packing.contains(coords)
        engine = engines.for_tensor(self.index.keys)
        rows = engine.lookup(self.index, torch.where(inside, packing.pack(coords), -1))
        return rows, rows >= 0

    def same_as(self, other: Sites) -> bool:
        """Return whether both hold the same sites in the same row order and extent."""
        return self is other or (
            self.grid == other.grid
            and self.num_sites == other.num_sites
            and self.device == other.device
            and torch.equal(self.coords, other.coords)
        )

    def may_be(self, other: Sites) -> bool:
        """Return False where ``other`` is not the same; a graph knows that only when it runs."""
        return self.same_as(other)

    def to(self, device: torch.device | str) -> Sites:
        """Return the same sites on ``device``; tensors that shared sites share them there too."""
        target = torch.device(device)
        if target == self.device:
            return self
        moved = self._moved.get(target)
        if moved is None:
            order = self.index.order
            index = Index(
                self.index.keys.to(target),
                None if order is None else order.to(target),
                self.index.packing,
            )
            record = self._record
            moved = Sites(
                SiteRecord(
                    index,
                    record.spatial_shape,
                    record.batch_size,
                    record.lower,
                    record.coords_dtype,
                )
            )
            self._moved[target] = moved
        return moved

    @outside_transforms
    def convolve(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the output sites of a layer and its rulebook; built once per geometry.

        Args:
            geometry: the layer's window and site law.
            like: output sites to use instead of the site law's.

        Raises:
            SparseConvValueError: an output size below 1; ``like`` has another extent than the
                layer's output.
        """
        given, geometry = geometry, geometry.as_submanifold() if geometry.is_pointwise else geometry
        own = self if geometry.kind is Kind.SUBMANIFOLD else self._children.get(geometry)
        if like is not None and like is not own:
            return like, self._rulebook_to(like, given)
        if geometry not in self._rulebooks:
            self._build(geometry)
        return self._children.get(geometry, self), self._rulebooks[geometry]

    @outside_transforms
    def inverse(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the sites that the layer of ``geometry`` read to make these, and the way back.

        Args:
            geometry: of the strided layer to undo.
            like: the sites to lead back to, where these do not know them or others are meant.

        Raises:
            SparseConvValueError: no layer of this geometry made these sites and ``like`` is not
                given, or ``like`` has an extent that the layer would not map to this one.
        """
        parent = self._record.parent
        if geometry.is_pointwise and (like is None or like is self):
            return self, self.convolve(geometry)[1].transposed
        if like is None:
            if parent is None or parent.geometry != geometry:
                raise SparseConvValueError(_nothing_to_invert(parent, geometry))
            return parent.record.sites(), parent.rulebook.transposed
        if parent is not None and parent.record is like._record and parent.geometry == geometry:
            return like, parent.rulebook.transposed
        return like, like._rulebook_to(self, geometry).transposed

    @outside_transforms
    def unite(self, other: Sites) -> Union:
        """Return the union with another set on the same grid; remembered while both live.

        Raises:
            SparseConvTypeError, SparseConvValueError: another device, another grid.
        """
        self.check_same_grid(other)
        if other not in self._unions:
            boxes = [sites.index.packing for sites in (self, other) if sites.num_sites] or [
                self.index.packing
            ]
            low = tuple(map(min, *(box.lower for box in boxes), boxes[0].lower))
            high = tuple(map(max, *(box.upper for box in boxes), boxes[0].upper))
            packing = Packing.around(low, high)
            keys = torch.cat([packing.pack(sites.coords) for sites in (self, other)])
            unique, rows = torch.unique(keys, return_inverse=True)
            record = SiteRecord(
                Index(unique, None, packing),
                self.spatial_shape,
                self.batch_size,
                tuple(map(min, self.lower, other.lower)),
                self._record.coords_dtype,
            )
            split = self.num_sites
            self._unions[other] = Union(Sites(record), rows[:split], rows[split:])
        return self._unions[other]

    def rows_in(self, other: Sites) -> Tensor | None:
        """Return the row of each of these sites among another set's, int64 ``[N]``.

        None where the other set lacks one of them, or lies on another grid or device.
        """
        if (self.device, self.grid) != (other.device, other.grid):
            return None
        rows, present = other.rows_of(self.coords)
        return rows if bool(present.all()) else None

    def check_same_grid(self, other: Sites) -> None:
        """Raise unless both sets live on one device and one grid."""
        check_device("other", other, self.device)
        if self.grid != other.grid:
            raise SparseConvValueError(
                f"other: lives on a grid (batch, *spatial) of {other.grid}, "
                f"the input on {self.grid}"
            )

    @outside_transforms
    def padded_cells(self, target: Sites, geometry: Geometry) -> Tensor:
        """Return how many cells of each window lie in these sites' padded grid, int64 ``[n_out]``.

        Args:
            target: the output sites of a layer that reads these sites.
            geometry: of the layer.
        """
        first = target.coords[:, 1:].long()
        first = first * first.new_tensor(geometry.stride) - first.new_tensor(geometry.padding)
        both = zip(self.spatial_shape, geometry.padding, strict=True)
        end = first.new_tensor([length + padding for length, padding in both])
        last = torch.minimum(first + first.new_tensor(geometry.kernel_size), end)
        return (last - first).prod(dim=1)

    def taps(
        self, cells: Tensor, geometry: Geometry, target: Sites, guides: Sequence[Sites]
    ) -> Taps:
        """Return the rows of these sites that a deformable kernel's sample positions lie between.

        Args:
            cells: whole part of the shifts, int32 ``[H, K, D, n_out]``, ascending in the outputs.
            geometry: of the kernel.
            target: the output sites.
            guides: where offsets and masks lie; they must be the same as ``target``.
        """
        for guide in guides:
            if not guide.same_as(target):
                raise SparseConvValueError(
                    f"offset, mask: must lie on the output sites, {target}; got {guide}"
                )
        return sparse_taps(cells, geometry, self, target)

    def _build(self, geometry: Geometry) -> None:
        """Put the rulebook of ``geometry`` into the cache, and the output sites if they are new."""
        shape = self._shape_under(geometry)
        if geometry.kind is Kind.SUBMANIFOLD:
            self._rulebooks[geometry] = self._pairs(self, geometry)
            return
        record = self._reached(geometry, shape)
        target = record.sites()
        rulebook = self._pairs(target, geometry)
        if geometry.kind is Kind.REGULAR:
            record.parent = Parent(self._record, geometry, rulebook)
        self._rulebooks[geometry] = rulebook
        self._children[geometry] = target

    def _pairs(self, target: Sites, geometry: Geometry) -> Rulebook:
        """Return the rulebook from these sites to ``target``."""
        engine = engines.for_tensor(self.index.keys)
        if geometry.kind is Kind.TRANSPOSED:
            return engine.build_rulebook(target.index, self.index, geometry).transposed
        return engine.build_rulebook(self.index, target.index, geometry)

    def _rulebook_to(self, target: Sites, geometry: Geometry) -> Rulebook:
        """Return the rulebook to sites that the caller gave; cached while they live."""
        shape = self._shape_under(geometry)
        fits = all(
            low < 0 or size == wanted
            for low, size, wanted in zip(self.lower, shape, target.spatial_shape, strict=True)
        )
        if not fits or self.batch_size != target.batch_size:
            raise SparseConvValueError(
                f"like: a layer of {geometry} joins {self} to spatial_shape {shape}, "
                f"not to {target}"
            )
        cached = self._given.setdefault(target, {})
        if geometry not in cached:
            cached[geometry] = self._pairs(target, geometry)
        return cached[geometry]

    def _shape_under(self, geometry: Geometry) -> Ints:
        """Return the output's extent; an axis that is open ends behind the last site reached."""
        closed = tuple(
            0 if low < 0 else size for low, size in zip(self.lower, self.spatial_shape, strict=True)
        )
        shape = geometry.output_shape(closed)
        _, high = geometry.reach(self.index.packing.lower[1:], self.index.packing.upper[1:])
        return tuple(
            max(top + 1, 0) if low < 0 else size
            for top, low, size in zip(high, self.lower, shape, strict=True)
        )

    def _reached(self, geometry: Geometry, shape: Ints) -> SiteRecord:
        """Return the record of the sites that the site law makes active, in ascending order."""
        packing = self.index.packing
        below, _ = geometry.reach(self.lower, self.lower)
        low, high = geometry.reach(packing.lower[1:], packing.upper[1:])
        # an axis that starts at 0 ends there and at its extent; one with negative coordinates is
        # open at both ends, so that a scene may be shifted
        floor = tuple(
            min(bottom, first, -1) if own < 0 else 0
            for bottom, first, own in zip(below, low, self.lower, strict=True)
        )
        low = tuple(map(max, low, floor))
        high = tuple(
            top if own < 0 else min(top, size - 1)
            for top, size, own in zip(high, shape, self.lower, strict=True)
        )
        if self.num_sites == 0 or any(top < bottom for bottom, top in zip(low, high, strict=True)):
            empty = Index(self.index.keys[:0], None, Packing.around((0, *floor), (0, *floor)))
            return SiteRecord(empty, shape, self.batch_size, floor, self._record.coords_dtype)
        target = Packing.around((packing.lower[0], *low), (packing.upper[0], *high))
        engine = engines.for_tensor(self.index.keys)
        keys = engine.reached_keys(self.index, geometry, target)
        index = Index(keys, None, target)
        return SiteRecord(index, shape, self.batch_size, floor, self._record.coords_dtype)


def _rebuild(keys: Tensor, order: Tensor | None, packing: Packing, *site_set: Any) -> Sites:
    """Return unpickled sites."""
    return Sites(SiteRecord(Index(keys, order, packing), *site_set))


def _nothing_to_invert(parent: Parent | None, geometry: Geometry) -> str:
    """Return the message for an inverse layer that finds no layer to undo."""
    found = "were not made by a strided layer"
    if parent is not None:
        found = f"were made by a layer of {parent.geometry}"
    return (
        f"inverse: nothing to invert: these sites {found}; the inverse layer undoes {geometry}; "
        f"give the same kernel_size, stride, padding and dilation as the strided layer, or name "
        f"the sites with like="
    )

"""Sites: the active sites of a batch, their index, and the rulebooks cached on them.

Two objects, so that reference counting alone frees everything:

* :class:`SiteRecord` holds what never changes: coordinates, extent, index, and the record of the
  sites that it was strided from. References point from child to parent only.
* :class:`Sites` is what tensors share: a record and the caches of what was derived from it.
  References point from parent to child only.

A cache is filled by ``setdefault``: of two threads that build one entry, both get the first.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints, check_device, check_kind
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.grid import Grids, agree, change, common
from sparseconv.core.handles import LIVING, next_number
from sparseconv.core.index import Index, Packing
from sparseconv.core.remember import remembered
from sparseconv.core.rulebook import Rulebook, Taps
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.plan import Plan, packed_layers, unpacked_layers
from sparseconv.sites.record import Later, Parent, SiteRecord
from sparseconv.sites.samples import Samples
from sparseconv.sites.taps import sparse_taps

Derived = TypeVar("Derived")


class Union(NamedTuple):
    """The sites of two sets together, ascending, and where each set's rows went, int64."""

    sites: Sites
    rows: Tensor
    other_rows: Tensor


class Layer(NamedTuple):
    """What a layer makes of a set: its output sites, None for the set itself, and the pairs."""

    sites: Sites | None
    rulebook: Rulebook


class Sites:
    """An immutable set of active sites, shared by all tensors that live on it.

    Made by :class:`sparseconv.SparseTensor`; equal only to itself (see :meth:`same_as`).
    """

    def __init__(self, record: SiteRecord) -> None:
        """Wrap ``record`` with empty caches."""
        self._record = record
        self._layers: dict[Geometry, Layer] = {}
        self._joined: weakref.WeakKeyDictionary[Sites, dict[Geometry, Rulebook]] = (
            weakref.WeakKeyDictionary()
        )
        self._unions: weakref.WeakKeyDictionary[Sites, Union] = weakref.WeakKeyDictionary()
        self._elsewhere: weakref.WeakValueDictionary[Hashable, Sites] = (
            weakref.WeakValueDictionary()
        )
        self._derived: dict[Hashable, Any] = {}
        self._prepared = False  # whether the rulebooks travel with the sites
        self.dimensions = len(record.spatial_shape)
        LIVING[record.number] = self

    @property
    def coords(self) -> Tensor:
        """A copy of the coordinates ``[N, 1 + D]`` in row order, batch first."""
        return self._record.coords.clone()

    @property
    def shared_coords(self) -> Tensor:
        """The coordinates themselves, for those who only read them."""
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
    def record(self) -> SiteRecord:
        """What never changes about the sites."""
        return self._record

    @property
    def ways(self) -> dict[Geometry, Parent]:
        """The sites that strided layers made these from, by the layers' geometry."""
        return self._record.ways

    def lead_back_as(self, other: Sites) -> None:
        """Let these sites, new and some of another set's, know the parent sites of those."""
        self._record.parents = tuple(parent.of_others() for parent in other.ways.values())

    @property
    def number(self) -> int:
        """The number by which a graph finds these sites while they live."""
        return self._record.number

    @property
    def spatial_shape(self) -> Ints:
        """Dense extent per axis."""
        return self._record.spatial_shape

    @property
    def lower(self) -> Ints:
        """Smallest legal coordinate per axis, 0 unless negative coordinates were given."""
        return self._record.lower

    @property
    def extent(self) -> Ints:
        """Cells per axis: the dense extent, or of an axis that is open the box of the sites."""
        if not any(self.lower):
            return self.spatial_shape
        box = self.index.packing
        ends = zip(self.spatial_shape, self.lower, box.lower[1:], box.upper[1:], strict=True)
        return tuple(size if own == 0 else high - low + 1 for size, own, low, high in ends)

    @property
    def batch_size(self) -> int:
        """Number of samples, empty ones counted."""
        return self._record.batch_size

    @property
    def dense_extent(self) -> Ints:
        """Extent of the dense tensor without channels, ``(B, *spatial)``."""
        return (self.batch_size, *self.spatial_shape)

    @property
    def ends(self) -> tuple[int | None, ...]:
        """The same, None for an axis without an end."""
        axes = zip(self.spatial_shape, self.lower, strict=True)
        return (self.batch_size, *(None if low < 0 else size for size, low in axes))

    @property
    def inferred(self) -> bool:
        """Whether nobody gave the extent."""
        return self._record.inferred

    @property
    def grid(self) -> Grids:
        """Where the sites lie in the world: a grid, one for each sample, or None if not known."""
        return self._record.grid

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
        """The rulebooks built so far, by geometry."""
        return {geometry: layer.rulebook for geometry, layer in self._layers.items()}

    def __repr__(self) -> str:
        """Return the number of sites and the extent."""
        return (
            f"Sites({self.num_sites} sites, batch_size={self.batch_size}, "
            f"spatial_shape={self.spatial_shape}, device={self.device})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle coordinates, extent, grid and parent sites; caches only of prepared sites.

        Sites and what layers made of them know each other, so both come after this object, as its
        state.
        """
        record, index = self._record, self.index
        box = index.packing.lower, index.packing.extent, index.packing.guard
        site_set = (record.spatial_shape, record.batch_size, record.lower, record.coords_dtype)
        where = record.grid, record.inferred
        made = rebuilt_sites, (index.keys, index.order, box, *site_set, *where)
        return (*made, self._state()) if self.ways or self._prepared else made

    def _state(self) -> tuple[Any, ...]:
        """Return parent sites and, of prepared sites, the layers, as plain values and tensors."""
        ways = [
            (geometry.numbers, geometry.kind.value, living_sites(parent.record))
            for geometry, parent in self.ways.items()
        ]
        if not self._prepared:
            return ways, None, None
        return ways, *packed_layers(self._layers)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take what :meth:`__reduce__` gave.

        Raises:
            SparseConvValueError: rows that no layer of these sites would read or write.
        """
        ways, layers, rows = state
        known = {parent.geometry for parent in self._record.parents}
        windows = [((*numbers, Kind(kind)), parent) for numbers, kind, parent in ways]
        parents = [Parent(Geometry(*window), parent.record) for window, parent in windows]
        self._record.add_parents(parent for parent in parents if parent.geometry not in known)
        if layers is not None:
            for geometry, sites, rulebook in unpacked_layers(layers, rows, self):
                self._adopt(geometry, sites, rulebook)
            self._prepared = True

    def _adopt(self, geometry: Geometry, sites: Any, rulebook: Rulebook) -> None:
        """Keep what a layer makes of these sites, which was built elsewhere."""
        if sites is not None and geometry.kind is not Kind.TRANSPOSED:
            sites.record.add_parents([Parent(geometry, self._record, rulebook)])
        self._layers[geometry] = Layer(sites, rulebook)

    def prepare(self, plan: Plan) -> Sites:
        """Build the rulebooks of a network now, and let them travel with the sites.

        They go through pickles, the queues of a ``DataLoader``, into pinned memory and to other
        devices, so that a worker builds them and the process that runs the network builds none.

        Args:
            plan: what :func:`sparseconv.plan` returned.

        Returns:
            These sites.

        Raises:
            SparseConvError: not a plan; a window that does not fit the sites.
        """
        check_kind("plan", plan, Plan, "what sparseconv.plan(model, x) returns")
        for geometry, rest in plan.layers:
            sites, _ = self.convolve(geometry)
            if sites is not self:
                sites.prepare(rest)
        self._prepared = True
        self._elsewhere.clear()
        return self

    @property
    def plan(self) -> Plan:
        """What layers have made of these sites so far, for :meth:`prepare` of others."""
        layers = self._layers.items()
        return Plan(tuple((g, layer.sites.plan if layer.sites else Plan()) for g, layer in layers))

    def __iter__(self) -> Iterator[Tensor]:
        """Give the numbers of rows, int64 ``[B]``: what looks for a batch size here finds B."""
        return iter([self.samples.counts])

    def rows_of(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Look up coordinates through the hash index.

        Args:
            coords: integer ``[M, 1 + D]``, anywhere, on the sites' device.

        Returns:
            rows int64 ``[M]`` (-1 where absent) and found bool ``[M]``.
        """
        return self._record.rows_of(coords)

    def same_as(self, other: Sites) -> bool:
        """Return whether both hold the same sites in the same row order and extent."""
        return self is other or (
            self.ends == other.ends
            and self.num_sites == other.num_sites
            and self.device == other.device
            and agree(self.grid, other.grid)
            and torch.equal(self.shared_coords, other.shared_coords)
        )

    def may_be(self, other: Sites) -> bool:
        """Return False where ``other`` is not the same; a graph knows that only when it runs."""
        return self.same_as(other)

    def on_grid(self, grid: Grids) -> Sites:
        """Return the same sites elsewhere in the world, with caches of their own."""
        return Sites(replace(self._record, grid=grid, number=next_number()))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Sites:
        """Return the same sites on ``device``; tensors that shared sites share them there too."""
        target = torch.device(device)
        if target == self.device:
            return self
        return self._copied(target, lambda t: t.to(target, non_blocking=non_blocking))

    def pinned(self) -> Sites:
        """Return the same sites in page-locked memory; tensors that shared them share these."""
        return self._copied("pinned", Tensor.pin_memory)

    def _copied(self, place: Hashable, copy: Callable[[Tensor], Tensor]) -> Sites:
        """Return the same sites in other memory, with prepared rulebooks; made once per place."""
        found = self._elsewhere.get(place)
        if found is None:
            found = self._elsewhere.setdefault(place, Sites(self._record.copied(copy)))
            found.record.parents = tuple(
                Parent(p.geometry, Later(_copied_record, p, place, copy))
                for p in self.ways.values()
            )
            if self._prepared:
                for geometry, layer in self._layers.items():
                    made = layer.sites and layer.sites._copied(place, copy)
                    found._adopt(geometry, made, layer.rulebook.copied(copy))
                found._prepared = True
        return found

    def memory(self) -> list[Tensor]:
        """Return the tensors that the sites and their rulebooks lie in, on every level."""
        record = self._record
        held = [record.index.keys, record.index.order, record.__dict__.get("coords")]
        for layer in self._layers.values():
            held += [layer.rulebook.in_rows, layer.rulebook.out_rows]
            held += layer.sites.memory() if layer.sites else []
        return [t for t in held if t is not None]

    def derived(self, key: Hashable, build: Callable[[Sites], Derived]) -> Derived:
        """Return ``build(sites)``, built once and kept under ``key``: other sites made of these."""
        found: Derived | None = self._derived.get(key)
        if found is None:
            found = self._derived.setdefault(key, remembered(build)(self))
        return found

    def convolve(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the output sites of a layer and its rulebook; built once per geometry.

        Args:
            geometry: the layer's window and site law.
            like: output sites to use instead of the site law's.

        Raises:
            SparseConvValueError: an output size below 1; ``like`` has another extent than the
                layer's output.
        """
        if like is not None and like is not self._output(geometry):
            return like, self._rulebook_to(like, geometry)
        layer = self._layers.get(geometry)
        if layer is None:
            layer = self._build(geometry)
        return layer.sites or self, layer.rulebook

    def inverse(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the sites that the layer of ``geometry`` read to make these, and the way back.

        Args:
            geometry: of the strided layer to undo.
            like: the sites to lead back to, where these do not know them or others are meant.

        Raises:
            SparseConvValueError: no layer of this geometry made these sites and ``like`` is not
                given, or ``like`` has an extent that the layer would not map to this one.
        """
        if geometry.returns_to_itself and (like is None or like is self):
            return self, self.convolve(geometry)[1].transposed
        parent = self.ways.get(geometry)
        if like is None:
            if parent is None:
                raise SparseConvValueError(_nothing_to_invert(self._record.parents, geometry))
            return living_sites(parent.record), parent.rulebook(self._record).transposed
        if parent is not None and parent.record is like._record:
            return like, parent.rulebook(self._record).transposed
        return like, like._rulebook_to(self, geometry).transposed

    def unite(self, other: Sites) -> Union:
        """Return the union with another set on the same grid; remembered while both live.

        Where both grids are known, the extents may differ: the union has the larger one.

        Raises:
            SparseConvTypeError, SparseConvValueError: another device, another grid.
        """
        self.check_same_grid(other)
        union = self._unions.get(other)
        if union is None:
            record, rows = self._record.united(other._record)
            split = self.num_sites
            union = Union(Sites(record), rows[:split], rows[split:])
            union = self._unions.setdefault(other, union)
        return union

    def rows_in(self, other: Sites) -> Tensor | None:
        """Return the row of each of these sites among another set's, int64 ``[N]``.

        None where the other set lacks one of them, or has another extent or device.

        Raises:
            SparseConvValueError: both lie on known grids, which differ.
        """
        if self.device != other.device or not _may_meet(self.ends, other.ends):
            return None
        common("tensors", self.grid, other.grid)
        rows, present = other.rows_of(self.shared_coords)
        return rows if bool(present.all()) else None

    def check_same_grid(self, other: Sites) -> None:
        """Raise unless both sets live on one device and one grid."""
        check_device("other", other, self.device)
        grid = common("other", self.grid, other.grid)
        known = grid is not None and None not in (self.grid, other.grid)
        if known and self.batch_size == other.batch_size:
            return  # one place in the world, whatever the extents
        if not _may_meet(self.ends, other.ends):
            raise SparseConvValueError(
                f"other: lives on a grid (batch, *spatial) of {other.dense_extent}, "
                f"the input on {self.dense_extent}"
            )

    def padded_cells(self, target: Sites, geometry: Geometry) -> Tensor:
        """Return how many cells of each window lie in these sites' padded grid, int64 ``[n_out]``.

        Args:
            target: the output sites of a layer that reads these sites.
            geometry: of the layer.
        """
        return self._record.padded_cells(target._record, geometry)

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
        return sparse_taps(cells, geometry, self._record, target._record)

    def _output(self, geometry: Geometry) -> Sites | None:
        """Return the output sites of a layer, None where they have not been made."""
        layer = self._layers.get(geometry)
        if layer is not None:
            return layer.sites or self
        return self if geometry.returns_to_itself else None

    @remembered
    def _build(self, geometry: Geometry) -> Layer:
        """Return the layer of ``geometry`` after putting it into the cache."""
        if geometry.is_pointwise:
            geometry = geometry.as_submanifold
            if geometry in self._layers:
                return self._layers[geometry]
        shape = self._record.shape_under(geometry)
        if geometry.keeps_sites:
            return self._layers.setdefault(
                geometry, Layer(None, self._record.pairs(self._record, geometry))
            )
        record = self._record.reached(geometry, shape)
        rulebook = self._record.pairs(record, geometry)
        if geometry.kind is not Kind.TRANSPOSED:
            record.parents = (Parent(geometry, self._record, rulebook),)
        return self._layers.setdefault(geometry, Layer(Sites(record), rulebook))

    def _rulebook_to(self, target: Sites, geometry: Geometry) -> Rulebook:
        """Return the rulebook to sites that the caller gave; cached while they live."""
        shape = self._record.shape_under(geometry)
        fits = all(
            low < 0 or size == wanted
            for low, size, wanted in zip(self.lower, shape, target.spatial_shape, strict=True)
        )
        common("like", change(self.grid, lambda own: own.under(geometry)), target.grid)
        if not fits or self.batch_size != target.batch_size:
            raise SparseConvValueError(
                f"like: must fit the layer: {geometry} makes batch_size={self.batch_size} and "
                f"spatial shape {shape} of spatial shape {self.spatial_shape}, got "
                f"batch_size={target.batch_size} and spatial shape {target.spatial_shape}"
            )
        joined = self._joined.setdefault(target, {})
        rulebook = joined.get(geometry)
        if rulebook is None:
            rulebook = joined.setdefault(geometry, self._record.pairs(target._record, geometry))
        return rulebook


def _may_meet(ends: tuple[int | None, ...], others: tuple[int | None, ...]) -> bool:
    """Return whether sets share a box: every axis has one end in both, or none in one of them."""
    return len(ends) == len(others) and all(
        end == other or None in (end, other) for end, other in zip(ends, others, strict=True)
    )


def _copied_record(parent: Parent, place: Hashable, copy: Callable[[Tensor], Tensor]) -> SiteRecord:
    """Return the sites of a parent in other memory."""
    return living_sites(parent.record)._copied(place, copy).record


def living_sites(record: SiteRecord) -> Sites:
    """Return the living :class:`Sites` of a record, or new ones with empty caches."""
    living: Sites | None = LIVING.get(record.number)
    return Sites(record) if living is None else living


def rebuilt_sites(
    keys: Tensor,
    order: Tensor | None,
    box: tuple[Ints, Ints, int],
    *site_set: Any,
) -> Sites:
    """Return unpickled sites.

    Raises:
        SparseConvValueError: a file that holds something else: loops trust keys and rows.
    """
    packing = Packing(*box)
    count = keys.numel()
    checks = (
        keys.ndim == 1 and keys.dtype == torch.int64 and bool((keys.diff() > 0).all()),
        count == 0 or (int(keys[0]) >= 0 and int(keys[-1]) < math.prod(packing.radix)),
        order is None or (order.shape == keys.shape and _counts_all(order)),
    )
    if not all(checks):
        raise SparseConvValueError(
            "sites: the file holds no keys in ascending order; it is damaged"
        )
    return Sites(SiteRecord(Index(keys, order, packing), *site_set))


def _counts_all(order: Tensor) -> bool:
    """Return whether these are the numbers from 0 on, each once."""
    count = order.numel()
    if order.dtype != torch.int64 or (
        count and not 0 <= int(order.min()) <= int(order.max()) < count
    ):
        return False
    return bool((torch.bincount(order, minlength=count) == 1).all())


def _nothing_to_invert(parents: Sequence[Parent], geometry: Geometry) -> str:
    """Return the message for an inverse layer that finds no layer to undo."""
    found = "no strided layer made these sites"
    remedy = "name the sites to return to by like="
    if parents:
        found = f"these sites were made by {parents[0].geometry}"
        remedy += ", or give the strided layer's arguments"
    return f"inverse: {remedy}; nothing to invert: {found}, this layer undoes {geometry}"

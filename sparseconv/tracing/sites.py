"""What stands for sites, rulebooks, samples and taps while a graph is traced.

``torch.compile`` and ``torch.export`` trace tensors, and site sets are objects. So each set has a
number, its handle, in a tensor that flows through the graph; the operators look the object up and
do what the eager path does, with its caches. A graph holds no shape and no coordinate of a scan,
so that the next scan needs no new compilation.

The operators find a set as long as it lives: a stand-in keeps the set that it was derived from
alive, and that one caches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints
from sparseconv.core.geometry import Geometry, Kind, encoded
from sparseconv.core.grid import Grids
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.sites.sites import Sites
from sparseconv.tracing.handles import handle_of, living
from sparseconv.tracing.names import operators


class Box(NamedTuple):
    """What a graph knows of the extent of sites, None for what it learns when it runs."""

    spatial_shape: Ints | None = None
    batch_size: int | None = None
    lower: Ints | None = None

    def under(self, geometry: Geometry) -> Box:
        """Return the same of a layer's output."""
        if self.spatial_shape is None or any(self.lower or ()):
            return Box(None, self.batch_size)
        return self._replace(spatial_shape=geometry.output_shape(self.spatial_shape))


UNKNOWN = Box()


def view(sites: Sites | TracedSites) -> TracedSites:
    """Return what stands for ``sites`` in a graph."""
    if isinstance(sites, TracedSites):
        return sites
    keys = sites.index.keys
    rows = keys.new_empty(keys.shape[0], 0)
    if not torch.compiler.is_exporting():
        return TracedSites(handle_of(sites), rows, sites, sites.dimensions, False)
    # a program outlives the process, and so does what it holds of the sites
    packing, box = sites.index.packing, Box(sites.spatial_shape, sites.batch_size, sites.lower)
    corners = [*packing.lower, *packing.extent, packing.guard]
    place = list(sites.spatial_shape), sites.batch_size, list(sites.lower)
    handle = operators().kept_sites(keys, sites.index.order, corners, *place)
    return TracedSites(handle, rows, sites, sites.dimensions, False, box)


def made_of(coords: Tensor, box: Box) -> TracedSites:
    """Return what stands for the sites that a graph makes from coordinates ``[N, 1 + D]``."""
    shape, batch_size, lower = box
    sizes = [None if entry is None else list(entry) for entry in (shape, lower)]
    handle = operators().made_sites(coords, sizes[0], batch_size, sizes[1])
    return TracedSites(handle, coords[:, :0], None, coords.shape[1] - 1, box=box)


def sites_from_coords(
    coords: Tensor,
    spatial_shape: Sequence[int] | None,
    batch_size: int | None,
    lower: Ints | None,
) -> TracedSites:
    """Return the sites at ``coords``, which the running graph checks and indexes."""
    shape = None if spatial_shape is None else tuple(spatial_shape)
    return made_of(coords, Box(shape, batch_size, lower))


def grouped_sites(
    coords: Tensor,
    spatial_shape: Sequence[int] | None,
    batch_size: int | None,
    lower: Ints | None,
) -> tuple[TracedSites, Groups]:
    """Return the distinct sites of ``coords``, and which rows fall on each."""
    shape = None if spatial_shape is None else tuple(spatial_shape)
    sizes = [None if entry is None else list(entry) for entry in (shape, lower)]
    handle, rows, *groups = operators().merged_sites(coords, sizes[0], batch_size, sizes[1])
    box = Box(shape, batch_size, lower)
    return TracedSites(handle, rows, None, coords.shape[1] - 1, True, box), Groups(*groups)


@dataclass(eq=False)
class TracedSites:
    """Sites that a graph takes or will make: their handle, and a tensor with one row for each.

    Attributes:
        handle: int64 ``[]``.
        rows: ``[N, 0]``, carries the number of sites.
        root: the sites that these stand for or were derived from; keeps them alive.
        dimensions: spatial axes.
        derived: whether the graph makes them.
        box: what is known of their extent.
        parent: what they were strided from, and the layer's geometry, where the graph made them.
    """

    handle: Tensor
    rows: Tensor
    root: Any
    dimensions: int
    derived: bool = True
    box: Box = UNKNOWN
    parent: tuple[TracedSites, Geometry] | None = None

    @property
    def num_sites(self) -> int:
        """Number of active sites, a symbol in a graph."""
        return self.rows.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the coordinates live."""
        return self.rows.device

    @property
    def coords(self) -> Tensor:
        """Coordinates ``[N, 1 + D]``, which the graph will look up."""
        coords: Tensor = operators().coordinates(self.rows, self.handle, 1 + self.dimensions)
        return coords

    shared_coords = coords

    @property
    def row_order(self) -> Tensor:
        """The rows in ascending order of their sites, int64 ``[N]``."""
        order: Tensor = operators().row_order(self.rows, self.handle)
        return order

    @property
    def samples(self) -> TracedSamples:
        """The rows of each sample."""
        if self.box.batch_size is None and not isinstance(self.root, Sites):
            lanes = operators().sample_lanes(self.rows, self.handle)
        else:
            lanes = self.rows.new_empty(self.batch_size, 0)
        return TracedSamples(self.rows, lanes, self.handle, False)

    @property
    def whole_batch(self) -> TracedSamples:
        """All rows as one sample."""
        return TracedSamples(self.rows, self.rows.new_empty(1, 0), self.handle, True)

    @property
    def spatial_shape(self) -> Ints:
        """Dense extent per axis, of sites that the graph takes or was told."""
        known = self.box.spatial_shape
        return self._taken("spatial_shape").spatial_shape if known is None else known

    @property
    def lower(self) -> Ints:
        """Smallest legal coordinate per axis, of sites that the graph takes or was told."""
        if self.box.lower is not None:
            return self.box.lower
        if self.box.spatial_shape is not None:
            return (0,) * self.dimensions
        return self._taken("lower").lower

    @property
    def extent(self) -> Ints:
        """Dense extent per axis."""
        return self.spatial_shape

    @property
    def dense_extent(self) -> Ints:
        """Extent of the dense tensor, ``(B, *spatial)``."""
        return (self.batch_size, *self.spatial_shape)

    @property
    def grid(self) -> Grids:
        """Where the sites lie in the world, of sites that the graph takes."""
        return self.root.grid if isinstance(self.root, Sites) and not self.derived else None

    @property
    def batch_size(self) -> int:
        """Number of samples, of sites that the graph takes, or makes of those, or was told."""
        known = self.box.batch_size
        if known is None and isinstance(self.root, Sites):
            return self.root.batch_size  # no layer changes it
        return self._taken("batch_size").batch_size if known is None else known

    @property
    def is_cell(self) -> bool:
        """Whether the graph made these with one cell a sample."""
        return self.box.spatial_shape == (1,) * self.dimensions

    def _taken(self, name: str) -> Sites:
        """Return the sites themselves, where they exist before the graph runs."""
        if self.derived:
            raise SparseConvNotImplementedError(
                f"{name}: a compiled graph does not know the extent of sites that it makes; give "
                f"spatial_shape and batch_size where it makes them, or use it outside of the graph"
            )
        sites: Sites = self.root
        return sites

    def resolve(self) -> Sites:
        """Return the sites themselves, once the graph has run."""
        return living(self.handle)

    def to(self, device: torch.device | str) -> TracedSites:
        """Return these sites, which a graph moves to no other device."""
        if torch.device(device) != self.device:
            raise SparseConvNotImplementedError(
                f"device: a compiled graph runs on one device, here {self.device}, got {device}; "
                f"move the tensor outside of the graph"
            )
        return self

    def rows_in(self, other: TracedSites) -> None:
        """Return None: a graph compares no coordinates."""

    def same_as(self, other: TracedSites) -> bool:
        """Return whether both are sure to be the same; others may turn out equal in the run."""
        if self is other:
            return True
        return not self.derived and not other.derived and self.root is other.root

    def may_be(self, other: TracedSites) -> bool:
        """Return True: only the graph that runs can compare coordinates."""
        return True

    def convolve(
        self, geometry: Geometry, like: TracedSites | None = None
    ) -> tuple[TracedSites, TracedRulebook]:
        """Return the output sites of a layer and its rulebook."""
        numbers = encoded(geometry)
        if like is not None:
            return like, TracedRulebook(self, like, numbers)
        if geometry.returns_to_itself:
            return self, TracedRulebook(self, self, numbers)
        handle, rows = operators().output_sites(self.handle, self.rows, numbers)
        parent = (self, geometry) if geometry.kind is not Kind.TRANSPOSED else None
        box = self.box.under(geometry)
        target = TracedSites(handle, rows, self.root, self.dimensions, box=box, parent=parent)
        return target, TracedRulebook(self, target, numbers)

    def inverse(
        self, geometry: Geometry, like: TracedSites | None = None
    ) -> tuple[TracedSites, TracedRulebook]:
        """Return the sites that the layer of ``geometry`` read, and the way back."""
        numbers = encoded(geometry)
        if like is None:
            if geometry.returns_to_itself:
                return self, TracedRulebook(self, self, numbers, swapped=True)
            if self.parent is not None and self.parent[1] == geometry:
                like = self.parent[0]
                return like, TracedRulebook(like, self, numbers, swapped=True)
            handle, rows = operators().parent_sites(self.handle, self.rows, numbers)
            like = TracedSites(handle, rows, self.root, self.dimensions)
        return like, TracedRulebook(like, self, numbers, swapped=True)

    def unite(self, other: TracedSites) -> tuple[TracedSites, Tensor, Tensor]:
        """Return the union with another set, and where each set's rows went."""
        handles = self.handle, other.handle
        handle, rows, mine, others = operators().united_sites(self.rows, other.rows, *handles)
        root = self.root, other.root
        box = (
            self.box
            if self.box[:2] == other.box[:2] and not any(other.box.lower or ())
            else UNKNOWN
        )
        return TracedSites(handle, rows, root, self.dimensions, box=box), mine, others

    def padded_cells(self, target: TracedSites, geometry: Geometry) -> Tensor:
        """Return how many cells of each window lie in these sites' padded grid."""
        handles = self.handle, target.handle
        cells: Tensor = operators().padded_cells(target.rows, *handles, encoded(geometry))
        return cells

    def taps(
        self, cells: Tensor, geometry: Geometry, target: TracedSites, guides: Sequence[TracedSites]
    ) -> TracedTaps:
        """Return the rows that sample positions lie between; the graph compares the guides."""
        handles = self.handle, target.handle
        rows, splits = operators().tap_rows(
            cells, *handles, [guide.handle for guide in guides], encoded(geometry)
        )
        return TracedTaps(rows, splits)


@dataclass(eq=False)
class TracedRulebook:
    """The rulebook from ``source`` to ``target``, by their handles.

    Attributes:
        source, target: the sites that the layer of the geometry reads and makes.
        geometry: of the layer, as :func:`encoded`.
        swapped: whether the pairs lead from ``target`` to ``source``.
    """

    source: TracedSites
    target: TracedSites
    geometry: list[int]
    swapped: bool = False

    @property
    def rows(self) -> Tensor:
        """``[n_out, 0]``, carries the number of output rows."""
        return self.source.rows if self.swapped else self.target.rows

    @property
    def pairs_of_output(self) -> Tensor:
        """Number of pairs of each output row, float32 ``[n_out]``."""
        inputs = self.target.rows if self.swapped else self.source.rows
        ones = inputs.new_ones(inputs.shape[0], 1, dtype=torch.float32)
        counts: Tensor = operators().window_sum(ones, self.rows, *self.key)
        return counts[:, 0]

    def derived(self, name: str, build: Callable[[Any], Any]) -> Any:
        """Return ``build(rulebook)``: the graph keeps nothing."""
        return build(self)

    @property
    def key(self) -> tuple[Tensor, Tensor, list[int], bool]:
        """What the operators find the rulebook by."""
        return self.source.handle, self.target.handle, self.geometry, self.swapped


@dataclass(frozen=True, eq=False)
class TracedSamples:
    """The rows of each sample, or of the whole batch as one, that a graph will know.

    Attributes:
        rows: ``[N, 0]``, carries the number of rows.
        lanes: ``[S, 0]``, carries the number of samples.
        handle: of the sites.
        whole: whether all rows are one sample.
    """

    rows: Tensor
    lanes: Tensor
    handle: Tensor
    whole: bool

    @property
    def counts(self) -> Tensor:
        """The number of rows of each sample, float32 ``[S]``."""
        ones = self.rows.new_ones(self.rows.shape[0], 1, dtype=torch.float32)
        counts: Tensor = operators().summed(ones, self.lanes, self.handle, self.whole)
        return counts[:, 0]

    @property
    def some(self) -> Tensor:
        """The same as ``[S, 1]``, 1 where there is none."""
        return self.counts.clamp(min=1)[:, None]

    @property
    def learnt_from(self) -> Any:
        """Refused: running statistics leave samples of one site out."""
        raise SparseConvNotImplementedError(
            "track_running_stats: a compiled graph learns no statistics per sample; use "
            "torch.nn.InstanceNorm without them, or torch.nn.BatchNorm"
        )


@dataclass(eq=False)
class TracedTaps:
    """The taps of a deformable kernel that a graph will find.

    Attributes:
        rows: int32 ``[H, K, Q, n_out]``, negative where the site is not there.
        splits: int64 ``[B + 1]``, where each sample's output rows begin, and the last one's end.
    """

    rows: Tensor
    splits: Tensor

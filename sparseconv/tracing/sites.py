"""Convolution inside a compiled graph: PyTorch custom operators on handles of sites.

``torch.compile`` and ``torch.export`` trace tensors, and site sets are objects. So each
:class:`~sparseconv.sites.sites.Sites` has a number, its handle, in a tensor that flows through the
graph; the operators here look the object up and do what the eager path does, with its caches. A
graph holds no shape and no coordinate of a scan, so that the next scan needs no new compilation.

The operators find a set by its handle as long as it lives: a traced set keeps the one that it was
derived from alive, and that one caches it.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind

if TYPE_CHECKING:
    from sparseconv.sites.sites import Sites

_numbers = itertools.count()
_living: weakref.WeakValueDictionary[int, Sites] = weakref.WeakValueDictionary()
_KINDS = list(Kind)


def register(sites: Sites) -> Tensor:
    """Return a new handle, int64 ``[]``, by which operators find ``sites``."""
    number = next(_numbers)
    _living[number] = sites
    return torch.tensor(number)


def living(handle: Tensor) -> Sites:
    """Return the sites of a handle.

    Raises:
        RuntimeError: they were freed, or belong to another process.
    """
    sites = _living.get(int(handle))
    if sites is None:
        raise RuntimeError(
            f"the sites with handle {int(handle)} are gone: a graph runs in the process that made "
            f"its sites, while they live"
        )
    return sites


@dataclass(eq=False)
class TracedSites:
    """Sites that a graph will make: their handle, and a tensor with one row for each.

    Attributes:
        handle: int64 ``[]``.
        rows: ``[N, 0]``, carries the number of sites.
        root: what these sites were derived from; keeps them alive.
        dimensions: spatial axes.
        device: where the coordinates will be.
    """

    handle: Tensor
    rows: Tensor
    root: Any
    dimensions: int

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
        coords: Tensor = _ops().coordinates(self.rows, self.handle, 1 + self.dimensions)
        return coords

    def resolve(self) -> Sites:
        """Return the sites themselves, once the graph has run."""
        return living(self.handle)

    def same_as(self, other: Any) -> bool:
        """Return whether both are one object; other sets may turn out equal when the graph runs."""
        return self is other

    def rows_in(self, other: Any) -> None:
        """Return None: a graph compares no coordinates."""

    def convolve(self, geometry: Geometry, like: Any = None) -> tuple[Any, TracedRulebook]:
        """Return the output sites of a layer and its rulebook."""
        return convolve(self, geometry, like)

    def unite(self, other: Any) -> tuple[Any, Tensor, Tensor]:
        """Return the union with another set, and where each set's rows went."""
        return unite(self, other)

    def padded_cells(self, target: Any, geometry: Geometry) -> Tensor:
        """Return how many cells of each window lie in these sites' padded grid."""
        return padded_cells(self, target, geometry)

    def inverse(self, geometry: Geometry, like: Any = None) -> tuple[Any, TracedRulebook]:
        """Return the sites that the layer of ``geometry`` read, and the way back."""
        return inverse(self, geometry, like)


@dataclass(eq=False)
class TracedRulebook:
    """The rulebook from ``source`` to ``target``, by their handles; perhaps swapped."""

    source: Any
    target: Any
    geometry: list[int]
    transposed: bool

    @property
    def rows(self) -> Tensor:
        """``[n_out, 0]``, carries the number of output rows."""
        rows: Tensor = self.source.rows if self.transposed else self.target.rows
        return rows

    @property
    def in_rows(self) -> Tensor:
        """``[n_in, 0]``, carries the number of input rows."""
        rows: Tensor = self.target.rows if self.transposed else self.source.rows
        return rows

    @property
    def place(self) -> tuple[Tensor, Tensor, list[int], bool]:
        """What the operators find the rulebook by."""
        return self.source.handle, self.target.handle, self.geometry, self.transposed


@dataclass(eq=False)
class TracedTaps:
    """The taps of a deformable kernel that a graph will find.

    Attributes:
        rows: int32 ``[H, K, Q, n_out]``, negative where the site is not there.
        splits: int64 ``[B + 1]``, where each sample's output rows begin, and the last one's end.
    """

    rows: Tensor
    splits: Tensor


def _ops() -> Any:
    """Return the operators; they are defined when a graph first asks for them."""
    from sparseconv.tracing import operators as traced_ops  # noqa: PLC0415  # defining operators takes its time

    return traced_ops


def _tap_ops() -> Any:
    """Return the operators of deformable convolution."""
    from sparseconv.tracing import sampling as traced_taps  # noqa: PLC0415  # defining operators takes its time

    return traced_taps


def encoded(geometry: Geometry) -> list[int]:
    """Return a geometry as the integers that an operator takes."""
    rows = (
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.padding_end,
        geometry.dilation,
        geometry.output_padding,
    )
    return [_KINDS.index(geometry.kind), *(entry for row in rows for entry in row)]


def decoded(numbers: list[int]) -> Geometry:
    """Return the geometry that :func:`encoded` gave as ``numbers``."""
    axes = (len(numbers) - 1) // 6
    rows = (tuple(numbers[1 + row * axes : 1 + (row + 1) * axes]) for row in range(6))
    kernel, stride, padding, padding_end, dilation, output_padding = rows
    kind = _KINDS[numbers[0]]
    return Geometry(kernel, stride, padding, padding_end, dilation, output_padding, kind)


def convolve(sites: Any, geometry: Geometry, like: Any) -> tuple[Any, TracedRulebook]:
    """Return a layer's output sites and rulebook, as a graph sees them."""
    numbers = encoded(geometry)
    if like is not None:
        return like, TracedRulebook(sites, like, numbers, False)
    if geometry.is_pointwise or geometry.kind is Kind.SUBMANIFOLD:
        return sites, TracedRulebook(sites, sites, numbers, False)
    handle, rows = _ops().output_sites(sites.handle, sites.rows, numbers)
    target = TracedSites(handle, rows, sites, sites.dimensions)
    return target, TracedRulebook(sites, target, numbers, False)


def inverse(sites: Any, geometry: Geometry, like: Any) -> tuple[Any, TracedRulebook]:
    """Return the sites that a layer read and the way back, as a graph sees them."""
    numbers = encoded(geometry)
    if like is None:
        if geometry.is_pointwise:
            return sites, TracedRulebook(sites, sites, numbers, True)
        handle, rows = _ops().parent_sites(sites.handle, sites.rows, numbers)
        like = TracedSites(handle, rows, sites, sites.dimensions)
    return like, TracedRulebook(like, sites, numbers, True)


def unite(sites: Any, other: Any) -> tuple[Any, Tensor, Tensor]:
    """Return the union of two sets, as a graph sees it, and where each set's rows went."""
    handles = sites.handle, other.handle
    handle, rows, own, others = _ops().united_sites(sites.rows, other.rows, *handles)
    return TracedSites(handle, rows, (sites, other), sites.dimensions), own, others


def padded_cells(source: Any, target: Any, geometry: Geometry) -> Tensor:
    """Return how many cells of each window lie in the padded grid, as an operator of the graph."""
    handles = source.handle, target.handle
    result: Tensor = _ops().padded_cells(target.rows, *handles, encoded(geometry))
    return result


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: TracedRulebook) -> Tensor:
    """Return the sparse product as one operator of the graph."""
    result: Tensor = _ops().gather_gemm_scatter(features, weight, rulebook.rows, *rulebook.place)
    return result


def window_sum(features: Tensor, rulebook: TracedRulebook) -> Tensor:
    """Return the sums over windows as one operator of the graph."""
    result: Tensor = _ops().window_sum(features, rulebook.rows, *rulebook.place)
    return result


def window_max(features: Tensor, rulebook: TracedRulebook) -> Tensor:
    """Return the largest value of each window as operators of the graph."""
    chosen = _ops().window_argmax(features.detach(), rulebook.rows, *rulebook.place)
    result: Tensor = _ops().window_pick(features, chosen, *rulebook.place)
    return result


def row_order(sites: Any) -> Tensor:
    """Return the rows in ascending order of their sites, int64 ``[N]``."""
    order: Tensor = _tap_ops().row_order(sites.rows, sites.handle)
    return order


def sparse_taps(
    cells: Tensor, geometry: Geometry, source: Any, target: Any, guides: list[Any]
) -> TracedTaps:
    """Return the taps between active sites; ``guides``, where offsets lie, must be ``target``."""
    handles = source.handle, target.handle
    rows, splits = _tap_ops().tap_rows(
        cells, *handles, [guide.handle for guide in guides], encoded(geometry)
    )
    return TracedTaps(rows, splits)


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: TracedTaps) -> Tensor:
    """Return the deformable product as one operator of the graph."""
    result: Tensor = _tap_ops().sample_gemm(features, shares, weight, taps.rows, taps.splits)
    return result

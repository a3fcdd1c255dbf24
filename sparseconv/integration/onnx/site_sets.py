"""Sets of sites while a graph is translated: values of the ONNX graph and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from onnxscript import opset18 as op

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.integration.onnx import functions
from sparseconv.sites.record import NO_END

Node = Any  # of an ONNX graph


def constant(numbers: Any) -> Node:
    """Return integers as an int64 constant of the graph."""
    return op.Constant(value=functions.tensor(np.asarray(numbers, dtype=np.int64)))


def size_of(matrix: Node, axis: int) -> Node:
    """Return the size of an axis, int64 ``[1]``."""
    return op.Shape(matrix, start=axis, end=axis + 1)


def distinct(coords: Node) -> Node:
    """Return each of the coordinates once, in ascending order."""
    keys, _, packing = functions.Index(coords)
    return functions.Distinct(coords, keys, packing)


class SiteSet:
    """A set of sites in the graph: coordinates in the order of its rows, and its extent.

    Attributes:
        coords: int64 ``[N, 1 + D]``.
        begin, end: int64 ``[1 + D]``, the legal coordinates, batch first; -+NO_END on open axes.
        batch_size: int64 ``[1]``.
        inferred: whether nobody gave the extent; strided layers then leave no site out.
        parents: the sets that strided layers made this one of, with their geometry.
    """

    def __init__(
        self,
        coords: Node,
        extent: tuple[Node, Node],
        batch_size: Node,
        inferred: bool = False,
        parents: Sequence[tuple[Geometry, SiteSet]] = (),
    ) -> None:
        self.coords = coords
        self.begin, self.end = extent
        self.batch_size, self.inferred, self.parents = batch_size, inferred, tuple(parents)
        self._tables: dict[Any, Node] = {}
        self._reached: dict[Geometry, SiteSet] = {}

    @cached_property
    def index(self) -> tuple[Node, ...]:
        """Keys, rows and packing; see ``functions.Index``."""
        return tuple(functions.Index(self.coords))

    @property
    def row_order(self) -> Node:
        """The rows in ascending order of their sites, int64 ``[N]``."""
        return op.Slice(self.index[1], constant([0]), size_of(self.coords, 0), constant([0]))

    def rows_at(self, places: Node, shifts: Node, divisor: Node) -> Node:
        """Return the rows at ``(places + shifts[k]) / divisor``, N where there is none."""
        keys, order, packing = self.index
        asked = functions.NeighbourKeys(packing, places, shifts, divisor)
        return functions.Lookup(keys, order, size_of(self.coords, 0), asked)

    def table(self, target: SiteSet, geometry: Geometry, swapped: bool) -> Node:
        """Return the rulebook from these sites to ``target``, or back, int64 ``[K, n_out]``."""
        key = target, geometry, swapped
        if key not in self._tables:
            source, outputs = (target, self) if swapped else (self, target)
            if source is outputs and geometry.is_pointwise:
                count = op.Squeeze(size_of(self.coords, 0))
                rows = op.Range(constant(0), count, constant(1))
                self._tables[key] = op.Unsqueeze(rows, constant([0]))
            else:
                down = (geometry.kind is Kind.TRANSPOSED) == swapped
                self._tables[key] = source.rows_at(*_moves(outputs.coords, geometry, down))
        return self._tables[key]

    def reached(self, geometry: Geometry) -> SiteSet:
        """Return the sites that a layer makes active."""
        if geometry not in self._reached:
            up, strided = geometry.kind is Kind.TRANSPOSED, geometry.kind is Kind.STRIDED
            law = geometry.block if strided else geometry
            extent = self.begin, self._end_under(law, whole=strided or self.inferred)
            coords = distinct(functions.Candidates(*_moves(self.coords, law, up), *extent))
            parents = () if up else ((geometry, self),)
            child = SiteSet(coords, extent, self.batch_size, self.inferred, parents)
            self._reached[geometry] = child
        return self._reached[geometry]

    def way_back(self, geometry: Geometry) -> SiteSet | None:
        """Return the set that a layer of this geometry made this one of, however far back."""
        for known, parent in self.parents:
            found = parent if known == geometry else None
            if found is None and known.keeps_grid:
                found = parent.way_back(geometry)
            if found is not None:
                return found
        return None

    def united(self, other: SiteSet) -> SiteSet:
        """Return the union."""
        coords = distinct(op.Concat(self.coords, other.coords, axis=0))
        extent = op.Min(self.begin, other.begin), op.Max(self.end, other.end)
        inferred = self.inferred and other.inferred
        parents = dict(self.parents)
        for geometry, parent in other.parents:
            if parents.setdefault(geometry, parent) is not parent:
                parents[geometry] = parents[geometry].united(parent)
        return SiteSet(coords, extent, self.batch_size, inferred, tuple(parents.items()))

    def _end_under(self, geometry: Geometry, whole: bool) -> Node:
        """Return the end of a layer's output, as :meth:`Geometry.output_shape` does."""
        kernel, steps, low, high, dilation, extra = map(np.asarray, geometry.numbers)
        window, stride = dilation * (kernel - 1) + 1, constant([1, *steps])
        if geometry.kind is Kind.TRANSPOSED:
            more = constant([0, *(window - low - high + extra)])
            found = op.Add(op.Mul(op.Sub(self.end, constant([1])), stride), more)
        else:
            last = op.Add(self.end, constant([0, *(low + high - window)]))
            found = op.Add(_floor(last, stride), constant([1]))
            if whole:
                left = op.Sub(constant([0, *(window - low)]), self.end)
                windows = op.Sub(constant([1]), _floor(left, stride))
                wide = op.Greater(stride, constant([1]))
                found = op.Where(wide, op.Max(found, windows), found)
        found = op.Where(op.Equal(self.end, constant([0])), constant([0]), found)
        return op.Where(op.Equal(self.end, constant([NO_END])), self.end, found)


def set_at(
    coords: Node, shape: Sequence[int] | None, batch_size: int | None, lower: Sequence[int] | None
) -> SiteSet:
    """Return the set at coordinates int64 ``[N, 1 + D]``; arguments as of a SparseTensor."""
    row = op.Concat(constant([1]), size_of(coords, 1), axis=0)
    origin, first = op.Expand(constant([[0]]), row), constant([0])
    past = op.Concat(op.Add(coords, constant([1])), origin, axis=0)
    ends = op.ReduceMax(past, first, keepdims=0)
    known = batch_size is not None
    samples = constant([batch_size]) if known else op.Slice(ends, first, constant([1]))
    if shape is None:
        lowest = op.ReduceMin(op.Concat(coords, origin, axis=0), first, keepdims=0)
        is_open = op.Less(lowest, first)
        begin = op.Where(is_open, constant([-NO_END]), first)
        return SiteSet(coords, (begin, op.Where(is_open, constant([NO_END]), ends)), samples, True)
    lows = lower or [0] * len(shape)
    begin = constant([-NO_END, *(-NO_END if low < 0 else 0 for low in lows)])
    sizes = (NO_END if low < 0 else size for low, size in zip(lows, shape, strict=True))
    return SiteSet(coords, (begin, constant([NO_END, *sizes])), samples)


def _floor(number: Node, divisor: Node) -> Node:
    """Return ``number / divisor``, rounded down."""
    return op.Div(op.Sub(number, op.Mod(number, divisor)), divisor)


def _moves(coords: Node, geometry: Geometry, down: bool) -> tuple[Node, Node, Node]:
    """Return places, shifts and divisor: what rows at ``coords`` read.

    Args:
        coords: int64 ``[n, 1 + D]``.
        geometry: of the layer.
        down: whether they are coarse sites, which read fine ones: ``fine = coarse * stride + d * k
            - p``.
    """
    steps = [
        (0, *(d * k - p for d, k, p in zip(geometry.dilation, cell, geometry.padding, strict=True)))
        for cell in geometry.cells
    ]
    stride, shifts = constant((1, *geometry.stride)), np.asarray(steps)
    if down:
        return op.Mul(coords, stride), constant(shifts), constant([1])
    return coords, constant(-shifts), stride

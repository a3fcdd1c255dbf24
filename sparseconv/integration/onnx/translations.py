"""What stands in an ONNX graph for each operator of :mod:`sparseconv.tracing`.

A handle of sites becomes a number that nobody reads: on its value hangs the :class:`SiteSet` that
it stands for, whose coordinates, keys and rulebooks are values of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxscript import opset18 as op

from sparseconv.core.geometry import decoded
from sparseconv.core.index import Packing
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.integration.onnx import functions
from sparseconv.integration.onnx.site_sets import (
    Node,
    SiteSet,
    constant,
    distinct,
    set_at,
    size_of,
)
from sparseconv.sites.record import NO_END

_HELD = "sparseconv.sites"  # under which a handle's value holds its set
_INT64 = 7

TRANSLATIONS: dict[str, Callable[..., Any]] = {}


def _translates(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function into the table under the name of the operator that it stands for."""
    TRANSLATIONS[function.__name__] = function
    return function


def _handle(sites: SiteSet) -> Node:
    """Return a handle of sites."""
    value = op.Constant(value_int=0)
    value.meta[_HELD] = sites
    return value


def _sites(handle: Node) -> SiteSet:
    """Return the sites of a handle."""
    sites: SiteSet = handle.meta[_HELD]
    return sites


def _rows(sites: SiteSet, like: Node) -> Node:
    """Return ``[N, 0]``, which carries the number of sites."""
    return op.CastLike(op.Slice(sites.coords, constant([0]), constant([0]), constant([1])), like)


@_translates
def made_sites(
    coords: Node, shape: Sequence[int] | None, batch_size: int | None, lower: Sequence[int] | None
) -> Node:
    """Return sites at coordinates ``[N, 1 + D]``."""
    return _handle(set_at(op.Cast(coords, to=_INT64), shape, batch_size, lower))


@_translates
def kept_sites(
    keys: Node,
    order: Node | None,
    box: Sequence[int],
    shape: Sequence[int],
    batch_size: int,
    lower: Sequence[int],
) -> Node:
    """Return sites that a program holds as keys."""
    columns = 1 + len(lower)
    packing = Packing(tuple(box[:columns]), tuple(box[columns:-1]), box[-1])
    places = op.Div(op.Unsqueeze(keys, constant([1])), constant(packing.weights))
    coords = op.Add(op.Mod(places, constant(packing.radix)), constant(packing.lower))
    if order is not None:
        coords = op.ScatterND(coords, op.Unsqueeze(order, constant([1])), coords)
    return _handle(set_at(coords, shape, batch_size, lower))


@_translates
def output_sites(handle: Node, rows: Node, geometry: Sequence[int]) -> tuple[Node, Node]:
    """Return the sites that a layer makes active."""
    child = _sites(handle).reached(decoded(geometry))
    return _handle(child), _rows(child, rows)


@_translates
def parent_sites(handle: Node, rows: Node, geometry: Sequence[int]) -> tuple[Node, Node]:
    """Return the sites that the layer to undo read."""
    parent = _sites(handle).way_back(decoded(geometry))
    if parent is None:
        raise SparseConvNotImplementedError(
            f"inverse: name the sites to return to by like=: no strided layer of "
            f"{decoded(geometry)} is in the graph"
        )
    return _handle(parent), _rows(parent, rows)


@_translates
def united_sites(
    rows: Node, other_rows: Node, handle: Node, other: Node
) -> tuple[Node, Node, Node, Node]:
    """Return a union, and where each set's rows went."""
    both = _sites(handle), _sites(other)
    union = both[0].united(both[1])
    return _handle(union), _rows(union, rows), *(_rows_among(union, side.coords) for side in both)


def _rows_among(sites: SiteSet, coords: Node) -> Node:
    """Return the rows of coordinates ``[n, 1 + D]``, int64 ``[n]``."""
    still = op.Expand(constant([[0]]), op.Concat(constant([1]), size_of(coords, 1), axis=0))
    return op.Squeeze(sites.rows_at(coords, still, constant([1])), constant([0]))


@_translates
def coordinates(rows: Node, handle: Node, columns: int) -> Node:
    """Return the coordinates of sites."""
    return op.Identity(_sites(handle).coords)


@_translates
def row_order(rows: Node, handle: Node) -> Node:
    """Return the rows in ascending order of their sites."""
    return _sites(handle).row_order


@_translates
def padded_cells(rows: Node, source: Node, target: Node, geometry: Sequence[int]) -> Node:
    """Return how many cells of each window lie in the padded grid."""
    layer, sites = decoded(geometry), _sites(source)
    padding = constant((0, *layer.padding))
    first = op.Sub(op.Mul(_sites(target).coords, constant((1, *layer.stride))), padding)
    last = op.Min(op.Add(first, constant((1, *layer.kernel_size))), op.Add(sites.end, padding))
    return op.ReduceProd(op.Sub(last, first), constant([1]), keepdims=0)


def _table(source: Node, target: Node, geometry: Sequence[int], transposed: bool) -> Node:
    return _sites(source).table(_sites(target), decoded(geometry), transposed)


@_translates
def gather_gemm_scatter(features: Node, weight: Node, rows: Node, *key: Any) -> Node:
    """Return a convolution."""
    return functions.Convolution(features, weight, _table(*key))


@_translates
def window_sum(features: Node, rows: Node, *key: Any) -> Node:
    """Return the sums over windows."""
    return functions.WindowSum(features, _table(*key))


@_translates
def window_argmax(features: Node, rows: Node, *key: Any) -> Node:
    """Return the kernel cell of each window's largest value."""
    return functions.WindowArgMax(features, _table(*key))


@_translates
def window_pick(features: Node, chosen: Node, *key: Any) -> Node:
    """Return the value that each window chose."""
    return functions.WindowPick(features, chosen, _table(*key))


@_translates
def sample_lanes(rows: Node, handle: Node) -> Node:
    """Return ``[S, 0]``, which carries the number of samples."""
    return op.CastLike(
        op.ConstantOfShape(op.Concat(_sites(handle).batch_size, constant([0]), axis=0)), rows
    )


def _samples(handle: Node) -> Node:
    """Return the sample of each row, int64 ``[N]``."""
    return op.Gather(_sites(handle).coords, constant(0), axis=1)


@_translates
def summed(values: Node, lanes: Node, handle: Node, whole: bool) -> Node:
    """Return the sums over samples."""
    if whole:
        return op.ReduceSum(values, constant([0]), keepdims=1)
    return functions.SegmentSum(values, _samples(handle), _sites(handle).batch_size)


@_translates
def spread(values: Node, rows: Node, handle: Node, whole: bool) -> Node:
    """Return each row's sample's entry."""
    if whole:
        size = op.Concat(size_of(_sites(handle).coords, 0), size_of(values, 1), axis=0)
        return op.Expand(values, size)
    return functions.SegmentGather(values, _samples(handle))


@_translates
def sample_largest(values: Node, lanes: Node, handle: Node, whole: bool) -> Node:
    """Return the row of each sample's largest value."""
    segment = _samples(handle)
    if whole:
        return functions.SegmentArgMax(values, op.Sub(segment, segment), constant([1]))
    return functions.SegmentArgMax(values, segment, _sites(handle).batch_size)


@_translates
def cell_per_sample(rows: Node, handle: Node) -> tuple[Node, Node, Node]:
    """Return one site for each sample with sites, and those samples."""
    sites = _sites(handle)
    axes = op.Sub(size_of(sites.coords, 1), constant([1]))
    begin, end = (
        op.Concat(constant([limit]), op.Expand(constant([cell]), axes), axis=0)
        for limit, cell in ((-NO_END, 0), (NO_END, 1))
    )
    first = op.Concat(constant([1]), op.Expand(constant([0]), axes), axis=0)
    cells = SiteSet(distinct(op.Mul(sites.coords, first)), (begin, end), sites.batch_size)
    return _handle(cells), _rows(cells, rows), op.Gather(cells.coords, constant(0), axis=1)


@_translates
def merged_sites(
    coords: Node, shape: Sequence[int] | None, batch_size: int | None, lower: Sequence[int] | None
) -> tuple[Node, ...]:
    """Return the distinct sites of coordinates, and the rows that fall on each."""
    given = op.Cast(coords, to=_INT64)
    every = set_at(given, shape, batch_size, lower)
    extent = every.begin, every.end
    sites = SiteSet(distinct(given), extent, every.batch_size, every.inferred)
    segment = _rows_among(sites, given)
    _, order = op.TopK(segment, size_of(given, 0), axis=0, largest=0, sorted=1)
    ones = op.Expand(constant([[1]]), op.Concat(size_of(given, 0), constant([1]), axis=0))
    counts = functions.SegmentSum(ones, segment, size_of(sites.coords, 0))
    ends = op.CumSum(op.Squeeze(counts, constant([1])), constant(0))
    starts = op.Concat(constant([0]), ends, axis=0)
    return _handle(sites), _rows(sites, coords), order, starts, segment


@_translates
def segment_sum(values: Node, order: Node, starts: Node, segment: Node) -> Node:
    """Return the sums of rows over segments."""
    return functions.SegmentSum(values, segment, op.Sub(size_of(starts, 0), constant([1])))


@_translates
def segment_gather(values: Node, order: Node, starts: Node, segment: Node) -> Node:
    """Return each row's segment's values."""
    return functions.SegmentGather(values, segment)


@_translates
def segment_argmax(values: Node, order: Node, starts: Node) -> Node:
    """Return the row of each segment's first largest value."""
    count = op.Sub(size_of(starts, 0), constant([1]))
    places = op.Unsqueeze(op.Slice(starts, constant([1]), constant([-1])), constant([1]))
    begun = op.Expand(constant([1]), op.Max(op.Sub(count, constant([1])), constant([0])))
    nothing = op.Sub(order, order)
    numbers = op.CumSum(op.ScatterND(nothing, places, begun, reduction="add"), constant(0))
    segment = op.ScatterND(nothing, op.Unsqueeze(order, constant([1])), numbers)
    return functions.SegmentArgMax(values, segment, count)


def _refused(what: str) -> Callable[..., Any]:
    """Return what stands for an operator that has no translation."""

    def refused(*args: Any) -> Any:
        raise SparseConvNotImplementedError(
            f"torch.onnx.export: leave {what} out of the forward that is exported; it has no "
            f"translation to standard operators"
        )

    return refused


TRANSLATIONS["voxels"] = _refused("sparseconv.voxelize")
TRANSLATIONS |= dict.fromkeys(("tap_rows", "sample_gemm"), _refused("sparseconv.nn.DeformConv"))

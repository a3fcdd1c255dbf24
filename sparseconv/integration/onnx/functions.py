"""The ONNX functions that stand for sites, rulebooks and layers, of standard operators.

A set of sites is the matrix of its coordinates ``[N, 1 + D]``. It is searched by keys: coordinates
packed into one int64, sorted. The row that is not there has the number N, and reads zeros.

onnxscript reads the source of these functions; they never run as Python.
"""

from __future__ import annotations

from typing import Any

from onnx import numpy_helper
from onnxscript import graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

DOMAIN = Opset("sparseconv", 1)
tensor = numpy_helper.from_array


@script(DOMAIN, default_opset=op)
def Index(coords: Any) -> tuple[Any, Any, Any]:
    """Return ascending keys, their rows, and the packing: lower, extent, weights ``[3, 1 + D]``.

    Of an empty set it is the index of one row, number 0 = N: the one that is not there.
    """
    one = op.Constant(value_ints=[1])
    zero = op.Constant(value_ints=[0])
    count = op.Max(op.Shape(coords, start=0, end=1), one)
    columns = op.Shape(coords, start=1, end=2)
    origin = op.Expand(zero, op.Concat(one, columns, axis=0))
    some = op.Slice(op.Concat(coords, origin, axis=0), zero, count, zero)
    lower = op.ReduceMin(some, zero, keepdims=0)
    extent = op.Add(op.Sub(op.ReduceMax(some, zero, keepdims=0), lower), one)
    square = op.Concat(columns, columns, axis=0)
    after = op.Trilu(op.Expand(one, square), op.Constant(value_int=1), upper=1)
    sizes = op.Where(op.Greater(after, zero), op.Expand(extent, square), one)
    weights = op.ReduceProd(sizes, one, keepdims=0)
    packed = op.MatMul(op.Sub(some, lower), weights)
    keys, order = op.TopK(packed, count, axis=0, largest=0, sorted=1)
    rows = op.Concat(lower, extent, weights, axis=0)
    packing = op.Reshape(rows, op.Concat(op.Constant(value_ints=[3]), columns, axis=0))
    return keys, order, packing


@script(DOMAIN, default_opset=op)
def NeighbourKeys(packing: Any, places: Any, shifts: Any, divisor: Any) -> Any:
    """Return the key of each kernel cell's neighbour, int64 ``[K, n]``, -1 where there is none.

    The neighbour lies at ``(places + shifts[k]) / divisor`` where that is a whole number, in the
    box of the packing.
    """
    zero = op.Constant(value_ints=[0])
    nowhere = op.Constant(value_ints=[-1])
    lower = op.Gather(packing, op.Constant(value_int=0), axis=0)
    extent = op.Gather(packing, op.Constant(value_int=1), axis=0)
    weights = op.Gather(packing, op.Constant(value_int=2), axis=0)

    @graph()
    def of_cell(shift: Any) -> Any:
        moved = op.Add(places, shift)
        rest = op.Mod(moved, divisor)
        digits = op.Sub(op.Div(op.Sub(moved, rest), divisor), lower)
        inside = op.And(op.GreaterOrEqual(digits, zero), op.Less(digits, extent))
        whole = op.Cast(op.And(inside, op.Equal(rest, zero)), to=7)
        present = op.ReduceMin(whole, op.Constant(value_ints=[-1]), keepdims=0)
        packed = op.ReduceSum(op.Mul(digits, weights), nowhere, keepdims=0)
        keys = op.Where(op.Greater(present, zero), packed, nowhere)
        return op.Reshape(keys, nowhere)  # of a rank that ONNX Runtime knows

    return op.Scan(shifts, body=of_cell, num_scan_inputs=1)


@script(DOMAIN, default_opset=op)
def Lookup(keys: Any, order: Any, absent: Any, asked: Any) -> Any:
    """Return the row of each key by binary search, ``absent`` where it is not there.

    ``keys`` ascend and have the rows ``order``, int64 ``[N]``; ``absent`` int64 ``[1]``.
    """
    last = op.Sub(op.Size(keys), op.Constant(value_int=1))
    bits = op.Div(op.Log(op.Cast(op.Size(keys), to=1)), op.Log(op.Constant(value_float=2.0)))
    steps = op.Add(op.Cast(op.Ceil(bits), to=7), op.Constant(value_int=1))
    step = op.Pow(op.Constant(value_int=2), steps)
    place = op.Sub(asked, asked)  # of the last key that is not above the asked one, or 0
    for _ in range(steps):
        step = op.Div(step, op.Constant(value_int=2))
        ahead = op.Min(op.Add(place, step), last)
        place = op.Where(op.LessOrEqual(op.Gather(keys, ahead), asked), ahead, place)
    found = op.Equal(op.Gather(keys, place), asked)
    return op.Where(found, op.Gather(order, place), absent)


@script(DOMAIN, default_opset=op)
def Candidates(places: Any, shifts: Any, divisor: Any, begin: Any, end: Any) -> Any:
    """Return ``(places + shifts[k]) / divisor`` where it is whole, in ``[begin, end)``.

    int64 ``[M, 1 + D]``; a site that several rows reach occurs several times.
    """
    zero = op.Constant(value_ints=[0])
    moved = op.Add(places, op.Unsqueeze(shifts, op.Constant(value_ints=[1])))
    rest = op.Mod(moved, divisor)
    cells = op.Div(op.Sub(moved, rest), divisor)
    inside = op.And(op.GreaterOrEqual(cells, begin), op.Less(cells, end))
    whole = op.Cast(op.And(inside, op.Equal(rest, zero)), to=7)
    kept = op.ReduceMin(whole, op.Constant(value_ints=[-1]), keepdims=0)
    mask = op.Cast(op.Reshape(kept, op.Constant(value_ints=[-1])), to=9)
    columns = op.Shape(places, start=1, end=2)
    count = op.Reshape(op.Size(mask), op.Constant(value_ints=[1]))
    flat = op.Reshape(cells, op.Concat(count, columns, axis=0), allowzero=1)
    return op.Compress(flat, mask, axis=0)


@script(DOMAIN, default_opset=op)
def Distinct(coords: Any, keys: Any, packing: Any) -> Any:
    """Return each of the coordinates once, in ascending order, given their index."""
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    lower = op.Gather(packing, zero, axis=0)
    extent = op.Gather(packing, one, axis=0)
    weights = op.Gather(packing, op.Constant(value_ints=[2]), axis=0)
    before = op.Slice(op.Concat(op.Neg(one), keys, axis=0), zero, op.Neg(one), zero)
    unique = op.Unsqueeze(op.Compress(keys, op.Greater(keys, before), axis=0), one)
    found = op.Add(op.Mod(op.Div(unique, weights), extent), lower)
    return op.Slice(found, zero, op.Shape(coords, start=0, end=1), zero)


@script(DOMAIN, default_opset=op)
def Convolution(features: Any, weight: Any, table: Any) -> Any:
    """Return ``sum over k of features[table[k]] @ weight[k]``, ``[n, G * c_out]``.

    ``features`` ``[N, G * c_in]``, ``weight`` ``[K, G, c_in, c_out]``, ``table`` ``[K, n]``.
    """
    one = op.Constant(value_ints=[1])
    groups = op.Shape(weight, start=1, end=2)
    c_in = op.Shape(weight, start=2, end=3)
    c_out = op.Shape(weight, start=3, end=4)
    outputs = op.Shape(table, start=1, end=2)
    nothing = op.CastLike(op.Constant(value_float=0.0), features)
    padding = op.Expand(nothing, op.Concat(one, op.Mul(groups, c_in), axis=0))
    padded = op.Concat(features, padding, axis=0)
    shape = op.Concat(op.Shape(padded, start=0, end=1), groups, c_in, axis=0)
    grouped = op.Transpose(op.Reshape(padded, shape, allowzero=1), perm=[1, 0, 2])
    total = op.Expand(nothing, op.Concat(groups, outputs, c_out, axis=0))
    for cell in range(op.Squeeze(op.Shape(table, start=0, end=1))):
        rows = op.Gather(grouped, op.Gather(table, cell), axis=1)
        total = op.Add(total, op.MatMul(rows, op.Gather(weight, cell)))
    columns = op.Concat(outputs, op.Mul(groups, c_out), axis=0)
    return op.Reshape(op.Transpose(total, perm=[1, 0, 2]), columns, allowzero=1)


@script(DOMAIN, default_opset=op)
def WindowSum(features: Any, table: Any) -> Any:
    """Return ``sum over k of features[table[k]]``, ``[n, C]``."""
    one = op.Constant(value_ints=[1])
    channels = op.Shape(features, start=1, end=2)
    nothing = op.CastLike(op.Constant(value_float=0.0), features)
    padded = op.Concat(features, op.Expand(nothing, op.Concat(one, channels, axis=0)), axis=0)
    outputs = op.Shape(table, start=1, end=2)
    total = op.Expand(nothing, op.Concat(outputs, channels, axis=0))
    for cell in range(op.Squeeze(op.Shape(table, start=0, end=1))):
        total = op.Add(total, op.Gather(padded, op.Gather(table, cell)))
    return total


@script(DOMAIN, default_opset=op)
def WindowArgMax(features: Any, table: Any) -> Any:
    """Return the kernel cell of each window's first largest value, ``[n, C]``; the last NaN wins.

    ``table`` ``[K, n]`` holds N where a cell is empty; of an empty window the result is -1.
    """
    nowhere = op.Constant(value_ints=[-1])
    one = op.Constant(value_ints=[1])
    channels = op.Shape(features, start=1, end=2)
    count = op.Shape(features, start=0, end=1)
    nothing = op.CastLike(op.Constant(value_float=0.0), features)
    padded = op.Concat(features, op.Expand(nothing, op.Concat(one, channels, axis=0)), axis=0)
    size = op.Concat(op.Shape(table, start=1, end=2), channels, axis=0)
    best = op.Expand(nothing, size)
    chosen = op.Expand(nowhere, size)
    for cell in range(op.Squeeze(op.Shape(table, start=0, end=1))):
        rows = op.Gather(table, cell)
        values = op.Gather(padded, rows)
        larger = op.Or(op.Greater(values, best), op.IsNaN(values))
        better = op.Or(larger, op.Equal(chosen, nowhere))
        taken = op.And(better, op.Unsqueeze(op.Less(rows, count), one))
        best = op.Where(taken, values, best)
        chosen = op.Where(taken, cell, chosen)
    return chosen


@script(DOMAIN, default_opset=op)
def WindowPick(features: Any, chosen: Any, table: Any) -> Any:
    """Return the value at the kernel cell that each window chose, ``[n, C]``; 0 at cell -1."""
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    channels = op.Shape(features, start=1, end=2)
    row = op.Expand(
        op.CastLike(op.Constant(value_float=0.0), features), op.Concat(one, channels, axis=0)
    )
    count = op.Shape(features, start=0, end=1)
    rows = op.GatherElements(op.Transpose(table, perm=[1, 0]), op.Max(chosen, zero), axis=1)
    there = op.Where(op.Less(chosen, zero), count, rows)
    return op.GatherElements(op.Concat(features, row, axis=0), there, axis=0)


@script(DOMAIN, default_opset=op)
def SegmentSum(values: Any, segment: Any, count: Any) -> Any:
    """Return the sums ``[count, C]`` of the rows of each segment; segment -1 counts nowhere."""
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    channels = op.Shape(values, start=1, end=2)
    size = op.Concat(op.Add(count, one), channels, axis=0)
    nothing = op.Expand(op.CastLike(op.Constant(value_float=0.0), values), size)
    place = op.Unsqueeze(op.Where(op.Less(segment, zero), count, segment), one)
    return op.Slice(op.ScatterND(nothing, place, values, reduction="add"), zero, count, zero)


@script(DOMAIN, default_opset=op)
def SegmentGather(values: Any, segment: Any) -> Any:
    """Return the row of each segment, zeros of segment -1."""
    one = op.Constant(value_ints=[1])
    channels = op.Shape(values, start=1, end=2)
    nothing = op.CastLike(op.Constant(value_float=0.0), values)
    padded = op.Concat(values, op.Expand(nothing, op.Concat(one, channels, axis=0)), axis=0)
    count = op.Shape(values, start=0, end=1)
    return op.Gather(
        padded, op.Where(op.Less(segment, op.Constant(value_ints=[0])), count, segment), axis=0
    )


@script(DOMAIN, default_opset=op)
def SegmentArgMax(values: Any, segment: Any, count: Any) -> Any:
    """Return the row of each segment's largest value, int64 ``[count, C]``, -1 without rows."""
    one = op.Constant(value_ints=[1])
    size = op.Concat(count, op.Shape(values, start=1, end=2), axis=0)
    place = op.Unsqueeze(segment, one)
    least = op.Expand(op.CastLike(op.Constant(value_float=float("-inf")), values), size)
    largest = op.Gather(op.ScatterND(least, place, values, reduction="max"), segment)
    numbers = op.Range(
        op.Constant(value_int=0), op.Squeeze(op.Shape(values, start=0, end=1)), op.Squeeze(one)
    )
    nobody = op.Constant(value_ints=[9223372036854775807])
    rows = op.Where(op.Equal(values, largest), op.Unsqueeze(numbers, one), nobody)
    first = op.ScatterND(op.Expand(nobody, size), place, rows, reduction="min")
    return op.Where(op.Equal(first, nobody), op.Constant(value_ints=[-1]), first)

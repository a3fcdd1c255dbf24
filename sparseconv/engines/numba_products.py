"""Kernels of the Numba engine for the product, with micro-kernels emitted as LLVM vectors.

Forward and input gradient are output-stationary: a task owns a tile of output rows that stays in
its cache, walks the kernel cells in order and multiplies, for each block of ``BLOCK`` columns, all
pairs of the tile with the block of the weight, which stays in the first-level cache. Accumulators
live in registers, ``ROWS`` pairs by one or two vectors; rows are read through the rulebook, so no
gathered copy exists. An output value is the same chain of fused multiply-adds whatever pairs were
computed beside it: cell by cell, channel by channel. Where each output row has one pair it is
written at once, and neither zeroed nor read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_multiply import emit_multiply, enough_steps
from sparseconv.engines.numba_vectors import (
    VECTOR_BYTES,
    Emitter,
    Value,
    addresses,
    large,
)

Array = np.ndarray[Any, Any]


@intrinsic
def multiply_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    """Add rows times a block of weight, one vector wide, to the rows of their pairs."""
    return addresses(emit_multiply(1), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def multiply_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    """Add rows times a block of weight, two vectors wide, to the rows of their pairs."""
    return addresses(emit_multiply(2), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _multiply_spread(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return addresses(emit_multiply(2, True), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _single_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past):
    places = (x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past)
    return addresses(emit_multiply(1, single=True), like, places)


@intrinsic
def _single_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past):
    places = (x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past)
    return addresses(emit_multiply(2, single=True), like, places)


@intrinsic
def _single_spread(typing, like, x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past):
    places = (x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past)
    return addresses(emit_multiply(2, True, single=True), like, places)


@intrinsic
def rescale(typing, like, out, out_stride, factor, bias, first, last):
    """Multiply a vector of columns by each row's factor and add the bias, ``first`` to ``last``."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, out, out_stride, factor, bias, first, last = args
        start = emitter.load(bias)
        with emitter.loop(first, last, 1, []) as rows:
            place = builder.add(out, builder.mul(rows.number, out_stride))
            scale = emitter.broadcast(emitter.plus(factor, rows.number, emitter.size))
            emitter.store(emitter.fma(emitter.load(place), scale, start), place)

    return addresses(emit, like, (out, out_stride, factor, bias, first, last))


@intrinsic
def begin_rows(typing, like, out, origin, length, count):
    """Write ``length`` bytes from ``origin`` to each of ``count`` rows that follow each other.

    An assignment of arrays does so too, but takes Numba two seconds to compile.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, out, origin, length, count = args
        with emitter.loop(emitter.const(0), count, 1, []) as rows:
            row = builder.add(out, builder.mul(rows.number, length))
            with emitter.loop(emitter.const(0), length, VECTOR_BYTES, []) as bytes_:
                value = emitter.load(builder.add(origin, bytes_.number))
                emitter.store(value, builder.add(row, bytes_.number))

    return addresses(emit, like, (out, origin, length, count))


@Kernel
def tile_starts(out_places: Array, first: int, last: int, tile: int, starts: Array) -> None:
    """Write where each tile of output places begins among the pairs ``first`` to ``last``.

    ``out_places`` ascend there; ``starts`` ``[T + 1]`` gets the pair that opens each tile.
    """
    pair = first
    for number in range(starts.shape[0]):
        while pair < last and out_places[pair] < number * tile:
            pair += 1
        starts[number] = pair


@Kernel
def scatter_tiles(
    features: Array,
    weight: Array,
    in_rows: Array,
    out_places: Array,
    starts: Array,
    order: Array,
    tile: int,
    numbers: tuple[int, int],
    factor: Array,
    bias: Array,
    other: Array,
    relu: bool,
    out: Array,
) -> None:
    """Compute the output rows of some tiles.

    Args:
        features: ``[n_in, G, c_in]``.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_places: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        order: ``[n_out]``, the row at each place; without entries where that is the place.
        tile, numbers: places per tile, and which tiles: the first, and the one behind the last.
        factor: ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: ``[G, blocks * BLOCK]``, added to them.
        other: ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tiles.
    """
    cells, groups, blocks, c_in, width = weight.shape
    size, scaled, ordered = features.itemsize, factor.shape[0] > 0, order.shape[0] > 0
    held = np.empty((tile if ordered else 0, groups, out.shape[2]), out.dtype)
    scales = np.empty(tile if ordered and scaled else 0, factor.dtype)
    origins = np.zeros(bias.shape, bias.dtype) if scaled else bias
    rows, places = in_rows.ctypes.data, out_places.ctypes.data
    xs, ys = features.strides[0], out.strides[0]
    spread = enough_steps(c_in, size)
    for number in range(numbers[0], numbers[1]):
        begin, end = number * tile, min((number + 1) * tile, out.shape[0])
        total = held[: end - begin] if ordered else out[begin:end]
        begin_rows(out, total.ctypes.data, origins.ctypes.data, ys, end - begin)
        for cell in range(cells):
            first, last = starts[cell, number], starts[cell, number + 1]
            if first == last:
                continue
            for group in range(groups):
                x = features.ctypes.data + group * c_in * size
                for block in range(blocks):
                    y = total.ctypes.data + (group * blocks + block) * width * size - begin * ys
                    w = weight[cell, group, block].ctypes.data
                    if width * size == VECTOR_BYTES:
                        multiply_one(features, x, xs, rows, y, ys, places, w, c_in, first, last)
                    elif spread:
                        _multiply_spread(features, x, xs, rows, y, ys, places, w, c_in, first, last)
                    else:
                        multiply_two(features, x, xs, rows, y, ys, places, w, c_in, first, last)
        if scaled:
            scale = factor.ctypes.data + begin * size
            if ordered:
                scale = scales.ctypes.data
                for place in range(begin, end):
                    scales[place - begin] = factor[order[place]]
            start, added = total.ctypes.data, bias.ctypes.data
            for byte in range(0, groups * blocks * width * size, VECTOR_BYTES):
                rescale(out, start + byte, ys, scale, added + byte, 0, end - begin)
        if not (ordered or relu or other.shape[0] > 0):
            continue
        for place in range(begin, end):
            row = order[place] if ordered else place
            result = total[place - begin]
            if other.shape[0] > 0:
                for group in range(groups):
                    for column in range(other.shape[2]):
                        result[group, column] += other[row, group, column]
            if relu:
                for group in range(groups):
                    for column in range(out.shape[2]):
                        value = result[group, column]
                        # a NaN stays one, as in torch
                        result[group, column] = out.dtype.type(0) if value < 0 else value
            if ordered:
                for group in range(groups):
                    for column in range(out.shape[2]):
                        out[row, group, column] = result[group, column]


@Kernel
def single_tiles(
    features: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    unreached: Array,
    tile: int,
    numbers: tuple[int, int],
    bias: Array,
    relu: bool,
    out: Array,
) -> None:
    """Compute the output rows of some tiles, where no row of the output has more than one pair.

    So no row is read before it is written, nor written twice, and large results go past the cache.

    Args:
        features, weight, in_rows, starts, tile, numbers, bias, relu, out: as of
            :func:`scatter_tiles`.
        out_rows: int32 ``[P]``.
        unreached: ascending, the rows without a pair; those of the tiles are written here, too.
    """
    cells, groups, blocks, c_in, width = weight.shape
    size, negatives = features.itemsize, 1 if relu else 0
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    xs, ys = features.strides[0], out.strides[0]
    past = large(out)
    spread = enough_steps(c_in, size)
    ends = np.searchsorted(unreached, np.array([numbers[0] * tile, numbers[1] * tile]))
    for row in unreached[ends[0] : ends[1]]:
        for group in range(groups):
            for column in range(out.shape[2]):
                value = bias[group, column]
                out[row, group, column] = out.dtype.type(0) if relu and value < 0 else value
    for number in range(numbers[0], numbers[1]):
        for cell in range(cells):
            s, e = starts[cell, number], starts[cell, number + 1]
            if s == e:
                continue
            for group in range(groups):
                x = features.ctypes.data + group * c_in * size
                for block in range(blocks):
                    byte = (group * blocks + block) * width * size
                    y, b = out.ctypes.data + byte, bias.ctypes.data + byte
                    w = weight[cell, group, block].ctypes.data
                    if width * size == VECTOR_BYTES:
                        _single_one(
                            features, x, xs, rows, y, ys, targets, w, c_in, s, e, b, negatives, past
                        )
                    elif spread:
                        _single_spread(
                            features, x, xs, rows, y, ys, targets, w, c_in, s, e, b, negatives, past
                        )
                    else:
                        _single_two(
                            features, x, xs, rows, y, ys, targets, w, c_in, s, e, b, negatives, past
                        )

"""Kernels of the Numba engine for the product, with micro-kernels emitted as LLVM vectors.

Forward and input gradient are output-stationary: a task owns some tiles of output rows, or a part
of their columns, that stay in its cache, walks the kernel cells in order and multiplies, for each
block of ``BLOCK`` columns, all pairs of the tiles with the block of the weight, which stays in the
first-level cache. Accumulators live in registers, ``ROWS`` pairs by one or two vectors; rows are
read through the rulebook, so no gathered copy exists. An output value is the same chain of fused
multiply-adds whatever pairs were computed beside it: cell by cell, channel by channel. Where each
output row has one pair it is written at once, and neither zeroed nor read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.kernels import first_from
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import (
    ROWS,
    VECTOR_BYTES,
    Emitter,
    Value,
    addresses,
    large,
)
from sparseconv.engines.numba.products.multiply import emit_multiply


@intrinsic
def multiply_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    """Add rows times a block of weight, one vector wide, to the rows of their pairs."""
    return addresses(emit_multiply(1), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def multiply_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    """Add rows times a block of weight, two vectors wide, to the rows of their pairs."""
    return addresses(emit_multiply(2), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _single_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past):
    places = (x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past)
    return addresses(emit_multiply(1, single=True), like, places)


@intrinsic
def _single_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past):
    places = (x, xs, ir_, o, os, or_, w, c, first, last, bias, relu, past)
    return addresses(emit_multiply(2, single=True), like, places)


@intrinsic
def rescale(typing, like, out, out_stride, factor, bias, first, last):
    """Multiply a vector of columns by each row's factor and add the bias, ``first`` to ``last``."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, out, out_stride, factor, bias, first, last = args
        start = emitter.load(bias)
        for at_once in (ROWS, 1):
            with emitter.loop(first, last, at_once, []) as rows:
                numbers = [emitter.plus(rows.number, row) for row in range(at_once)]
                places = [builder.add(out, builder.mul(number, out_stride)) for number in numbers]
                sums = [emitter.load(place) for place in places]
                for number, place, total in zip(numbers, places, sums, strict=True):
                    scale = emitter.broadcast(emitter.plus(factor, number, emitter.size))
                    emitter.store(emitter.fma(total, scale, start), place)
            first = rows.number

    return addresses(emit, like, (out, out_stride, factor, bias, first, last))


@intrinsic
def begin_rows(typing, like, out, stride, origin, length, count):
    """Write ``length`` bytes from ``origin`` to each of ``count`` rows.

    An assignment of arrays does so too, but takes Numba two seconds to compile.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, out, stride, origin, length, count = args
        with emitter.loop(emitter.const(0), count, 1, []) as rows:
            row = builder.add(out, builder.mul(rows.number, stride))
            with emitter.loop(emitter.const(0), length, VECTOR_BYTES, []) as bytes_:
                value = emitter.load(builder.add(origin, bytes_.number))
                emitter.store(value, builder.add(row, bytes_.number))

    return addresses(emit, like, (out, stride, origin, length, count))


@Loop
def tile_starts(
    begin: int, stop: int, out_places: Array, ranges: Array, tile: int, starts: Array
) -> None:
    """Write where each tile of output places begins among the pairs of some cells.

    Args:
        begin, stop: cells.
        out_places: int32 ``[P]``, ascending for each cell.
        ranges: ``[K, 2]``, the first pair of each cell and the one behind the last.
        tile: places per tile.
        starts: ``[K, T + 1]``, written here: the pair that opens each tile.
    """
    for cell in range(begin, stop):
        pair, last = ranges[cell]
        for number in range(starts.shape[1]):
            while pair < last and out_places[pair] < number * tile:
                pair += 1
            starts[cell, number] = pair


@Loop
def scatter_tiles(
    begin_task: int,
    end_task: int,
    features: Array,
    weight: Array,
    in_rows: Array,
    out_places: Array,
    starts: Array,
    order: Array,
    tile: int,
    span: int,
    parts: int,
    factor: Array,
    bias: Array,
    other: Array,
    relu: bool,
    out: Array,
) -> None:
    """Compute the output rows of some tasks.

    Args:
        begin_task, end_task: the first of them, and the one behind the last. Task ``n`` takes part
            ``n % parts`` of the columns of ``span`` tiles, from tile ``n // parts * span`` on.
        features: ``[n_in, G, c_in]``.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_places: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        order: ``[n_out]``, the row at each place; without entries where that is the place.
        tile: places per tile.
        span, parts: tiles that are taken together, and parts of the blocks; they divide them.
        factor: ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: ``[G, blocks * BLOCK]``, added to them.
        other: ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: ``[n_out, G * blocks * BLOCK]``, written here.
    """
    cells, groups, blocks, c_in, width = weight.shape
    size, scaled, ordered = features.itemsize, factor.shape[0] > 0, order.shape[0] > 0
    tiles, every = starts.shape[1] - 1, groups * blocks // parts
    length, xs, block_bytes = every * width * size, features.strides[0], width * size
    held = np.empty((tile * span if ordered else 0, every * width), out.dtype)
    scales = np.empty(tile * span if ordered and scaled else 0, factor.dtype)
    origins = np.zeros(bias.shape, bias.dtype) if scaled else bias
    rows, places = in_rows.ctypes.data, out_places.ctypes.data
    ys = held.strides[0] if ordered else out.strides[0]
    for number in range(begin_task, end_task):
        opening, low = number // parts * span, number % parts * every
        closing = min(opening + span, tiles)
        begin, end = opening * tile, min(closing * tile, out.shape[0])
        total = held.ctypes.data if ordered else out[begin, low * width :].ctypes.data
        begin_rows(out, total, ys, origins.ctypes.data + low * block_bytes, length, end - begin)
        for cell in range(cells):
            first, last = starts[cell, opening], starts[cell, closing]
            if first == last:
                continue
            for block in range(low, low + every):
                x = features.ctypes.data + block // blocks * c_in * size
                y = total + (block - low) * block_bytes - begin * ys
                w = weight[cell, block // blocks, block % blocks].ctypes.data
                if block_bytes == VECTOR_BYTES:
                    multiply_one(features, x, xs, rows, y, ys, places, w, c_in, first, last)
                else:
                    multiply_two(features, x, xs, rows, y, ys, places, w, c_in, first, last)
        if scaled:
            scale = factor.ctypes.data + begin * size
            if ordered:
                scale = scales.ctypes.data
                for place in range(begin, end):
                    scales[place - begin] = factor[order[place]]
            added = bias.ctypes.data + low * block_bytes
            for byte in range(0, length, VECTOR_BYTES):
                rescale(out, total + byte, ys, scale, added + byte, 0, end - begin)
        if not (ordered or relu or other.shape[0] > 0):
            continue
        for place in range(begin, end):
            row = order[place] if ordered else place
            result = out[row, low * width : (low + every) * width]
            source = held[place - begin] if ordered else result
            if other.shape[0] > 0:
                for block in range(low, low + every):
                    own, start = (block - low) * width, block % blocks * width
                    for column in range(min(width, other.shape[2] - start)):
                        source[own + column] += other[row, block // blocks, start + column]
            for column in range(len(result)):
                value = source[column]
                # a NaN stays one, as in torch
                result[column] = out.dtype.type(0) if relu and value < 0 else value


@Loop
def single_tiles(
    begin_task: int,
    end_task: int,
    features: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    unreached: Array,
    tile: int,
    span: int,
    parts: int,
    bias: Array,
    relu: bool,
    out: Array,
) -> None:
    """Compute the output rows of some tasks, where no row of the output has more than one pair.

    So no row is read before it is written, nor written twice, and large results go past the cache.

    Args:
        begin_task, end_task, features, weight, in_rows, starts, tile, span, parts, bias, relu, out:
            as of :func:`scatter_tiles`.
        out_rows: int32 ``[P]``.
        unreached: ascending, the rows without a pair; those of the tiles are written here, too.
    """
    cells, groups, blocks, c_in, width = weight.shape
    size, negatives = features.itemsize, 1 if relu else 0
    tiles, every = starts.shape[1] - 1, groups * blocks // parts
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    xs, ys, block_bytes = features.strides[0], out.strides[0], width * size
    past, added = large(out), bias.reshape(-1)
    for number in range(begin_task, end_task):
        opening, low = number // parts * span, number % parts * every
        closing = min(opening + span, tiles)
        behind = first_from(unreached, closing * tile)
        for place in range(first_from(unreached, opening * tile), behind):
            row = unreached[place]
            for column in range(low * width, (low + every) * width):
                value = added[column]
                out[row, column] = out.dtype.type(0) if relu and value < 0 else value
        for cell in range(cells):
            s, e = starts[cell, opening], starts[cell, closing]
            if s == e:
                continue
            for block in range(low, low + every):
                x = features.ctypes.data + block // blocks * c_in * size
                y, b = out.ctypes.data + block * block_bytes, bias.ctypes.data + block * block_bytes
                w = weight[cell, block // blocks, block % blocks].ctypes.data
                if block_bytes == VECTOR_BYTES:
                    _single_one(
                        features, x, xs, rows, y, ys, targets, w, c_in, s, e, b, negatives, past
                    )
                else:
                    _single_two(
                        features, x, xs, rows, y, ys, targets, w, c_in, s, e, b, negatives, past
                    )

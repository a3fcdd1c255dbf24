"""Kernels of the Numba engine for bfloat16, on CPUs that multiply pairs of such numbers at once.

One instruction adds ``a[0] * b[0] + a[1] * b[1]`` to a float32 lane. So the weight holds two input
channels side by side, and a row's two channels are broadcast together. Sums of a tile stay in
float32 in the cache and are rounded once, when the tile is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparseconv.engines.numba_bits import number as number_in
from sparseconv.engines.numba_bits import stored
from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_multiply import emit_multiply, enough_steps
from sparseconv.engines.numba_products import begin_rows, rescale
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses, sizes

Array = np.ndarray[Any, Any]

HALF = 64  # pairs of pairs of a weight gradient that are laid side by side at a time
LANES = VECTOR_BYTES // 4


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The 16-bit type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


def _dot_of(emitter: Emitter) -> Value:
    """Return the instruction that adds the products of pairs to a vector of float32."""
    name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * VECTOR_BYTES}"
    kind = ir.FunctionType(emitter.vector, [emitter.vector, _PAIRS, _PAIRS])
    module = emitter.builder.module
    return module.globals.get(name) or ir.Function(module, kind, name)


def _dots(emitter: Emitter, value: Value, column: Value, total: Value) -> Value:
    """Return the total and the products of pairs of numbers, as :func:`emit_multiply` asks."""
    pairs = (emitter.builder.bitcast(entry, _PAIRS) for entry in (value, column))
    return emitter.builder.call(_dot_of(emitter), [total, *pairs])


def _emit_outer_dots(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the outer products of ``half`` pairs of pairs to a block."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, types.float32)
        _, x, x_stride, grad, weight, c_in, half = args
        dot, channel = _dot_of(emitter), emitter.const(0)
        for size in sizes(vectors):
            with emitter.loop(channel, c_in, size, []) as channels:
                entries = [emitter.plus(channels.number, row) for row in range(size)]
                rows = [emitter.plus(weight, entry, vectors * VECTOR_BYTES) for entry in entries]
                start = [emitter.load(row, vector) for row in rows for vector in range(vectors)]
                with emitter.loop(emitter.const(0), half, 1, start) as pairs:
                    source = builder.add(x, builder.mul(pairs.number, x_stride))
                    target = emitter.plus(grad, pairs.number, vectors * VECTOR_BYTES)
                    columns = [
                        builder.bitcast(emitter.load(target, vector), _PAIRS)
                        for vector in range(vectors)
                    ]
                    totals = []
                    for row, entry in enumerate(entries):
                        place = emitter.plus(source, entry, 4)
                        value = builder.bitcast(emitter.broadcast(place), _PAIRS)
                        for vector, column in enumerate(columns):
                            total = pairs.values[row * vectors + vector]
                            totals.append(builder.call(dot, [total, value, column]))
                    pairs.values = totals
                for number, value in enumerate(pairs.values):
                    emitter.store(value, rows[number // vectors], number % vectors)
            channel = channels.number

    return emit


@intrinsic
def _outer_one(typing, like, x, xs, g, w, c, half):
    return addresses(_emit_outer_dots(1), like, (x, xs, g, w, c, half))


@intrinsic
def _outer_two(typing, like, x, xs, g, w, c, half):
    return addresses(_emit_outer_dots(2), like, (x, xs, g, w, c, half))


@intrinsic
def _dots_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return addresses(
        emit_multiply(1, fused=_dots), like, (x, xs, ir_, o, os, or_, w, c, first, last)
    )


@intrinsic
def _dots_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return addresses(
        emit_multiply(2, fused=_dots), like, (x, xs, ir_, o, os, or_, w, c, first, last)
    )


@intrinsic
def _dots_spread(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    places = x, xs, ir_, o, os, or_, w, c, first, last
    return addresses(emit_multiply(2, True, _dots), like, places)


@Kernel
def bfloat_tiles(
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
        features: bits ``[n_in, G, c_in]``, c_in even.
        weight: bits ``[K, G, blocks, c_in / 2, BLOCK, 2]``, BLOCK one or two vectors of columns.
        in_rows, out_places: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        order: ``[n_out]``, the row at each place; without entries where that is the place.
        tile, numbers: places per tile, and which tiles: the first, and the one behind the last.
        factor: float32 ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: float32 ``[G, blocks * BLOCK]``, added to them.
        other: bits ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: bits ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tiles.
    """
    cells, groups, blocks, steps, width, _ = weight.shape
    scaled, ordered = factor.shape[0] > 0, order.shape[0] > 0
    scales = np.empty(tile if ordered and scaled else 0, factor.dtype)
    origins = np.zeros(bias.shape, bias.dtype) if scaled else bias
    sums = np.empty((tile, groups, out.shape[2]), np.float32)
    xs, ys = features.strides[0], sums.strides[0]
    rows, places, spread = in_rows.ctypes.data, out_places.ctypes.data, enough_steps(steps, 4)
    for number in range(numbers[0], numbers[1]):
        begin, end = number * tile, min((number + 1) * tile, out.shape[0])
        total = sums[: end - begin]
        begin_rows(total, total.ctypes.data, origins.ctypes.data, ys, end - begin)
        for cell in range(cells):
            first, last = starts[cell, number], starts[cell, number + 1]
            if first == last:
                continue
            for group in range(groups):
                x = features.ctypes.data + group * steps * 4
                for block in range(blocks):
                    y = total.ctypes.data + (group * blocks + block) * width * 4 - begin * ys
                    w = weight[cell, group, block].ctypes.data
                    if width == LANES:
                        _dots_one(total, x, xs, rows, y, ys, places, w, steps, first, last)
                    elif spread:
                        _dots_spread(total, x, xs, rows, y, ys, places, w, steps, first, last)
                    else:
                        _dots_two(total, x, xs, rows, y, ys, places, w, steps, first, last)
        if scaled:
            scale = factor.ctypes.data + begin * 4
            if ordered:
                scale = scales.ctypes.data
                for place in range(begin, end):
                    scales[place - begin] = factor[order[place]]
            start, added = total.ctypes.data, bias.ctypes.data
            for byte in range(0, groups * blocks * width * 4, VECTOR_BYTES):
                rescale(total, start + byte, ys, scale, added + byte, 0, end - begin)
        for place in range(begin, end):
            row = order[place] if ordered else place
            for group in range(groups):
                result = total[place - begin, group]
                if other.shape[0] > 0:
                    for column in range(other.shape[2]):
                        result[column] += number_in(other[row, group, column])
                for column in range(out.shape[2]):
                    value = result[column]
                    # a NaN stays one, as in torch
                    value = np.float32(0) if relu and value < 0 else value
                    out[row, group, column] = stored(value, out)


@numba.njit(nogil=True, boundscheck=False)
def _lay_pairs(rows: Array, values: Array, first: int, last: int, out: Array) -> None:
    """Write rows two by two: the one's bits below the other's, which are 0 behind the last.

    Args:
        rows: int32 ``[P]``; ``first`` to ``last`` of them are read.
        values: bits ``[n, G, blocks * BLOCK]``.
        out: uint32 ``[G, blocks, half, BLOCK]``.
    """
    groups, blocks, _, width = out.shape
    for pair in range(first, last, 2):
        own, place = rows[pair], (pair - first) // 2
        other = rows[pair + 1] if pair + 1 < last else -1
        for group in range(groups):
            for block in range(blocks):
                start = block * width
                if other < 0:
                    for column in range(width):
                        out[group, block, place, column] = values[own, group, start + column]
                    continue
                for column in range(width):
                    above = np.uint32(values[other, group, start + column]) << np.uint32(16)
                    below = np.uint32(values[own, group, start + column])
                    out[group, block, place, column] = above | below


@Kernel
def bfloat_reduce(
    features: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tiles: Array,
    cells: Array,
    weight: Array,
) -> None:
    """Write the sums of ``features[i]^T grad[o]`` over the pairs of some tiles and cells.

    Args:
        features: bits ``[n_in, G, c_in]``.
        grad: bits ``[n_out, G, blocks * BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        tiles, cells: ``[2]`` first and last of each, the last one not included.
        weight: float32 ``[cells, G, blocks, c_in, BLOCK]``, written here.
    """
    _, groups, blocks, c_in, width = weight.shape
    weight[:] = 0
    x = np.empty((groups, 1, HALF, c_in), np.uint32)
    g = np.empty((groups, blocks, HALF, width), np.uint32)
    for tile in range(tiles[0], tiles[1]):
        for cell in range(cells[0], cells[1]):
            end = starts[cell, tile + 1]
            for first in range(starts[cell, tile], end, 2 * HALF):
                last = min(first + 2 * HALF, end)
                half = (last - first + 1) // 2
                _lay_pairs(in_rows, features, first, last, x)
                _lay_pairs(out_rows, grad, first, last, g)
                for group in range(groups):
                    a = x[group, 0].ctypes.data
                    for block in range(blocks):
                        b = g[group, block].ctypes.data
                        w = weight[cell - cells[0], group, block].ctypes.data
                        if width == LANES:
                            _outer_one(weight, a, c_in * 4, b, w, c_in, half)
                        else:
                            _outer_two(weight, a, c_in * 4, b, w, c_in, half)

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

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import number as number_in
from sparseconv.engines.numba.machine.bits import stored
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses, sizes
from sparseconv.engines.numba.products.multiply import emit_multiply
from sparseconv.engines.numba.products.tiles import begin_rows, rescale

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


@Loop
def bfloat_tiles(
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
        features: bits ``[n_in, G, c_in]``, c_in even.
        weight: bits ``[K, G, blocks, c_in / 2, BLOCK, 2]``, BLOCK one or two vectors of columns.
        in_rows, out_places: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        order: ``[n_out]``, the row at each place; without entries where that is the place.
        tile: places per tile.
        span, parts: tiles that are taken together, and parts of the blocks; they divide them.
        factor: float32 ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: float32 ``[G, blocks * BLOCK]``, added to them.
        other: bits ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: bits ``[n_out, G * blocks * BLOCK]``, written here.
    """
    cells, groups, blocks, steps, width, _ = weight.shape
    scaled, ordered = factor.shape[0] > 0, order.shape[0] > 0
    tiles, every = starts.shape[1] - 1, groups * blocks // parts
    scales = np.empty(tile * span if ordered and scaled else 0, factor.dtype)
    origins = np.zeros(bias.shape, bias.dtype) if scaled else bias
    sums = np.empty((tile * span, every * width), np.float32)
    xs, ys, total = features.strides[0], sums.strides[0], sums.ctypes.data
    rows, places = in_rows.ctypes.data, out_places.ctypes.data
    for number in range(begin_task, end_task):
        opening, low = number // parts * span, number % parts * every
        closing = min(opening + span, tiles)
        begin, end = opening * tile, min(closing * tile, out.shape[0])
        begin_rows(sums, total, ys, origins.ctypes.data + low * width * 4, ys, end - begin)
        for cell in range(cells):
            first, last = starts[cell, opening], starts[cell, closing]
            if first == last:
                continue
            for block in range(low, low + every):
                x = features.ctypes.data + block // blocks * steps * 4
                y = total + (block - low) * width * 4 - begin * ys
                w = weight[cell, block // blocks, block % blocks].ctypes.data
                if width == LANES:
                    _dots_one(sums, x, xs, rows, y, ys, places, w, steps, first, last)
                else:
                    _dots_two(sums, x, xs, rows, y, ys, places, w, steps, first, last)
        if scaled:
            scale = factor.ctypes.data + begin * 4
            if ordered:
                scale = scales.ctypes.data
                for place in range(begin, end):
                    scales[place - begin] = factor[order[place]]
            added = bias.ctypes.data + low * width * 4
            for byte in range(0, ys, VECTOR_BYTES):
                rescale(sums, total + byte, ys, scale, added + byte, 0, end - begin)
        for place in range(begin, end):
            row = order[place] if ordered else place
            source, result = sums[place - begin], out[row, low * width : (low + every) * width]
            if other.shape[0] > 0:
                for block in range(low, low + every):
                    own, start = (block - low) * width, block % blocks * width
                    for column in range(min(width, other.shape[2] - start)):
                        more = number_in(other[row, block // blocks, start + column])
                        source[own + column] += more
            for column in range(len(result)):
                value = source[column]
                # a NaN stays one, as in torch
                value = np.float32(0) if relu and value < 0 else value
                result[column] = stored(value, out)


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


@Loop
def bfloat_reduce(
    begin: int,
    stop: int,
    features: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    span: int,
    parts: Array,
    cell_groups: Array,
    weight: Array,
) -> None:
    """Write the sums of ``features[i]^T grad[o]`` over the pairs of tiles and cells.

    Args:
        begin, stop: tasks; each takes a part of the tiles and a group of the cells.
        features: bits ``[n_in, G, c_in]``.
        grad: bits ``[n_out, G, blocks * BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        span: tiles that are taken together.
        parts: ``[P, 2]`` lots of ``span`` tiles that are summed over apart: the first, and the
            one behind the last.
        cell_groups: ``[Q, 2]`` cells of a task, likewise.
        weight: float32 ``[P, K, G, blocks, c_in, BLOCK]``, written here.
    """
    _, _, groups, blocks, c_in, width = weight.shape
    x = np.empty((groups, 1, HALF, c_in), np.uint32)
    g = np.empty((groups, blocks, HALF, width), np.uint32)
    for number in range(begin, stop):
        part, cells = number // len(cell_groups), cell_groups[number % len(cell_groups)]
        sums, tiles = weight[part], parts[part]
        sums[cells[0] : cells[1]] = 0
        for step in range((tiles[1] - tiles[0]) * (cells[1] - cells[0])):
            cell = cells[0] + step % (cells[1] - cells[0])
            tile = span * (tiles[0] + step // (cells[1] - cells[0]))
            behind = min(tile + span, starts.shape[1] - 1)
            end = starts[cell, behind]
            for first in range(starts[cell, tile], end, 2 * HALF):
                last = min(first + 2 * HALF, end)
                half = (last - first + 1) // 2
                _lay_pairs(in_rows, features, first, last, x)
                _lay_pairs(out_rows, grad, first, last, g)
                for group in range(groups):
                    a = x[group, 0].ctypes.data
                    for block in range(blocks):
                        b = g[group, block].ctypes.data
                        w = sums[cell, group, block].ctypes.data
                        if width == LANES:
                            _outer_one(weight, a, c_in * 4, b, w, c_in, half)
                        else:
                            _outer_two(weight, a, c_in * 4, b, w, c_in, half)

"""Kernels of the Numba engine for depthwise products: each channel by itself, no matrix.

A block of the weight, one vector or four of them, stays in registers while the pairs of a tile are
walked: what is left is reading the rows and adding to the output's, which stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses

Array = np.ndarray[Any, Any]

WIDE = 4  # vectors of the wide block


def _emit_scale(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the rows of pairs, times a row of weight, to rows."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, out, out_stride, out_rows, weight, first, last = args
        factors = [emitter.load(weight, vector) for vector in range(vectors)]
        with emitter.loop(first, last, 1, []) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, out, out_stride)
            for vector, factor in enumerate(factors):
                total = emitter.load(target, vector)
                total = emitter.fma(emitter.load(source, vector), factor, total)
                emitter.store(total, target, vector)

    return emit


def _emit_dot(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the products of the two rows of pairs to a row of weight."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, grad, grad_stride, out_rows, weight, first, last = args
        start = [emitter.load(weight, vector) for vector in range(vectors)]
        with emitter.loop(first, last, 1, start) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, grad, grad_stride)
            pairs.values = [
                emitter.fma(emitter.load(source, vector), emitter.load(target, vector), total)
                for vector, total in enumerate(pairs.values)
            ]
        for vector, total in enumerate(pairs.values):
            emitter.store(total, weight, vector)

    return emit


@intrinsic
def _scale_one(typing, like, x, xs, ir_, o, os, or_, w, first, last):
    return addresses(_emit_scale(1), like, (x, xs, ir_, o, os, or_, w, first, last))


@intrinsic
def _scale_wide(typing, like, x, xs, ir_, o, os, or_, w, first, last):
    return addresses(_emit_scale(WIDE), like, (x, xs, ir_, o, os, or_, w, first, last))


@intrinsic
def _dot_one(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_wide(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(WIDE), like, (x, xs, ir_, g, gs, or_, w, first, last))


@Kernel
def scale_tile(
    x: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile: int,
    number: int,
    out: Array,
) -> None:
    """Compute output rows ``number * tile`` to ``(number + 1) * tile``.

    Args:
        x: ``[n_in, C]``, C whole vectors.
        weight: ``[K, C]``.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        tile, number: rows per tile, and which tile.
        out: ``[n_out, C]``, written here for the rows of the tile.
    """
    out[number * tile : min((number + 1) * tile, out.shape[0])] = 0
    width = x.shape[1] * x.itemsize
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for cell in range(weight.shape[0]):
        first, last = starts[cell, number], starts[cell, number + 1]
        if first == last:
            continue
        a, y, w = x.ctypes.data, out.ctypes.data, weight[cell].ctypes.data
        done = 0
        while done + WIDE * VECTOR_BYTES <= width:
            _scale_wide(x, a + done, width, rows, y + done, width, targets, w + done, first, last)
            done += WIDE * VECTOR_BYTES
        while done < width:
            _scale_one(x, a + done, width, rows, y + done, width, targets, w + done, first, last)
            done += VECTOR_BYTES


@Kernel
def dot_tiles(
    x: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tiles: Array,
    cells: Array,
    weight: Array,
) -> None:
    """Write the sums of ``x[i] * grad[o]`` over the pairs of some tiles and cells.

    Args:
        x, grad: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        tiles, cells: ``[2]`` first and last of each, the last one not included.
        weight: ``[cells, C]``, written here.
    """
    weight[:] = 0
    width = x.shape[1] * x.itemsize
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for tile in range(tiles[0], tiles[1]):
        for cell in range(cells[0], cells[1]):
            first, last = starts[cell, tile], starts[cell, tile + 1]
            if first == last:
                continue
            a, g, w = x.ctypes.data, grad.ctypes.data, weight[cell - cells[0]].ctypes.data
            done = 0
            while done + WIDE * VECTOR_BYTES <= width:
                _dot_wide(x, a + done, width, rows, g + done, width, targets, w + done, first, last)
                done += WIDE * VECTOR_BYTES
            while done < width:
                _dot_one(x, a + done, width, rows, g + done, width, targets, w + done, first, last)
                done += VECTOR_BYTES

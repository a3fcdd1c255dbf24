"""Kernel of the Numba engine for the weight gradient of depthwise products: no matrix.

A block of the weight, one vector or four of them, stays in registers while the pairs of a tile are
walked. The product itself is a sum over windows: :mod:`numba_windows`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_bits import emitter_of, loaded, vector_bytes
from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Value, addresses

Array = np.ndarray[Any, Any]

WIDE = 4  # vectors of the wide block


def _emit_dot(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the products of the two rows of pairs to a row of weight."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, x_stride, in_rows, grad, grad_stride, out_rows, weight, first, last = args
        start = [emitter.load(weight, vector) for vector in range(vectors)]
        with emitter.loop(first, last, 1, start) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, grad, grad_stride)
            factors = (loaded(emitter, dtype, row, vectors) for row in (source, target))
            pairs.values = [
                emitter.fma(*entry) for entry in zip(*factors, pairs.values, strict=True)
            ]
        for vector, total in enumerate(pairs.values):
            emitter.store(total, weight, vector)

    return emit


@intrinsic
def _dot_one(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_wide(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(WIDE), like, (x, xs, ir_, g, gs, or_, w, first, last))


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
        x, grad: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors; numbers or bits of bfloat16.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        tiles, cells: ``[2]`` first and last of each, the last one not included.
        weight: ``[cells, C]``, written here.
    """
    weight[:] = 0
    width, step = x.shape[1] * x.itemsize, vector_bytes(x)
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for tile in range(tiles[0], tiles[1]):
        for cell in range(cells[0], cells[1]):
            first, last = starts[cell, tile], starts[cell, tile + 1]
            if first == last:
                continue
            a, g, w = x.ctypes.data, grad.ctypes.data, weight[cell - cells[0]].ctypes.data
            done = 0
            while done + WIDE * step <= width:
                _dot_wide(x, a + done, width, rows, g + done, width, targets, w, first, last)
                done += WIDE * step
                w += WIDE * VECTOR_BYTES
            while done < width:
                _dot_one(x, a + done, width, rows, g + done, width, targets, w, first, last)
                done += step
                w += VECTOR_BYTES


@Kernel
def repeat_columns(x: Array, times: int, first: int, last: int, out: Array) -> None:
    """Write each value of rows ``first`` to ``last`` so many times over, and zeros behind them."""
    for row in range(first, last):
        own, target = x[row], out[row]
        for column in range(len(own)):
            for place in range(column * times, (column + 1) * times):
                target[place] = own[column]
        target[len(own) * times :] = 0

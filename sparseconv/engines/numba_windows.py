"""Kernels of the Numba engine for windows: largest values and the way back.

A task owns a tile of output rows and walks the pairs that end there cell by cell, so that a value
depends on its own pairs alone. All kernels read the tiled pairs of the products: ``in_rows`` and
``out_rows`` int32 ``[P]``, ``starts`` int64 ``[K, T + 1]``; rows are whole vectors long.
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


def _emit_max(vectors: int) -> Callable[..., None]:
    """Return the emitter of: keep the larger of a pair's two rows, and where it came from.

    NaN counts as larger than everything, the last one most of all; a row that nothing was kept in
    (-1) takes what comes.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, out, out_stride, out_rows, chosen, chosen_stride, first, last = (
            args
        )
        with emitter.loop(first, last, 1, []) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, out, out_stride)
            holders = emitter.load_row(out_rows, pairs.number, chosen, chosen_stride)
            row = emitter.splat(in_rows, pairs.number)
            for vector in range(vectors):
                value, held = emitter.load(source, vector), emitter.load(target, vector)
                holder = emitter.load_integers(holders, vector)
                better = builder.or_(
                    builder.fcmp_ordered(">", value, held),
                    builder.fcmp_unordered("uno", value, value),
                )
                none = builder.icmp_signed("<", holder, emitter.zeros(integers=True))
                better = builder.or_(better, none)
                emitter.store(builder.select(better, value, held), target, vector)
                emitter.store_integers(builder.select(better, row, holder), holders, vector)

    return emit


def _emit_return(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the rows of pairs to the rows that they chose."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, out, out_stride, out_rows, chosen, chosen_stride, first, last = (
            args
        )
        with emitter.loop(first, last, 1, []) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, out, out_stride)
            holders = emitter.load_row(in_rows, pairs.number, chosen, chosen_stride)
            row = emitter.splat(out_rows, pairs.number)
            for vector in range(vectors):
                hit = builder.icmp_signed("==", emitter.load_integers(holders, vector), row)
                value = builder.select(hit, emitter.load(source, vector), emitter.zeros())
                total = builder.fadd(emitter.load(target, vector), value)
                emitter.store(total, target, vector)

    return emit


@intrinsic
def _max_one(typing, like, x, xs, ir_, o, os, or_, c, cs, first, last):
    return addresses(_emit_max(1), like, (x, xs, ir_, o, os, or_, c, cs, first, last))


@intrinsic
def _max_wide(typing, like, x, xs, ir_, o, os, or_, c, cs, first, last):
    return addresses(_emit_max(WIDE), like, (x, xs, ir_, o, os, or_, c, cs, first, last))


@intrinsic
def _return_one(typing, like, x, xs, ir_, o, os, or_, c, cs, first, last):
    return addresses(_emit_return(1), like, (x, xs, ir_, o, os, or_, c, cs, first, last))


@intrinsic
def _return_wide(typing, like, x, xs, ir_, o, os, or_, c, cs, first, last):
    return addresses(_emit_return(WIDE), like, (x, xs, ir_, o, os, or_, c, cs, first, last))


@Kernel
def max_tile(
    x: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile_rows: int,
    tile: int,
    out: Array,
    chosen: Array,
) -> None:
    """Write the first largest value of ``x`` ``[n_in, C]`` per window, and the row that holds it.

    ``out`` and ``chosen`` (int32) are ``[n_out, C]``: 0 and -1 where a window holds no row.
    """
    first_row = tile * tile_rows
    out[first_row : min(first_row + tile_rows, out.shape[0])] = 0
    chosen[first_row : min(first_row + tile_rows, out.shape[0])] = -1
    width, half = x.shape[1] * x.itemsize, x.shape[1] * 4
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for cell in range(starts.shape[0]):
        first, last = starts[cell, tile], starts[cell, tile + 1]
        if first == last:
            continue
        a, y, c = x.ctypes.data, out.ctypes.data, chosen.ctypes.data
        done = 0
        while done < width:
            z = c + done // x.itemsize * 4
            if done + WIDE * VECTOR_BYTES <= width:
                _max_wide(x, a + done, width, rows, y + done, width, targets, z, half, first, last)
                done += WIDE * VECTOR_BYTES
            else:
                _max_one(x, a + done, width, rows, y + done, width, targets, z, half, first, last)
                done += VECTOR_BYTES


@Kernel
def return_tile(
    values: Array,
    chosen: Array,
    value_rows: Array,
    out_rows: Array,
    starts: Array,
    tile_rows: int,
    tile: int,
    out: Array,
) -> None:
    """Add ``values[o]`` ``[n_out, C]`` to the row of ``out`` that ``chosen[o]`` names.

    The pairs are those of the transposed rulebook: they lead from ``o`` to the rows of its window.
    """
    first_row = tile * tile_rows
    out[first_row : min(first_row + tile_rows, out.shape[0])] = 0
    width, half = values.shape[1] * values.itemsize, values.shape[1] * 4
    rows, targets = value_rows.ctypes.data, out_rows.ctypes.data
    for cell in range(starts.shape[0]):
        first, last = starts[cell, tile], starts[cell, tile + 1]
        if first == last:
            continue
        a, y, c = values.ctypes.data, out.ctypes.data, chosen.ctypes.data
        done = 0
        while done < width:
            z = c + done // values.itemsize * 4
            if done + WIDE * VECTOR_BYTES <= width:
                _return_wide(
                    values, a + done, width, rows, y + done, width, targets, z, half, first, last
                )
                done += WIDE * VECTOR_BYTES
            else:
                _return_one(
                    values, a + done, width, rows, y + done, width, targets, z, half, first, last
                )
                done += VECTOR_BYTES

"""Kernels of the Numba engine for windows of rows: their order, and sums over them.

An output row gathers its pairs one after the other, in the order of their kernel cells, and stays
in registers until it is written, once. So a value depends on its own pairs alone. All kernels read
a :class:`WindowRows`; rows are whole vectors long.

Benchmark: stream average pooling, k=2, stride 2, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import emitter_of, kept, loaded, vector_bytes
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import (
    CACHE_LINE,
    Emitter,
    Value,
    addresses,
    large,
)

WIDE = 4  # vectors of the wide block
AHEAD = 32  # pairs by which rows are fetched into the cache ahead of their use


@dataclass(frozen=True, eq=False)
class WindowRows:
    """The pairs of a rulebook, those of one output row side by side in the order of their cells.

    Output rows stand at the places of ``TiledPairs`` (``rulebooks/build.py``).

    Attributes:
        rows: int32 ``[P + AHEAD]``, the input row of each pair, and zeros to fetch ahead by.
        cells: int32 ``[P]``, the kernel cell of each.
        starts: int64 ``[n_out + 1]``, where the pairs of each place begin.
        order: int64 ``[n_out]``, the row at each place; without entries where that is the place.
    """

    rows: Array
    cells: Array
    starts: Array
    order: Array


@Loop
def order_tiles(
    first: int,
    last: int,
    in_rows: Array,
    out_places: Array,
    tile_starts: Array,
    tile_rows: int,
    rows: Array,
    cells: Array,
    starts: Array,
) -> None:
    """Write the part of :class:`WindowRows` that belongs to some tiles of output places.

    Args:
        first, last: tiles.
        in_rows, out_places, tile_starts: the tiled pairs of the products.
        tile_rows: places per tile.
        rows, cells, starts: of the window rows.
    """
    for tile in range(first, last):
        begin, end = tile * tile_rows, min((tile + 1) * tile_rows, starts.shape[0] - 1)
        place = np.zeros(end - begin + 1, np.int64)
        for cell in range(tile_starts.shape[0]):
            place[0] += tile_starts[cell, tile] - tile_starts[cell, 0]
            for pair in range(tile_starts[cell, tile], tile_starts[cell, tile + 1]):
                place[out_places[pair] - begin + 1] += 1
        for row in range(end - begin):
            place[row + 1] += place[row]
            starts[begin + row] = place[row]
        starts[end] = place[end - begin]  # the next tile writes the same
        for cell in range(tile_starts.shape[0]):
            for pair in range(tile_starts[cell, tile], tile_starts[cell, tile + 1]):
                row = out_places[pair] - begin
                rows[place[row]] = in_rows[pair]
                cells[place[row]] = cell
                place[row] += 1


def row_ahead(
    emitter: Emitter, rows: Value, pair: Value, x: Value, stride: Value, lines: int = WIDE
) -> None:
    """Fetch the row of a later pair into the cache."""
    place = emitter.load_row(rows, emitter.plus(pair, AHEAD), x, stride)
    for line in range(lines):
        emitter.fetch(emitter.plus(place, line, CACHE_LINE), near=False)


def lines_of(dtype: Any) -> int:
    """Return the cache lines that ``WIDE`` vectors of a row lie in."""
    return WIDE // 2 if dtype == types.uint16 else WIDE


def _emit_sum(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows, times a number."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, stride, rows, factor, out, past, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as pairs:
            if vectors == WIDE:
                row_ahead(emitter, rows, pairs.number, x, stride, lines_of(dtype))
            source = emitter.load_row(rows, pairs.number, x, stride)
            values = loaded(emitter, dtype, source, vectors)
            pairs.values = [
                builder.fadd(*entry) for entry in zip(values, pairs.values, strict=True)
            ]
        times = emitter.broadcast(factor)
        sums = [builder.fmul(total, times) for total in pairs.values]
        kept(emitter, dtype, sums, out, past)

    return emit


@intrinsic
def _sum_one(typing, like, x, xs, r, f, o, p, first, last):
    return addresses(_emit_sum(1), like, (x, xs, r, f, o, p, first, last))


@intrinsic
def _sum_wide(typing, like, x, xs, r, f, o, p, first, last):
    return addresses(_emit_sum(WIDE), like, (x, xs, r, f, o, p, first, last))


@numba.njit(nogil=True)
def row_at(place: int, order: Array) -> int:
    """Return the row at a place; inside of kernels."""
    return order[place] if order.shape[0] > 0 else place


@Loop
def sum_rows(
    begin: int, end: int, x: Array, rows: Array, starts: Array, order: Array, by: Array, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: sums of input rows.

    Rows are numbers or bits of bfloat16. ``by`` ``[2]``: what the sums are multiplied by, and then
    divided by; a division takes as long as all the rest, and bits are not divided.
    """
    width, step = x.shape[1] * x.itemsize, vector_bytes(x)
    a, y, r, f = x.ctypes.data, out.ctypes.data, rows.ctypes.data, by.ctypes.data
    past = large(out) if by[1] == 1 else 0  # what is divided is read again
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        done, target = 0, y + row * width
        while done + WIDE * step <= width:
            _sum_wide(x, a + done, width, r, f, target + done, past, first, last)
            done += WIDE * step
        while done < width:
            _sum_one(x, a + done, width, r, f, target + done, past, first, last)
            done += step
        if by[1] != 1:
            own = out[row]
            for column in range(len(own)):
                own[column] = own[column] / by[1]

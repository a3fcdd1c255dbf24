"""Kernels of the Numba engine for windows of rows: sums, largest values, and the way back.

An output row gathers its pairs one after the other, in the order of their kernel cells, and stays
in registers until it is written, once. So a value depends on its own pairs alone. All kernels read
a :class:`WindowRows`; rows are whole vectors long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses, large

Array = np.ndarray[Any, Any]

WIDE = 4  # vectors of the wide block
AHEAD = 12  # pairs by which rows are fetched into the cache ahead of their use


@dataclass(frozen=True, eq=False)
class WindowRows:
    """The pairs of a rulebook, those of one output row side by side in the order of their cells.

    Output rows stand at the places of :class:`~sparseconv.engines.numba_rulebook.TiledPairs`.

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


@Kernel
def order_tile(
    in_rows: Array,
    out_places: Array,
    tile_starts: Array,
    tile_rows: int,
    tile: int,
    rows: Array,
    cells: Array,
    starts: Array,
) -> None:
    """Write the part of :class:`WindowRows` that belongs to a tile of output places.

    Args:
        in_rows, out_places, tile_starts: the tiled pairs of the products.
        tile_rows, tile: places per tile, and which tile.
        rows, cells, starts: of the window rows.
    """
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


def _row_ahead(emitter: Emitter, rows: Value, pair: Value, x: Value, stride: Value) -> None:
    """Fetch the row of a later pair into the cache."""
    place = emitter.load_row(rows, emitter.plus(pair, AHEAD), x, stride)
    for line in range(WIDE):
        emitter.fetch(emitter.plus(place, line, VECTOR_BYTES))


def _emit_scale(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows, each times its cell's row of weight."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, rows, cells, weight, out, past, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as pairs:
            if vectors == WIDE:
                _row_ahead(emitter, rows, pairs.number, x, stride)
            source = emitter.load_row(rows, pairs.number, x, stride)
            factors = emitter.load_row(cells, pairs.number, weight, stride)
            pairs.values = [
                emitter.fma(emitter.load(source, vector), emitter.load(factors, vector), total)
                for vector, total in enumerate(pairs.values)
            ]
        emitter.write(pairs.values, out, past)

    return emit


def _emit_sum(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows, times a number."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, rows, factor, out, past, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as pairs:
            if vectors == WIDE:
                _row_ahead(emitter, rows, pairs.number, x, stride)
            source = emitter.load_row(rows, pairs.number, x, stride)
            pairs.values = [
                builder.fadd(emitter.load(source, vector), total)
                for vector, total in enumerate(pairs.values)
            ]
        times = emitter.broadcast(factor)
        emitter.write([builder.fmul(total, times) for total in pairs.values], out, past)

    return emit


def _emit_max(vectors: int, with_cells: bool) -> Callable[..., None]:
    """Return the emitter of: write the largest of some rows, and which kernel cell holds it.

    The first row is there. NaN counts as larger than everything, the last one most of all.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, rows, out, past, cells, chosen, first, last = args
        source = emitter.load_row(rows, first, x, stride)
        start = [emitter.load(source, vector) for vector in range(vectors)]
        if with_cells:
            start += [emitter.splat(cells, first)] * vectors
        with emitter.loop(emitter.plus(first, 1), last, 1, start) as pairs:
            if vectors == WIDE:
                _row_ahead(emitter, rows, pairs.number, x, stride)
            source = emitter.load_row(rows, pairs.number, x, stride)
            held, holders = pairs.values[:vectors], pairs.values[vectors:]
            cell = emitter.splat(cells, pairs.number) if with_cells else None
            values = [emitter.load(source, vector) for vector in range(vectors)]
            better = [
                builder.or_(
                    builder.fcmp_ordered(">", value, old),
                    builder.fcmp_unordered("uno", value, value),
                )
                for value, old in zip(values, held, strict=True)
            ]
            pairs.values = [
                builder.select(*entry) for entry in zip(better, values, held, strict=True)
            ]
            if with_cells:
                changes = zip(better, holders, strict=True)
                pairs.values += [builder.select(new, cell, old) for new, old in changes]
        emitter.write(pairs.values[:vectors], out, past)
        for vector, holder in enumerate(pairs.values[vectors:]):
            emitter.store_shorts(holder, chosen, vector)

    return emit


def _emit_hits(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows of ``x`` where their pair's cell was chosen."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, rows, out, past, cells, chosen, chosen_stride, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as pairs:
            if vectors == WIDE:
                _row_ahead(emitter, rows, pairs.number, x, stride)
            source = emitter.load_row(rows, pairs.number, x, stride)
            holders = emitter.load_row(rows, pairs.number, chosen, chosen_stride)
            cell = emitter.splat(cells, pairs.number)
            totals = []
            for vector, total in enumerate(pairs.values):
                hit = builder.icmp_signed("==", emitter.load_shorts(holders, vector), cell)
                value = builder.select(hit, emitter.load(source, vector), emitter.zeros())
                totals.append(builder.fadd(total, value))
            pairs.values = totals
        emitter.write(pairs.values, out, past)

    return emit


@intrinsic
def _scale_one(typing, like, x, xs, r, c, w, o, p, first, last):
    return addresses(_emit_scale(1), like, (x, xs, r, c, w, o, p, first, last))


@intrinsic
def _scale_wide(typing, like, x, xs, r, c, w, o, p, first, last):
    return addresses(_emit_scale(WIDE), like, (x, xs, r, c, w, o, p, first, last))


@intrinsic
def _sum_one(typing, like, x, xs, r, f, o, p, first, last):
    return addresses(_emit_sum(1), like, (x, xs, r, f, o, p, first, last))


@intrinsic
def _sum_wide(typing, like, x, xs, r, f, o, p, first, last):
    return addresses(_emit_sum(WIDE), like, (x, xs, r, f, o, p, first, last))


@intrinsic
def _max_one(typing, like, x, xs, r, o, p, c, h, first, last):
    return addresses(_emit_max(1, False), like, (x, xs, r, o, p, c, h, first, last))


@intrinsic
def _max_wide(typing, like, x, xs, r, o, p, c, h, first, last):
    return addresses(_emit_max(WIDE, False), like, (x, xs, r, o, p, c, h, first, last))


@intrinsic
def _choose_one(typing, like, x, xs, r, o, p, c, h, first, last):
    return addresses(_emit_max(1, True), like, (x, xs, r, o, p, c, h, first, last))


@intrinsic
def _choose_wide(typing, like, x, xs, r, o, p, c, h, first, last):
    return addresses(_emit_max(WIDE, True), like, (x, xs, r, o, p, c, h, first, last))


@intrinsic
def _hits_one(typing, like, x, xs, r, o, p, c, h, hs, first, last):
    return addresses(_emit_hits(1), like, (x, xs, r, o, p, c, h, hs, first, last))


@intrinsic
def _hits_wide(typing, like, x, xs, r, o, p, c, h, hs, first, last):
    return addresses(_emit_hits(WIDE), like, (x, xs, r, o, p, c, h, hs, first, last))


@numba.njit(nogil=True)
def _row_at(place: int, order: Array) -> int:
    return order[place] if order.shape[0] > 0 else place


@Kernel
def scale_rows(
    x: Array,
    weight: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    begin: int,
    end: int,
    out: Array,
) -> None:
    """Write the rows at places ``begin`` to ``end``: sums of rows times their cell's weight.

    ``x`` ``[n_in, C]``, ``weight`` ``[K, C]``, ``out`` ``[n_out, C]``.
    """
    width = x.shape[1] * x.itemsize
    a, w, y = x.ctypes.data, weight.ctypes.data, out.ctypes.data
    r, c = rows.ctypes.data, cells.ctypes.data
    past = large(out)
    for place in range(begin, end):
        row, first, last = _row_at(place, order), starts[place], starts[place + 1]
        done, target = 0, y + row * width
        while done + WIDE * VECTOR_BYTES <= width:
            _scale_wide(x, a + done, width, r, c, w + done, target + done, past, first, last)
            done += WIDE * VECTOR_BYTES
        while done < width:
            _scale_one(x, a + done, width, r, c, w + done, target + done, past, first, last)
            done += VECTOR_BYTES


@Kernel
def sum_rows(
    x: Array, rows: Array, starts: Array, order: Array, begin: int, end: int, by: Array, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: sums of input rows.

    ``by`` ``[2]``: what they are multiplied by, and then divided by; a division takes as long as
    all the rest.
    """
    width = x.shape[1] * x.itemsize
    a, y, r, f = x.ctypes.data, out.ctypes.data, rows.ctypes.data, by.ctypes.data
    past = large(out) if by[1] == 1 else 0  # what is divided is read again
    for place in range(begin, end):
        row, first, last = _row_at(place, order), starts[place], starts[place + 1]
        done, target = 0, y + row * width
        while done + WIDE * VECTOR_BYTES <= width:
            _sum_wide(x, a + done, width, r, f, target + done, past, first, last)
            done += WIDE * VECTOR_BYTES
        while done < width:
            _sum_one(x, a + done, width, r, f, target + done, past, first, last)
            done += VECTOR_BYTES
        if by[1] != 1:
            own = out[row]
            for column in range(len(own)):
                own[column] /= by[1]


@Kernel
def max_rows(
    x: Array, rows: Array, starts: Array, order: Array, begin: int, end: int, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: the largest values.

    0 where a window holds no row.
    """
    width = x.shape[1] * x.itemsize
    a, y, r = x.ctypes.data, out.ctypes.data, rows.ctypes.data
    past = large(out)
    for place in range(begin, end):
        row, first, last = _row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            continue
        done, target = 0, y + row * width
        while done + WIDE * VECTOR_BYTES <= width:
            _max_wide(x, a + done, width, r, target + done, past, 0, 0, first, last)
            done += WIDE * VECTOR_BYTES
        while done < width:
            _max_one(x, a + done, width, r, target + done, past, 0, 0, first, last)
            done += VECTOR_BYTES


@Kernel
def choose_rows(
    x: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    begin: int,
    end: int,
    out: Array,
    chosen: Array,
) -> None:
    """Write the same, and which kernel cell holds each value: ``chosen`` int16 ``[n_out, C]``.

    Of equal values the first one's cell; 0 where a window holds no row.
    """
    width, half = x.shape[1] * x.itemsize, x.shape[1] * 2
    a, y, h, r, c = (
        x.ctypes.data,
        out.ctypes.data,
        chosen.ctypes.data,
        rows.ctypes.data,
        cells.ctypes.data,
    )
    past = large(out)
    for place in range(begin, end):
        row, first, last = _row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            chosen[row] = 0
            continue
        done, target, holder = 0, y + row * width, h + row * half
        while done < width:
            own, written = holder + done // x.itemsize * 2, target + done
            if done + WIDE * VECTOR_BYTES <= width:
                _choose_wide(x, a + done, width, r, written, past, c, own, first, last)
                done += WIDE * VECTOR_BYTES
            else:
                _choose_one(x, a + done, width, r, written, past, c, own, first, last)
                done += VECTOR_BYTES


@Kernel
def add_hits(
    values: Array,
    chosen: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    of_pairs: bool,
    begin: int,
    end: int,
    out: Array,
) -> None:
    """Write the rows at places ``begin`` to ``end``: sums of rows whose pair's cell was chosen.

    ``values`` ``[n_in, C]``, ``out`` ``[n_out, C]``. ``chosen`` has the rows of ``values`` with
    ``of_pairs``: a row gets what the windows that chose it hand back, where the window rows are
    those of the transposed rulebook. Else the rows of ``out``: a window gets what it chose.
    """
    width, half = values.shape[1] * values.itemsize, values.shape[1] * 2
    a, y, h, r, c = (
        values.ctypes.data,
        out.ctypes.data,
        chosen.ctypes.data,
        rows.ctypes.data,
        cells.ctypes.data,
    )
    past, step = large(out), half if of_pairs else 0
    for place in range(begin, end):
        row, first, last = _row_at(place, order), starts[place], starts[place + 1]
        done, target = 0, y + row * width
        own = h if of_pairs else h + row * half
        while done < width:
            held, written = own + done // values.itemsize * 2, target + done
            if done + WIDE * VECTOR_BYTES <= width:
                _hits_wide(values, a + done, width, r, written, past, c, held, step, first, last)
                done += WIDE * VECTOR_BYTES
            else:
                _hits_one(values, a + done, width, r, written, past, c, held, step, first, last)
                done += VECTOR_BYTES

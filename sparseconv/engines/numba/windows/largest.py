"""Kernels of the Numba engine for the largest value of each window, and the way back.

Which value was the largest is kept as the kernel cell of its pair: half the bytes of a row number,
and enough, since a window holds one row of a cell at most. See ``windows/sums.py``.

Benchmark: stream max pooling, k=2, stride 2, 64 channels
Benchmark: stream the same, backward, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import emitter_of, kept, loaded, vector_bytes
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import Value, addresses, large
from sparseconv.engines.numba.windows.sums import WIDE, lines_of, row_ahead, row_at


def _emit_max(vectors: int, with_cells: bool) -> Callable[..., None]:
    """Return the emitter of: write the largest of some rows, and which kernel cell holds it.

    The first row is there. NaN counts as larger than everything, the last one most of all.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, stride, rows, out, past, cells, chosen, first, last = args
        if vectors == WIDE:
            row_ahead(emitter, rows, first, x, stride, lines_of(dtype))
        source = emitter.load_row(rows, first, x, stride)
        start = loaded(emitter, dtype, source, vectors)
        if with_cells:
            start += [emitter.splat(cells, first)] * vectors
        with emitter.loop(emitter.plus(first, 1), last, 1, start) as pairs:
            if vectors == WIDE:
                row_ahead(emitter, rows, pairs.number, x, stride, lines_of(dtype))
            source = emitter.load_row(rows, pairs.number, x, stride)
            held, holders = pairs.values[:vectors], pairs.values[vectors:]
            cell = emitter.splat(cells, pairs.number) if with_cells else None
            values = loaded(emitter, dtype, source, vectors)
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
        kept(emitter, dtype, pairs.values[:vectors], out, past)
        for vector, holder in enumerate(pairs.values[vectors:]):
            emitter.store_shorts(holder, chosen, vector)

    return emit


def _emit_hits(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows of ``x`` where their pair's cell was chosen."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, stride, rows, out, past, cells, chosen, chosen_stride, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as pairs:
            if vectors == WIDE:
                row_ahead(emitter, rows, pairs.number, x, stride, lines_of(dtype))
                row_ahead(emitter, rows, pairs.number, chosen, chosen_stride, WIDE // 2)
            source = emitter.load_row(rows, pairs.number, x, stride)
            holders = emitter.load_row(rows, pairs.number, chosen, chosen_stride)
            cell = emitter.splat(cells, pairs.number)
            totals = []
            values = loaded(emitter, dtype, source, vectors)
            for vector, total in enumerate(pairs.values):
                hit = builder.icmp_signed("==", emitter.load_shorts(holders, vector), cell)
                value = builder.select(hit, values[vector], emitter.zeros())
                totals.append(builder.fadd(total, value))
            pairs.values = totals
        kept(emitter, dtype, pairs.values, out, past)

    return emit


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


@Loop
def max_rows(
    begin: int, end: int, x: Array, rows: Array, starts: Array, order: Array, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: the largest values.

    0 where a window holds no row.
    """
    width = x.shape[1] * x.itemsize
    a, y, r = x.ctypes.data, out.ctypes.data, rows.ctypes.data
    past, step = large(out), vector_bytes(x)
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            continue
        done, target = 0, y + row * width
        while done + WIDE * step <= width:
            _max_wide(x, a + done, width, r, target + done, past, 0, 0, first, last)
            done += WIDE * step
        while done < width:
            _max_one(x, a + done, width, r, target + done, past, 0, 0, first, last)
            done += step


@Loop
def choose_rows(
    begin: int,
    end: int,
    x: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
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
    past, step = large(out), vector_bytes(x)
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            chosen[row] = 0
            continue
        done, target, holder = 0, y + row * width, h + row * half
        while done < width:
            own, written = holder + done // x.itemsize * 2, target + done
            if done + WIDE * step <= width:
                _choose_wide(x, a + done, width, r, written, past, c, own, first, last)
                done += WIDE * step
            else:
                _choose_one(x, a + done, width, r, written, past, c, own, first, last)
                done += step


@Loop
def add_hits(
    begin: int,
    end: int,
    values: Array,
    chosen: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    of_pairs: bool,
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
    past, step, apart = large(out), vector_bytes(values), half if of_pairs else 0
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        done, target = 0, y + row * width
        own = h if of_pairs else h + row * half
        while done < width:
            held, written = own + done // values.itemsize * 2, target + done
            if done + WIDE * step <= width:
                _hits_wide(values, a + done, width, r, written, past, c, held, apart, first, last)
                done += WIDE * step
            else:
                _hits_one(values, a + done, width, r, written, past, c, held, apart, first, last)
                done += step

"""Kernels of the Numba engine for the largest value of each window, and the way back.

Which value was the largest is kept as the kernel cell of its pair: half the bytes of a row number,
and enough, since a window holds one row of a cell at most. See ``windows/sums.py``.

Benchmark: stream max pooling, k=2, stride 2, 64 channels
Benchmark: stream the same, backward, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic, register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import emitter_of, kept, loaded, vector_bytes
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Value, addresses, large
from sparseconv.engines.numba.rulebooks.tiles import WindowRows
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


@ParallelKernel
def max_rows(begin: int, end: int, x: Array, windows: WindowRows, out: Array) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: the largest values.

    0 where a window holds no row.
    """
    starts, order = windows.starts, windows.order
    width = x.shape[1] * x.itemsize
    a, y, r = x.ctypes.data, out.ctypes.data, windows.rows.ctypes.data
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


@ParallelKernel
def choose_rows(
    begin: int, end: int, x: Array, windows: WindowRows, out: Array, chosen: Array
) -> None:
    """Write the same, and which kernel cell holds each value: ``chosen`` int16 ``[n_out, C]``.

    Of equal values the first one's cell; 0 where a window holds no row.
    """
    starts, order = windows.starts, windows.order
    width, half = x.shape[1] * x.itemsize, x.shape[1] * 2
    a, y, h = x.ctypes.data, out.ctypes.data, chosen.ctypes.data
    r, c = windows.rows.ctypes.data, windows.cells.ctypes.data
    past, step = large(out), vector_bytes(x)
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            chosen[row] = 0
            continue
        done, target = 0, y + row * width
        while done < width:
            holder, written = h + row * half + done // x.itemsize * 2, target + done
            if done + WIDE * step <= width:
                _choose_wide(x, a + done, width, r, written, past, c, holder, first, last)
                done += WIDE * step
            else:
                _choose_one(x, a + done, width, r, written, past, c, holder, first, last)
                done += step


@register_jitable
def _add_hits(
    values: Array, windows: WindowRows, place: int, target: int, held: int, stride: int, past: int
) -> None:
    """Write one row at ``target``: the sum of the rows at a place whose pair's cell was chosen.

    What was chosen for the pair of input row ``i`` lies at ``held + i * stride``.
    """
    first, last = windows.starts[place], windows.starts[place + 1]
    width, step, done = values.shape[1] * values.itemsize, vector_bytes(values), 0
    a, r, c = values.ctypes.data, windows.rows.ctypes.data, windows.cells.ctypes.data
    while done < width:
        h, y = held + done // values.itemsize * 2, target + done
        if done + WIDE * step <= width:
            _hits_wide(values, a + done, width, r, y, past, c, h, stride, first, last)
            done += WIDE * step
        else:
            _hits_one(values, a + done, width, r, y, past, c, h, stride, first, last)
            done += step


@ParallelKernel
def scatter_hits(
    begin: int, end: int, values: Array, chosen: Array, windows: WindowRows, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end``: the sums of what windows hand back.

    ``values`` and ``chosen`` ``[n_in, C]`` are those of the windows, ``out`` ``[n_out, C]`` the
    rows that they chose from; ``windows`` belong to the transposed rulebook.
    """
    width, half, past = values.shape[1] * values.itemsize, values.shape[1] * 2, large(out)
    for place in range(begin, end):
        target = out.ctypes.data + row_at(place, windows.order) * width
        _add_hits(values, windows, place, target, chosen.ctypes.data, half, past)


@ParallelKernel
def pick_hits(
    begin: int, end: int, values: Array, chosen: Array, windows: WindowRows, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end``: what each window chose.

    ``values`` ``[n_in, C]``, ``chosen`` and ``out`` ``[n_out, C]``.
    """
    width, half, past = values.shape[1] * values.itemsize, values.shape[1] * 2, large(out)
    for place in range(begin, end):
        row = row_at(place, windows.order)
        held = chosen.ctypes.data + row * half
        _add_hits(values, windows, place, out.ctypes.data + row * width, held, 0, past)

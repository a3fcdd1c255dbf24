"""Kernels of the Numba engine for windows of rows: their order, and sums over them.

An output row gathers its pairs one after the other, in the order of their kernel cells, and stays
in registers until it is written, once. So a value depends on its own pairs alone. All kernels read
a :class:`WindowRows`; rows are whole vectors long.

Benchmark: stream average pooling, k=2, stride 2, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import emitter_of, kept, loaded, vector_bytes
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import (
    CACHE_LINE,
    Emitter,
    Value,
    addresses,
    large,
)
from sparseconv.engines.numba.rulebooks.tiles import PREFETCH_PAIRS, WindowRows

WIDE = 4  # vectors of the wide block


def row_ahead(
    emitter: Emitter, rows: Value, pair: Value, x: Value, stride: Value, lines: int = WIDE
) -> None:
    """Fetch the row of a later pair into the cache."""
    place = emitter.load_row(rows, emitter.plus(pair, PREFETCH_PAIRS), x, stride)
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


@ParallelKernel
def sum_rows(begin: int, end: int, x: Array, windows: WindowRows, by: Array, out: Array) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: sums of input rows.

    Rows are numbers or bits of bfloat16. ``by`` ``[2]``: what the sums are multiplied by, and then
    divided by; a division takes as long as all the rest, and bits are not divided.
    """
    starts, order = windows.starts, windows.order
    width, step = x.shape[1] * x.itemsize, vector_bytes(x)
    a, y, r, f = x.ctypes.data, out.ctypes.data, windows.rows.ctypes.data, by.ctypes.data
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
            total = out[row]
            for column in range(len(total)):
                total[column] = total[column] / by[1]

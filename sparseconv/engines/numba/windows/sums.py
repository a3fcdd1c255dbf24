"""Kernels of the Numba engine for windows of rows: their order, and sums over them.

An output row gathers its pairs one after the other, in the order of their kernel cells, and stays
in registers until it is written, once. So a value depends on its own pairs alone. All kernels read
a :class:`WindowRows`; rows are whole vectors long.

Benchmark: stream average pooling, k=2, stride 2, 64 channels
"""

from __future__ import annotations

from typing import Any

import numba
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import CACHE_LINE, Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import large, vector_bytes
from sparseconv.engines.numba.rulebooks.tiles import PREFETCH_PAIRS, WindowRows

WIDE = 4  # vectors of the wide block


def row_ahead(
    emitter: Emitter, rows: Value, pair: Value, x: Value, stride: Value, lines: int = WIDE
) -> None:
    """Prefetch the row of a later pair."""
    place = emitter.load_row(rows, emitter.plus(pair, PREFETCH_PAIRS), x, stride)
    for line in range(lines):
        emitter.prefetch(emitter.plus(place, line, CACHE_LINE), near=False)


def load_block(
    emitter: Emitter, vectors: int, source: list[Value], column: Value, pair: Value
) -> list[Value]:
    """Return some vectors of a pair's row, from a column on; prefetch a later row's wide block.

    ``source``: the address of the first row, the bytes of a row, the address of the row numbers.
    """
    matrix, stride, rows = source
    first = emitter.plus(matrix, column, emitter.vector_bytes)
    if vectors == WIDE:
        lines = WIDE * emitter.number_bytes // emitter.size
        row_ahead(emitter, rows, pair, first, stride, lines)
    return emitter.load_numbers(emitter.load_row(rows, pair, first, stride), vectors)


@intrinsic
def _sum_row(
    typing: Any, like: Any, count: Any, source: Any, factor: Any, target: Any, pairs: Any
) -> Any:
    """Write the sum of the rows of some pairs, times a number."""

    def emit(
        emitter: Emitter,
        count: Value,
        source: list[Value],
        factor: Value,
        target: list[Value],
        pairs: list[Value],
    ) -> None:
        out, nontemporal = target
        builder, times = emitter.builder, emitter.broadcast(factor)
        for vectors, column in emitter.blocks(count, WIDE):
            with emitter.loop(pairs[0], pairs[1], 1, [emitter.zeros()] * vectors) as pair:
                values = load_block(emitter, vectors, source, column, pair.number)
                pair.values = [
                    builder.fadd(*entry) for entry in zip(values, pair.values, strict=True)
                ]
            sums = [builder.fmul(total, times) for total in pair.values]
            address = emitter.plus(out, column, emitter.vector_bytes)
            emitter.store_numbers(sums, address, nontemporal)

    return emitted(emit, like, count, source, factor, target, pairs)


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
    width, y, factor = x.shape[1] * x.itemsize, out.ctypes.data, by.ctypes.data
    source, vectors = (x.ctypes.data, width, windows.rows.ctypes.data), width // vector_bytes(x)
    nontemporal = large(out) if by[1] == 1 else 0  # what is divided is read again
    for place in range(begin, end):
        row = row_at(place, order)
        target, pairs = (y + row * width, nontemporal), (starts[place], starts[place + 1])
        _sum_row(x, vectors, source, factor, target, pairs)
        if by[1] != 1:
            total = out[row]
            for column in range(len(total)):
                total[column] = total[column] / by[1]

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
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import large, vector_bytes
from sparseconv.engines.numba.rulebooks.tiles import WindowRows
from sparseconv.engines.numba.windows.sums import WIDE, load_block, row_ahead, row_at


def _largest(
    emitter: Emitter,
    load: Callable[[Value], list[Value]],
    pairs: list[Value],
    mark: Callable[[Value], list[Value]],
) -> tuple[list[Value], list[Value]]:
    """Emit the largest values of some rows, and the marks of the pairs that hold them.

    The first row is there. NaN counts as larger than everything, the last one most of all.

    Args:
        emitter: emits it.
        load: returns the vectors of a pair's row.
        pairs: first and last.
        mark: returns what to keep of a pair besides: one vector for each of its row's, or none.
    """
    builder, (first, last) = emitter.builder, pairs
    start = load(first)
    with emitter.loop(emitter.plus(first, 1), last, 1, start + mark(first)) as pair:
        values, held = load(pair.number), pair.values[: len(start)]
        better = [
            builder.or_(
                builder.fcmp_ordered(">", value, old),
                builder.fcmp_unordered("uno", value, value),
            )
            for value, old in zip(values, held, strict=True)
        ]
        new = values + mark(pair.number)
        pair.values = [
            builder.select(better[place % len(start)], *entry)
            for place, entry in enumerate(zip(new, pair.values, strict=True))
        ]
    return pair.values[: len(start)], pair.values[len(start) :]


@intrinsic
def _max_row(typing: Any, like: Any, count: Any, source: Any, target: Any, pairs: Any) -> Any:
    """Write the largest values of the rows of some pairs."""

    def emit(
        emitter: Emitter, count: Value, source: list[Value], target: list[Value], pairs: list[Value]
    ) -> None:
        out, nontemporal = target
        for vectors, column in emitter.blocks(count, WIDE):

            def load(pair: Value, vectors: int = vectors, column: Value = column) -> list[Value]:
                return load_block(emitter, vectors, source, column, pair)

            values, _ = _largest(emitter, load, pairs, lambda _: [])
            address = emitter.plus(out, column, emitter.vector_bytes)
            emitter.store_numbers(values, address, nontemporal)

    return emitted(emit, like, count, source, target, pairs)


@intrinsic
def _choose_row(typing: Any, like: Any, count: Any, source: Any, target: Any, pairs: Any) -> Any:
    """Write the same, and the kernel cells of the pairs that hold them."""

    def emit(
        emitter: Emitter, count: Value, source: list[Value], target: list[Value], pairs: list[Value]
    ) -> None:
        *source, cells = source
        out, chosen, nontemporal = target
        for vectors, column in emitter.blocks(count, WIDE):

            def load(pair: Value, vectors: int = vectors, column: Value = column) -> list[Value]:
                return load_block(emitter, vectors, source, column, pair)

            def mark(pair: Value, vectors: int = vectors) -> list[Value]:
                return [emitter.splat(cells, pair)] * vectors

            values, holders = _largest(emitter, load, pairs, mark)
            address = emitter.plus(out, column, emitter.vector_bytes)
            emitter.store_numbers(values, address, nontemporal)
            shorts = emitter.plus(chosen, column, 2 * emitter.lanes)
            for vector, holder in enumerate(holders):
                emitter.store_shorts(holder, shorts, vector)

    return emitted(emit, like, count, source, target, pairs)


@intrinsic
def _hit_row(
    typing: Any, like: Any, count: Any, source: Any, chosen: Any, target: Any, pairs: Any
) -> Any:
    """Write the sum of the rows of some pairs, where their own kernel cells were chosen."""

    def emit(
        emitter: Emitter,
        count: Value,
        source: list[Value],
        chosen: list[Value],
        target: list[Value],
        pairs: list[Value],
    ) -> None:
        builder, (out, nontemporal), (held, stride, cells) = emitter.builder, target, chosen
        rows = source[2]
        for vectors, column in emitter.blocks(count, WIDE):
            shorts = emitter.plus(held, column, 2 * emitter.lanes)
            with emitter.loop(pairs[0], pairs[1], 1, [emitter.zeros()] * vectors) as pair:
                values = load_block(emitter, vectors, source, column, pair.number)
                if vectors == WIDE:
                    row_ahead(emitter, rows, pair.number, shorts, stride, WIDE // 2)
                holders = emitter.load_row(rows, pair.number, shorts, stride)
                cell = emitter.splat(cells, pair.number)
                for vector, value in enumerate(values):
                    hit = builder.icmp_signed("==", emitter.load_shorts(holders, vector), cell)
                    value_or_zero = builder.select(hit, value, emitter.zeros())
                    pair.values[vector] = builder.fadd(pair.values[vector], value_or_zero)
            address = emitter.plus(out, column, emitter.vector_bytes)
            emitter.store_numbers(pair.values, address, nontemporal)

    return emitted(emit, like, count, source, chosen, target, pairs)


@ParallelKernel
def max_rows(begin: int, end: int, x: Array, windows: WindowRows, out: Array) -> None:
    """Write the rows at places ``begin`` to ``end`` of ``out`` ``[n_out, C]``: the largest values.

    0 where a window holds no row.
    """
    starts, order = windows.starts, windows.order
    width, y, nontemporal = x.shape[1] * x.itemsize, out.ctypes.data, large(out)
    source, vectors = (x.ctypes.data, width, windows.rows.ctypes.data), width // vector_bytes(x)
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
        else:
            _max_row(x, vectors, source, (y + row * width, nontemporal), (first, last))


@ParallelKernel
def choose_rows(
    begin: int, end: int, x: Array, windows: WindowRows, out: Array, chosen: Array
) -> None:
    """Write the same, and which kernel cell holds each value: ``chosen`` int16 ``[n_out, C]``.

    Of equal values the first one's cell; 0 where a window holds no row.
    """
    starts, order = windows.starts, windows.order
    width, half, nontemporal = x.shape[1] * x.itemsize, x.shape[1] * 2, large(out)
    y, h, vectors = out.ctypes.data, chosen.ctypes.data, width // vector_bytes(x)
    source = x.ctypes.data, width, windows.rows.ctypes.data, windows.cells.ctypes.data
    for place in range(begin, end):
        row, first, last = row_at(place, order), starts[place], starts[place + 1]
        if first == last:
            out[row] = 0
            chosen[row] = 0
        else:
            target = y + row * width, h + row * half, nontemporal
            _choose_row(x, vectors, source, target, (first, last))


@register_jitable
def _add_hits(
    values: Array, windows: WindowRows, place: int, target: tuple[int, int], held: tuple[int, int]
) -> None:
    """Write one row: the sum of the rows at a place whose pair's cell was chosen.

    ``target``: its address, and whether to store non-temporally. ``held``: what was chosen for the
    pair of input row ``i`` lies at ``held[0] + i * held[1]``.
    """
    width = values.shape[1] * values.itemsize
    source = values.ctypes.data, width, windows.rows.ctypes.data
    chosen = held[0], held[1], windows.cells.ctypes.data
    pairs = windows.starts[place], windows.starts[place + 1]
    _hit_row(values, width // vector_bytes(values), source, chosen, target, pairs)


@ParallelKernel
def scatter_hits(
    begin: int, end: int, values: Array, chosen: Array, windows: WindowRows, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end``: the sums of what windows hand back.

    ``values`` and ``chosen`` ``[n_in, C]`` are those of the windows, ``out`` ``[n_out, C]`` the
    rows that they chose from; ``windows`` belong to the transposed rulebook.
    """
    width, nontemporal = values.shape[1] * values.itemsize, large(out)
    held = chosen.ctypes.data, values.shape[1] * 2
    for place in range(begin, end):
        target = out.ctypes.data + row_at(place, windows.order) * width, nontemporal
        _add_hits(values, windows, place, target, held)


@ParallelKernel
def pick_hits(
    begin: int, end: int, values: Array, chosen: Array, windows: WindowRows, out: Array
) -> None:
    """Write the rows at places ``begin`` to ``end``: what each window chose.

    ``values`` ``[n_in, C]``, ``chosen`` and ``out`` ``[n_out, C]``.
    """
    width, half, nontemporal = values.shape[1] * values.itemsize, values.shape[1] * 2, large(out)
    for place in range(begin, end):
        row = row_at(place, windows.order)
        target = out.ctypes.data + row * width, nontemporal
        _add_hits(values, windows, place, target, (chosen.ctypes.data + row * half, 0))

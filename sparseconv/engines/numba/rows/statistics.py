"""Kernels of the Numba engine for the statistics of segments of rows, and their derivatives.

Benchmark: stream batch norm, train (reads twice), 64 channels
Benchmark: stream batch norm, train, backward, 64 channels
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import Segments
from sparseconv.engines.numba.machine.bits import number
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES

WIDE = 4  # vectors of columns that are summed side by side


class Statistics(NamedTuple):
    """Statistics of sets of rows.

    Attributes:
        sums: ``[S, C]``.
        squares: ``[S, C]``, the sums of the squares of what is off the mean.
        counts: int64 ``[S]``, the numbers of rows.
    """

    sums: Array
    squares: Array
    counts: Array


def _load_block(
    emitter: Emitter, vectors: int, source: list[Value], column: Value, entry: Value
) -> list[Value]:
    """Return some vectors of the row of an entry, from a column on.

    ``source``: the address of the first row, the bytes of a row, the address of the order.
    """
    matrix, stride, order = source
    first = emitter.plus(matrix, column, emitter.vector_bytes)
    return emitter.load_numbers(emitter.load_row(order, entry, first, stride, 8), vectors)


def _store_block(emitter: Emitter, values: list[Value], out: Value, column: Value) -> None:
    """Write some vectors of sums, from a column on."""
    address = emitter.plus(out, column, VECTOR_BYTES)
    for vector, value in enumerate(values):
        emitter.store(value, address, vector)


@intrinsic
def _sum_rows(typing: Any, like: Any, count: Any, source: Any, out: Any, entries: Any) -> Any:
    """Write the sums over the rows of a segment."""

    def emit(
        emitter: Emitter, count: Value, source: list[Value], out: Value, entries: list[Value]
    ) -> None:
        for vectors, column in emitter.blocks(count, WIDE):
            with emitter.loop(entries[0], entries[1], 1, [emitter.zeros()] * vectors) as entry:
                values = _load_block(emitter, vectors, source, column, entry.number)
                entry.values = [
                    emitter.builder.fadd(*pair) for pair in zip(entry.values, values, strict=True)
                ]
            _store_block(emitter, entry.values, out, column)

    return emitted(emit, like, count, source, out, entries)


@intrinsic
def _sum_moments(
    typing: Any, like: Any, count: Any, left: Any, right: Any, sums: Any, entries: Any
) -> Any:
    """Write the sums of ``right`` and of ``(left - centre) * right`` over the rows of a segment."""

    def emit(
        emitter: Emitter,
        count: Value,
        left: list[Value],
        right: list[Value],
        sums: list[Value],
        entries: list[Value],
    ) -> None:
        builder, (centre, total, moment) = emitter.builder, sums
        for vectors, column in emitter.blocks(count, WIDE):
            middle = emitter.load_vectors(emitter.plus(centre, column, VECTOR_BYTES), vectors)
            with emitter.loop(
                entries[0], entries[1], 1, [emitter.zeros()] * (2 * vectors)
            ) as entry:
                values = _load_block(emitter, vectors, right, column, entry.number)
                others = _load_block(emitter, vectors, left, column, entry.number)
                held, moments = entry.values[:vectors], entry.values[vectors:]
                off = [builder.fsub(*pair) for pair in zip(others, middle, strict=True)]
                entry.values = [builder.fadd(*pair) for pair in zip(held, values, strict=True)] + [
                    emitter.fma(*three) for three in zip(off, values, moments, strict=True)
                ]
            _store_block(emitter, entry.values[:vectors], total, column)
            _store_block(emitter, entry.values[vectors:], moment, column)

    return emitted(emit, like, count, left, right, sums, entries)


@intrinsic
def _sum_squares(
    typing: Any, like: Any, count: Any, source: Any, centre: Any, out: Any, entries: Any
) -> Any:
    """Write the sums of ``(x - centre) ** 2`` over the rows of a segment.

    The rows are in the cache; meanwhile as many that follow them are prefetched. ``entries``: the
    first, the last, and the end of all segments.
    """

    def emit(
        emitter: Emitter,
        count: Value,
        source: list[Value],
        centre: Value,
        out: Value,
        entries: list[Value],
    ) -> None:
        builder, (matrix, stride, order), (first, last, end) = emitter.builder, source, entries
        length = builder.sub(last, first)
        for vectors, column in emitter.blocks(count, WIDE):
            middle = emitter.load_vectors(emitter.plus(centre, column, VECTOR_BYTES), vectors)
            block = emitter.plus(matrix, column, emitter.vector_bytes)
            with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as entry:
                coming = builder.add(entry.number, length)
                inside = builder.icmp_signed("<", coming, end)
                later = builder.select(inside, coming, entry.number)
                row = emitter.load_row(order, later, block, stride, 8)
                for vector in range(vectors):
                    emitter.prefetch(emitter.plus(row, vector, VECTOR_BYTES))
                values = _load_block(emitter, vectors, source, column, entry.number)
                off = [builder.fsub(*pair) for pair in zip(values, middle, strict=True)]
                entry.values = [
                    emitter.fma(value, value, total)
                    for value, total in zip(off, entry.values, strict=True)
                ]
            _store_block(emitter, entry.values, out, column)

    return emitted(emit, like, count, source, centre, out, entries)


@ParallelKernel
def segment_statistics(
    first: int, last: int, segments: Segments, values: Array, sums: Array, squares: Array
) -> None:
    """Write the sums of some segments, and those of the squares of what is off their own mean.

    Args:
        first, last: segments.
        segments: of rows.
        values: ``[N, C]``, or bits of bfloat16.
        sums, squares: ``[S, C]``, written here.
    """
    order, starts = segments.order, segments.starts
    columns, vectors = values.shape[1], values.shape[1] // (VECTOR_BYTES // sums.itemsize)
    mean, done = np.empty(columns, sums.dtype), vectors * (VECTOR_BYTES // sums.itemsize)
    source = values.ctypes.data, columns * values.itemsize, order.ctypes.data
    for segment in range(first, last):
        begin, end = starts[segment], starts[segment + 1]
        _sum_rows(values, vectors, source, sums[segment].ctypes.data, (begin, end))
        sums[segment, done:] = 0
        for column in range(done, columns):
            for entry in range(begin, end):
                sums[segment, column] += number(values[order[entry], column])
        for column in range(columns):
            mean[column] = sums[segment, column] / max(end - begin, 1)
        middle, out, entries = (
            mean.ctypes.data,
            squares[segment].ctypes.data,
            (begin, end, len(order)),
        )
        _sum_squares(values, vectors, source, middle, out, entries)
        squares[segment, done:] = 0
        for column in range(done, columns):
            for entry in range(begin, end):
                off = number(values[order[entry], column]) - mean[column]
                squares[segment, column] += off * off


@ParallelKernel
def merge_statistics(
    first: int, last: int, segments: Segments, parts: Statistics, merged: Statistics
) -> None:
    """Write the ``merged`` statistics of some segments of ``parts``."""
    order, starts = segments.order, segments.starts
    sums, squares, counts = parts.sums, parts.squares, parts.counts
    mean = np.empty(sums.shape[1], sums.dtype)
    for segment in range(first, last):
        begin, end = starts[segment], starts[segment + 1]
        sum_of_all, squares_of_all = merged.sums[segment], merged.squares[segment]
        sum_of_all[:] = 0
        squares_of_all[:] = 0
        number = 0
        for entry in range(begin, end):
            number += counts[order[entry]]
            part = sums[order[entry]]
            for column in range(len(mean)):
                sum_of_all[column] += part[column]
        merged.counts[segment] = number
        for column in range(len(mean)):
            mean[column] = sum_of_all[column] / max(number, 1)
        for entry in range(begin, end):
            part, squares_of_part = sums[order[entry]], squares[order[entry]]
            count = squares.dtype.type(counts[order[entry]])
            share = 1 / max(count, squares.dtype.type(1))
            for column in range(len(mean)):
                off = part[column] * share - mean[column]
                squares_of_all[column] += squares_of_part[column] + count * off * off


@ParallelKernel
def segment_moments(
    first: int,
    last: int,
    segments: Segments,
    left: Array,
    right: Array,
    centre: Array,
    sums: Array,
    moments: Array,
) -> None:
    """Write the sums of ``right`` over some segments, and those of ``(left - centre) * right``.

    ``left`` and ``right`` are ``[N, C]``, or bits of bfloat16, all others ``[S, C]``.
    """
    order, starts = segments.order, segments.starts
    columns, vectors = left.shape[1], left.shape[1] // (VECTOR_BYTES // sums.itemsize)
    done, stride = vectors * (VECTOR_BYTES // sums.itemsize), columns * left.itemsize
    x = left.ctypes.data, stride, order.ctypes.data
    y = right.ctypes.data, stride, order.ctypes.data
    for segment in range(first, last):
        begin, end = starts[segment], starts[segment + 1]
        middle, total = centre[segment].ctypes.data, sums[segment].ctypes.data
        out = middle, total, moments[segment].ctypes.data
        _sum_moments(left, vectors, x, y, out, (begin, end))
        sums[segment, done:] = 0
        moments[segment, done:] = 0
        for column in range(done, columns):
            for entry in range(begin, end):
                value = number(right[order[entry], column])
                off = number(left[order[entry], column]) - centre[segment, column]
                sums[segment, column] += value
                moments[segment, column] += off * value

"""Kernels of the Numba engine for the statistics of segments of rows, and their derivatives.

Benchmark: stream batch norm, train (reads twice), 64 channels
Benchmark: stream batch norm, train, backward, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import Segments
from sparseconv.engines.numba.machine.bits import emitter_of, loaded, number
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses

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


def _emit_sums(vectors: int, moments: bool) -> Callable[..., None]:
    """Return the emitter of: write sums over rows of a segment, ``vectors`` vectors of columns.

    Those of the rows, or with ``moments`` those of ``right`` and of ``(left - centre) * right``.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, left, right, stride, order, centre, sums, out, first, last = args
        middle = [emitter.load(centre, vector) for vector in range(vectors)] if moments else []
        start = [emitter.zeros()] * (2 * vectors if moments else vectors)
        with emitter.loop(first, last, 1, start) as rows:
            pointer = emitter.plus(order, rows.number, 8)
            row = builder.load(builder.inttoptr(pointer, ir.IntType(64).as_pointer()))
            offset = builder.mul(row, stride)
            values = loaded(emitter, dtype, builder.add(right, offset), vectors)
            added = [builder.fadd(*entry) for entry in zip(rows.values, values, strict=False)]
            if moments:
                others = loaded(emitter, dtype, builder.add(left, offset), vectors)
                for vector, value in enumerate(values):
                    off = builder.fsub(others[vector], middle[vector])
                    added.append(emitter.fma(off, value, rows.values[vectors + vector]))
            rows.values = added
        for vector, value in enumerate(rows.values):
            emitter.store(value, sums if vector < vectors else out, vector % vectors)

    return emit


def _emit_squares(vectors: int) -> Callable[..., None]:
    """Return the emitter of: write the sums of ``(x - centre) ** 2`` over rows of a segment.

    The rows are in the cache; meanwhile as many that follow them are fetched.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, stride, order, centre, out, first, last, end = args
        middle = [emitter.load(centre, vector) for vector in range(vectors)]
        count = builder.sub(last, first)
        with emitter.loop(first, last, 1, [emitter.zeros()] * vectors) as rows:
            coming = builder.add(rows.number, count)
            inside = builder.icmp_signed("<", coming, end)
            place = _row(emitter, order, builder.select(inside, coming, rows.number), x, stride)
            for vector in range(vectors):
                emitter.fetch(emitter.plus(place, vector, VECTOR_BYTES))
            values = loaded(emitter, dtype, _row(emitter, order, rows.number, x, stride), vectors)
            off = [builder.fsub(*entry) for entry in zip(values, middle, strict=True)]
            rows.values = [
                emitter.fma(entry, entry, total)
                for entry, total in zip(off, rows.values, strict=True)
            ]
        for vector, value in enumerate(rows.values):
            emitter.store(value, out, vector)

    return emit


def _row(emitter: Emitter, order: Value, entry: Value, x: Value, stride: Value) -> Value:
    """Return the address of row ``order[entry]``; ``order`` are int64."""
    builder = emitter.builder
    pointer = builder.inttoptr(emitter.plus(order, entry, 8), ir.IntType(64).as_pointer())
    return builder.add(x, builder.mul(builder.load(pointer), stride))


@intrinsic
def _sums_one(typing, like, a, b, s, o, c, t, m, first, last):
    return addresses(_emit_sums(1, False), like, (a, b, s, o, c, t, m, first, last))


@intrinsic
def _sums_wide(typing, like, a, b, s, o, c, t, m, first, last):
    return addresses(_emit_sums(WIDE, False), like, (a, b, s, o, c, t, m, first, last))


@intrinsic
def _moments_one(typing, like, a, b, s, o, c, t, m, first, last):
    return addresses(_emit_sums(1, True), like, (a, b, s, o, c, t, m, first, last))


@intrinsic
def _moments_wide(typing, like, a, b, s, o, c, t, m, first, last):
    return addresses(_emit_sums(WIDE, True), like, (a, b, s, o, c, t, m, first, last))


@intrinsic
def _squares_one(typing, like, x, s, o, c, out, first, last, end):
    return addresses(_emit_squares(1), like, (x, s, o, c, out, first, last, end))


@intrinsic
def _squares_wide(typing, like, x, s, o, c, out, first, last, end):
    return addresses(_emit_squares(WIDE), like, (x, s, o, c, out, first, last, end))


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
    columns, size, wide = values.shape[1], values.itemsize, sums.itemsize
    lanes = VECTOR_BYTES // wide
    mean = np.empty(columns, sums.dtype)
    x, stride, rows, middle = (
        values.ctypes.data,
        columns * size,
        order.ctypes.data,
        mean.ctypes.data,
    )
    for segment in range(first, last):
        begin, end = starts[segment], starts[segment + 1]
        total = sums.ctypes.data + segment * sums.strides[0]
        out = squares.ctypes.data + segment * squares.strides[0]
        done = 0
        while done + lanes <= columns:
            a, t = x + done * size, total + done * wide
            if done + WIDE * lanes <= columns:
                _sums_wide(values, a, a, stride, rows, 0, t, 0, begin, end)
                done += WIDE * lanes
            else:
                _sums_one(values, a, a, stride, rows, 0, t, 0, begin, end)
                done += lanes
        sums[segment, done:] = 0
        for column in range(done, columns):
            for entry in range(begin, end):
                sums[segment, column] += number(values[order[entry], column])
        for column in range(columns):
            mean[column] = sums[segment, column] / max(end - begin, 1)
        done = 0
        while done + lanes <= columns:
            a, c, t = x + done * size, middle + done * wide, out + done * wide
            if done + WIDE * lanes <= columns:
                _squares_wide(values, a, stride, rows, c, t, begin, end, len(order))
                done += WIDE * lanes
            else:
                _squares_one(values, a, stride, rows, c, t, begin, end, len(order))
                done += lanes
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
    columns, size, wide = left.shape[1], left.itemsize, sums.itemsize
    lanes, stride = VECTOR_BYTES // wide, columns * size
    x, y, rows = left.ctypes.data, right.ctypes.data, order.ctypes.data
    for segment in range(first, last):
        begin, end = starts[segment], starts[segment + 1]
        middle, total = centre[segment].ctypes.data, sums[segment].ctypes.data
        out, done = moments[segment].ctypes.data, 0
        while done + lanes <= columns:
            a, b, c = x + done * size, y + done * size, middle + done * wide
            t, m = total + done * wide, out + done * wide
            if done + WIDE * lanes <= columns:
                _moments_wide(left, a, b, stride, rows, c, t, m, begin, end)
                done += WIDE * lanes
            else:
                _moments_one(left, a, b, stride, rows, c, t, m, begin, end)
                done += lanes
        sums[segment, done:] = 0
        moments[segment, done:] = 0
        for column in range(done, columns):
            for entry in range(begin, end):
                value = number(right[order[entry], column])
                off = number(left[order[entry], column]) - centre[segment, column]
                sums[segment, column] += value
                moments[segment, column] += off * value

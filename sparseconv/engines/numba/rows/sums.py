"""Kernels for sums of rows: of segments, of chunks, and of chunks while they are scaled.

The columns of a row are taken together, so that memory is walked in one run.

Benchmark: stream voxelize, mean of 4 values a point
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import Segments
from sparseconv.engines.numba.machine.bits import number
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses, large

SUMS = 4  # vectors that are added up beside each other, so that none waits for the one before


@ParallelKernel
def segment_sums(first: int, last: int, segments: Segments, values: Array, out: Array) -> None:
    """Write the sums of segments ``first`` to ``last`` to ``out`` ``[S, C]``."""
    order, starts = segments.order, segments.starts
    for segment in range(first, last):
        total = out[segment]
        total[:] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = values[order[entry]]
            for column in range(len(total)):
                total[column] += row[column]


@ParallelKernel
def segment_argmaxes(first: int, last: int, segments: Segments, values: Array, out: Array) -> None:
    """Write the row of the first largest value of segments ``first`` to ``last`` to ``out``.

    NaN counts as larger than everything.
    """
    order, starts = segments.order, segments.starts
    for segment in range(first, last):
        for column in range(values.shape[1]):
            best = order[starts[segment]]
            for entry in range(starts[segment] + 1, starts[segment + 1]):
                value, held = values[order[entry], column], values[best, column]
                if value > held or (np.isnan(value) and not np.isnan(held)):
                    best = order[entry]
            out[segment, column] = best


@ParallelKernel
def chunk_sums(first: int, last: int, values: Array, chunk: int, sums: Array) -> None:
    """Write the sums of chunks ``first`` to ``last`` of rows to ``sums`` ``[chunks, C]``.

    ``values`` ``[N, C]`` may be bits of bfloat16.
    """
    for place in range(first, last):
        total = sums[place]
        total[:] = 0
        for row in range(place * chunk, min((place + 1) * chunk, values.shape[0])):
            for column in range(len(total)):
                total[column] += number(values[row, column])


def _scale_and_sum(vectors: int) -> Callable[..., None]:
    """Return the emitter of: multiply rows of some vectors by their factors, and sum them."""
    together = SUMS // vectors  # rows

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, factor, out, past, total, first, last = args
        sums = [emitter.zeros()] * SUMS
        for count in (together, 1):
            with emitter.loop(first, last, count, sums) as rows:
                for place in range(count):
                    row = emitter.plus(rows.number, place)
                    offset = builder.mul(row, stride)
                    scale = emitter.broadcast(emitter.plus(factor, row, emitter.size))
                    source = builder.add(x, offset)
                    values = [emitter.load(source, vector) for vector in range(vectors)]
                    scaled = [builder.fmul(value, scale) for value in values]
                    emitter.write(scaled, builder.add(out, offset), past)
                    for vector, value in enumerate(values, place * vectors):
                        rows.values[vector] = builder.fadd(rows.values[vector], value)
            first, sums = rows.number, rows.values
        for vector in range(vectors):
            emitter.store(functools.reduce(builder.fadd, sums[vector::vectors]), total, vector)

    return emit


@intrinsic
def _one(typing, like, x, stride, factor, out, past, total, first, last):
    return addresses(_scale_and_sum(1), like, (x, stride, factor, out, past, total, first, last))


@intrinsic
def _two(typing, like, x, stride, factor, out, past, total, first, last):
    return addresses(_scale_and_sum(2), like, (x, stride, factor, out, past, total, first, last))


@intrinsic
def _four(typing, like, x, stride, factor, out, past, total, first, last):
    return addresses(_scale_and_sum(4), like, (x, stride, factor, out, past, total, first, last))


@ParallelKernel
def scale_and_sum(
    first: int, last: int, values: Array, factor: Array, chunk: int, out: Array, sums: Array
) -> None:
    """Write the rows of some chunks times their factors to ``out``, and each chunk's sum.

    ``values`` and ``out`` are ``[N, C]`` in whole vectors, ``factor`` ``[N, 1]``, ``chunk`` the
    number of rows of a chunk, ``first`` and ``last`` chunks, ``sums`` ``[chunks, C]``.
    """
    x, y, scale, past = values.ctypes.data, out.ctypes.data, factor.ctypes.data, large(out)
    step, width = values.strides[0], values.shape[1] * values.itemsize
    for place in range(first, last):
        begin, end = place * chunk, min((place + 1) * chunk, values.shape[0])
        total = sums.ctypes.data + place * width
        fours = width // (4 * VECTOR_BYTES) * 4 * VECTOR_BYTES
        for byte in range(0, fours, 4 * VECTOR_BYTES):
            _four(values, x + byte, step, scale, y + byte, past, total + byte, begin, end)
        if width & 2 * VECTOR_BYTES:
            two = x + fours, step, scale, y + fours, past, total + fours, begin, end
            _two(values, *two)
        if width & VECTOR_BYTES:
            last_one = width - VECTOR_BYTES
            one = x + last_one, step, scale, y + last_one, past, total + last_one, begin, end
            _one(values, *one)

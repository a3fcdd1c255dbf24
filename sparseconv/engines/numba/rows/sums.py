"""Kernels for sums of rows: of segments, of chunks, and of chunks while they are scaled.

The columns of a row are taken together, so that memory is walked in one run.

Benchmark: stream voxelize, mean of 4 values a point
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import Segments
from sparseconv.engines.numba.machine.bits import number
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES, large

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


@intrinsic
def _scale_and_sum(
    typing: Any, like: Any, count: Any, source: Any, target: Any, factor: Any, rows: Any
) -> Any:
    """Write some rows times their factors, and the sum of the rows themselves."""

    def emit(
        emitter: Emitter,
        count: Value,
        source: list[Value],
        target: list[Value],
        factor: Value,
        rows: list[Value],
    ) -> None:
        builder, (x, stride), (out, total, nontemporal) = emitter.builder, source, target
        for vectors, column in emitter.blocks(count, 4, 2):
            offset = builder.mul(column, emitter.const(VECTOR_BYTES))
            block, written = builder.add(x, offset), builder.add(out, offset)
            (first, last), sums = rows, [emitter.zeros()] * SUMS
            for together in (SUMS // vectors, 1):  # rows
                with emitter.loop(first, last, together, sums) as loop:
                    for place in range(together):
                        row = emitter.plus(loop.number, place)
                        start = builder.mul(row, stride)
                        scale = emitter.broadcast(emitter.plus(factor, row, emitter.size))
                        values = emitter.load_vectors(builder.add(block, start), vectors)
                        scaled = [builder.fmul(value, scale) for value in values]
                        emitter.store_vectors(scaled, builder.add(written, start), nontemporal)
                        for vector, value in enumerate(values, place * vectors):
                            loop.values[vector] = builder.fadd(loop.values[vector], value)
                first, sums = loop.number, loop.values
            address = builder.add(total, offset)
            for vector in range(vectors):
                value = functools.reduce(builder.fadd, sums[vector::vectors])
                emitter.store(value, address, vector)

    return emitted(emit, like, count, source, target, factor, rows)


@ParallelKernel
def scale_and_sum(
    first: int, last: int, values: Array, factor: Array, chunk: int, out: Array, sums: Array
) -> None:
    """Write the rows of some chunks times their factors to ``out``, and each chunk's sum.

    ``values`` and ``out`` are ``[N, C]`` in whole vectors, ``factor`` ``[N, 1]``, ``chunk`` the
    number of rows of a chunk, ``first`` and ``last`` chunks, ``sums`` ``[chunks, C]``.
    """
    y, scale, nontemporal = out.ctypes.data, factor.ctypes.data, large(out)
    width = values.shape[1] * values.itemsize
    source, vectors = (values.ctypes.data, values.strides[0]), width // VECTOR_BYTES
    for place in range(first, last):
        rows = place * chunk, min((place + 1) * chunk, values.shape[0])
        target = y, sums.ctypes.data + place * width, nontemporal
        _scale_and_sum(values, vectors, source, target, scale, rows)

"""Kernels of the Numba engine for segments of rows, and for scaled rows: sums and maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_bits import number
from sparseconv.engines.numba_compile import Loop
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses, large

Array = np.ndarray[Any, Any]


@Loop
def segment_sums(
    first: int, last: int, order: Array, starts: Array, values: Array, out: Array
) -> None:
    """Write the sums of segments ``first`` to ``last`` to ``out`` ``[S, C]``."""
    for segment in range(first, last):
        total = out[segment]
        total[:] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = values[order[entry]]
            for column in range(len(total)):
                total[column] += row[column]


@Loop
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
def _scale_and_sum(typing, like, x, stride, factor, out, past, total, first, last):
    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, stride, factor, out, past, total, first, last = args
        with emitter.loop(first, last, 1, [emitter.zeros()]) as rows:
            offset = builder.mul(rows.number, stride)
            value = emitter.load(builder.add(x, offset))
            scale = emitter.broadcast(emitter.plus(factor, rows.number, emitter.size))
            emitter.write([builder.fmul(value, scale)], builder.add(out, offset), past)
            rows.values = [builder.fadd(rows.values[0], value)]
        emitter.store(rows.values[0], total)

    return addresses(emit, like, (x, stride, factor, out, past, total, first, last))


@Loop
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
        for byte in range(0, width, VECTOR_BYTES):
            _scale_and_sum(values, x + byte, step, scale, y + byte, past, total + byte, begin, end)


@Loop
def segment_argmaxes(
    first: int, last: int, order: Array, starts: Array, values: Array, out: Array
) -> None:
    """Write the row of the first largest value of segments ``first`` to ``last`` to ``out``.

    NaN counts as larger than everything.
    """
    for segment in range(first, last):
        for column in range(values.shape[1]):
            best = order[starts[segment]]
            for entry in range(starts[segment] + 1, starts[segment + 1]):
                value, held = values[order[entry], column], values[best, column]
                if value > held or (np.isnan(value) and not np.isnan(held)):
                    best = order[entry]
            out[segment, column] = best

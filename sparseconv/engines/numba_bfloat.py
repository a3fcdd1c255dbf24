"""Kernels of the Numba engine for bfloat16, on CPUs that multiply pairs of such numbers at once.

One instruction adds ``a[0] * b[0] + a[1] * b[1]`` to a float32 lane. So the weight holds two input
channels side by side, and a row's two channels are broadcast together. Sums of a tile stay in
float32 in the cache and are rounded once, when the tile is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_products import rescale
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses, sizes

Array = np.ndarray[Any, Any]

LANES = VECTOR_BYTES // 4


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The 16-bit type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


def _emit_dots(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add pairs ``first`` to ``last``, times a block of weight, to rows."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, types.float32)
        _, x, x_stride, in_rows, out, out_stride, out_rows, weight, steps, first, last = args
        name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * VECTOR_BYTES}"
        kind = ir.FunctionType(emitter.vector, [emitter.vector, _PAIRS, _PAIRS])
        dot = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        most = max(sizes(vectors))
        for size in sizes(vectors):
            with emitter.loop(first, last, size, []) as pairs:
                entries = [emitter.plus(pairs.number, row) for row in range(size)]
                sources = [emitter.load_row(in_rows, e, x, x_stride) for e in entries]
                targets = [emitter.load_row(out_rows, e, out, out_stride) for e in entries]
                start = [emitter.load(target, v) for target in targets for v in range(vectors)]
                if size == most:  # the rows of the next pairs arrive while these are multiplied
                    following = emitter.plus(pairs.number, size)
                    length = builder.mul(steps, emitter.const(4))
                    emitter.fetch_rows(in_rows, following, size, last, x, x_stride, length)
                with emitter.loop(emitter.const(0), steps, 1, start) as channels:
                    block = emitter.plus(weight, channels.number, vectors * VECTOR_BYTES)
                    columns = [
                        builder.bitcast(emitter.load(block, vector), _PAIRS)
                        for vector in range(vectors)
                    ]
                    totals = []
                    for row, source in enumerate(sources):
                        place = emitter.plus(source, channels.number, 4)
                        value = builder.bitcast(emitter.broadcast(place), _PAIRS)
                        for vector, column in enumerate(columns):
                            total = channels.values[row * vectors + vector]
                            totals.append(builder.call(dot, [total, value, column]))
                    channels.values = totals
                for number, value in enumerate(channels.values):
                    emitter.store(value, targets[number // vectors], number % vectors)
            first = pairs.number

    return emit


@intrinsic
def _dots_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return addresses(_emit_dots(1), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _dots_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return addresses(_emit_dots(2), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@Kernel
def bfloat_tile(
    features: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile: int,
    number: int,
    factor: Array,
    bias: Array,
    other: Array,
    relu: bool,
    out: Array,
) -> None:
    """Compute output rows ``number * tile`` to ``(number + 1) * tile``.

    Args:
        features: bits ``[n_in, G, c_in]``, c_in even.
        weight: bits ``[K, G, blocks, c_in / 2, BLOCK, 2]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        tile, number: rows per tile, and which tile.
        factor: float32 ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: float32 ``[G, blocks * BLOCK]``, added to them.
        other: bits ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: bits ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tile.
    """
    cells, groups, blocks, steps, width, _ = weight.shape
    begin, end = number * tile, min((number + 1) * tile, out.shape[0])
    total = np.empty((end - begin, groups, out.shape[2]), np.float32)
    scaled = factor.shape[0] > 0
    if scaled:
        total[:] = 0
    else:
        total[:] = bias
    xs, ys = features.strides[0], total.strides[0]
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for cell in range(cells):
        first, last = starts[cell, number], starts[cell, number + 1]
        if first == last:
            continue
        for group in range(groups):
            x = features.ctypes.data + group * steps * 4
            for block in range(blocks):
                y = total.ctypes.data + (group * blocks + block) * width * 4 - begin * ys
                w = weight[cell, group, block].ctypes.data
                if width == LANES:
                    _dots_one(total, x, xs, rows, y, ys, targets, w, steps, first, last)
                else:
                    _dots_two(total, x, xs, rows, y, ys, targets, w, steps, first, last)
    if scaled:
        start, added = total.ctypes.data, bias.ctypes.data
        scale = factor.ctypes.data + begin * 4
        for byte in range(0, groups * blocks * width * 4, VECTOR_BYTES):
            rescale(total, start + byte, ys, scale, added + byte, 0, end - begin)
    if other.shape[0] > 0:
        for row in range(begin, end):
            for group in range(groups):
                for column in range(other.shape[2]):
                    word = np.uint32(np.uint32(other[row, group, column]) << np.uint32(16))
                    total[row - begin, group, column] += word.view(np.float32)
    bits = total.view(np.uint32)
    for row in range(begin, end):
        for group in range(groups):
            for column in range(out.shape[2]):
                word = bits[row - begin, group, column]
                # to nearest, ties to even; a NaN stays one
                odd = (word >> np.uint32(16)) & np.uint32(1)
                rounded = (word + np.uint32(0x7FFF) + odd) >> np.uint32(16)
                nan = (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
                negative = relu and total[row - begin, group, column] < 0
                out[row, group, column] = np.uint16(0 if negative else (0x7FC0 if nan else rounded))

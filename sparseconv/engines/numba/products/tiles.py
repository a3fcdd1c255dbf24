"""Kernels of the Numba engine for the product, with micro-kernels emitted as LLVM vectors.

Forward and input gradient are output-stationary: a task takes some tiles of output rows, or a part
of their columns, that stay in its cache, walks the kernel cells in order and multiplies, for each
block of ``BLOCK`` columns, all pairs of the tiles with the block of the weight, which stays in the
first-level cache. Accumulators live in registers, 8 or 4 pairs by one or two vectors; rows are
read through the rulebook, so no gathered copy exists. An output value is the same chain of fused
multiply-adds whatever pairs were computed beside it: cell by cell, channel by channel. Where each
output row has one pair it is written at once, and neither zeroed nor read.

bfloat16 comes as uint32, two channels side by side, where the processor adds the products of such
pairs to float32: sums of a tile stay in float32 in the cache, and are rounded once, at the end.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
Benchmark: layer stride 2, k=2, 64 channels, forward
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import intrinsic, overload

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.kernels import first_from
from sparseconv.engines.numba.machine.bits import number as number_in
from sparseconv.engines.numba.machine.bits import stored
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import PAIRS_PER_STEP, VECTOR_BYTES, large
from sparseconv.engines.numba.products.epilogue import EpilogueArrays
from sparseconv.engines.numba.products.multiply import multiply_add, multiply_write
from sparseconv.engines.numba.rulebooks.tiles import TILE_ROWS, TiledPairs


class Cut(NamedTuple):
    """How the work is shared out.

    Task ``n`` takes part ``n % parts`` of the columns of ``span`` tiles, from tile
    ``n // parts * span`` on.

    Attributes:
        span: tiles of a task.
        parts: into which the blocks of columns are cut; they divide them.
    """

    span: int
    parts: int


@intrinsic
def _rescale(typing: Any, like: Any, rows: Any, factor: Any, bias: Any, count: Any) -> Any:
    """Multiply a vector of columns by each row's factor and add the bias.

    ``rows`` are the address of the first and the stride, ``count`` their number.
    """

    def emit(emitter: Emitter, rows: list[Value], factor: Value, bias: Value, count: Value) -> None:
        builder, (matrix, stride) = emitter.builder, rows
        start, first = emitter.load(bias), emitter.const(0)
        for size in (PAIRS_PER_STEP, 1):
            with emitter.loop(first, count, size, []) as lots:
                numbers = [emitter.plus(lots.number, row) for row in range(size)]
                targets = [builder.add(matrix, builder.mul(number, stride)) for number in numbers]
                sums = [emitter.load(target) for target in targets]
                for number, target, total in zip(numbers, targets, sums, strict=True):
                    scale = emitter.broadcast(emitter.plus(factor, number, emitter.size))
                    emitter.store(emitter.fma(total, scale, start), target)
            first = lots.number

    return emitted(emit, like, rows, factor, bias, count)


@intrinsic
def _begin_rows(typing: Any, like: Any, rows: Any, origin: Any, length: Any, count: Any) -> Any:
    """Write ``length`` bytes from ``origin`` to each of ``count`` rows: an address and a stride.

    An assignment of arrays does so too, but takes Numba two seconds to compile.
    """

    def emit(
        emitter: Emitter, rows: list[Value], origin: Value, length: Value, count: Value
    ) -> None:
        builder, (matrix, stride) = emitter.builder, rows
        with emitter.loop(emitter.const(0), count, 1, []) as row:
            target = builder.add(matrix, builder.mul(row.number, stride))
            with emitter.loop(emitter.const(0), length, VECTOR_BYTES, []) as bytes_:
                value = emitter.load(builder.add(origin, bytes_.number))
                emitter.store(value, builder.add(target, bytes_.number))

    return emitted(emit, like, rows, origin, length, count)


def _sums_of(sums: Array, place: int, result: Array) -> Any:
    """Return the row that holds a place's sums: of ``sums`` if it has any, else the result."""
    raise NotImplementedError


@overload(_sums_of)
def _typed_sums_of(sums, place, result):
    if sums.dtype != result.dtype:
        return lambda sums, place, result: sums[place]
    return lambda sums, place, result: sums[place] if sums.shape[0] > 0 else result


@ParallelKernel
def scatter_tiles(
    begin_task: int,
    end_task: int,
    features: Array,
    weight: Array,
    tiled: TiledPairs,
    cut: Cut,
    epilogue: EpilogueArrays,
    out: Array,
) -> None:
    """Compute the output rows of some tasks.

    Args:
        begin_task, end_task: the first of them, and the one behind the last.
        features: ``[n_in, G, c_in]``.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        tiled, cut: the pairs, and the tasks.
        epilogue: numbers, or of pairs of bfloat16 float32, and bits of ``other``.
        out: ``[n_out, G * blocks * BLOCK]``, numbers or bits, written here.
    """
    cells, groups, blocks, c_in, width = weight.shape
    factor, bias, other, relu = epilogue
    scaled, ordered = factor.shape[0] > 0, tiled.order.shape[0] > 0
    tiles, every = tiled.starts.shape[1] - 1, groups * blocks // cut.parts
    size, vectors = features.itemsize, width * features.itemsize // VECTOR_BYTES
    block_bytes = width * size
    length, xs = every * block_bytes, features.strides[0]
    scratch_rows = TILE_ROWS * cut.span if ordered or out.itemsize < size else 0
    scratch = np.empty((scratch_rows, every * width), bias.dtype)
    scales = np.empty(TILE_ROWS * cut.span if ordered and scaled else 0, factor.dtype)
    origins = np.zeros(bias.shape, bias.dtype) if scaled else bias
    rows, places = tiled.in_rows.ctypes.data, tiled.out_places.ctypes.data
    ys = length if scratch_rows > 0 else out.strides[0]
    for task in range(begin_task, end_task):
        opening, low = task // cut.parts * cut.span, task % cut.parts * every
        closing = min(opening + cut.span, tiles)
        begin, end = opening * TILE_ROWS, min(closing * TILE_ROWS, out.shape[0])
        total = out[begin, low * width :].ctypes.data
        if scratch_rows > 0:
            total = scratch.ctypes.data
        origin = origins.ctypes.data + low * block_bytes
        _begin_rows(scratch, (total, ys), origin, length, end - begin)
        for cell in range(cells):
            pairs = tiled.starts[cell, opening], tiled.starts[cell, closing]
            if pairs[0] == pairs[1]:
                continue
            for block in range(low, low + every):
                x = features.ctypes.data + block // blocks * c_in * size
                y = total + (block - low) * block_bytes - begin * ys
                w = weight[cell, block // blocks, block % blocks].ctypes.data
                multiply_add(features, vectors, (x, xs, rows), (y, ys, places), (w, c_in), pairs)
        if scaled:
            scale = factor.ctypes.data + begin * size
            if ordered:
                scale = scales.ctypes.data
                for place in range(begin, end):
                    scales[place - begin] = factor[tiled.order[place]]
            added = bias.ctypes.data + low * block_bytes
            for byte in range(0, length, VECTOR_BYTES):
                _rescale(scratch, (total + byte, ys), scale, added + byte, end - begin)
        if not (scratch_rows > 0 or relu or other.shape[0] > 0):
            continue
        for place in range(begin, end):
            row = tiled.order[place] if ordered else place
            result = out[row, low * width : (low + every) * width]
            sums = _sums_of(scratch, place - begin, result)
            if other.shape[0] > 0:
                for block in range(low, low + every):
                    column, start = (block - low) * width, block % blocks * width
                    for lane in range(min(width, other.shape[2] - start)):
                        sums[column + lane] += number_in(other[row, block // blocks, start + lane])
            for column in range(len(result)):
                value = sums[column]
                # a NaN stays one, as in torch
                value = bias.dtype.type(0) if relu and value < 0 else value
                result[column] = stored(value, out)


@ParallelKernel
def single_tiles(
    begin_task: int,
    end_task: int,
    features: Array,
    weight: Array,
    tiled: TiledPairs,
    cut: Cut,
    epilogue: EpilogueArrays,
    out: Array,
) -> None:
    """Compute the output rows of some tasks, where no row of the output has more than one pair.

    So no row is read before it is written, nor written twice, and stores of large results are
    non-temporal. Arguments as of :func:`scatter_tiles`; of the epilogue bias and relu count.
    """
    cells, groups, blocks, c_in, width = weight.shape
    bias, relu = epilogue.bias, epilogue.relu
    tiles, every = tiled.starts.shape[1] - 1, groups * blocks // cut.parts
    size, vectors = features.itemsize, width * features.itemsize // VECTOR_BYTES
    rows, targets = tiled.in_rows.ctypes.data, tiled.out_rows.ctypes.data
    xs, ys, block_bytes = features.strides[0], out.strides[0], width * size
    nontemporal, added, negatives = large(out), bias.reshape(-1), 1 if relu else 0
    for task in range(begin_task, end_task):
        opening, low = task // cut.parts * cut.span, task % cut.parts * every
        closing = min(opening + cut.span, tiles)
        behind = first_from(tiled.unreached, closing * TILE_ROWS)
        for entry in range(first_from(tiled.unreached, opening * TILE_ROWS), behind):
            row = tiled.unreached[entry]
            for column in range(low * width, (low + every) * width):
                value = added[column]
                out[row, column] = out.dtype.type(0) if relu and value < 0 else value
        for cell in range(cells):
            pairs = tiled.starts[cell, opening], tiled.starts[cell, closing]
            if pairs[0] == pairs[1]:
                continue
            for block in range(low, low + every):
                source = features.ctypes.data + block // blocks * c_in * size, xs, rows
                target = out.ctypes.data + block * block_bytes, ys, targets
                w = weight[cell, block // blocks, block % blocks].ctypes.data
                b = bias.ctypes.data + block * block_bytes
                ending = b, negatives, nontemporal
                multiply_write(features, vectors, source, target, (w, c_in), pairs, ending)

"""Kernels of the Numba engine for groups of few channels: no matrix, but lane by lane.

Groups of one, two, four or eight channels lie side by side in a vector. For each input channel of a
group one vector of weight holds what every output channel takes from it, and the row's vector is
shuffled so that the channel stands in all lanes of its group. With one channel in each group there
is nothing to shuffle.

Benchmark: shape submanifold k=3, depthwise, 64 channels, forward
Benchmark: shape submanifold k=3, 16 groups, 64 channels, forward
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES, large, vector_bytes
from sparseconv.engines.numba.products.gradient import Tasks, pairs_of, steps_of
from sparseconv.engines.numba.rulebooks.tiles import TiledPairs, WindowRows
from sparseconv.engines.numba.windows.sums import WIDE, row_ahead, row_at

WIDTHS = (1, 2, 4, 8)  # channels of a group: more of them make a matrix


def _shuffled(emitter: Emitter, values: list[Value], width: int) -> list[Value]:
    """Return each vector once per channel of a group, that channel in all lanes of the group."""
    if width == 1:
        return values
    return [
        emitter.broadcast_within(value, width, channel)
        for value in values
        for channel in range(width)
    ]


@intrinsic
def _write_scaled(
    typing: Any, like: Any, shape: Any, source: Any, weight: Any, bias: Any, out: Any, pairs: Any
) -> Any:
    """Write the sum of rows, each times its cell's row of weight.

    Args:
        typing: of Numba.
        like: an array of the rows' dtype.
        shape: channels of a group, and vectors of a row.
        source, weight: addresses of the first row, strides, and addresses of int32 row numbers.
        bias: the address of what is added, and whether negative results become 0.
        out: the address of a row, and whether stores are non-temporal.
        pairs: the first, and the one behind the last.
    """

    def emit(
        emitter: Emitter,
        shape: list[Value],
        source: list[Value],
        weight: list[Value],
        bias: list[Value],
        out: list[Value],
        pairs: list[Value],
    ) -> None:
        (matrix, stride, rows), (factors, factor_stride, cells) = source, weight
        for width in emitter.cases(shape[0], WIDTHS):
            for vectors, number in emitter.blocks(shape[1], WIDE):
                done = emitter.plus(emitter.const(0), number, emitter.vector_bytes)
                first = emitter.builder.add(matrix, done)
                block = emitter.plus(factors, number, width * VECTOR_BYTES)
                added = emitter.plus(bias[0], number, VECTOR_BYTES)
                start = [emitter.load(added, vector) for vector in range(vectors)]
                with emitter.loop(pairs[0], pairs[1], 1, start) as pair:
                    if vectors == WIDE:
                        row_ahead(
                            emitter,
                            rows,
                            pair.number,
                            first,
                            stride,
                            WIDE * emitter.number_bytes // emitter.size,
                        )
                    row = emitter.load_row(rows, pair.number, first, stride)
                    scales = emitter.load_row(cells, pair.number, block, factor_stride)
                    values = _shuffled(emitter, emitter.load_numbers(row, vectors), width)
                    for entry, value in enumerate(values):
                        total = pair.values[entry // width]
                        total = emitter.fma(value, emitter.load(scales, entry), total)
                        pair.values[entry // width] = total
                results = [emitter.bounded(total, bias[1]) for total in pair.values]
                emitter.store_numbers(results, emitter.builder.add(out[0], done), out[1])

    return emitted(emit, like, shape, source, weight, bias, out, pairs)


@intrinsic
def _add_products(
    typing: Any, like: Any, shape: Any, source: Any, target: Any, weight: Any, pairs: Any
) -> Any:
    """Add the products of the two rows of pairs to a row of weight.

    Args:
        typing: of Numba.
        like: an array of the rows' dtype.
        shape: channels of a group, and vectors of a row.
        source, target: addresses of the first row, strides, and addresses of int32 row numbers.
        weight: the address of the row.
        pairs: the first, and the one behind the last.
    """

    def emit(
        emitter: Emitter,
        shape: list[Value],
        source: list[Value],
        target: list[Value],
        weight: Value,
        pairs: list[Value],
    ) -> None:
        (x, x_stride, in_rows), (grad, grad_stride, out_rows) = source, target
        for width in emitter.cases(shape[0], WIDTHS):
            for vectors, number in emitter.blocks(shape[1], WIDE if width == 1 else 1):
                done = emitter.plus(emitter.const(0), number, emitter.vector_bytes)
                sums = emitter.plus(weight, number, width * VECTOR_BYTES)
                first_x, first_grad = (emitter.builder.add(a, done) for a in (x, grad))
                start = [emitter.load(sums, entry) for entry in range(vectors * width)]
                with emitter.loop(pairs[0], pairs[1], 1, start) as pair:
                    row = emitter.load_row(in_rows, pair.number, first_x, x_stride)
                    column = emitter.load_row(out_rows, pair.number, first_grad, grad_stride)
                    values = _shuffled(emitter, emitter.load_numbers(row, vectors), width)
                    grads = emitter.load_numbers(column, vectors)
                    pair.values = [
                        emitter.fma(value, grads[entry // width], pair.values[entry])
                        for entry, value in enumerate(values)
                    ]
                for entry, total in enumerate(pair.values):
                    emitter.store(total, sums, entry)

    return emitted(emit, like, shape, source, target, weight, pairs)


@ParallelKernel
def scale_rows(
    begin: int,
    end: int,
    x: Array,
    weight: Array,
    windows: WindowRows,
    bias: Array,
    relu: bool,
    out: Array,
) -> None:
    """Write the rows at places ``begin`` to ``end``: sums of rows times their cell's weight.

    Args:
        x, out: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors; numbers or bits of bfloat16.
        weight: ``[K, C / lanes, width, lanes]``, width 1, 2, 4 or 8 channels to a group.
        windows: the pairs.
        begin, end: places of output rows.
        bias: ``[C]``, added to the sums.
        relu: whether negative results become 0.
    """
    length = x.shape[1] * x.itemsize
    shape = weight.shape[2], length // vector_bytes(x)
    source = x.ctypes.data, length, windows.rows.ctypes.data
    factors = weight.ctypes.data, weight.strides[0], windows.cells.ctypes.data
    added, nontemporal = (bias.ctypes.data, 1 if relu else 0), large(out)
    for place in range(begin, end):
        pairs = windows.starts[place], windows.starts[place + 1]
        target = out.ctypes.data + row_at(place, windows.order) * length, nontemporal
        _write_scaled(x, shape, source, factors, added, target, pairs)


@ParallelKernel
def dot_tiles(
    begin: int, stop: int, x: Array, grad: Array, tiled: TiledPairs, tasks: Tasks, out: Array
) -> None:
    """Write the sums of ``x[i] * grad[o]``, for each channel of a group, over tiles and cells.

    A block of the weight stays in registers while the pairs of a tile are walked.

    Args:
        begin, stop: tasks.
        x, grad: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors; numbers or bits of bfloat16.
        tiled, tasks: the pairs, and the tasks.
        out: ``[P, K, C / lanes, width, lanes]``, written here.
    """
    length = x.shape[1] * x.itemsize
    shape = out.shape[3], length // vector_bytes(x)
    source = x.ctypes.data, length, tiled.in_rows.ctypes.data
    target = grad.ctypes.data, length, tiled.out_rows.ctypes.data
    for task in range(begin, stop):
        part, lots, cells = steps_of(task, tasks)
        sums = out[part]
        sums[cells[0] : cells[1]] = 0
        for step in range((lots[1] - lots[0]) * (cells[1] - cells[0])):
            cell, first, last = pairs_of(step, lots, cells, tiled.starts)
            if first < last:
                _add_products(x, shape, source, target, sums[cell].ctypes.data, (first, last))


@ParallelKernel
def repeat_columns(first: int, last: int, x: Array, times: int, out: Array) -> None:
    """Write each value of rows ``first`` to ``last`` so many times over, and zeros behind them."""
    count, columns = np.uint64(times), np.uint64(x.shape[1])
    for row in range(first, last):
        source, target = x[row], out[row]
        for copy in range(count):
            for column in range(columns):
                target[column * count + copy] = source[column]
        target[columns * count :] = 0


@ParallelKernel
def regroup(first: int, last: int, x: Array, width: int, new: int, out: Array) -> None:
    """Write groups of ``width`` columns as groups of ``new``, cut off or with zeros behind.

    Rows ``first`` to ``last``; zeros stand behind the last group, too.
    """
    # unsigned: Numba looks whether a signed index is negative
    narrow, wide = np.uint64(width), np.uint64(new)
    groups = min(np.uint64(x.shape[1]) // narrow, np.uint64(out.shape[1]) // wide)
    both = min(narrow, wide)
    for row in range(first, last):
        source, target = x[row], out[row]
        # a group is shorter than a loop's beginning takes, so the groups are the inner loop
        for column in range(both):
            for group in range(groups):
                target[group * wide + column] = source[group * narrow + column]
        for column in range(both, wide):
            for group in range(groups):
                target[group * wide + column] = 0
        target[groups * wide :] = 0

"""Weight gradients: outer products of rows, pair by pair, in parts that are added in a fixed order.

A block of the weight stays in registers while the pairs of a tile are walked, and a value is the
same chain of fused multiply-adds whatever was computed beside it. bfloat16 is laid out pair by
pair, two rows' numbers side by side, where the processor adds the products of such pairs.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, backward
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.machine.arrays import MIN_VALUES_PER_TASK, by_shares, ranges
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES, sizes
from sparseconv.engines.numba.rulebooks.tiles import SPAN_TILES, TiledPairs, tiled_pairs

MAX_PARTS = 16  # parts of the lots whose weight gradients are summed apart
MIN_TASKS = 32  # where there are fewer parts, so that none waits long for the last
MIN_TASKS_PER_THREAD = 4
MIN_LOTS_PER_PART = 8  # lots of SPAN_TILES tiles
MAX_PARTIAL_BYTES = 2**26  # of all partial sums
# input channels taken at a time: the rows of a tile's pairs stay in the first-level cache while the
# blocks of output channels are walked
CHANNELS_AT_A_TIME = 64
PREFETCH_PAIRS = 16  # by which a row is fetched into the cache before its turn
PAIRS_AT_A_TIME = 128  # of bfloat16, whose numbers are laid side by side


class Tasks(NamedTuple):
    """The tasks of a weight gradient; each takes a part of the lots of tiles and some cells.

    Attributes:
        lots: ``[P, 2]`` lots of ``SPAN_TILES`` tiles: the first of a part, and the one behind it.
        cells: ``[Q, 2]`` likewise.
    """

    lots: Array
    cells: Array


def reduced(
    loop: ParallelKernel,
    x: Array,
    grad: Array,
    rulebook: Rulebook,
    shape: tuple[int, ...],
    dtype: Any,
) -> Array:
    """Return ``[K, *shape]``: what a loop sums over some tiles and cells, added up in order.

    Args:
        loop: runs over tasks; it takes ``x``, ``grad``, the pairs, the :class:`Tasks` and the array
            ``[parts, K, *shape]`` that the sums are written to.
        x, grad: the rows on both sides.
        rulebook, shape, dtype: of the sums.
    """
    tiled = tiled_pairs(rulebook)
    shape = (rulebook.num_cells, *shape)
    tasks = _tasks(tiled, math.prod(shape) * dtype.itemsize)
    partial = empty_array((len(tasks.lots), *shape), dtype)
    loop.run(len(tasks.lots) * len(tasks.cells), 1, x, grad, tiled, tasks, partial)
    sums = partial.reshape(len(partial), -1)
    total = empty_array(sums.shape[1], dtype)
    by_shares(_add_parts, total.size, MIN_VALUES_PER_TASK // max(len(sums), 1), sums, total)
    return total.reshape(shape)


def _tasks(tiled: TiledPairs, size: int) -> Tasks:
    """Return the tasks for a weight of ``size`` bytes.

    The lots depend on the shapes alone, never on the number of threads, and so does the order of
    additions; cells never meet in a sum. Few rows are split by cell, many by tile.
    """
    cells, lots = tiled.starts.shape[0], -(-(tiled.starts.shape[1] - 1) // SPAN_TILES)
    parts = max(1, min(MAX_PARTS, lots // MIN_LOTS_PER_PART, MAX_PARTIAL_BYTES // size))
    least = MIN_TASKS if parts < MAX_PARTS else 1
    tasks = max(least, MIN_TASKS_PER_THREAD * torch.get_num_threads())
    return Tasks(ranges(lots, parts), ranges(cells, min(cells, -(-tasks // parts))))


@ParallelKernel
def _add_parts(first: int, last: int, parts: Array, total: Array) -> None:
    """Write the sums of columns ``first`` to ``last`` of ``parts`` ``[P, n]``, row after row."""
    sums = total[first:last]
    sums[:] = 0
    for number in range(parts.shape[0]):
        part = parts[number, first:last]
        for column in range(len(sums)):
            sums[column] += part[column]


@numba.njit(nogil=True)
def steps_of(task: int, tasks: Tasks) -> tuple[int, Array, Array]:
    """Return a task's part, lots and cells; inside of kernels."""
    part, cells = task // len(tasks.cells), task % len(tasks.cells)
    return part, tasks.lots[part], tasks.cells[cells]


@numba.njit(nogil=True)
def pairs_of(step: int, lots: Array, cells: Array, starts: Array) -> tuple[int, int, int]:
    """Return the cell of a task's step and its pairs; inside of kernels.

    Lot by lot, so that the rows that the kernel cells share are read from the cache.
    """
    count = cells[1] - cells[0]
    cell, tile = cells[0] + step % count, SPAN_TILES * (lots[0] + step // count)
    last = min(tile + SPAN_TILES, starts.shape[1] - 1)
    return cell, starts[cell, tile], starts[cell, last]


@intrinsic
def outer_add(
    typing: Any, like: Any, vectors: Any, source: Any, target: Any, weight: Any, pairs: Any
) -> Any:
    """Add the outer products of pairs of rows to a block of weight.

    Args:
        typing: of Numba.
        like: an array of the rows' dtype; rows of uint32 follow each other without numbers.
        vectors: of columns in the block, 1 or 2.
        source, target: addresses of the first row, strides, and addresses of int32 row numbers.
        weight: the address of the block, and its input channels.
        pairs: the first, and the one behind the last.
    """
    consecutive = like.dtype == types.uint32

    def emit(
        emitter: Emitter,
        vectors: Value,
        source: list[Value],
        target: list[Value],
        weight: list[Value],
        pairs: list[Value],
    ) -> None:
        block, c_in = weight
        for count in emitter.cases(vectors, (1, 2)):
            channel = emitter.const(0)
            for size in sizes(count):
                with emitter.loop(channel, c_in, size, []) as channels:
                    entries = [emitter.plus(channels.number, row) for row in range(size)]
                    rows = [emitter.plus(block, entry, count * VECTOR_BYTES) for entry in entries]
                    start = [emitter.load(row, vector) for row in rows for vector in range(count)]
                    with emitter.loop(pairs[0], pairs[1], 1, start) as pair:
                        if not consecutive:
                            _emit_prefetch(emitter, pair.number, pairs[1], source, channels.number)
                        both = pair.number, source, target
                        values, columns = _emit_rows(emitter, both, entries, count, consecutive)
                        pair.values = [
                            emitter.fma(value, column, pair.values[row * count + vector])
                            for row, value in enumerate(values)
                            for vector, column in enumerate(columns)
                        ]
                    for number, value in enumerate(pair.values):
                        emitter.store(value, rows[number // count], number % count)
                channel = channels.number

    return emitted(emit, like, vectors, source, target, weight, pairs)


def _emit_rows(
    emitter: Emitter,
    pair: tuple[Value, list[Value], list[Value]],
    entries: list[Value],
    vectors: int,
    consecutive: bool,
) -> tuple[list[Value], list[Value]]:
    """Return some channels of a pair's input row, and the columns of its gradient."""
    builder, addresses = emitter.builder, []
    for matrix, stride, numbers in pair[1:]:
        if consecutive:
            addresses.append(builder.add(matrix, builder.mul(pair[0], stride)))
        else:
            addresses.append(emitter.load_row(numbers, pair[0], matrix, stride))
    source, target = addresses
    values = [emitter.broadcast(emitter.plus(source, entry, emitter.size)) for entry in entries]
    return values, [emitter.load(target, vector) for vector in range(vectors)]


def _emit_prefetch(
    emitter: Emitter, pair: Value, last: Value, source: list[Value], channel: Value
) -> None:
    """Ask for a channel of the input row of a later pair, or of the last one."""
    builder, (matrix, stride, numbers) = emitter.builder, source
    later, final = emitter.plus(pair, PREFETCH_PAIRS), emitter.plus(last, -1)
    later = builder.select(builder.icmp_signed("<", later, final), later, final)
    row = emitter.load_row(numbers, later, matrix, stride)
    emitter.prefetch(emitter.plus(row, channel, emitter.size))


@ParallelKernel
def reduce_tiles(
    begin: int, stop: int, features: Array, grad: Array, tiled: TiledPairs, tasks: Tasks, out: Array
) -> None:
    """Write the sums of ``features[i]^T grad[o]`` over the pairs of tiles and cells.

    Args:
        begin, stop: tasks.
        features: ``[n_in, G, c_in]``.
        grad: ``[n_out, G, blocks * BLOCK]``, BLOCK one or two vectors of columns.
        tiled, tasks: the pairs, and the tasks.
        out: ``[P, K, G, blocks, c_in, BLOCK]``, written here.
    """
    _, _, groups, blocks, c_in, width = out.shape
    size, vectors = features.itemsize, width * features.itemsize // VECTOR_BYTES
    rows, targets = tiled.in_rows.ctypes.data, tiled.out_rows.ctypes.data
    xs, gs = features.strides[0], grad.strides[0]
    for task in range(begin, stop):
        part, lots, cells = steps_of(task, tasks)
        sums = out[part]
        sums[cells[0] : cells[1]] = 0
        for step in range((lots[1] - lots[0]) * (cells[1] - cells[0])):
            cell, first, last = pairs_of(step, lots, cells, tiled.starts)
            if first == last:
                continue
            for group in range(groups):
                for channel in range(0, c_in, CHANNELS_AT_A_TIME):
                    x = features.ctypes.data + (group * c_in + channel) * size
                    count = min(CHANNELS_AT_A_TIME, c_in - channel)
                    for block in range(blocks):
                        g = grad.ctypes.data + (group * blocks + block) * width * size
                        w = sums[cell, group, block, channel].ctypes.data
                        source, target = (x, xs, rows), (g, gs, targets)
                        outer_add(features, vectors, source, target, (w, count), (first, last))


@numba.njit(nogil=True, boundscheck=False)
def _lay_pairs(rows: Array, values: Array, first: int, last: int, out: Array) -> None:
    """Write rows two by two: the one's bits below the other's, which are 0 behind the last.

    Args:
        rows: int32 ``[P]``; ``first`` to ``last`` of them are read.
        values: bits ``[n, G, blocks * BLOCK]``.
        out: uint32 ``[G, blocks, PAIRS_AT_A_TIME / 2, BLOCK]``.
    """
    groups, blocks, _, width = out.shape
    for pair in range(first, last, 2):
        lower, entry = rows[pair], (pair - first) // 2
        upper = rows[pair + 1] if pair + 1 < last else -1
        for group in range(groups):
            for block in range(blocks):
                start = block * width
                if upper < 0:
                    for column in range(width):
                        out[group, block, entry, column] = values[lower, group, start + column]
                    continue
                for column in range(width):
                    above = np.uint32(values[upper, group, start + column]) << np.uint32(16)
                    below = np.uint32(values[lower, group, start + column])
                    out[group, block, entry, column] = above | below


@ParallelKernel
def reduce_bfloat_tiles(
    begin: int, stop: int, features: Array, grad: Array, tiled: TiledPairs, tasks: Tasks, out: Array
) -> None:
    """Do the same as :func:`reduce_tiles` for bits of bfloat16; ``out`` is float32."""
    _, _, groups, blocks, c_in, width = out.shape
    x = np.empty((groups, 1, PAIRS_AT_A_TIME // 2, c_in), np.uint32)
    g = np.empty((groups, blocks, PAIRS_AT_A_TIME // 2, width), np.uint32)
    vectors = width * 4 // VECTOR_BYTES
    for task in range(begin, stop):
        part, lots, cells = steps_of(task, tasks)
        sums = out[part]
        sums[cells[0] : cells[1]] = 0
        for step in range((lots[1] - lots[0]) * (cells[1] - cells[0])):
            cell, begin_pair, end_pair = pairs_of(step, lots, cells, tiled.starts)
            for first in range(begin_pair, end_pair, PAIRS_AT_A_TIME):
                last = min(first + PAIRS_AT_A_TIME, end_pair)
                _lay_pairs(tiled.in_rows, features, first, last, x)
                _lay_pairs(tiled.out_rows, grad, first, last, g)
                pairs = 0, (last - first + 1) // 2
                for group in range(groups):
                    source = x[group, 0].ctypes.data, c_in * 4, 0
                    for block in range(blocks):
                        target = g[group, block].ctypes.data, width * 4, 0
                        w = sums[cell, group, block].ctypes.data
                        outer_add(x, vectors, source, target, (w, c_in), pairs)

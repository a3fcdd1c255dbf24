"""Weights from PyTorch's layout to that of the products, and their gradients back.

A parameter has its kernel cells side by side; in the products each cell's block of columns lies in
one run. Eight columns by eight cells are exchanged in registers: number by number every store would
meet another cache line, and those of all cells are as far apart as a power of two, where a cache
holds few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.engines.memory import empty, empty_array
from sparseconv.engines.numba.machine.arrays import by_shares, rows_of
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import Emitter, Value, addresses

SIDE = 8  # cells and columns that are exchanged at once
LEAST_VALUES = 2**14  # of a task
AHEAD = 4  # channels by which a row is fetched into the cache


def laid_out(weight: Tensor, columns: int, block: int, pairs: int) -> Array | None:
    """Return ``[K, G, columns / block, c_in / pairs, block * pairs]`` of ``[K, G, c_in, c_out]``.

    Zeros stand behind the last channels. None where the cells of the weight do not lie side by
    side, as those of a parameter do, or are few, or a block is narrow.

    Args:
        weight: numbers, or bits of bfloat16 with ``pairs`` 2: each column has two channels in turn.
        columns: ``c_out`` rounded up to whole blocks.
        block: columns of a block.
        pairs: channels that lie side by side, 1 or 2.
    """
    cells, groups, c_in, c_out = weight.shape
    if cells < SIDE or block % SIDE or weight.stride(0) != 1 or weight.numel() == 0:
        return None
    span = 1 + sum((n - 1) * s for n, s in zip(weight.shape, weight.stride(), strict=True))
    memory = weight.as_strided((span,), (1,), weight.storage_offset()).numpy()
    steps = -(-c_in // pairs)
    out = empty_array((cells, groups, columns // block, steps, block * pairs), memory.dtype)
    sizes = np.array([c_in, c_out, *weight.stride()[1:]])
    tasks = math.prod(out.shape[1:4])
    by_shares(
        _lay_blocks, tasks, rows_of(LEAST_VALUES, cells * out.shape[4]), memory, sizes, pairs, out
    )
    return out


def laid_back(sums: Array, c_out: int) -> Tensor | None:
    """Return ``[K, G, c_in, c_out]`` of ``[K, G, blocks, c_in, BLOCK]``, no view of another tensor.

    The cells lie side by side, as in the parameter of a convolution, so that its gradient need not
    be copied again. None where they are few, or a block is narrow.
    """
    cells, groups, _, c_in, block = sums.shape
    if cells < SIDE or block % SIDE or sums.size == 0:
        return None
    strides = 1, c_out * c_in * cells, cells, c_in * cells
    shape, dtype = (cells, groups, c_in, c_out), torch.from_numpy(sums[:0]).dtype
    out = empty(shape, dtype, strides)
    memory = out.permute(1, 3, 2, 0).numpy().reshape(-1)
    tasks = math.prod(sums.shape[1:4])
    by_shares(_lay_cells, tasks, rows_of(LEAST_VALUES, cells * block), sums, c_out, memory)
    return out


def _emit_exchange() -> Callable[..., None]:
    """Return the emitter of: write ``SIDE`` rows of ``SIDE`` numbers as columns, that is as rows.

    Its arguments: the address of the first row, bytes from there to the next and, where numbers of
    two channels become one, to the same row of the next channel; the address that the first column
    goes to, and bytes from there to where the next one goes.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, types.float32)
        _, source, by_row, by_channel, target, by_column = args
        bits = signature.args[0].dtype.bitwidth
        given = ir.VectorType(ir.IntType(bits), SIDE)
        kind = ir.VectorType(ir.IntType(max(bits, 32)), SIDE)

        def loaded(address: Value) -> Value:
            pointer = builder.inttoptr(address, given.as_pointer())
            return builder.load(pointer, align=bits // 8)

        rows = []
        for row in range(SIDE):
            place = builder.add(source, builder.mul(by_row, emitter.const(row)))
            emitter.fetch(builder.add(place, builder.mul(by_channel, emitter.const(AHEAD))))
            value = loaded(place)
            if bits == 16:  # two channels of bfloat16, the second one's bits above the first's
                above = builder.zext(loaded(builder.add(place, by_channel)), kind)
                above = builder.shl(above, ir.Constant(kind, [16] * SIDE))
                value = builder.or_(builder.zext(value, kind), above)
            rows.append(value)
        for number, column in enumerate(_exchanged(builder, rows)):
            place = builder.add(target, builder.mul(by_column, emitter.const(number)))
            pointer = builder.inttoptr(place, kind.as_pointer())
            builder.store(column, pointer, align=max(bits, 32) // 8)

    return emit


def _exchanged(builder: Value, rows: list[Value]) -> list[Value]:
    """Return the columns of ``SIDE`` vectors: blocks of 4, of 2 and of 1 change places in turn."""
    lanes = ir.VectorType(ir.IntType(32), SIDE)
    distance = SIDE // 2
    while distance:
        upper = [lane if not lane & distance else SIDE + lane - distance for lane in range(SIDE)]
        lower = [lane + distance if not lane & distance else SIDE + lane for lane in range(SIDE)]
        for place in range(SIDE):
            if place & distance:
                continue
            pair = rows[place], rows[place + distance]
            rows[place] = builder.shuffle_vector(*pair, ir.Constant(lanes, upper))
            rows[place + distance] = builder.shuffle_vector(*pair, ir.Constant(lanes, lower))
        distance //= 2
    return rows


@intrinsic
def _exchange(typing, like, source, by_row, by_channel, target, by_column):
    places = source, by_row, by_channel, target, by_column
    return addresses(_emit_exchange(), like, places)


@Loop
def _lay_blocks(first: int, last: int, memory: Array, sizes: Array, pairs: int, out: Array) -> None:
    """Write some rows of the blocks of every cell.

    Args:
        first, last: rows: a step of channels in a block of columns of a group.
        memory: of the weight, flat; its cells follow each other.
        sizes: c_in, c_out, and from group to group, channel to channel and column to column.
        pairs: channels of a step.
        out: ``[K, G, blocks, steps, BLOCK * pairs]``.
    """
    c_in, c_out, by_group, by_channel, by_column = sizes
    cells, _, blocks, steps, width = out.shape
    size, columns = memory.itemsize, width // pairs
    for row in range(first, last):
        step, block, group = row % steps, row // steps % blocks, row // steps // blocks
        for column in range(0, columns, SIDE):
            channel, place = step * pairs, block * columns + column
            begin = group * by_group + channel * by_channel + place * by_column
            if channel + pairs <= c_in and place + SIDE <= c_out:
                source = memory.ctypes.data + begin * size
                target = out[0, group, block, step, column * pairs :].ctypes.data
                for cell in range(0, cells, SIDE):
                    own = min(cell, cells - SIDE)  # the last ones may be written twice
                    to = target + own * out.strides[0]
                    _exchange(
                        memory, source + own * size, by_column * size, by_channel * size, to,
                        out.strides[0],
                    )  # fmt: skip
                continue
            for number in range(SIDE * pairs):
                other, own = number // pairs, number % pairs
                inside = channel + own < c_in and place + other < c_out
                entry = begin + own * by_channel + other * by_column
                for cell in range(cells):
                    value = memory[entry + cell] if inside else memory.dtype.type(0)
                    out[cell, group, block, step, column * pairs + number] = value


@Loop
def _lay_cells(first: int, last: int, sums: Array, c_out: int, memory: Array) -> None:
    """Write some rows of the blocks of every cell to where its cells are side by side.

    Args:
        first, last: rows: a channel in a block of columns of a group.
        sums: ``[K, G, blocks, c_in, BLOCK]``.
        c_out: columns of all blocks that are written.
        memory: of ``[G, c_out, c_in, K]``, flat.
    """
    cells, _, blocks, c_in, width = sums.shape
    size, by_column = sums.itemsize, c_in * cells
    for row in range(first, last):
        channel, block, group = row % c_in, row // c_in % blocks, row // c_in // blocks
        for column in range(0, min(width, c_out - block * width), SIDE):
            place = block * width + column
            begin = (group * c_out + place) * by_column + channel * cells
            if place + SIDE <= c_out:
                source = sums[0, group, block, channel, column:].ctypes.data
                for cell in range(0, cells, SIDE):
                    own = min(cell, cells - SIDE)  # the last ones may be written twice
                    to = memory.ctypes.data + (begin + own) * size
                    _exchange(
                        memory, source + own * sums.strides[0], sums.strides[0], sums.strides[3],
                        to, by_column * size,
                    )  # fmt: skip
                continue
            for other in range(c_out - place):
                for cell in range(cells):
                    value = sums[cell, group, block, channel, column + other]
                    memory[begin + other * by_column + cell] = value

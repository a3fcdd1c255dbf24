"""The kernel of the Numba engine for weight gradients: outer products of rows, pair by pair.

A block of the weight stays in registers while the pairs of a tile are walked, and a value is the
same chain of fused multiply-adds whatever was computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses, sizes

# input channels of a weight gradient taken at a time: the rows of a tile's pairs stay in the
# first-level cache while the blocks of output channels are walked
CHUNK = 64
AHEAD = 16  # pairs by which a row is fetched into the cache before its turn


def _emit_outer(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the outer products of pairs to a block of weight gradient."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        (
            _,
            x,
            x_stride,
            in_rows,
            grad,
            grad_stride,
            out_rows,
            weight,
            w_stride,
            c_in,
            first,
            last,
        ) = args
        channel, final = emitter.const(0), emitter.plus(last, -1)
        for size in sizes(vectors):
            with emitter.loop(channel, c_in, size, []) as channels:
                entries = [emitter.plus(channels.number, row) for row in range(size)]
                rows = [builder.add(weight, builder.mul(entry, w_stride)) for entry in entries]
                start = [emitter.load(row, vector) for row in rows for vector in range(vectors)]
                with emitter.loop(first, last, 1, start) as pairs:
                    ahead = emitter.plus(pairs.number, AHEAD)
                    inside = builder.icmp_signed("<", ahead, final)
                    ahead = builder.select(inside, ahead, final)
                    coming = emitter.load_row(in_rows, ahead, x, x_stride)
                    emitter.fetch(emitter.plus(coming, channels.number, emitter.size))
                    source = emitter.load_row(in_rows, pairs.number, x, x_stride)
                    target = emitter.load_row(out_rows, pairs.number, grad, grad_stride)
                    columns = [emitter.load(target, vector) for vector in range(vectors)]
                    totals = []
                    for row, entry in enumerate(entries):
                        value = emitter.broadcast(emitter.plus(source, entry, emitter.size))
                        for vector, column in enumerate(columns):
                            total = pairs.values[row * vectors + vector]
                            totals.append(emitter.fma(value, column, total))
                    pairs.values = totals
                for number, value in enumerate(pairs.values):
                    emitter.store(value, rows[number // vectors], number % vectors)
            channel = channels.number

    return emit


@intrinsic
def outer_one(typing, like, x, xs, ir_, g, gs, or_, w, ws, c, first, last):
    """Add the outer products of pairs of rows to a block of weight, one vector wide."""
    return addresses(_emit_outer(1), like, (x, xs, ir_, g, gs, or_, w, ws, c, first, last))


@intrinsic
def outer_two(typing, like, x, xs, ir_, g, gs, or_, w, ws, c, first, last):
    """Add the outer products of pairs of rows to a block of weight, two vectors wide."""
    return addresses(_emit_outer(2), like, (x, xs, ir_, g, gs, or_, w, ws, c, first, last))


@Loop
def reduce_tiles(
    begin: int,
    stop: int,
    features: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    span: int,
    parts: Array,
    cell_groups: Array,
    weight: Array,
) -> None:
    """Write the sums of ``features[i]^T grad[o]`` over the pairs of tiles and cells.

    Tile by tile, so that the rows that the kernel cells share are read from the cache.

    Args:
        begin, stop: tasks; each takes a part of the tiles and a group of the cells.
        features: ``[n_in, G, c_in]``.
        grad: ``[n_out, G, blocks * BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        span: tiles that are taken together.
        parts: ``[P, 2]`` lots of ``span`` tiles that are summed over apart: the first, and the
            one behind the last.
        cell_groups: ``[Q, 2]`` cells of a task, likewise.
        weight: ``[P, K, G, blocks, c_in, BLOCK]``, written here.
    """
    _, _, groups, blocks, c_in, width = weight.shape
    size = features.itemsize
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    xs, gs, ws = features.strides[0], grad.strides[0], width * size
    for number in range(begin, stop):
        part, cells = number // len(cell_groups), cell_groups[number % len(cell_groups)]
        sums, tiles = weight[part], parts[part]
        sums[cells[0] : cells[1]] = 0
        for step in range((tiles[1] - tiles[0]) * (cells[1] - cells[0])):
            cell = cells[0] + step % (cells[1] - cells[0])
            tile = span * (tiles[0] + step // (cells[1] - cells[0]))
            behind = min(tile + span, starts.shape[1] - 1)
            first, last = starts[cell, tile], starts[cell, behind]
            if first == last:
                continue
            for group in range(groups):
                for channel in range(0, c_in, CHUNK):
                    x = features.ctypes.data + (group * c_in + channel) * size
                    count = min(CHUNK, c_in - channel)
                    for block in range(blocks):
                        g = grad.ctypes.data + (group * blocks + block) * width * size
                        w = sums[cell, group, block, channel].ctypes.data
                        if width * size == VECTOR_BYTES:
                            outer_one(
                                features, x, xs, rows, g, gs, targets, w, ws, count, first, last
                            )
                        else:
                            outer_two(
                                features, x, xs, rows, g, gs, targets, w, ws, count, first, last
                            )

"""Kernels of the Numba engine for groups of few channels: no matrix, but lane by lane.

Groups of one, two, four or eight channels lie side by side in a vector. For each input channel of a
group one vector of weight holds what every output channel takes from it, and the row's vector is
shuffled so that the channel stands in all lanes of its group. With one channel in each group there
is nothing to shuffle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import emitter_of, kept, loaded, vector_bytes
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses, large
from sparseconv.engines.numba.windows.sums import WIDE, lines_of, row_ahead, row_at

WIDEST = 8  # channels of a group: more of them make a matrix


def _shuffled(emitter: Emitter, values: list[Value], width: int) -> list[Value]:
    """Return each vector once per channel of a group, that channel in all lanes of the group."""
    if width == 1:
        return values
    return [emitter.within(value, width, place) for value in values for place in range(width)]


def _emit_scale(vectors: int, width: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of rows, each times its cell's row of weight."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, stride, rows, cells, weight, weight_stride, bias, relu, out, past, *given = args
        start = [emitter.load(bias, vector) for vector in range(vectors)]
        first, last = given
        with emitter.loop(first, last, 1, start) as pairs:
            if vectors == WIDE:
                row_ahead(emitter, rows, pairs.number, x, stride, lines_of(dtype))
            source = emitter.load_row(rows, pairs.number, x, stride)
            factors = emitter.load_row(cells, pairs.number, weight, weight_stride)
            values = _shuffled(emitter, loaded(emitter, dtype, source, vectors), width)
            for number, value in enumerate(values):
                total = pairs.values[number // width]
                total = emitter.fma(value, emitter.load(factors, number), total)
                pairs.values[number // width] = total
        results = [emitter.bounded(total, relu) for total in pairs.values]
        kept(emitter, dtype, results, out, past)

    return emit


def _emit_dot(vectors: int, width: int) -> Callable[..., None]:
    """Return the emitter of: add the products of the two rows of pairs to a row of weight."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, x, x_stride, in_rows, grad, grad_stride, out_rows, weight, first, last = args
        start = [emitter.load(weight, number) for number in range(vectors * width)]
        with emitter.loop(first, last, 1, start) as pairs:
            source = emitter.load_row(in_rows, pairs.number, x, x_stride)
            target = emitter.load_row(out_rows, pairs.number, grad, grad_stride)
            values = _shuffled(emitter, loaded(emitter, dtype, source, vectors), width)
            grads = loaded(emitter, dtype, target, vectors)
            pairs.values = [
                emitter.fma(value, grads[number // width], pairs.values[number])
                for number, value in enumerate(values)
            ]
        for number, total in enumerate(pairs.values):
            emitter.store(total, weight, number)

    return emit


@intrinsic
def _scale_one(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(1, 1), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_wide(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(WIDE, 1), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_one_by_two(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(1, 2), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_wide_by_two(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(WIDE, 2), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_one_by_four(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(1, 4), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_wide_by_four(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(WIDE, 4), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_one_by_eight(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(1, 8), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _scale_wide_by_eight(typing, like, x, xs, r, c, w, ws, b, n, o, p, first, last):
    return addresses(_emit_scale(WIDE, 8), like, (x, xs, r, c, w, ws, b, n, o, p, first, last))


@intrinsic
def _dot_one(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1, 1), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_wide(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(WIDE, 1), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_one_by_two(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1, 2), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_one_by_four(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1, 4), like, (x, xs, ir_, g, gs, or_, w, first, last))


@intrinsic
def _dot_one_by_eight(typing, like, x, xs, ir_, g, gs, or_, w, first, last):
    return addresses(_emit_dot(1, 8), like, (x, xs, ir_, g, gs, or_, w, first, last))


@Loop
def scale_rows(
    begin: int,
    end: int,
    x: Array,
    weight: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    bias: Array,
    relu: bool,
    out: Array,
) -> None:
    """Write the rows at places ``begin`` to ``end``: sums of rows times their cell's weight.

    Args:
        x, out: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors; numbers or bits of bfloat16.
        weight: ``[K, C / lanes, width, lanes]``, width 1, 2, 4 or 8 channels to a group.
        rows, cells, starts, order: of ``WindowRows`` (:mod:`..windows.sums`).
        begin, end: places of output rows.
        bias: ``[C]``, added to the sums.
        relu: whether negative results become 0.
    """
    length, step, width = x.shape[1] * x.itemsize, vector_bytes(x), weight.shape[2]
    a, r, c = x.ctypes.data, rows.ctypes.data, cells.ctypes.data
    past, ws, n = large(out), weight.strides[0], 1 if relu else 0
    for place in range(begin, end):
        row, s, e = row_at(place, order), starts[place], starts[place + 1]
        w, b, y = weight.ctypes.data, bias.ctypes.data, out.ctypes.data + row * length
        done = 0
        while done + WIDE * step <= length:
            p = a + done
            if width == 1:
                _scale_wide(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            elif width == 2:
                _scale_wide_by_two(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            elif width == 4:
                _scale_wide_by_four(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            else:
                _scale_wide_by_eight(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            done += WIDE * step
            w += WIDE * width * VECTOR_BYTES
            b += WIDE * VECTOR_BYTES
        while done < length:
            p = a + done
            if width == 1:
                _scale_one(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            elif width == 2:
                _scale_one_by_two(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            elif width == 4:
                _scale_one_by_four(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            else:
                _scale_one_by_eight(x, p, length, r, c, w, ws, b, n, y + done, past, s, e)
            done += step
            w += width * VECTOR_BYTES
            b += VECTOR_BYTES


@Loop
def dot_tiles(
    begin: int,
    stop: int,
    x: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    span: int,
    parts: Array,
    cell_groups: Array,
    weight: Array,
) -> None:
    """Write the sums of ``x[i] * grad[o]``, for each channel of a group, over tiles and cells.

    A block of the weight stays in registers while the pairs of a tile are walked.

    Args:
        begin, stop: tasks; each takes a part of the tiles and a group of the cells.
        x, grad: ``[n_in, C]`` and ``[n_out, C]``, C whole vectors; numbers or bits of bfloat16.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        span: tiles that are taken together.
        parts: ``[P, 2]`` lots of ``span`` tiles that are summed over apart: the first, and the
            one behind the last.
        cell_groups: ``[Q, 2]`` cells of a task, likewise.
        weight: ``[P, K, C / lanes, width, lanes]``, written here.
    """
    length, step, width = x.shape[1] * x.itemsize, vector_bytes(x), weight.shape[3]
    rows, targets = in_rows.ctypes.data, out_rows.ctypes.data
    for number in range(begin, stop):
        part, cells = number // len(cell_groups), cell_groups[number % len(cell_groups)]
        sums, tiles = weight[part], parts[part]
        sums[cells[0] : cells[1]] = 0
        for own in range((tiles[1] - tiles[0]) * (cells[1] - cells[0])):
            cell = cells[0] + own % (cells[1] - cells[0])
            tile = span * (tiles[0] + own // (cells[1] - cells[0]))
            behind = min(tile + span, starts.shape[1] - 1)
            s, e = starts[cell, tile], starts[cell, behind]
            if s == e:
                continue
            a, g, w = x.ctypes.data, grad.ctypes.data, sums[cell].ctypes.data
            done = 0
            while width == 1 and done + WIDE * step <= length:
                _dot_wide(x, a + done, length, rows, g + done, length, targets, w, s, e)
                done += WIDE * step
                w += WIDE * VECTOR_BYTES
            while done < length:
                p = a + done
                if width == 1:
                    _dot_one(x, p, length, rows, g + done, length, targets, w, s, e)
                elif width == 2:
                    _dot_one_by_two(x, p, length, rows, g + done, length, targets, w, s, e)
                elif width == 4:
                    _dot_one_by_four(x, p, length, rows, g + done, length, targets, w, s, e)
                else:
                    _dot_one_by_eight(x, p, length, rows, g + done, length, targets, w, s, e)
                done += step
                w += width * VECTOR_BYTES


@Loop
def repeat_columns(first: int, last: int, x: Array, times: int, out: Array) -> None:
    """Write each value of rows ``first`` to ``last`` so many times over, and zeros behind them."""
    count, columns = np.uint64(times), np.uint64(x.shape[1])
    for row in range(first, last):
        source, target = x[row], out[row]
        for place in range(count):
            for column in range(columns):
                target[column * count + place] = source[column]
        target[columns * count :] = 0


@Loop
def regroup(first: int, last: int, x: Array, width: int, new: int, out: Array) -> None:
    """Write groups of ``width`` columns as groups of ``new``, cut off or with zeros behind.

    Rows ``first`` to ``last``; zeros stand behind the last group, too.
    """
    # unsigned: Numba looks whether a signed index is negative
    own, wide = np.uint64(width), np.uint64(new)
    groups = min(np.uint64(x.shape[1]) // own, np.uint64(out.shape[1]) // wide)
    both = min(own, wide)
    for row in range(first, last):
        source, target = x[row], out[row]
        # a group is shorter than a loop's beginning takes, so the groups are the inner loop
        for column in range(both):
            for group in range(groups):
                target[group * wide + column] = source[group * own + column]
        for column in range(both, wide):
            for group in range(groups):
                target[group * wide + column] = 0
        target[groups * wide :] = 0

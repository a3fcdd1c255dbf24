"""Kernel of the Numba engine for products with few output columns.

Such columns would fill a small part of a vector. So a vector holds input channels here: an output
row walks its pairs with one accumulator a column, each pair adds its row times the weight's
columns, and in the end the lanes of each accumulator are added up. No value is broadcast, and the
output is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Emitter, Value, addresses
from sparseconv.engines.numba.windows.sums import AHEAD

FEW = 4  # columns whose sums are stored together


def columns_for(c_in: int, c_out: int, dtype: Any) -> int:
    """Return the columns to compute, ``c_out`` or more, or 0 where tiles take fewer steps."""
    lanes = VECTOR_BYTES // dtype.itemsize
    columns = FEW if c_out <= FEW else 2 * FEW
    steps = -(-c_in // lanes) * columns
    return columns if c_out <= columns <= lanes // 2 and 2 * steps <= c_in else 0


def _lane_sums(emitter: Emitter, totals: list[Value]) -> Value:
    """Return the sum over the lanes of each of ``FEW`` vectors, side by side."""
    builder, lanes = emitter.builder, emitter.lanes

    def picked(left: Value, right: Value, places: range) -> Value:
        kind = ir.VectorType(ir.IntType(32), len(places))
        return builder.shuffle_vector(left, right, ir.Constant(kind, list(places)))

    while lanes > FEW:  # the upper half onto the lower one
        lanes //= 2
        halves = range(lanes), range(lanes, 2 * lanes)
        totals = [builder.fadd(*(picked(t, t, half) for half in halves)) for t in totals]
    left, right = (picked(totals[n], totals[n + 1], range(2 * FEW)) for n in (0, 2))
    joined = picked(left, right, range(4 * FEW))
    first, second, third, fourth = (
        picked(joined, joined, range(lane, 4 * FEW, FEW)) for lane in range(FEW)
    )
    return builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))


def _emit_row(columns: int) -> Callable[..., None]:
    """Return the emitter of: write the sum of the rows of some pairs times their cells' weights."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, width, rows, cells, weight, out, first, last = args
        cell_bytes = builder.mul(width, emitter.const(columns))
        with emitter.loop(first, last, 1, [emitter.zeros()] * columns) as pairs:
            coming = emitter.load_row(rows, emitter.plus(pairs.number, AHEAD), x, width)  # or row 0
            emitter.fetch(coming)
            source = emitter.load_row(rows, pairs.number, x, width)
            block = emitter.load_row(cells, pairs.number, weight, cell_bytes)
            zero = emitter.const(0)
            with emitter.loop(zero, width, VECTOR_BYTES, pairs.values) as channels:
                value = emitter.load(builder.add(source, channels.number))
                place = emitter.plus(block, channels.number, columns)
                channels.values = [
                    emitter.fma(value, emitter.load(place, column), total)
                    for column, total in enumerate(channels.values)
                ]
            pairs.values = channels.values
        for column in range(0, columns, FEW):
            sums = _lane_sums(emitter, pairs.values[column : column + FEW])
            place = emitter.plus(out, column, emitter.size)
            pointer = builder.inttoptr(place, sums.type.as_pointer())
            builder.store(sums, pointer, align=emitter.size)

    return emit


@intrinsic
def _row_few(typing, like, x, width, rows, cells, weight, out, first, last):
    return addresses(_emit_row(FEW), like, (x, width, rows, cells, weight, out, first, last))


@intrinsic
def _row_more(typing, like, x, width, rows, cells, weight, out, first, last):
    return addresses(_emit_row(2 * FEW), like, (x, width, rows, cells, weight, out, first, last))


@Loop
def narrow_rows(
    begin: int,
    end: int,
    x: Array,
    weight: Array,
    rows: Array,
    cells: Array,
    starts: Array,
    order: Array,
    factor: Array,
    bias: Array,
    other: Array,
    relu: bool,
    out: Array,
) -> None:
    """Write the output rows at places ``begin`` to ``end``.

    Args:
        x: ``[n_in, C]``, C whole vectors.
        weight: ``[K, vectors, columns, lanes]``, of :func:`columns_for`.
        rows, cells, starts, order: the window rows.
        begin, end: output places.
        factor: ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: ``[1, columns]``, added to them.
        other: ``[n_out, 1, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
        out: ``[n_out, columns]``.
    """
    a, width, w = x.ctypes.data, x.shape[1] * x.itemsize, weight.ctypes.data
    r, c, y = rows.ctypes.data, cells.ctypes.data, out.ctypes.data
    columns, scaled, added = out.shape[1], factor.shape[0] > 0, other.shape[0] > 0
    for place in range(begin, end):
        row = order[place] if order.shape[0] > 0 else place
        target, first, last = y + row * columns * out.itemsize, starts[place], starts[place + 1]
        if columns == FEW:
            _row_few(x, a, width, r, c, w, target, first, last)
        else:
            _row_more(x, a, width, r, c, w, target, first, last)
        own = out[row]
        for column in range(columns):
            value = own[column] * factor[row] if scaled else own[column]
            value += bias[0, column]
            if added and column < other.shape[2]:
                value += other[row, 0, column]
            # a NaN stays one, as in torch
            own[column] = out.dtype.type(0) if relu and value < 0 else value

"""The product with few output columns, row by row.

Such columns would fill a small part of a vector. So a vector holds input channels here: an output
row walks its pairs with one accumulator a column, each pair adds its row times the weight's
columns, and in the end the lanes of each accumulator are added up. No value is broadcast, and the
output is written once.

Benchmark: shape submanifold k=3, 64 to 4, 1 groups, forward
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from sparseconv.core.dtypes import Array, wider
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    MIN_ROWS_PER_TASK,
    array,
    by_shares,
    computed_in,
    converted,
    padded,
    without_padding,
)
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES
from sparseconv.engines.numba.products.blocks import by_dots
from sparseconv.engines.numba.products.epilogue import EpilogueArrays, epilogue_arrays
from sparseconv.engines.numba.rulebooks.tiles import PREFETCH_PAIRS, WindowRows, window_rows
from sparseconv.engines.protocol import Epilogue

FEW_COLUMNS = 4  # whose sums are stored together
# Beyond, the tiles are faster: 8 columns read twice the weight of 4 for each row.
MAX_CHANNELS_FOR_EIGHT = 64


def columns_for(c_in: int, c_out: int, dtype: Any) -> int:
    """Return the columns to compute, ``c_out`` or more, or 0 where tiles take less time."""
    lanes = VECTOR_BYTES // dtype.itemsize
    columns = FEW_COLUMNS if c_out <= FEW_COLUMNS else 2 * FEW_COLUMNS
    steps = -(-c_in // lanes) * columns
    if c_out > columns or columns > lanes // 2 or 2 * steps > c_in:
        return 0
    return columns if columns == FEW_COLUMNS or c_in <= MAX_CHANNELS_FOR_EIGHT else 0


@dataclass(frozen=True, eq=False)
class NarrowWeight:
    """A weight of few columns, whose vectors hold input channels.

    Attributes:
        c_out: output channels.
        vectors: ``[K, vectors, columns, lanes]``.
    """

    c_out: int
    vectors: Array

    @classmethod
    def of(cls, weight: Tensor) -> NarrowWeight | None:
        """Return the layout of a weight ``[K, G, c_in, c_out]``, or None for another kernel."""
        cells, groups, c_in, c_out = weight.shape
        columns = columns_for(c_in, c_out, computed_in(weight.dtype)) if groups == 1 else 0
        if columns == 0 or by_dots(weight.dtype):
            return None
        lanes = VECTOR_BYTES // computed_in(weight.dtype).itemsize
        wide = weight.new_zeros(cells, -(-c_in // lanes) * lanes, columns)
        wide[:, :c_in, :c_out] = weight[:, 0]
        return cls(c_out, array(wide.unflatten(1, (-1, lanes)).transpose(2, 3)))

    def product(self, features: Tensor, rulebook: Rulebook, epilogue: Epilogue) -> Tensor:
        """Return the product, row by row."""
        _, vectors, columns, lanes = self.vectors.shape
        x = array(padded(features, vectors * lanes))
        out = empty((rulebook.n_out, columns), wider(features.dtype))
        ending = epilogue_arrays(epilogue, (1, self.c_out), columns, out.dtype)
        arrays = x, self.vectors, window_rows(rulebook), ending, out.numpy()
        by_shares(narrow_rows, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
        return converted(without_padding(out, self.c_out), features.dtype)


def _lane_sums(emitter: Emitter, totals: list[Value]) -> Value:
    """Return the sum over the lanes of each of ``FEW_COLUMNS`` vectors, side by side."""
    builder, lanes, few = emitter.builder, emitter.lanes, FEW_COLUMNS

    def picked(left: Value, right: Value, chosen: range) -> Value:
        kind = ir.VectorType(ir.IntType(32), len(chosen))
        return builder.shuffle_vector(left, right, ir.Constant(kind, list(chosen)))

    while lanes > few:  # the upper half onto the lower one
        lanes //= 2
        halves = range(lanes), range(lanes, 2 * lanes)
        totals = [builder.fadd(*(picked(t, t, half) for half in halves)) for t in totals]
    left, right = (picked(totals[n], totals[n + 1], range(2 * few)) for n in (0, 2))
    joined = picked(left, right, range(4 * few))
    first, second, third, fourth = (
        picked(joined, joined, range(lane, 4 * few, few)) for lane in range(few)
    )
    return builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))


class _Operands(NamedTuple):
    """Addresses of rows, of their numbers and cells and of the weight, and the bytes of a row."""

    matrix: Value
    rows: Value
    cells: Value
    weight: Value
    length: Value


@intrinsic
def _write_row(typing: Any, like: Any, columns: Any, operands: Any, out: Any, pairs: Any) -> Any:
    """Write the sum of the rows of some pairs times their cells' weights, of 4 or 8 columns."""

    def emit(
        emitter: Emitter, columns: Value, operands: list[Value], out: Value, pairs: list[Value]
    ) -> None:
        for count in emitter.cases(columns, (FEW_COLUMNS, 2 * FEW_COLUMNS)):
            totals = _emit_sums(emitter, count, _Operands(*operands), pairs)
            for column in range(0, count, FEW_COLUMNS):
                sums = _lane_sums(emitter, totals[column : column + FEW_COLUMNS])
                address = emitter.plus(out, column, emitter.size)
                pointer = emitter.builder.inttoptr(address, sums.type.as_pointer())
                emitter.builder.store(sums, pointer, align=emitter.size)

    return emitted(emit, like, columns, operands, out, pairs)


def _emit_sums(
    emitter: Emitter, columns: int, operands: _Operands, pairs: list[Value]
) -> list[Value]:
    """Return a vector a column: sums of products, whose lanes are still to be added up."""
    builder, (matrix, rows, cells, weight, length) = emitter.builder, operands
    cell_bytes = builder.mul(length, emitter.const(columns))
    with emitter.loop(pairs[0], pairs[1], 1, [emitter.zeros()] * columns) as pair:
        # behind the last pair stands row 0
        later = emitter.plus(pair.number, PREFETCH_PAIRS)
        emitter.prefetch(emitter.load_row(rows, later, matrix, length))
        source = emitter.load_row(rows, pair.number, matrix, length)
        block = emitter.load_row(cells, pair.number, weight, cell_bytes)
        with emitter.loop(emitter.const(0), length, VECTOR_BYTES, pair.values) as channels:
            value = emitter.load(builder.add(source, channels.number))
            factors = emitter.plus(block, channels.number, columns)
            channels.values = [
                emitter.fma(value, emitter.load(factors, column), total)
                for column, total in enumerate(channels.values)
            ]
        pair.values = channels.values
    return pair.values


@ParallelKernel
def narrow_rows(
    begin: int,
    end: int,
    x: Array,
    weight: Array,
    windows: WindowRows,
    epilogue: EpilogueArrays,
    out: Array,
) -> None:
    """Write the output rows at places ``begin`` to ``end``.

    Args:
        x: ``[n_in, C]``, C whole vectors.
        weight: ``[K, vectors, columns, lanes]``, of :func:`columns_for`.
        windows: the pairs.
        begin, end: output places.
        epilogue: with ``[1, columns]`` of bias.
        out: ``[n_out, columns]``, written here.
    """
    factor, bias, other, relu = epilogue
    rows, cells = windows.rows.ctypes.data, windows.cells.ctypes.data
    operands = x.ctypes.data, rows, cells, weight.ctypes.data, x.shape[1] * x.itemsize
    columns, scaled, added = out.shape[1], factor.shape[0] > 0, other.shape[0] > 0
    for place in range(begin, end):
        row = windows.order[place] if windows.order.shape[0] > 0 else place
        target = out.ctypes.data + row * columns * out.itemsize
        pairs = windows.starts[place], windows.starts[place + 1]
        _write_row(x, columns, operands, target, pairs)
        result = out[row]
        for column in range(columns):
            value = result[column] * factor[row] if scaled else result[column]
            value += bias[0, column]
            if added and column < other.shape[2]:
                value += other[row, 0, column]
            # a NaN stays one, as in torch
            result[column] = out.dtype.type(0) if relu and value < 0 else value

"""Kernels of the Numba engine for the two products, with micro-kernels emitted as LLVM vectors.

Forward and input gradient are output-stationary: a task owns a tile of output rows that stays in
its cache, walks the kernel cells in order and multiplies, for each block of ``BLOCK`` columns, all
pairs of the tile with the block of the weight, which stays in the first-level cache. Accumulators
live in registers, ``ROWS`` pairs by one or two vectors; rows are read through the rulebook, so no
gathered copy exists. The weight gradient keeps a block of the weight in registers and walks pairs.

An output value is the same chain of fused multiply-adds whatever pairs were computed beside it:
cell by cell, channel by channel; a weight gradient adds pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]
Value = Any  # an llvmlite value

# AVX-512 has 32 registers of 64 bytes: 8 pairs by 2 vectors fill half of them with accumulators.
# Elsewhere 32-byte vectors (one AVX2 register, two NEON ones) and 4 pairs keep within 16.
_AVX512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
VECTOR_BYTES = 64 if _AVX512 else 32
ROWS = 8 if _AVX512 else 4


class _Emitter:
    """Shorthand for the instructions that the micro-kernels are made of."""

    def __init__(self, builder: Value, dtype: Any) -> None:
        self.builder = builder
        self.size = 8 if dtype == types.float64 else 4
        self.scalar = ir.DoubleType() if dtype == types.float64 else ir.FloatType()
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(self.scalar, self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        known = builder.module.globals.get(name)
        self._fma = known or ir.Function(builder.module, signature, name)

    def const(self, value: int) -> Value:
        return ir.Constant(ir.IntType(64), value)

    def plus(self, address: Value, count: Value | int, size: int = 1) -> Value:
        """Return ``address + count * size``."""
        if isinstance(count, int):
            return self.builder.add(address, self.const(count * size))
        return self.builder.add(address, self.builder.mul(count, self.const(size)))

    def load_row(self, rows: Value, entry: Value, base: Value, stride: Value) -> Value:
        """Return the address of row ``rows[entry]`` of a matrix; ``rows`` are int32."""
        builder = self.builder
        pointer = builder.inttoptr(self.plus(rows, entry, 4), ir.IntType(32).as_pointer())
        row = builder.sext(builder.load(pointer), ir.IntType(64))
        return builder.add(base, builder.mul(row, stride))

    def load(self, address: Value, vector: int = 0) -> Value:
        """Return the ``vector``-th vector at ``address``."""
        place = self.plus(address, vector, VECTOR_BYTES)
        pointer = self.builder.inttoptr(place, self.vector.as_pointer())
        return self.builder.load(pointer, align=self.size)

    def store(self, value: Value, address: Value, vector: int) -> None:
        place = self.plus(address, vector, VECTOR_BYTES)
        pointer = self.builder.inttoptr(place, self.vector.as_pointer())
        self.builder.store(value, pointer, align=self.size)

    def broadcast(self, address: Value) -> Value:
        """Return the scalar at ``address`` in every lane."""
        builder = self.builder
        pointer = builder.inttoptr(address, self.scalar.as_pointer())
        empty = ir.Constant(self.vector, ir.Undefined)
        single = builder.insert_element(
            empty, builder.load(pointer), ir.Constant(ir.IntType(32), 0)
        )
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(single, empty, everywhere)

    def fma(self, left: Value, right: Value, total: Value) -> Value:
        return self.builder.call(self._fma, [left, right, total])

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int, carried: list[Value]) -> Iterator[_Loop]:
        """Emit a loop while ``number + step <= stop``; ``carried`` values live in registers."""
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block("head")
        body = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        number = builder.phi(ir.IntType(64))
        number.add_incoming(start, before)
        values = [builder.phi(value.type) for value in carried]
        for phi, value in zip(values, carried, strict=True):
            phi.add_incoming(value, before)
        end = builder.add(number, self.const(step))
        builder.cbranch(builder.icmp_signed("<=", end, stop), body, after)
        builder.position_at_end(body)
        state = _Loop(number, list(values))
        yield state
        number.add_incoming(end, builder.block)
        for phi, value in zip(values, state.values, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        state.values = list(values)


class _Loop:
    """The counter of a loop and the values that it carries; ``values`` is replaced by the body."""

    def __init__(self, number: Value, values: list[Value]) -> None:
        self.number, self.values = number, values


def _sizes(vectors: int) -> Iterator[int]:
    """Yield how many rows are taken at a time: what registers hold, then halves for the rest."""
    size = ROWS * 2 // vectors
    while size:
        yield size
        size //= 2


def _emit_multiply(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add pairs ``first`` to ``last``, times a block of weight, to rows."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = _Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, out, out_stride, out_rows, weight, c_in, first, last = args
        for size in _sizes(vectors):
            with emitter.loop(first, last, size, []) as pairs:
                entries = [emitter.plus(pairs.number, row) for row in range(size)]
                sources = [emitter.load_row(in_rows, e, x, x_stride) for e in entries]
                targets = [emitter.load_row(out_rows, e, out, out_stride) for e in entries]
                start = [emitter.load(target, v) for target in targets for v in range(vectors)]
                with emitter.loop(emitter.const(0), c_in, 1, start) as channels:
                    block = emitter.plus(weight, channels.number, vectors * VECTOR_BYTES)
                    columns = [emitter.load(block, vector) for vector in range(vectors)]
                    totals = []
                    for row, source in enumerate(sources):
                        place = emitter.plus(source, channels.number, emitter.size)
                        value = emitter.broadcast(place)
                        for vector, column in enumerate(columns):
                            total = channels.values[row * vectors + vector]
                            totals.append(emitter.fma(value, column, total))
                    channels.values = totals
                for number, value in enumerate(channels.values):
                    emitter.store(value, targets[number // vectors], number % vectors)
            first = pairs.number

    return emit


def _emit_outer(vectors: int) -> Callable[..., None]:
    """Return the emitter of: add the outer products of pairs to a block of weight gradient."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = _Emitter(builder, signature.args[0].dtype)
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
        channel = emitter.const(0)
        for size in _sizes(vectors):
            with emitter.loop(channel, c_in, size, []) as channels:
                entries = [emitter.plus(channels.number, row) for row in range(size)]
                rows = [builder.add(weight, builder.mul(entry, w_stride)) for entry in entries]
                start = [emitter.load(row, vector) for row in rows for vector in range(vectors)]
                with emitter.loop(first, last, 1, start) as pairs:
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


def _addresses(emit: Callable[..., None], like: Any, addresses: tuple[Any, ...]) -> Any:
    """Return what an intrinsic must: the signature (an array for its dtype, then int64s), code."""

    def code(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> Value:
        emit(context, builder, signature, args)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * len(addresses)), code


@intrinsic
def _multiply_one(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return _addresses(_emit_multiply(1), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _multiply_two(typing, like, x, xs, ir_, o, os, or_, w, c, first, last):
    return _addresses(_emit_multiply(2), like, (x, xs, ir_, o, os, or_, w, c, first, last))


@intrinsic
def _outer_one(typing, like, x, xs, ir_, g, gs, or_, w, ws, c, first, last):
    return _addresses(_emit_outer(1), like, (x, xs, ir_, g, gs, or_, w, ws, c, first, last))


@intrinsic
def _outer_two(typing, like, x, xs, ir_, g, gs, or_, w, ws, c, first, last):
    return _addresses(_emit_outer(2), like, (x, xs, ir_, g, gs, or_, w, ws, c, first, last))


@Kernel
def tile_starts(out_rows: Array, first: int, last: int, tile: int, starts: Array) -> None:
    """Write where each tile of output rows begins among the pairs ``first`` to ``last``.

    ``out_rows`` ascend there; ``starts`` ``[T + 1]`` gets the pair that opens each tile.
    """
    pair = first
    for number in range(starts.shape[0]):
        while pair < last and out_rows[pair] < number * tile:
            pair += 1
        starts[number] = pair


@Kernel
def scatter_tile(
    features: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile: int,
    number: int,
    out: Array,
) -> None:
    """Compute output rows ``number * tile`` to ``(number + 1) * tile``.

    Args:
        features: ``[n_in, G, c_in]``.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        tile, number: rows per tile, and which tile.
        out: ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tile.
    """
    cells, groups, blocks, c_in, width = weight.shape
    out[number * tile : min((number + 1) * tile, out.shape[0])] = 0
    size = features.itemsize
    for cell in range(cells):
        first, last = starts[cell, number], starts[cell, number + 1]
        if first == last:
            continue
        for group in range(groups):
            x = features.ctypes.data + group * c_in * size
            for block in range(blocks):
                y = out.ctypes.data + (group * blocks + block) * width * size
                w = weight[cell, group, block].ctypes.data
                rows = in_rows.ctypes.data
                targets = out_rows.ctypes.data
                xs, ys = features.strides[0], out.strides[0]
                if width * size == VECTOR_BYTES:
                    _multiply_one(features, x, xs, rows, y, ys, targets, w, c_in, first, last)
                else:
                    _multiply_two(features, x, xs, rows, y, ys, targets, w, c_in, first, last)


@Kernel
def reduce_tiles(
    features: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tiles: Array,
    cells: Array,
    weight: Array,
) -> None:
    """Write the sums of ``features[i]^T grad[o]`` over the pairs of some tiles and cells.

    Tile by tile, so that the rows that the kernel cells share are read from the cache.

    Args:
        features: ``[n_in, G, c_in]``.
        grad: ``[n_out, G, blocks * BLOCK]``, BLOCK one or two vectors of columns.
        in_rows, out_rows: int32 ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile of output rows, per cell.
        tiles, cells: ``[2]`` first and last of each, the last one not included.
        weight: ``[cells, G, blocks, c_in, BLOCK]``, written here.
    """
    _, groups, blocks, c_in, width = weight.shape
    weight[:] = 0
    size = features.itemsize
    for tile in range(tiles[0], tiles[1]):
        for cell in range(cells[0], cells[1]):
            first, last = starts[cell, tile], starts[cell, tile + 1]
            if first == last:
                continue
            for group in range(groups):
                x = features.ctypes.data + group * c_in * size
                for block in range(blocks):
                    g = grad.ctypes.data + (group * blocks + block) * width * size
                    w = weight[cell - cells[0], group, block].ctypes.data
                    rows = in_rows.ctypes.data
                    targets = out_rows.ctypes.data
                    xs, gs, ws = features.strides[0], grad.strides[0], width * size
                    if width * size == VECTOR_BYTES:
                        _outer_one(features, x, xs, rows, g, gs, targets, w, ws, c_in, first, last)
                    else:
                        _outer_two(features, x, xs, rows, g, gs, targets, w, ws, c_in, first, last)

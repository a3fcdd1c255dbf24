"""What the micro-kernels of the Numba engine are made of: vectors, emitted as LLVM code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types

Value = Any  # an llvmlite value

# AVX-512 has 32 registers of 64 bytes: 8 pairs by 2 vectors fill half of them with accumulators.
# Elsewhere 32-byte vectors (one AVX2 register, two NEON ones) and 4 pairs keep within 16.
_AVX512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
VECTOR_BYTES = 64 if _AVX512 else 32
CACHE_LINE = 64
STREAMED_BYTES = 2**23  # results from here on have left the cache when they are read
ROWS = 8 if _AVX512 else 4
# Dot products of pairs of bfloat16 numbers, added to float32: AVX-512 BF16.
BFLOAT_DOTS = _AVX512 and llvmlite.binding.get_host_cpu_features().get("avx512bf16", False)


class Emitter:
    """Shorthand for the instructions that the micro-kernels are made of."""

    def __init__(self, builder: Value, dtype: Any) -> None:
        self.builder = builder
        self.size = 8 if dtype == types.float64 else 4
        self.scalar = ir.DoubleType() if dtype == types.float64 else ir.FloatType()
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self._integers = ir.VectorType(ir.IntType(32), self.lanes)
        self._shorts = ir.VectorType(ir.IntType(16), self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        known = builder.module.globals.get(name)
        self._fma = known or ir.Function(builder.module, signature, name)

    def const(self, value: int) -> Value:
        """Return a 64-bit constant."""
        return ir.Constant(ir.IntType(64), value)

    def zeros(self, integers: bool = False) -> Value:
        """Return a vector of zeros."""
        return ir.Constant(self._integers if integers else self.vector, [0] * self.lanes)

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

    def load_bfloat(self, address: Value, vector: int) -> Value:
        """Return the ``vector``-th vector at ``address`` of bfloat16 numbers, as float32."""
        builder = self.builder
        place = self.plus(address, vector * self.lanes, 2)
        bits = builder.load(builder.inttoptr(place, self._shorts.as_pointer()), align=2)
        shift = ir.Constant(self._integers, [16] * self.lanes)
        return builder.bitcast(builder.shl(builder.zext(bits, self._integers), shift), self.vector)

    def store_bfloat(self, value: Value, address: Value, vector: int) -> None:
        """Write the ``vector``-th vector at ``address`` as bfloat16 numbers, to nearest even."""
        builder, lanes = self.builder, self.lanes

        def everywhere(number: int) -> Value:
            return ir.Constant(self._integers, [number] * lanes)

        bits = builder.bitcast(value, self._integers)
        odd = builder.and_(builder.lshr(bits, everywhere(16)), everywhere(1))
        nearest = builder.add(builder.add(bits, everywhere(0x7FFF)), odd)
        nan = builder.fcmp_unordered("uno", value, value)
        word = builder.select(nan, everywhere(0x7FC0), builder.lshr(nearest, everywhere(16)))
        place = self.plus(address, vector * lanes, 2)
        pointer = builder.inttoptr(place, self._shorts.as_pointer())
        builder.store(builder.trunc(word, self._shorts), pointer, align=2)

    def store(self, value: Value, address: Value, vector: int = 0) -> None:
        """Write the ``vector``-th vector at ``address``."""
        place = self.plus(address, vector, VECTOR_BYTES)
        pointer = self.builder.inttoptr(place, self.vector.as_pointer())
        self.builder.store(value, pointer, align=self.size)

    def write(self, values: list[Value], address: Value, past: Value) -> None:
        """Write vectors side by side at ``address``, past the cache unless ``past`` is 0.

        A line that is written through the cache is read first, and pushes another out. Past it,
        the address is a multiple of a vector, and other threads see what was written once the
        thread has asked for its next part, in one locked addition. Vectors shorter than a cache
        line go through it.
        """
        self.write_rows([(values, address)], past)

    def write_rows(self, rows: list[tuple[list[Value], Value]], past: Value) -> None:
        """Write several rows, each as :meth:`write` does, and ask for the way only once."""
        builder = self.builder
        places = [
            (value, self.plus(address, vector, VECTOR_BYTES))
            for values, address in rows
            for vector, value in enumerate(values)
        ]
        if VECTOR_BYTES < CACHE_LINE:
            for value, place in places:
                self.store(value, place)
            return
        flag = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        with builder.if_else(builder.icmp_signed("!=", past, self.const(0))) as (beside, through):
            with beside:
                for value, place in places:
                    pointer = builder.inttoptr(place, self.vector.as_pointer())
                    written = builder.store(value, pointer, align=VECTOR_BYTES)
                    written.set_metadata("nontemporal", flag)
            with through:
                for value, place in places:
                    self.store(value, place)

    def fetch(self, address: Value, near: bool = True) -> None:
        """Ask for the cache line at ``address``, which any address may be, for a later read.

        Into the first-level cache, or where not ``near``, the second: a core waits for about 24
        lines of the first, and for more of the second.
        """
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        name = "llvm.prefetch.p0"
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        place = self.builder.inttoptr(address, pointer)
        flags = (0, 3 if near else 2, 1)  # to read, how near, of data
        self.builder.call(function, [place, *(ir.Constant(number, flag) for flag in flags)])

    def load_shorts(self, address: Value, vector: int) -> Value:
        """Return as many int16 numbers as a vector has lanes, the ``vector``-th such lot."""
        place = self.plus(address, vector * self.lanes, 2)
        pointer = self.builder.inttoptr(place, self._shorts.as_pointer())
        return self.builder.sext(self.builder.load(pointer, align=2), self._integers)

    def store_shorts(self, value: Value, address: Value, vector: int) -> None:
        """Write int32 lanes as int16 numbers."""
        place = self.plus(address, vector * self.lanes, 2)
        pointer = self.builder.inttoptr(place, self._shorts.as_pointer())
        self.builder.store(self.builder.trunc(value, self._shorts), pointer, align=2)

    def splat(self, rows: Value, entry: Value) -> Value:
        """Return the int32 ``rows[entry]`` in every lane."""
        pointer = self.builder.inttoptr(self.plus(rows, entry, 4), ir.IntType(32).as_pointer())
        return self._everywhere(self.builder.load(pointer), self._integers)

    def broadcast(self, address: Value) -> Value:
        """Return the scalar at ``address`` in every lane."""
        pointer = self.builder.inttoptr(address, self.scalar.as_pointer())
        return self._everywhere(self.builder.load(pointer), self.vector)

    def broadcasts(self, rows: list[Value], number: Value) -> list[Value]:
        """Return the scalar ``number`` of each row, each in every lane of a vector."""
        return [self.broadcast(self.plus(row, number, self.size)) for row in rows]

    def within(self, value: Value, width: int, place: int) -> Value:
        """Return, in every ``width`` lanes side by side, what ``place`` of them holds."""
        chosen = [lane - lane % width + place for lane in range(self.lanes)]
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), chosen)
        return self.builder.shuffle_vector(value, value, lanes)

    def _everywhere(self, value: Value, kind: Any) -> Value:
        empty = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, empty, lanes)

    def fma(self, left: Value, right: Value, total: Value) -> Value:
        """Return ``left * right + total``, rounded once."""
        return self.builder.call(self._fma, [left, right, total])

    def bounded(self, value: Value, relu: Value) -> Value:
        """Return the value, or where ``relu`` is not 0 and it is negative, 0; a NaN stays one."""
        builder, infinite = self.builder, ir.Constant(self.scalar, float("-inf"))
        least = ir.Constant(self.vector, [infinite] * self.lanes)
        least = builder.select(builder.icmp_signed("!=", relu, self.const(0)), self.zeros(), least)
        return builder.select(builder.fcmp_ordered("<", value, least), least, value)

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int, carried: list[Value]) -> Iterator[Loop]:
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
        state = Loop(number, list(values))
        yield state
        number.add_incoming(end, builder.block)
        for phi, value in zip(values, state.values, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        state.values = list(values)


class Loop:
    """The counter of a loop and the values that it carries; ``values`` is replaced by the body."""

    def __init__(self, number: Value, values: list[Value]) -> None:
        self.number, self.values = number, values


def sizes(vectors: int) -> Iterator[int]:
    """Yield how many rows are taken at a time: what registers hold, then halves for the rest."""
    size = ROWS * 2 // vectors
    while size:
        yield size
        size //= 2


def addresses(emit: Callable[..., None], like: Any, places: tuple[Any, ...]) -> Any:
    """Return what an intrinsic must: the signature (an array for its dtype, then int64s), code."""

    def code(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> Value:
        emit(context, builder, signature, args)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * len(places)), code


@numba.njit(nogil=True)
def large(out: np.ndarray[Any, Any]) -> int:
    """Return 1 where a result is written past the cache, else 0; inside of kernels."""
    return 1 if out.size * out.itemsize >= STREAMED_BYTES else 0

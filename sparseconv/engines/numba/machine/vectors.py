"""What the micro-kernels of the Numba engine are made of: vectors, emitted as LLVM code.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types

from sparseconv.engines.numba.machine.widths import CACHE_LINE_BYTES
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES as VECTOR_BYTES

CACHE_LINE = CACHE_LINE_BYTES

Value = Any  # an llvmlite value

_INT16, _INT32, _INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The 16-bit type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class Emitter:
    """Shorthand for the instructions that the micro-kernels are made of.

    Args:
        builder: emits them.
        dtype: of the numbers in memory: float32, float64, or uint16 for the bits of bfloat16, which
            are computed with in float32. uint32 stands for two numbers of bfloat16, whose products
            with two others are added to a float32.
    """

    def __init__(self, builder: Value, dtype: Any) -> None:
        self.builder = builder
        self.size = 8 if dtype == types.float64 else 4
        self.scalar = ir.DoubleType() if dtype == types.float64 else ir.FloatType()
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.number_bytes = 2 if dtype == types.uint16 else self.size
        self.vector_bytes = self.lanes * self.number_bytes  # of a vector of numbers in memory
        self._dots = dtype == types.uint32
        self._integers = ir.VectorType(_INT32, self.lanes)
        self._shorts = ir.VectorType(_INT16, self.lanes)

    def const(self, value: int) -> Value:
        """Return a 64-bit constant."""
        return _INT64(value)

    def zeros(self) -> Value:
        """Return a vector of zeros."""
        return ir.Constant(self.vector, [0] * self.lanes)

    def plus(self, address: Value, count: Value | int, size: int = 1) -> Value:
        """Return ``address + count * size``."""
        if isinstance(count, int):
            return self.builder.add(address, self.const(count * size))
        return self.builder.add(address, self.builder.mul(count, self.const(size)))

    def load_row(
        self, rows: Value, entry: Value, base: Value, stride: Value, row_bytes: int = 4
    ) -> Value:
        """Return the address of row ``rows[entry]`` of a matrix; ``rows`` are int32 or int64."""
        builder, kind = self.builder, ir.IntType(8 * row_bytes)
        row = builder.load(self._pointer(self.plus(rows, entry, row_bytes), kind))
        return builder.add(base, builder.mul(builder.sext(row, _INT64), stride))

    def load(self, address: Value, vector: int = 0) -> Value:
        """Return the ``vector``-th vector at ``address``."""
        place = self.plus(address, vector, VECTOR_BYTES)
        return self.builder.load(self._pointer(place, self.vector), align=self.size)

    def load_vectors(self, address: Value, vectors: int) -> list[Value]:
        """Return vectors that lie side by side at ``address``."""
        return [self.load(address, vector) for vector in range(vectors)]

    def store(self, value: Value, address: Value, vector: int = 0) -> None:
        """Write the ``vector``-th vector at ``address``."""
        place = self.plus(address, vector, VECTOR_BYTES)
        self.builder.store(value, self._pointer(place, self.vector), align=self.size)

    def load_numbers(self, address: Value, vectors: int) -> list[Value]:
        """Return vectors of numbers that lie side by side at ``address``, in the dtype there."""
        if self.number_bytes != 2:
            return self.load_vectors(address, vectors)
        builder, shift = self.builder, self._everywhere(16)
        bits = [self._load_shorts(address, vector) for vector in range(vectors)]
        wide = [builder.shl(builder.zext(entry, self._integers), shift) for entry in bits]
        return [builder.bitcast(entry, self.vector) for entry in wide]

    def store_numbers(self, values: list[Value], address: Value, nontemporal: Value) -> None:
        """Write vectors of numbers side by side at ``address``, in the dtype there.

        Bits fill half a cache line at a time, and go through the cache.
        """
        if self.number_bytes != 2:
            self.store_vectors(values, address, nontemporal)
            return
        builder = self.builder
        for vector, value in enumerate(values):  # to nearest, ties to even; a NaN stays one
            bits = builder.bitcast(value, self._integers)
            odd = builder.and_(builder.lshr(bits, self._everywhere(16)), self._everywhere(1))
            nearest = builder.add(builder.add(bits, self._everywhere(0x7FFF)), odd)
            nan = builder.fcmp_unordered("uno", value, value)
            word = builder.lshr(nearest, self._everywhere(16))
            self.store_shorts(builder.select(nan, self._everywhere(0x7FC0), word), address, vector)

    def store_vectors(self, values: list[Value], address: Value, nontemporal: Value) -> None:
        """Write vectors side by side at ``address``, non-temporally unless that is 0.

        A line that is written through the cache is read first, and pushes another out. A
        non-temporal store needs an address that is a multiple of a vector, and other threads see
        what was written once the thread has asked for its next part, in one locked addition.
        Vectors shorter than a cache line go through it.
        """
        self.store_rows([(values, address)], nontemporal)

    def store_rows(self, rows: list[tuple[list[Value], Value]], nontemporal: Value) -> None:
        """Write several rows as :meth:`store_vectors` does, with one look at ``nontemporal``."""
        builder = self.builder
        stores = [
            (value, self.plus(address, vector, VECTOR_BYTES))
            for values, address in rows
            for vector, value in enumerate(values)
        ]
        if VECTOR_BYTES < CACHE_LINE_BYTES:
            for value, place in stores:
                self.store(value, place)
            return
        flag = builder.module.add_metadata([_INT32(1)])
        past = builder.icmp_signed("!=", nontemporal, self.const(0))
        with builder.if_else(past) as (beside, through):
            with beside:
                for value, place in stores:
                    pointer = self._pointer(place, self.vector)
                    written = builder.store(value, pointer, align=VECTOR_BYTES)
                    written.set_metadata("nontemporal", flag)
            with through:
                for value, place in stores:
                    self.store(value, place)

    def prefetch(self, address: Value, near: bool = True) -> None:
        """Ask for the cache line at ``address``, which any address may be, for a later read.

        Into the first-level cache, or where not ``near``, the second: a core waits for about 24
        lines of the first, and for more of the second.
        """
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
        flags = (0, 3 if near else 2, 1)  # to read, how near, of data
        place = self.builder.inttoptr(address, pointer)
        self._call("llvm.prefetch.p0", kind, [place, *map(_INT32, flags)])

    def load_shorts(self, address: Value, vector: int) -> Value:
        """Return as many int16 numbers as a vector has lanes, the ``vector``-th such lot."""
        return self.builder.sext(self._load_shorts(address, vector), self._integers)

    def store_shorts(self, value: Value, address: Value, vector: int) -> None:
        """Write int32 lanes as int16 numbers."""
        pointer = self._pointer(self.plus(address, vector * self.lanes, 2), self._shorts)
        self.builder.store(self.builder.trunc(value, self._shorts), pointer, align=2)

    def splat(self, rows: Value, entry: Value) -> Value:
        """Return the int32 ``rows[entry]`` in every lane."""
        value = self.builder.load(self._pointer(self.plus(rows, entry, 4), _INT32))
        return self._in_every_lane(value, self._integers)

    def broadcast(self, address: Value) -> Value:
        """Return the scalar at ``address`` in every lane."""
        value = self.builder.load(self._pointer(address, self.scalar))
        return self._in_every_lane(value, self.vector)

    def broadcast_within(self, value: Value, width: int, channel: int) -> Value:
        """Return, in every ``width`` lanes side by side, what lane ``channel`` of them holds."""
        chosen = [lane - lane % width + channel for lane in range(self.lanes)]
        return self.builder.shuffle_vector(value, value, ir.Constant(self._integers, chosen))

    def fma(self, left: Value, right: Value, total: Value) -> Value:
        """Return ``left * right + total``, rounded once; of pairs both products are added."""
        if not self._dots:
            kind = ir.FunctionType(self.vector, [self.vector] * 3)
            return self._call(f"llvm.fma.v{self.lanes}f{8 * self.size}", kind, [left, right, total])
        pairs = ir.VectorType(_BFloat(), 2 * self.lanes)
        kind = ir.FunctionType(self.vector, [self.vector, pairs, pairs])
        numbers = [self.builder.bitcast(value, pairs) for value in (left, right)]
        name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * VECTOR_BYTES}"
        return self._call(name, kind, [total, *numbers])

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
        number = builder.phi(_INT64)
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

    def blocks(self, count: Value, *sizes: int) -> Iterator[tuple[int, Value]]:
        """Emit loops over ``count`` vectors: lots of the sizes, the widest first, then ones.

        Yields the vectors of a lot, and the number of its first.
        """
        first = self.const(0)
        for vectors in sorted({*sizes, 1}, reverse=True):
            with self.loop(first, count, vectors, []) as lots:
                yield vectors, lots.number
            first = lots.number

    def cases(self, value: Value, options: Sequence[int]) -> Iterator[int]:
        """Emit code for each of the options; the one that equals ``value`` runs."""
        for option in options:
            with self.builder.if_then(self.builder.icmp_signed("==", value, self.const(option))):
                yield option

    def _pointer(self, address: Value, kind: Any) -> Value:
        return self.builder.inttoptr(address, kind.as_pointer())

    def _load_shorts(self, address: Value, vector: int) -> Value:
        pointer = self._pointer(self.plus(address, vector * self.lanes, 2), self._shorts)
        return self.builder.load(pointer, align=2)

    def _everywhere(self, number: int) -> Value:
        return ir.Constant(self._integers, [number] * self.lanes)

    def _in_every_lane(self, value: Value, kind: Any) -> Value:
        empty = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(empty, value, _INT32(0))
        return self.builder.shuffle_vector(single, empty, self._everywhere(0))

    def _call(self, name: str, kind: Any, arguments: list[Value]) -> Value:
        """Call an intrinsic of LLVM, and declare it where it is not yet."""
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)


class Loop:
    """The counter of a loop and the values that it carries; ``values`` is replaced by the body."""

    def __init__(self, number: Value, values: list[Value]) -> None:
        self.number, self.values = number, values


def emitted(emit: Callable[..., None], like: Any, *operands: Any) -> Any:
    """Return what an intrinsic must: its signature, and its code.

    Args:
        emit: takes an :class:`Emitter` and the operands, a tuple of numbers for a tuple.
        like: the type of an array, for the dtype of its numbers.
        operands: the types of what the intrinsic takes behind it: int64 numbers, or tuples of them.
    """

    def code(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> Value:
        values = [
            [builder.extract_value(value, entry) for entry in range(len(kind))]
            if isinstance(kind, types.BaseTuple)
            else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        emit(Emitter(builder, signature.args[0].dtype), *values[1:])
        return context.get_dummy_value()

    kinds = [
        types.UniTuple(types.int64, len(entry))
        if isinstance(entry, types.BaseTuple) and len(entry) > 0
        else entry
        if isinstance(entry, types.BaseTuple)
        else types.int64
        for entry in operands
    ]
    return types.void(like, *kinds), code

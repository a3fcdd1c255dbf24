"""Elementwise functions of the Numba engine.

What they are faster by than PyTorch's: their results lie in memory that has been used before, and
what the cache cannot hold is written past it, while a line written through it is read first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import torch
from numba.extending import intrinsic
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    LEAST_VALUES,
    by_shares,
    contiguous,
    rows_of,
)
from sparseconv.engines.numba.machine.bits import bits_or_numbers, number, stored
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import (
    CACHE_LINE,
    VECTOR_BYTES,
    Emitter,
    Value,
    addresses,
    large,
)

# mypy: disable-error-code="no-untyped-def"

UNROLLED = 4  # vectors that are in flight at once
BLOCK = 64  # values: tasks begin at multiples, so that no vector of theirs crosses a cache line


def _emit_each(operation: Callable[[Emitter, Value, Value], Value]) -> Callable[..., None]:
    """Return the code that applies ``operation`` to ``count`` vectors of two operands."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, left, right, out, count, past = args
        done = emitter.const(0)
        for vectors in (UNROLLED, 1):
            with emitter.loop(done, count, vectors, [done]) as lots:
                offset = builder.mul(lots.number, emitter.const(emitter.lanes * emitter.size))
                operands = [builder.add(place, offset) for place in (left, right)]
                values = [
                    operation(emitter, *(emitter.load(place, vector) for place in operands))
                    for vector in range(vectors)
                ]
                emitter.write(values, builder.add(out, offset), past)
                lots.values = [emitter.plus(lots.number, vectors)]
            (done,) = lots.values

    return emit


def _plus(emitter: Emitter, left: Value, right: Value) -> Value:
    return emitter.builder.fadd(left, right)


def _positive(emitter: Emitter, value: Value, _: Value) -> Value:
    negative = emitter.builder.fcmp_ordered("<", value, emitter.zeros())  # a NaN is not
    return emitter.builder.select(negative, emitter.zeros(), value)


def _where_positive(emitter: Emitter, value: Value, held: Value) -> Value:
    negative = emitter.builder.fcmp_ordered("<=", held, emitter.zeros())
    return emitter.builder.select(negative, emitter.zeros(), value)


def _same(emitter: Emitter, value: Value, _: Value) -> Value:
    return value


@intrinsic
def _sums(typing, like, left, right, out, count, past):
    return addresses(_emit_each(_plus), like, (left, right, out, count, past))


@intrinsic
def _positives(typing, like, left, right, out, count, past):
    return addresses(_emit_each(_positive), like, (left, right, out, count, past))


@intrinsic
def _where_positives(typing, like, left, right, out, count, past):
    return addresses(_emit_each(_where_positive), like, (left, right, out, count, past))


@intrinsic
def _copies(typing, like, left, right, out, count, past):
    return addresses(_emit_each(_same), like, (left, right, out, count, past))


@numba.njit(nogil=True)
def _whole(values: Array, first: int, last: int) -> int:
    """Return how many vectors lie from ``first`` to ``last``: none of the bits of bfloat16."""
    return (last - first) * values.itemsize // VECTOR_BYTES if values.itemsize > 2 else 0


# what is left for the compiler: the bits of bfloat16, and the last few values
# a loop from 0 over a slice becomes vector instructions: its index is never negative


@Loop
def _add(first: int, last: int, left: Array, right: Array, out: Array) -> None:
    first, last = first * BLOCK, min(last * BLOCK, len(out))
    byte, count = first * out.itemsize, _whole(out, first, last)
    a, b, c = left.ctypes.data + byte, right.ctypes.data + byte, out.ctypes.data + byte
    _sums(left, a, b, c, count, large(out))
    done = first + count * VECTOR_BYTES // out.itemsize
    x, y, z = left[done:last], right[done:last], out[done:last]
    for place in range(len(z)):
        z[place] = stored(number(x[place]) + number(y[place]), out)


@Loop
def _relu(first: int, last: int, values: Array, out: Array) -> None:
    first, last = first * BLOCK, min(last * BLOCK, len(out))
    byte, count = first * out.itemsize, _whole(out, first, last)
    a, c = values.ctypes.data + byte, out.ctypes.data + byte
    _positives(values, a, a, c, count, large(out))
    done = first + count * VECTOR_BYTES // out.itemsize
    x, z = values[done:last], out[done:last]
    for place in range(len(z)):
        value = x[place]
        # a NaN stays one, as in torch
        z[place] = out.dtype.type(0) if number(value) < 0 else value


@Loop
def _relu_gradient(first: int, last: int, grad: Array, result: Array, out: Array) -> None:
    first, last = first * BLOCK, min(last * BLOCK, len(out))
    byte, count = first * out.itemsize, _whole(out, first, last)
    a, b, c = grad.ctypes.data + byte, result.ctypes.data + byte, out.ctypes.data + byte
    _where_positives(grad, a, b, c, count, large(out))
    done = first + count * VECTOR_BYTES // out.itemsize
    x, y, z = grad[done:last], result[done:last], out[done:last]
    for place in range(len(z)):
        value, held = x[place], y[place]
        # a NaN hands its gradient on, as in torch
        z[place] = out.dtype.type(0) if number(held) <= 0 else value


@Loop
def _copy_columns(
    first: int, last: int, source: Array, begin: int, target: Array, target_begin: int, width: int
) -> None:
    size = source.itemsize
    step, target_step = source.shape[1] * size, target.shape[1] * size
    x, y = source.ctypes.data + begin * size, target.ctypes.data + target_begin * size
    count = width * size // VECTOR_BYTES
    # past the cache only where every row begins with a cache line
    past = large(target) if (y | target_step) % CACHE_LINE == 0 else 0
    done = count * VECTOR_BYTES // size
    for row in range(first, last):
        a, b = x + row * step, y + row * target_step
        _copies(source, a, a, b, count, past)
        for column in range(done, width):
            target[row, target_begin + column] = source[row, begin + column]


def add(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left + right``."""
    return _each(_add, left, right)


def relu(values: Tensor) -> Tensor:
    """Return ``max(values, 0)``."""
    return _each(_relu, values)


def relu_gradient(grad: Tensor, result: Tensor) -> Tensor:
    """Return ``grad`` where ``result`` is above 0."""
    return _each(_relu_gradient, grad, result)


def join(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices side by side."""
    out = empty((columns[0].shape[0], sum(x.shape[1] for x in columns)), columns[0].dtype)
    target, begin = _array(out), 0
    for entry in columns:
        _copy(_array(entry), 0, target, begin, entry.shape[1])
        begin += entry.shape[1]
    return out


def part(rows: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the columns of a matrix in runs of ``widths``, each in its own memory."""
    found, source, begin = [], _array(rows), 0
    for width in widths:
        found.append(empty((rows.shape[0], width), rows.dtype))
        _copy(source, begin, _array(found[-1]), 0, width)
        begin += width
    return tuple(found)


def _each(loop: Loop, *operands: Tensor) -> Tensor:
    arrays = [bits_or_numbers(entry).reshape(-1) for entry in operands]
    half = operands[0].dtype == torch.float16  # computes in float32
    out = empty(tuple(operands[0].shape), torch.float32 if half else operands[0].dtype)
    target = bits_or_numbers(out).reshape(-1)
    by_shares(loop, -(-len(target) // BLOCK), LEAST_VALUES // BLOCK, *arrays, target)
    return out.half() if half else out


def _array(x: Tensor) -> Array:
    """Return the contiguous array of numbers that are not computed with."""
    x = x.detach()
    return contiguous((x.view(torch.int16) if x.itemsize == 2 else x).numpy())


def _copy(source: Array, begin: int, target: Array, target_begin: int, width: int) -> None:
    least = rows_of(LEAST_VALUES, width)
    by_shares(_copy_columns, len(source), least, source, begin, target, target_begin, width)

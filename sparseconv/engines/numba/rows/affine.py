"""Rows times scales plus a shift, as normalisation needs them, and its derivative.

Benchmark: stream batch norm, eval, 64 channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic, register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import (
    emitter_of,
    kept,
    loaded,
    number,
    stored,
    vector_bytes,
)
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Value, addresses, large

# mypy: disable-error-code="no-untyped-def"


class Term(NamedTuple):
    """Rows and what they are multiplied by.

    Attributes:
        rows: ``[N, C]``, or bits of bfloat16; may be without rows.
        scale: ``[S, C]``, one row per segment.
    """

    rows: Array
    scale: Array


def _emit_affine(terms: int) -> Callable[..., None]:
    """Return the code for the vectors of one row, of one term or two.

    Where columns are left over, the last vector ends with the last of them.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        dtype = signature.args[0].dtype
        emitter = emitter_of(builder, dtype)
        _, *factors, shift, out, length, past = args
        step = emitter.lanes * (2 if dtype == types.uint16 else emitter.size)
        last = emitter.plus(length, -step)
        with emitter.loop(emitter.const(0), emitter.plus(length, step - 1), step, []) as bytes_:
            inside = builder.icmp_signed("<", bytes_.number, last)
            offset = builder.select(inside, bytes_.number, last)
            wide = builder.mul(offset, emitter.const(VECTOR_BYTES // step))
            total = emitter.load(builder.add(shift, wide))
            for row, scale in reversed([factors[:2], factors[2:]][:terms]):
                (value,) = loaded(emitter, dtype, builder.add(row, offset), 1)
                total = emitter.fma(value, emitter.load(builder.add(scale, wide)), total)
            kept(emitter, dtype, [total], builder.add(out, offset), past)

    return emit


@intrinsic
def _one_term(typing, like, x, a, shift, out, length, past):
    return addresses(_emit_affine(1), like, (x, a, shift, out, length, past))


@intrinsic
def _two_terms(typing, like, x, a, y, b, shift, out, length, past):
    return addresses(_emit_affine(2), like, (x, a, y, b, shift, out, length, past))


@register_jitable
def _short_rows(
    first: int, last: int, left: Term, right: Term, shift: Array, segment: Array, out: Array
) -> None:
    """Do the same where a row is shorter than a vector."""
    both, several = right.rows.shape[0] > 0, segment.shape[0] > 0
    for row in range(first, last):
        part = segment[row] if several else 0
        for column in range(out.shape[1]):
            value = shift[part, column]
            if both:
                value = number(right.rows[row, column]) * right.scale[part, column] + value
            value = number(left.rows[row, column]) * left.scale[part, column] + value
            out[row, column] = stored(value, out)


@ParallelKernel
def affine(
    first: int, last: int, left: Term, right: Term, shift: Array, segment: Array, out: Array
) -> None:
    """Write rows ``first`` to ``last`` of the sum of two scaled terms and a shift.

    Args:
        first, last: rows.
        left, right: the terms.
        shift: ``[S, C]``.
        segment: int64 ``[N]``, or without entries for one segment.
        out: ``[N, C]``, or bits of bfloat16; written here.
    """
    both, several = right.rows.shape[0] > 0, segment.shape[0] > 0
    columns, step = left.rows.shape[1], left.rows.shape[1] * left.rows.itemsize
    x, y, z = left.rows.ctypes.data, right.rows.ctypes.data, out.ctypes.data
    a, b, c = left.scale.ctypes.data, right.scale.ctypes.data, shift.ctypes.data
    length = columns * shift.itemsize
    past = large(out) if step % VECTOR_BYTES == 0 else 0  # rows that begin with a cache line
    if step < vector_bytes(left.rows):
        _short_rows(first, last, left, right, shift, segment, out)
        return
    for row in range(first, last):
        part = segment[row] if several else 0
        f, g, h, i, j, k = (
            x + row * step, a + part * length, y + row * step, b + part * length,
            c + part * length, z + row * step,
        )  # fmt: skip
        if both:
            _two_terms(left.rows, f, g, h, i, j, k, step, past)
        else:
            _one_term(left.rows, f, g, j, k, step, past)

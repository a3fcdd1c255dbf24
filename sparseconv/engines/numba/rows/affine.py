"""Rows times scales plus a shift, as normalisation needs them, and its derivative.

Benchmark: stream batch norm, eval, 64 channels
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import intrinsic, register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.bits import number, stored
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES, large, vector_bytes


class Term(NamedTuple):
    """Rows and what they are multiplied by.

    Attributes:
        rows: ``[N, C]``, or bits of bfloat16; may be without rows.
        scale: ``[S, C]``, one row per segment.
    """

    rows: Array
    scale: Array


@intrinsic
def _affine_row(typing: Any, like: Any, length: Any, terms: Any, shift: Any, target: Any) -> Any:
    """Write one row of the sum of one term or two, each its row and its scale, and the shift.

    Where columns are left over, the last vector ends with the last of them. ``length``: bytes.
    """

    def emit(
        emitter: Emitter, length: Value, terms: list[Value], shift: Value, target: list[Value]
    ) -> None:
        builder, step, (out, nontemporal) = emitter.builder, emitter.vector_bytes, target
        last = emitter.plus(length, -step)
        with emitter.loop(emitter.const(0), emitter.plus(length, step - 1), step, []) as bytes_:
            inside = builder.icmp_signed("<", bytes_.number, last)
            offset = builder.select(inside, bytes_.number, last)
            wide = builder.mul(offset, emitter.const(VECTOR_BYTES // step))
            total = emitter.load(builder.add(shift, wide))
            for row, scale in reversed(list(zip(terms[::2], terms[1::2], strict=True))):
                (value,) = emitter.load_numbers(builder.add(row, offset), 1)
                total = emitter.fma(value, emitter.load(builder.add(scale, wide)), total)
            emitter.store_numbers([total], builder.add(out, offset), nontemporal)

    return emitted(emit, like, length, terms, shift, target)


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
    # rows that begin with a cache line
    nontemporal = large(out) if step % VECTOR_BYTES == 0 else 0
    if step < vector_bytes(left.rows):
        _short_rows(first, last, left, right, shift, segment, out)
        return
    for row in range(first, last):
        part = segment[row] * length if several else 0
        place, target = row * step, (z + row * step, nontemporal)
        if both:
            terms = x + place, a + part, y + place, b + part
            _affine_row(left.rows, step, terms, c + part, target)
        else:
            _affine_row(left.rows, step, (x + place, a + part), c + part, target)

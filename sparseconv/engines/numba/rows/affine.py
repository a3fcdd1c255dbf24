"""Rows times scales plus a shift, as normalisation needs them, and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES, Value, addresses, large

# mypy: disable-error-code="no-untyped-def"


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
    left: Array,
    right: Array,
    left_scale: Array,
    right_scale: Array,
    shift: Array,
    segment: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Do the same where a row is shorter than a vector."""
    both, several = right.shape[0] > 0, segment.shape[0] > 0
    for row in range(first, last):
        own = segment[row] if several else 0
        if both:
            for column in range(left.shape[1]):
                value = number(right[row, column]) * right_scale[own, column] + shift[own, column]
                value = number(left[row, column]) * left_scale[own, column] + value
                out[row, column] = stored(value, out)
        else:
            for column in range(left.shape[1]):
                value = number(left[row, column]) * left_scale[own, column] + shift[own, column]
                out[row, column] = stored(value, out)


@Loop
def affine(
    first: int,
    last: int,
    left: Array,
    right: Array,
    left_scale: Array,
    right_scale: Array,
    shift: Array,
    segment: Array,
    out: Array,
) -> None:
    """Write rows ``first`` to ``last`` of ``left * left_scale + right * right_scale + shift``.

    Args:
        left, right, out: ``[N, C]``, or bits of bfloat16; ``right`` may be without rows.
        left_scale, right_scale, shift: ``[S, C]``.
        segment: int64 ``[N]``, or without entries for one segment.
    """
    both, several = right.shape[0] > 0, segment.shape[0] > 0
    columns, step = left.shape[1], left.shape[1] * left.itemsize
    x, y, z = left.ctypes.data, right.ctypes.data, out.ctypes.data
    a, b, c = left_scale.ctypes.data, right_scale.ctypes.data, shift.ctypes.data
    length = columns * shift.itemsize
    past = large(out) if step % VECTOR_BYTES == 0 else 0  # rows that begin with a cache line
    if step < vector_bytes(left):
        _short_rows(left, right, left_scale, right_scale, shift, segment, first, last, out)
        return
    for row in range(first, last):
        own = segment[row] if several else 0
        f, g, h, i, j, k = (
            x + row * step, a + own * length, y + row * step, b + own * length,
            c + own * length, z + row * step,
        )  # fmt: skip
        if both:
            _two_terms(left, f, g, h, i, j, k, step, past)
        else:
            _one_term(left, f, g, j, k, step, past)

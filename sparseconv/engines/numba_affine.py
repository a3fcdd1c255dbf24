"""Rows times scales plus a shift, as normalisation needs them, and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import intrinsic

from sparseconv.engines.numba_bits import number, stored
from sparseconv.engines.numba_compile import Kernel
from sparseconv.engines.numba_vectors import VECTOR_BYTES, Emitter, Value, addresses, large

# mypy: disable-error-code="no-untyped-def"

Array = np.ndarray[Any, Any]


def _emit_affine(terms: int) -> Callable[..., None]:
    """Return the code for a run of vectors of one row, of one term or two."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, *factors, shift, out, vectors, past = args
        with emitter.loop(emitter.const(0), vectors, 1, []) as places:
            offset = builder.mul(places.number, emitter.const(VECTOR_BYTES))
            total = emitter.load(builder.add(shift, offset))
            for term in reversed(range(terms)):
                row, scale = (builder.add(place, offset) for place in factors[2 * term :][:2])
                total = emitter.fma(emitter.load(row), emitter.load(scale), total)
            emitter.write([total], builder.add(out, offset), past)

    return emit


@intrinsic
def _one_term(typing, like, x, a, shift, out, vectors, past):
    return addresses(_emit_affine(1), like, (x, a, shift, out, vectors, past))


@intrinsic
def _two_terms(typing, like, x, a, y, b, shift, out, vectors, past):
    return addresses(_emit_affine(2), like, (x, a, y, b, shift, out, vectors, past))


@Kernel
def affine(
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
    # the bits of bfloat16 are left to the compiler; rows past the cache begin with a cache line
    vectors = step // VECTOR_BYTES if left.itemsize > 2 else 0
    past = large(out) if step % VECTOR_BYTES == 0 else 0
    done = vectors * VECTOR_BYTES // left.itemsize
    for row in range(first, last):
        own = segment[row] if several else 0
        place, line = row * step, own * step
        if both:
            _two_terms(
                left, x + place, a + line, y + place, b + line, c + line, z + place, vectors, past
            )
            for column in range(done, columns):
                value = number(right[row, column]) * right_scale[own, column] + shift[own, column]
                value = number(left[row, column]) * left_scale[own, column] + value
                out[row, column] = stored(value, out)
        else:
            _one_term(left, x + place, a + line, c + line, z + place, vectors, past)
            for column in range(done, columns):
                value = number(left[row, column]) * left_scale[own, column] + shift[own, column]
                out[row, column] = stored(value, out)

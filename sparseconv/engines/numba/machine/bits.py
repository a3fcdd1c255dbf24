"""Numbers of kernels that take bfloat16 as its bits, which Numba has no type for.

Benchmark: net minkunet, forward, bfloat16
"""

from __future__ import annotations

from typing import Any

import torch
from numba import types
from numba.extending import overload
from numpy import float32, uint16, uint32
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import array, contiguous, memory_of


def bits_or_numbers(x: Tensor) -> Array:
    """Return a contiguous array: bits of bfloat16, float32 for float16, and others as they are."""
    if x.dtype == torch.bfloat16:
        return contiguous(memory_of(x.detach().view(torch.uint16)))
    return array(x)


def number(value: Any) -> Any:
    """Return the number that ``value`` is, or that it is the bits of; inside of kernels."""
    raise NotImplementedError


def stored(value: Any, out: Any) -> Any:
    """Return ``value`` as the array ``out`` holds it: a number or its bits; inside of kernels."""
    raise NotImplementedError


@overload(number)
def _number(value):  # type: ignore[no-untyped-def]
    if value == types.uint16:
        return lambda value: uint32(uint32(value) << uint32(16)).view(float32)
    return lambda value: value


@overload(stored)
def _stored(value, out):  # type: ignore[no-untyped-def]
    if out.dtype != types.uint16:
        return lambda value, out: value

    def rounded(value, out):  # type: ignore[no-untyped-def]
        word = float32(value).view(uint32)
        # to nearest, ties to even; a NaN stays one
        odd = (word >> uint32(16)) & uint32(1)
        nearest = (word + uint32(0x7FFF) + odd) >> uint32(16)
        nan = (word & uint32(0x7FFFFFFF)) > uint32(0x7F800000)
        return uint16(0x7FC0 if nan else nearest)

    return rounded

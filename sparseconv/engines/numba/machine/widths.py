"""How wide the vectors of the Numba engine's kernels are on this processor.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import llvmlite.binding
import numba
import numpy as np

# AVX-512 has 32 registers of 64 bytes: 8 pairs by 2 vectors fill half of them with accumulators.
# Elsewhere 32-byte vectors (one AVX2 register, two NEON ones) and 4 pairs keep within 16.
_AVX512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
VECTOR_BYTES = 64 if _AVX512 else 32
CACHE_LINE_BYTES = 64
NONTEMPORAL_BYTES = 2**23  # results from here on have left the cache when they are read
PAIRS_PER_STEP = 8 if _AVX512 else 4
# Dot products of pairs of bfloat16 numbers, added to float32: AVX-512 BF16.
BFLOAT_DOTS = _AVX512 and llvmlite.binding.get_host_cpu_features().get("avx512bf16", False)


def sizes(vectors: int) -> Iterator[int]:
    """Yield how many rows are taken at a time: what registers hold, then halves for the rest."""
    size = PAIRS_PER_STEP * 2 // vectors
    while size:
        yield size
        size //= 2


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def large(out: np.ndarray[Any, Any]) -> int:
    """Return 1 where a result is stored non-temporally, else 0; inside of kernels."""
    return 1 if out.size * out.itemsize >= NONTEMPORAL_BYTES else 0


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def vector_bytes(values: np.ndarray[Any, Any]) -> int:
    """Return how many bytes of an array make a vector of numbers; inside of kernels."""
    return VECTOR_BYTES // 2 if values.itemsize == 2 else VECTOR_BYTES

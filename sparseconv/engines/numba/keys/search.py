"""A search among ascending numbers, inside of kernels."""

from __future__ import annotations

import numba

from sparseconv.core.dtypes import Array


@numba.njit(nogil=True)
def first_from(values: Array, least: int) -> int:
    """Return the place of the first of ascending values that is not below ``least``.

    NumPy's own search takes longer to compile than most kernels that would call it.
    """
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low

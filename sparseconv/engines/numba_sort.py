"""A radix sort of keys, one digit after the other from the lowest.

Every pass reads and writes each key once, whatever the keys are, and keeps the order of equal ones;
comparing them takes several times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel
from sparseconv.memory import empty_array

Array = np.ndarray[Any, Any]

DIGIT = 8  # bits: the ends of so many runs of output stay in the first-level cache
LEAST_KEYS = 4096  # below, counting the digits takes longer than comparing


@Kernel
def _passes(keys: Array, low: int, high: int, scratch: Array) -> bool:
    """Sort by the bits ``low`` to ``high``; return whether the result is in ``scratch``."""
    digits = -(-(high - low) // DIGIT)
    mask = np.uint64(2**DIGIT - 1)
    counts = np.zeros((digits, 2**DIGIT), np.int64)
    for entry in range(len(keys)):
        rest = np.uint64(keys[entry]) >> np.uint64(low)
        for digit in range(digits):
            counts[digit, rest & mask] += 1
            rest >>= np.uint64(DIGIT)
    source, target, moved = keys, scratch, False
    for digit in range(digits):
        place = counts[digit]
        shift = np.uint64(low + digit * DIGIT)
        if place[(np.uint64(source[0]) >> shift) & mask] == len(keys):
            continue  # all the same
        total = 0
        for value in range(len(place)):
            count = place[value]
            place[value] = total
            total += count
        for entry in range(len(source)):
            key = source[entry]
            own = (np.uint64(key) >> shift) & mask
            target[np.uint64(place[own])] = key
            place[own] += 1
        source, target, moved = target, source, not moved
    return moved


def sort_by(keys: Array, low: int, high: int) -> Array:
    """Return int64 ``keys``, none negative, in ascending order of their bits ``low`` to ``high``.

    Those below ``low`` must ascend already among equal ones; ``keys`` is overwritten.
    """
    if len(keys) < LEAST_KEYS:
        keys.sort()
        return keys
    scratch = empty_array(len(keys), np.int64)
    return scratch if _passes(keys, low, high, scratch) else keys

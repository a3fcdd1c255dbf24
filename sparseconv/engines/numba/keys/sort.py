"""A radix sort of keys, one digit after the other from the lowest.

Every pass reads and writes each key once, whatever the keys are, and keeps the order of equal ones.
``np.sort`` of NumPy 2.4 takes no longer on a Zen 5 processor; on a Zen 4 one it makes the index of
unsorted sites take nearly three times as long.

Benchmark: sites sites, index, submanifold rulebook, unsorted
"""

from __future__ import annotations

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.machine.compile import ParallelKernel

DIGIT_BITS = 8  # the ends of so many runs of output stay in the first-level cache
MIN_KEYS = 4096  # below, counting the digits takes longer than comparing


@ParallelKernel
def passes(
    first: int,
    last: int,
    keys: Array,
    parts: Array,
    low: int,
    high: int,
    scratch: Array,
    moved: Array,
) -> None:
    """Sort some parts of the keys, each by itself, by the bits ``low`` to ``high``.

    Args:
        first, last: parts.
        keys: int64, overwritten.
        parts: ``[P, 2]``, the first key of each, and the one behind the last.
        low, high: bits.
        scratch: as long as ``keys``.
        moved: bool ``[P]``, written here: whether a part's result is in ``scratch``, not in place.
    """
    digits = -(-(high - low) // DIGIT_BITS)
    mask = np.uint64(2**DIGIT_BITS - 1)
    for part in range(first, last):
        counts = np.zeros((digits, 2**DIGIT_BITS), np.int64)
        source, target = keys[parts[part, 0] : parts[part, 1]], scratch[parts[part, 0] :]
        for entry in range(len(source)):
            rest = np.uint64(source[entry]) >> np.uint64(low)
            for digit in range(digits):
                counts[digit, rest & mask] += 1
                rest >>= np.uint64(DIGIT_BITS)
        count = len(source)
        moved[part] = False
        for digit in range(digits if count > 0 else 0):
            place = counts[digit]
            shift = np.uint64(low + digit * DIGIT_BITS)
            if place[(np.uint64(source[0]) >> shift) & mask] == count:
                continue  # all the same
            total = 0
            for value in range(len(place)):
                number = place[value]
                place[value] = total
                total += number
            for entry in range(count):
                key = source[entry]
                own = (np.uint64(key) >> shift) & mask
                target[np.uint64(place[own])] = key
                place[own] += 1
            source, target, moved[part] = target, source, not moved[part]


def sort_by(keys: Array, low: int, high: int) -> Array:
    """Return int64 ``keys``, none negative, in ascending order of their bits ``low`` to ``high``.

    Those below ``low`` must ascend already among equal ones; ``keys`` is overwritten.
    """
    if len(keys) < MIN_KEYS:
        keys.sort()
        return keys
    scratch, moved = empty_array(len(keys), np.int64), np.zeros(1, bool)
    passes.run(1, 1, keys, np.array([[0, len(keys)]]), low, high, scratch, moved)
    return scratch if moved[0] else keys


def sort_parts(keys: Array, parts: Array, low: int, high: int) -> None:
    """Sort parts ``[P, 2]`` of the keys, each by itself, likewise but in place."""
    scratch, moved = empty_array(len(keys), np.int64), np.zeros(len(parts), bool)
    passes.run(len(parts), 1, keys, parts, low, high, scratch, moved)
    for first, last in parts[moved].tolist():
        keys[first:last] = scratch[first:last]

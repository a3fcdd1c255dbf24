"""Kernels of the Numba engine for sites: packing, hash table, site law.

All but the packing work on batch and four spatial axes; fewer axes are padded in front with axes
of extent 1.

Benchmark: sites sites, index, submanifold rulebook, unsorted
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import Kernel, ParallelKernel

MAX_EXACT_KEY = (
    2**52
)  # what is below stays whole as a float64, and one more bit is left for rounding


@register_jitable
def quotient(number: Any, divisor: Any, inverse: Any) -> Any:
    """Return ``number // divisor`` within ``MAX_EXACT_KEY``; ``inverse`` is ``1 / divisor``.

    Multiplied by the inverse it is off by one at most, and found for a vector of numbers at once,
    where a processor divides 64-bit integers one by one.
    """
    found = np.int64(np.float64(number) * inverse)
    rest = number - found * divisor
    return found + np.int64(rest >= divisor) - np.int64(rest < 0)


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


@ParallelKernel
def extremes(start: int, end: int, coords: Array, chunk: int, found: Array) -> None:
    """Write the smallest and the largest value per column of chunks to ``found`` [chunks, 2, C].

    ``start`` is where a chunk of ``chunk`` rows begins, ``end`` where it ends.
    """
    own = found[start // chunk]
    for column in range(coords.shape[1]):
        low = high = np.int64(coords[start, column])
        for row in range(start, end):
            value = np.int64(coords[row, column])
            low = min(low, value)
            high = max(high, value)
        own[0, column] = low
        own[1, column] = high


@ParallelKernel
def pack(start: int, end: int, coords: Array, lower: Array, weights: Array, keys: Array) -> None:
    """Write the keys of ``coords[start:end]``."""
    for row in range(start, end):
        key = np.int64(0)
        for column in range(coords.shape[1]):
            key += (coords[row, column] - lower[column]) * weights[column]
        keys[row] = key


@Kernel
def ascends(values: Array, first: int, last: int) -> bool:
    """Return whether ``values[first:last]`` ascend."""
    for entry in range(first + 1, last):
        if values[entry] < values[entry - 1]:
            return False
    return True


@Kernel
def strictly_ascends(values: Array) -> bool:
    """Return whether each value is larger than the one before."""
    for entry in range(1, len(values)):
        if values[entry] <= values[entry - 1]:
            return False
    return True


@ParallelKernel
def number(start: int, end: int, keys: Array, bits: int) -> None:
    """Put the row number into the low ``bits`` of each key."""
    for row in range(start, end):
        keys[row] = (keys[row] << bits) | row


@ParallelKernel
def split(start: int, end: int, keys: Array, bits: int, order: Array) -> None:
    """Take row numbers out of numbered keys again."""
    for row in range(start, end):
        order[row] = keys[row] & ((1 << bits) - 1)
        keys[row] >>= bits


@ParallelKernel
def invert(start: int, end: int, order: Array, places: Array) -> None:
    """Write the places that ``order[start:end]`` names."""
    for place in range(start, end):
        places[order[place]] = place


@ParallelKernel
def take(start: int, end: int, values: Array, rows: Array, out: Array) -> None:
    """Write ``values`` at ``rows[start:end]``."""
    for entry in range(start, end):
        out[entry] = values[rows[entry]]


@Kernel
def fill_table(keys: Array, table_keys: Array, table_rows: Array) -> None:
    """Insert ``keys`` ``[N]`` into an open-addressing table of a power-of-two size, -1 = free."""
    mask = np.uint64(table_keys.shape[0] - 1)
    for row in range(keys.shape[0]):
        key = keys[row]
        mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
        slot = (mixed ^ (mixed >> np.uint64(32))) & mask
        while table_keys[slot] != -1:
            slot = (slot + np.uint64(1)) & mask
        table_keys[slot] = key
        table_rows[slot] = row


@ParallelKernel
def probe_table(
    start: int, end: int, keys: Array, table_keys: Array, table_rows: Array, rows: Array
) -> None:
    """Write the places of ``keys[start:end]`` to ``rows``, -1 where absent, as keys < 0 are."""
    mask = np.uint64(table_keys.shape[0] - 1)
    for entry in range(start, end):
        key = keys[entry]
        rows[entry] = -1
        if key < 0:
            continue
        mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
        slot = (mixed ^ (mixed >> np.uint64(32))) & mask
        while table_keys[slot] != -1:
            if table_keys[slot] == key:
                rows[entry] = table_rows[slot]
                break
            slot = (slot + np.uint64(1)) & mask


@ParallelKernel
def project(
    start: int, end: int, keys: Array, radix: Array, weights: Array, constant: int, out: Array
) -> None:
    """Write ``constant + places . weights`` for ``keys[start:end]``.

    A place is a coordinate minus its lower bound.
    """
    if keys[-1] < MAX_EXACT_KEY:
        a, b, c, d = radix[1], radix[2], radix[3], radix[4]
        by_a, by_b, by_c, by_d = 1 / a, 1 / b, 1 / c, 1 / d
        on_sample, on_a, on_b = weights[0], weights[1], weights[2]
        on_c, on_d = weights[3], weights[4]
        own, target = keys[start:end], out[start:end]  # a loop from 0 becomes vector instructions
        for row in range(len(own)):
            key = own[row]
            third = quotient(key, d, by_d)
            second = quotient(third, c, by_c)
            first = quotient(second, b, by_b)
            sample = quotient(first, a, by_a)
            target[row] = (
                constant
                + (key - third * d) * on_d
                + (third - second * c) * on_c
                + (second - first * b) * on_b
                + (first - sample * a) * on_a
                + sample * on_sample
            )
        return
    for row in range(start, end):
        key = keys[row]
        total = np.int64(constant)
        for axis in range(4, 0, -1):
            if radix[axis] != 1:
                rest = key // radix[axis]
                total += (key - rest * radix[axis]) * weights[axis]
                key = rest
        out[row] = total + key * weights[0]

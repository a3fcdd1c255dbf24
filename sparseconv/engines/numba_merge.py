"""Kernels of the Numba engine for rulebooks: pairs by merging ascending keys.

A layer maps a coarse site o to the fine sites ``o * stride - padding + k * dilation``. In packed
keys that is one addition per kernel cell, because keys leave a guard of free cells around the box;
and it keeps the order, so that for one kernel cell the keys looked up for ascending coarse sites
ascend too: one pass over both finds all pairs. What is stored is stored before it is known whether
it is a pair, and overwritten where it is not: an unpredictable branch costs more than a store.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]

SENTINELS = 4  # the merge looks so many keys ahead


@Kernel
def merge_runs(
    keys: Array,
    bases: Array,
    shifts: Array,
    bounds: Array,
    fine: Array,
    coarse: Array,
    counts: Array,
) -> None:
    """Find the pairs of columns of three kernel cells whose fine keys follow each other.

    Args:
        keys: ``[n_fine + SENTINELS]`` ascending, the last ones larger than any key.
        bases: ``[n_coarse]`` ascending.
        shifts: ``[M]``; ``bases[o] + shifts[m]`` is the key that column m's first cell looks for.
        bounds: ``[2]`` the coarse sites to look at.
        fine, coarse: int32 ``[3 * M, n_coarse]``; the pairs of a cell are written to its row from
            ``bounds[0]`` on, as positions in key order.
        counts: ``[3 * M]`` pairs per cell, written here.
    """
    # unsigned throughout: Numba looks whether a signed index is negative
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end = np.uint64(bounds[0]), np.uint64(bounds[1])
    for column in range(shifts.shape[0]):
        shift = shifts[column]
        low = np.uint64(3 * column)
        middle, high = low + one, low + two
        p = np.uint64(np.searchsorted(keys, bases[start] + shift))
        a, b, c = start, start, start
        for row in range(start, end):
            key = bases[row] + shift
            # mostly few keys are passed: counted without a branch, the rest in a loop
            passed = np.uint64(keys[p] < key) + np.uint64(keys[p + one] < key)
            p += passed + np.uint64(keys[p + two] < key) + np.uint64(keys[p + three] < key)
            while keys[p] < key:
                p += one
            fine[low, a] = p
            coarse[low, a] = row
            hit = np.uint64(keys[p] == key)
            a += hit
            q = p + hit
            fine[middle, b] = q
            coarse[middle, b] = row
            hit = np.uint64(keys[q] == key + 1)
            b += hit
            q += hit
            fine[high, c] = q
            coarse[high, c] = row
            c += np.uint64(keys[q] == key + 2)
        counts[3 * column] = np.int64(a - start)
        counts[3 * column + 1] = np.int64(b - start)
        counts[3 * column + 2] = np.int64(c - start)


@Kernel
def merge_cells(
    keys: Array,
    bases: Array,
    shifts: Array,
    bounds: Array,
    fine: Array,
    coarse: Array,
    counts: Array,
) -> None:
    """Find the pairs of kernel cells, each by itself; arguments as above, a shift per cell."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end = np.uint64(bounds[0]), np.uint64(bounds[1])
    for cell in range(shifts.shape[0]):
        shift, place = shifts[cell], np.uint64(cell)
        p = np.uint64(np.searchsorted(keys, bases[start] + shift))
        a = start
        for row in range(start, end):
            key = bases[row] + shift
            passed = np.uint64(keys[p] < key) + np.uint64(keys[p + one] < key)
            p += passed + np.uint64(keys[p + two] < key) + np.uint64(keys[p + three] < key)
            while keys[p] < key:
                p += one
            fine[place, a] = p
            coarse[place, a] = row
            a += np.uint64(keys[p] == key)
        counts[cell] = np.int64(a - start)


@Kernel
def collect(
    scratch: Array,
    chunk: int,
    counts: Array,
    order: Array,
    start: int,
    rows: Array,
    mirror: int,
    mirror_rows: Array,
) -> None:
    """Put the pieces of one side of one cell's pairs together: ``rows[start:]``.

    Args:
        scratch: ``[n]`` positions in key order; piece ``c`` begins at ``c * chunk``.
        counts: ``[chunks]`` the length of each piece.
        order: ``[n]`` row of each position; empty where that is the position.
        mirror, mirror_rows: where the same values go a second time; ``mirror`` < 0 for nowhere.
    """
    first = start
    for piece in range(counts.shape[0]):
        for entry in range(piece * chunk, piece * chunk + counts[piece]):
            position = scratch[entry]
            rows[start] = order[position] if order.shape[0] > 0 else position
            start += 1
    if mirror >= 0:
        # a loop, since Numba takes two seconds to compile an assignment of slices
        own, again = rows[first:start], mirror_rows[mirror : mirror + start - first]
        for entry in range(len(own)):
            again[entry] = own[entry]

"""Kernels of the Numba engine for rulebooks: pairs by merging ascending keys.

A layer maps a coarse site o to the fine sites ``o * stride - padding + k * dilation``. In packed
keys that is one addition per kernel cell, because keys leave a guard of free cells around the box;
and it keeps the order, so that for one kernel cell the keys looked up for ascending coarse sites
ascend too: one pass over both finds all pairs. What is stored is stored before it is known whether
it is a pair, and overwritten where it is not: an unpredictable branch costs more than a store.
"""

from __future__ import annotations

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.search import first_from
from sparseconv.engines.numba.machine.compile import Loop

SENTINELS = 4  # the merge looks so many keys ahead


@Loop
def merge_runs(
    begin: int,
    stop: int,
    keys: Array,
    bases: Array,
    shifts: Array,
    chunk: int,
    fine: Array,
    coarse: Array,
    counts: Array,
) -> None:
    """Find the pairs of columns of three kernel cells whose fine keys follow each other.

    Args:
        keys: ``[n_fine + SENTINELS]`` ascending, the last ones larger than any key.
        bases: ``[n_coarse]`` ascending.
        shifts: ``[M]``; ``bases[o] + shifts[m]`` is the key that column m's first cell looks for.
        chunk: coarse sites of a chunk; ``begin`` to ``stop`` are those of one.
        fine, coarse: int32 ``[3 * M, n_coarse]``; the pairs of a cell are written to its row from
            ``begin`` on, as positions in key order.
        counts: ``[3 * M, chunks]`` pairs per cell and chunk, written here.
    """
    # unsigned throughout: Numba looks whether a signed index is negative
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end, own = np.uint64(begin), np.uint64(stop), begin // chunk
    for column in range(shifts.shape[0]):
        shift = shifts[column]
        low = np.uint64(3 * column)
        middle, high = low + one, low + two
        p = np.uint64(first_from(keys, bases[start] + shift))
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
        counts[3 * column, own] = np.int64(a - start)
        counts[3 * column + 1, own] = np.int64(b - start)
        counts[3 * column + 2, own] = np.int64(c - start)


@Loop
def merge_cells(
    begin: int,
    stop: int,
    keys: Array,
    bases: Array,
    shifts: Array,
    chunk: int,
    fine: Array,
    coarse: Array,
    counts: Array,
) -> None:
    """Find the pairs of kernel cells, each by itself; arguments as above, a shift per cell."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end, own = np.uint64(begin), np.uint64(stop), begin // chunk
    for cell in range(shifts.shape[0]):
        shift, place = shifts[cell], np.uint64(cell)
        p = np.uint64(first_from(keys, bases[start] + shift))
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
        counts[cell, own] = np.int64(a - start)


@Loop
def collect(
    begin: int,
    stop: int,
    scratch: Array,
    chunk: int,
    counts: Array,
    starts: Array,
    mirrors: Array,
    fine_order: Array,
    coarse_order: Array,
    fine_rows: Array,
    coarse_rows: Array,
) -> None:
    """Put the pieces of one side of some cells' pairs together.

    Args:
        begin, stop: sides of cells: the fine and the coarse one of the first cell, and so on.
        scratch: ``[2, K, n]`` positions in key order; piece ``c`` begins at ``c * chunk``.
        counts: ``[K, chunks]`` the length of each piece.
        starts: ``[K]``, where the pairs of each cell begin.
        mirrors: ``[K]``, where they begin once more with the sides exchanged; < 0 for nowhere.
        fine_order, coarse_order: ``[n]`` row of each position; empty where that is the position.
        fine_rows, coarse_rows: of the pairs, written here.
    """
    for number in range(begin, stop):
        cell, side = number // 2, number % 2
        order = coarse_order if side else fine_order
        rows, mirror_rows = fine_rows, coarse_rows
        if side:
            rows, mirror_rows = coarse_rows, fine_rows
        entry = starts[cell]
        for piece in range(counts.shape[1]):
            first = piece * chunk
            for place in range(first, first + counts[cell, piece]):
                position = scratch[side, cell, place]
                rows[entry] = order[position] if order.shape[0] > 0 else position
                entry += 1
        if mirrors[cell] >= 0:
            # a loop, since Numba takes two seconds to compile an assignment of slices
            own, again = rows[starts[cell] : entry], mirror_rows[mirrors[cell] :]
            for place in range(len(own)):
                again[place] = own[place]

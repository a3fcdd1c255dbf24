"""Kernels of the Numba engine for rulebooks: pairs by merging ascending keys.

A layer maps a coarse site o to the fine sites ``o * stride - padding + k * dilation``. In packed
keys that is one addition per kernel cell, because keys leave a guard of free cells around the box;
and it keeps the order, so that for one kernel cell the keys looked up for ascending coarse sites
ascend too: one pass over both finds all pairs. What is stored is stored before it is known whether
it is a pair, and overwritten where it is not: an unpredictable branch costs more than a store.

Benchmark: sites sites, index, submanifold rulebook, unsorted
Benchmark: sites sites and rulebook of stride 1, k=3
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.kernels import first_from
from sparseconv.engines.numba.machine.compile import ParallelKernel

SENTINELS = 4  # keys that the merge looks ahead


class Search(NamedTuple):
    """What is looked for where.

    Attributes:
        keys: int64 ``[n_fine + SENTINELS]`` ascending, the last ones larger than any key.
        bases: int64 ``[n_coarse]`` ascending.
        shifts: int64 ``[M]``; ``bases[o] + shifts[m]`` is the key to find.
        chunk: coarse sites of a chunk.
    """

    keys: Array
    bases: Array
    shifts: Array
    chunk: int


class Pieces(NamedTuple):
    """The pairs of some kernel cells, in pieces: those of each chunk of coarse sites.

    Attributes:
        fine, coarse: int32 ``[cells, n_coarse]``, positions in key order; the piece of a chunk
            begins where the chunk does.
        counts: int64 ``[cells, chunks]``, the pairs of each piece.
    """

    fine: Array
    coarse: Array
    counts: Array


class Sides(NamedTuple):
    """An array of each side of the pairs."""

    fine: Array
    coarse: Array


@ParallelKernel
def merge_runs(begin: int, stop: int, search: Search, pieces: Pieces) -> None:
    """Find the pairs of columns of three kernel cells whose fine keys follow each other.

    Args:
        begin, stop: coarse sites of one chunk.
        search: a shift per column, that of its first cell.
        pieces: written here; three cells per column.
    """
    keys, bases, shifts = search.keys, search.bases, search.shifts
    fine, coarse, counts = pieces.fine, pieces.coarse, pieces.counts
    # unsigned throughout: Numba looks whether a signed index is negative
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end, piece = np.uint64(begin), np.uint64(stop), begin // search.chunk
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
        counts[3 * column, piece] = np.int64(a - start)
        counts[3 * column + 1, piece] = np.int64(b - start)
        counts[3 * column + 2, piece] = np.int64(c - start)


@ParallelKernel
def merge_cells(begin: int, stop: int, search: Search, pieces: Pieces) -> None:
    """Find the pairs of kernel cells, each by itself: as :func:`merge_runs`, a shift per cell."""
    keys, bases, shifts = search.keys, search.bases, search.shifts
    fine, coarse, counts = pieces.fine, pieces.coarse, pieces.counts
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    start, end, piece = np.uint64(begin), np.uint64(stop), begin // search.chunk
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
        counts[cell, piece] = np.int64(a - start)


@ParallelKernel
def collect(
    begin: int,
    stop: int,
    pieces: Pieces,
    chunk: int,
    starts: Array,
    mirrors: Array,
    orders: Sides,
    rows: Sides,
) -> None:
    """Put the pieces of one side of some cells' pairs together.

    Args:
        begin, stop: sides of cells: the fine and the coarse one of the first cell, and so on.
        pieces: of all cells.
        chunk: coarse sites of a chunk.
        starts: ``[K]``, where the pairs of each cell begin.
        mirrors: ``[K]``, where they begin once more with the sides exchanged; < 0 for nowhere.
        orders: ``[n]`` row of each position; empty where that is the position.
        rows: of the pairs, written here.
    """
    for number in range(begin, stop):
        cell, side = number // 2, number % 2
        order, positions = orders.fine, pieces.fine[cell]
        target, mirrored = rows.fine, rows.coarse
        if side:
            order, positions = orders.coarse, pieces.coarse[cell]
            target, mirrored = rows.coarse, rows.fine
        entry = starts[cell]
        for piece in range(pieces.counts.shape[1]):
            first = piece * chunk
            for place in range(first, first + pieces.counts[cell, piece]):
                position = positions[place]
                target[entry] = order[position] if order.shape[0] > 0 else position
                entry += 1
        if mirrors[cell] >= 0:
            # a loop, since Numba takes two seconds to compile an assignment of slices
            written, again = target[starts[cell] : entry], mirrored[mirrors[cell] :]
            for place in range(len(written)):
                again[place] = written[place]

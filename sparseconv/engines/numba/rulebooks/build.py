"""The rulebooks of the Numba engine, and the order in which its products walk them.

Benchmark: sites sites, index, submanifold rulebook, unsorted
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from sparseconv.core.dtypes import Array
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.keys import kernels as numba_sites
from sparseconv.engines.numba.keys.index import box, table
from sparseconv.engines.numba.machine.arrays import (
    CHUNK_ROWS,
    MIN_ROWS_PER_TASK,
    TASKS_PER_THREAD,
    by_shares,
)
from sparseconv.engines.numba.rulebooks import merge as kernels
from sparseconv.engines.numba.rulebooks.tiles import ORDER
from sparseconv.engines.torch import maps as plain

MERGE_CELLS = 48  # kernel cells searched at once: bounds the scratch memory; a multiple of 3


def build_rulebook(fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
    """Return the pairs by merging ascending keys.

    A submanifold rulebook is its own mirror image: the pairs of cell ``K - 1 - k`` are those of
    cell ``k`` swapped, in the same order, so only the first half is searched, and the centre is
    every site with itself.
    """
    packing = fine.packing.guarded(_guard(fine.packing, coarse.packing, geometry))
    samples = coarse.packing.upper[0] - fine.packing.lower[0] + 1
    if packing is None or samples * packing.weights[0] >= 2**63:  # 64 bits hold no such key
        return plain.build_rulebook(fine, coarse, geometry)
    keys, bases, shifts = _merge_keys(fine, coarse, packing, geometry)
    mirrored = geometry.kind is Kind.SUBMANIFOLD and fine is coarse
    cells = len(shifts) // 2 if mirrored else len(shifts)
    blocks = [
        _Block(keys, bases, shifts[number : min(number + MERGE_CELLS, cells)], geometry)
        for number in range(0, cells, MERGE_CELLS)
    ]
    counts = [count for block in blocks for count in block.totals]
    if mirrored:
        counts = [*counts, fine.keys.numel(), *counts[::-1]]
    splits = [0, *itertools.accumulate(counts)]
    rows = empty_array((2, splits[-1]), np.int32)
    orders = [
        np.empty(0, np.int64) if index.order is None else index.order.numpy()
        for index in (fine, coarse)
    ]
    first = 0
    for block in blocks:
        places = splits[first : first + block.size]
        mirror = [-1] * block.size
        if mirrored:
            mirror = [splits[len(shifts) - 1 - first - cell] for cell in range(block.size)]
        block.write(places, mirror, orders, rows)
        first += block.size
    if mirrored:
        centre = orders[0] if orders[0].size else np.arange(fine.keys.numel())
        rows[:, splits[cells] : splits[cells + 1]] = centre
    in_rows, out_rows = torch.from_numpy(rows)
    sizes = fine.keys.numel(), coarse.keys.numel()
    rulebook = Rulebook(in_rows, out_rows, tuple(splits), *sizes)
    # of both sides, the pairs of a cell are in the order of the keys
    rulebook.transposed_layouts[ORDER], rulebook.layouts[ORDER] = orders
    return rulebook


def _guard(fine: Packing, coarse: Packing, geometry: Geometry) -> int:
    """Return how far outside the fine box the layer looks for sites."""
    below, above = [0], [0]
    axes = zip(
        *(fine.lower[1:], fine.upper[1:], coarse.lower[1:], coarse.upper[1:]),
        *(geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation),
        strict=True,
    )
    for low, high, first, last, size, stride, padding, dilation in axes:
        below.append(low - (first * stride - padding))
        above.append(last * stride - padding + (size - 1) * dilation - high)
    return max(*below, *above)


def _merge_keys(
    fine: Index, coarse: Index, packing: Packing, geometry: Geometry
) -> tuple[Array, Array, Array]:
    """Return the fine keys with sentinels, a base per coarse site, and a shift per kernel cell.

    The fine key that a coarse site meets at a kernel cell is the sum of base and shift.
    """
    weights = _padded(packing.weights)
    sizes, stride, padding, dilation = table(geometry).tolist()
    n = fine.keys.numel()
    keys = empty_array(n + kernels.SENTINELS, np.int64)
    keys[n:] = 2**63 - 1
    if packing is fine.packing:
        keys[:n] = fine.keys.numpy()
    else:
        _project(fine, weights, 0, keys[:n])
    same = fine is coarse and max(geometry.stride) == 1
    bases = keys[:n]
    if not same:
        origins = [box(index.packing)[0].tolist() for index in (fine, coarse)]
        factors = [1, *stride]
        bases = empty_array(coarse.keys.numel(), np.int64)
        moved = sum(
            (low * factor - base) * weight
            for base, low, factor, weight in zip(*origins, factors, weights, strict=True)
        )
        _project(coarse, [f * w for f, w in zip(factors, weights, strict=True)], moved, bases)
    shifts = [-sum(cells * weight for cells, weight in zip(padding, weights[1:], strict=True))]
    for size, step, weight in zip(sizes, dilation, weights[1:], strict=True):
        shifts = [shift + cell * step * weight for shift in shifts for cell in range(size)]
    return keys, bases, np.array([_wrapped(shift) for shift in shifts], np.int64)


def _padded(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Return five weights: those of missing axes are put in behind the batch."""
    return weights[0], *(weights[0],) * (5 - len(weights)), *weights[1:]


def _project(index: Index, weights: Sequence[int], constant: int, out: Array) -> None:
    """Write ``constant + places . weights`` per site, modulo 2^64."""
    keys, (_, _, radix) = index.keys.numpy(), box(index.packing)
    wrapped = np.array([_wrapped(weight) for weight in weights], np.int64)
    start = _wrapped(constant)
    by_shares(numba_sites.project, keys.size, MIN_ROWS_PER_TASK, keys, radix, wrapped, start, out)


def _wrapped(value: int) -> int:
    """Return the signed 64-bit integer that equals ``value`` modulo 2^64."""
    return (int(value) + 2**63) % 2**64 - 2**63


class _Block:
    """The pairs of some kernel cells: found chunk by chunk, then put into their place."""

    def __init__(self, keys: Array, bases: Array, shifts: Array, geometry: Geometry) -> None:
        self.size = len(shifts)
        shares = TASKS_PER_THREAD * torch.get_num_threads()
        self._chunk = max(1, min(CHUNK_ROWS, max(MIN_ROWS_PER_TASK, -(-bases.size // shares))))
        fine, coarse = empty_array((2, self.size, bases.size), np.int32)
        counts = np.zeros((self.size, -(-bases.size // self._chunk)), np.int64)
        self._pieces = kernels.Pieces(fine, coarse, counts)
        # cells whose keys follow each other are merged three at a time
        threes = 0
        if geometry.kernel_size[-1] == 3 and geometry.dilation[-1] == 1:
            threes = self.size // 3
        runs, cells = shifts[: 3 * threes : 3].copy(), shifts[3 * threes :].copy()
        near, rest = slice(3 * threes), slice(3 * threes, None)
        for loop, moves, part in (
            (kernels.merge_runs, runs, near),
            (kernels.merge_cells, cells, rest),
        ):
            if moves.size:
                search = kernels.Search(keys, bases, moves, self._chunk)
                pieces = kernels.Pieces(*(entry[part] for entry in self._pieces))
                loop.run(bases.size, self._chunk, search, pieces)
        self.totals = counts.sum(axis=1).tolist()

    def write(
        self, starts: list[int], mirrors: list[int], orders: list[Array], rows: Array
    ) -> None:
        """Write the fine and coarse rows of each cell from its start on, and to its mirror."""
        begins = np.array(starts, np.int64), np.array(mirrors, np.int64)
        sides = kernels.Sides(*orders), kernels.Sides(*rows)
        kernels.collect.run(2 * self.size, 1, self._pieces, self._chunk, *begins, *sides)

"""Kernels of the Numba engine for sites: hash table, site law, rulebook.

All work on batch and four spatial axes; fewer axes are padded in front with axes of extent 1.
Keys are in ascending order throughout. A layer maps coarse coordinates to fine ones by
``i = o * stride - padding + k * dilation``, which keeps that order, so that for one kernel cell
the keys looked up for ascending coarse sites ascend too: a merge finds them all in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]


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


@Kernel
def probe_table(
    keys: Array, table_keys: Array, table_rows: Array, start: int, end: int, rows: Array
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


@Kernel
def unpack(keys: Array, lower: Array, extent: Array, start: int, end: int, coords: Array) -> None:
    """Write the coordinates ``[N, 5]`` of ``keys[start:end]``."""
    for row in range(start, end):
        key = keys[row]
        for axis in range(4, 0, -1):
            rest = key // extent[axis]
            coords[row, axis] = key - rest * extent[axis] + lower[axis]
            key = rest
        coords[row, 0] = key + lower[0]


@Kernel
def reach(
    coords: Array,
    geometry: Array,
    lower: Array,
    extent: Array,
    transposed: bool,
    start: int,
    end: int,
    keys: Array,
) -> int:
    """Write the keys of the output sites that inputs ``start`` to ``end`` reach; return how many.

    ``geometry`` ``[4, 4]`` holds kernel size, stride, padding and dilation per axis; sites outside
    the box ``lower``, ``extent`` are left out; a site may be written more than once, at different
    places.
    """
    count = 0
    reached = np.empty(5, np.int64)
    cells = geometry[0, 0] * geometry[0, 1] * geometry[0, 2] * geometry[0, 3]
    for row in range(start, end):
        reached[0] = coords[row, 0]
        for number in range(cells):
            rest = number
            legal = True
            for axis in range(3, -1, -1):
                cell = rest % geometry[0, axis]
                rest = rest // geometry[0, axis]
                shift = cell * geometry[3, axis] - geometry[2, axis]
                if transposed:
                    place = coords[row, axis + 1] * geometry[1, axis] + shift
                else:
                    place = coords[row, axis + 1] - shift
                    if place % geometry[1, axis] != 0:
                        legal = False
                        break
                    place = place // geometry[1, axis]
                place -= lower[axis + 1]
                if place < 0 or place >= extent[axis + 1]:
                    legal = False
                    break
                reached[axis + 1] = place
            if legal:
                key = reached[0] - lower[0]
                for axis in range(1, 5):
                    key = key * extent[axis] + reached[axis]
                keys[count] = key
                count += 1
    return count


@Kernel
def drop_repeats(keys: Array) -> int:
    """Move the distinct values of ascending ``keys`` to the front; return how many there are."""
    count = 0
    for row in range(keys.shape[0]):
        if row == 0 or keys[row] != keys[row - 1]:
            keys[count] = keys[row]
            count += 1
    return count


@Kernel
def merge_column(
    fine_keys: Array,
    lower: Array,
    extent: Array,
    coarse: Array,
    geometry: Array,
    column: Array,
    last_cells: int,
    bounds: Array,
    fine_rows: Array,
    coarse_rows: Array,
    counts: Array,
) -> None:
    """Find the pairs of one column of kernel cells: those that differ in the last axis only.

    Args:
        fine_keys: ``[n_fine]`` ascending, packed by ``lower``, ``extent`` ``[5]``.
        coarse: ``[n_coarse, 5]`` coordinates, ascending.
        geometry: ``[4, 4]`` kernel size, stride, padding, dilation per axis.
        column: ``[3]`` the cells on the first three axes.
        last_cells: how many cells of the last axis to look at, from cell 0.
        bounds: ``[2]`` the coarse sites to look at.
        fine_rows, coarse_rows: ``[K_last, n_coarse]``; the pairs of cell ``k`` are written to row
            ``k`` from ``bounds[0]`` on, as positions in key order.
        counts: ``[K_last]`` number of pairs written per cell.
    """
    n_fine = fine_keys.shape[0]
    first, last = bounds[0], bounds[1]
    step = geometry[3, 3]
    position = 0
    seeded = False
    counts[:] = 0
    for row in range(first, last):
        base = coarse[row, 0] - lower[0]
        legal = 0 <= base < extent[0]
        for axis in range(3):
            place = coarse[row, axis + 1] * geometry[1, axis] - geometry[2, axis]
            place += column[axis] * geometry[3, axis] - lower[axis + 1]
            legal = legal and 0 <= place < extent[axis + 1]
            base = base * extent[axis + 1] + place
        start = coarse[row, 4] * geometry[1, 3] - geometry[2, 3] - lower[4]
        low = max(start, 0)
        high = min(start + (last_cells - 1) * step, extent[4] - 1)
        if not legal or low > high:
            continue
        base *= extent[4]
        if not seeded:
            position = np.searchsorted(fine_keys, base + low)
            seeded = True
        while position < n_fine and fine_keys[position] < base + low:
            position += 1
        entry = position
        while entry < n_fine and fine_keys[entry] <= base + high:
            offset = fine_keys[entry] - base - start
            if offset % step == 0:
                cell = offset // step
                place = first + counts[cell]
                fine_rows[cell, place] = entry
                coarse_rows[cell, place] = row
                counts[cell] += 1
            entry += 1


@Kernel
def copy_rows(source: Array, order: Array, target: Array) -> None:
    """Copy positions to ``target``, through ``order`` where that is not empty."""
    if order.shape[0] == 0:
        target[:] = source
    else:
        for entry in range(source.shape[0]):
            target[entry] = order[source[entry]]

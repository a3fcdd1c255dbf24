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
    most = max(geometry[0, 0], geometry[0, 1], geometry[0, 2], geometry[0, 3])
    phases = max(geometry[1, 0], geometry[1, 1], geometry[1, 2], geometry[1, 3])
    # on one axis an input at base * stride + phase reaches base + shifts[axis, phase]: all cells k
    # with (phase - k * dilation) divisible by the stride
    shifts = np.empty((4, phases, most), np.int64)
    sizes = np.zeros((4, phases), np.int64)
    for axis in range(4):
        stride, dilation = geometry[1, axis], geometry[3, axis]
        for phase in range(1 if transposed else stride):
            for cell in range(geometry[0, axis]):
                moved = phase - cell * dilation
                if transposed:
                    moved = cell * dilation - geometry[2, axis]
                elif moved % stride != 0:
                    continue
                else:
                    moved = moved // stride
                shifts[axis, phase, sizes[axis, phase]] = moved - lower[axis + 1]
                sizes[axis, phase] += 1
    count = 0
    places = np.empty((4, most), np.int64)
    found = np.empty(4, np.int64)
    for row in range(start, end):
        # what a site reaches is a product of what it reaches on each axis
        for axis in range(4):
            stride = geometry[1, axis]
            phase = 0
            if transposed:
                base = coords[row, axis + 1] * stride
            else:
                base = coords[row, axis + 1] + geometry[2, axis]
                if stride == 2:  # by far the most common, and a shift is quicker than a division
                    phase, base = base & 1, base >> 1
                elif stride != 1:
                    phase = base
                    base = base // stride
                    phase -= base * stride
            found[axis] = 0
            for entry in range(sizes[axis, phase]):
                place = base + shifts[axis, phase, entry]
                if 0 <= place < extent[axis + 1]:
                    places[axis, found[axis]] = place
                    found[axis] += 1
        batch = (coords[row, 0] - lower[0]) * extent[1]
        for first in places[0, : found[0]]:
            for second in places[1, : found[1]]:
                plane = ((batch + first) * extent[2] + second) * extent[3]
                for third in places[2, : found[2]]:
                    line = (plane + third) * extent[4]
                    for fourth in places[3, : found[3]]:
                        keys[count] = line + fourth
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
def merge(
    fine_keys: Array,
    lower: Array,
    extent: Array,
    coarse: Array,
    geometry: Array,
    columns: Array,
    bounds: Array,
    fine_rows: Array,
    coarse_rows: Array,
    counts: Array,
) -> None:
    """Find the pairs of some columns of kernel cells; a column differs in the last axis only.

    Args:
        fine_keys: ``[n_fine]`` ascending, packed by ``lower``, ``extent`` ``[5]``.
        coarse: ``[n_coarse, 5]`` coordinates, ascending.
        geometry: ``[4, 4]`` kernel size, stride, padding, dilation per axis.
        columns: ``[M, 4]`` the cells on the first three axes, and how many cells of the last axis
            to look at, from cell 0.
        bounds: ``[2]`` the coarse sites to look at.
        fine_rows, coarse_rows: ``[M * K_last, n_coarse]``; the pairs of a cell are written to its
            row from ``bounds[0]`` on, as positions in key order.
        counts: ``[M * K_last]`` number of pairs written per cell.
    """
    n_fine = fine_keys.shape[0]
    n_columns = columns.shape[0]
    last_cells, step = geometry[0, 3], geometry[3, 3]
    positions = np.full(n_columns, -1, np.int64)
    shifts = np.empty((n_columns, 3), np.int64)
    for column in range(n_columns):
        for axis in range(3):
            shift = columns[column, axis] * geometry[3, axis]
            shifts[column, axis] = shift - geometry[2, axis] - lower[axis + 1]
    counts[:] = 0
    for row in range(bounds[0], bounds[1]):
        batch = coarse[row, 0] - lower[0]
        if batch < 0 or batch >= extent[0]:
            continue
        batch *= extent[1]
        first = coarse[row, 1] * geometry[1, 0]
        second = coarse[row, 2] * geometry[1, 1]
        third = coarse[row, 3] * geometry[1, 2]
        start = coarse[row, 4] * geometry[1, 3] - geometry[2, 3] - lower[4]
        for column in range(n_columns):
            high = min(start + (columns[column, 3] - 1) * step, extent[4] - 1)
            low = max(start, 0)
            i = first + shifts[column, 0]
            j = second + shifts[column, 1]
            k = third + shifts[column, 2]
            legal = (0 <= i < extent[1]) & (0 <= j < extent[2]) & (0 <= k < extent[3])
            if low > high or not legal:
                continue
            base = (((batch + i) * extent[2] + j) * extent[3] + k) * extent[4]
            position = positions[column]
            if position < 0:
                position = np.searchsorted(fine_keys, base + low)
            while position < n_fine and fine_keys[position] < base + low:
                position += 1
            positions[column] = position
            while position < n_fine and fine_keys[position] <= base + high:
                offset = fine_keys[position] - base - start
                cell = offset if step == 1 else offset // step
                if cell * step == offset:
                    cell += column * last_cells
                    place = bounds[0] + counts[cell]
                    fine_rows[cell, place] = position
                    coarse_rows[cell, place] = row
                    counts[cell] += 1
                position += 1


@Kernel
def collect(
    scratch: Array, chunk: int, counts: Array, order: Array, start: int, rows: Array
) -> None:
    """Put the pieces of one cell's pairs together: ``rows[start:]``.

    Args:
        scratch: ``[n]`` positions in key order; piece ``c`` begins at ``c * chunk``.
        counts: ``[chunks]`` the length of each piece.
        order: ``[n]`` row of each position; empty where that is the position.
    """
    for piece in range(counts.shape[0]):
        for entry in range(piece * chunk, piece * chunk + counts[piece]):
            position = scratch[entry]
            rows[start] = order[position] if order.shape[0] > 0 else position
            start += 1

"""Kernels of the Numba engine for sites: packing, hash table, site law.

All but the packing work on batch and four spatial axes; fewer axes are padded in front with axes
of extent 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]


@Kernel
def extremes(coords: Array, start: int, end: int, found: Array) -> None:
    """Write the smallest and the largest value of each column of some rows to ``found`` [2, C]."""
    for column in range(coords.shape[1]):
        low = high = np.int64(coords[start, column])
        for row in range(start, end):
            value = np.int64(coords[row, column])
            low = min(low, value)
            high = max(high, value)
        found[0, column] = low
        found[1, column] = high


@Kernel
def pack(coords: Array, lower: Array, weights: Array, start: int, end: int, keys: Array) -> None:
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
def number(keys: Array, bits: int, start: int, end: int) -> None:
    """Put the row number into the low ``bits`` of each key."""
    for row in range(start, end):
        keys[row] = (keys[row] << bits) | row


@Kernel
def split(keys: Array, bits: int, start: int, end: int, order: Array) -> None:
    """Take row numbers out of numbered keys again."""
    for row in range(start, end):
        order[row] = keys[row] & ((1 << bits) - 1)
        keys[row] >>= bits


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
def unpack(keys: Array, lower: Array, radix: Array, start: int, end: int, coords: Array) -> None:
    """Write the coordinates ``[N, 5]`` of ``keys[start:end]``."""
    for row in range(start, end):
        key = keys[row]
        for axis in range(4, 0, -1):
            rest = key // radix[axis]
            coords[row, axis] = key - rest * radix[axis] + lower[axis]
            key = rest
        coords[row, 0] = key + lower[0]


@Kernel
def project(
    keys: Array, radix: Array, weights: Array, constant: int, start: int, end: int, out: Array
) -> None:
    """Write ``constant + places . weights`` for ``keys[start:end]``.

    A place is a coordinate minus its lower bound.
    """
    for row in range(start, end):
        key = keys[row]
        total = np.int64(constant)
        for axis in range(4, 0, -1):
            if radix[axis] != 1:
                rest = key // radix[axis]
                total += (key - rest * radix[axis]) * weights[axis]
                key = rest
        out[row] = total + key * weights[0]


@Kernel
def reach(
    coords: Array,
    geometry: Array,
    lower: Array,
    extent: Array,
    radix: Array,
    transposed: bool,
    start: int,
    end: int,
    keys: Array,
) -> int:
    """Write the keys of the output sites that inputs ``start`` to ``end`` reach; return how many.

    ``geometry`` ``[4, 4]`` holds kernel size, stride, padding and dilation per axis; sites outside
    the box ``lower``, ``extent`` are left out (``radix`` is that of its keys); a site may be
    written more than once, at different
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
        batch = (coords[row, 0] - lower[0]) * radix[1]
        for first in places[0, : found[0]]:
            for second in places[1, : found[1]]:
                plane = ((batch + first) * radix[2] + second) * radix[3]
                for third in places[2, : found[2]]:
                    line = (plane + third) * radix[4]
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

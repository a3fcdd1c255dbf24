"""Kernels of the Numba engine for the site law: which output sites the inputs reach.

What a site reaches is a product of what it reaches on each axis. So the axes are taken one after
the other: on one axis every kernel cell moves the inputs in ascending order, and the moved runs are
merged without repeats. Nothing is sorted, and each pass reads and writes every site once per cell.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.kernels import EXACT, quotient
from sparseconv.engines.numba.machine.compile import Kernel, Loop

NONE = 2**63 - 1


@Loop
def place(
    start: int,
    end: int,
    keys: Array,
    step: int,
    radix: int,
    new_radix: int,
    origin: int,
    stride: int,
    bases: Array,
    places: Array,
    phases: Array,
) -> None:
    """Take one axis out of the keys ``start`` to ``end``.

    A key's place on the axis, ``key // step % radix``, plus ``origin`` is ``places * stride +
    phases``; ``bases`` is the key with that place 0, in keys that have ``new_radix`` places there.
    """
    # a loop from 0 over slices becomes vector instructions
    own, base, whole, phase = (
        keys[start:end],
        bases[start:end],
        places[start:end],
        phases[start:end],
    )
    if keys[-1] < EXACT and abs(origin) + radix < EXACT:
        by_step, by_radix, by_stride = 1 / step, 1 / radix, 1 / stride
        for entry in range(len(own)):
            rest = quotient(own[entry], step, by_step)
            high = quotient(rest, radix, by_radix)
            position = rest - high * radix + origin
            whole[entry] = quotient(position, stride, by_stride)
            phase[entry] = position - whole[entry] * stride
            base[entry] = high * (new_radix * step) + own[entry] - rest * step
        return
    for entry in range(len(own)):
        rest = own[entry] // step
        high = rest // radix
        position = rest - high * radix + origin
        whole[entry] = position // stride
        phase[entry] = position - whole[entry] * stride
        base[entry] = high * (new_radix * step) + own[entry] - rest * step


@register_jitable
def _next(
    cell: int,
    entry: int,
    last: int,
    bases: Array,
    places: Array,
    phases: Array,
    shifts: Array,
    fits: Array,
    step: int,
    extent: int,
) -> tuple[int, int]:
    """Return the first entry from ``entry`` on that the cell moves into the box, and its key."""
    while entry < last:
        phase = phases[entry]
        if fits[cell, phase]:
            moved = places[entry] + shifts[cell, phase]
            if 0 <= moved < extent:
                return entry, bases[entry] + moved * step
        entry += 1
    return entry, NONE


@Kernel
def split_axis(
    bases: Array,
    places: Array,
    phases: Array,
    shifts: Array,
    fits: Array,
    span: int,
    entries: Array,
    starts: Array,
) -> None:
    """Write which inputs each cell moves to what lies from some output keys on.

    Args:
        bases, places, phases: of :func:`place`, in the order of the keys.
        shifts, fits: of :func:`merge_axis`.
        span: keys that the axis and those behind it take together.
        entries: ascending; the keys are those that these inputs are near.
        starts: ``[len(entries), cells]``, written here, a row for each key; ascending.
    """
    cells, count = shifts.shape[0], bases.shape[0]
    for part in range(entries.shape[0]):
        own = entries[part]
        high = bases[own] // span
        low, place = bases[own] - high * span, places[own] + shifts[cells // 2, phases[own]]
        for cell in range(cells):
            first, last = starts[part - 1, cell] if part > 0 else 0, count
            while first < last:
                entry = (first + last) // 2
                phase = phases[entry]
                moved = places[entry] + shifts[cell, phase]
                block = bases[entry] // span
                behind = block > high or (block == high and moved > place)
                if block == high and moved == place:
                    # what leads to no output lies between two places
                    behind = not fits[cell, phase] or bases[entry] - block * span >= low
                if behind:
                    last = entry
                else:
                    first = entry + 1
            starts[part, cell] = first


@Loop
def merge_axis(
    first: int,
    last: int,
    bases: Array,
    places: Array,
    phases: Array,
    shifts: Array,
    fits: Array,
    step: int,
    extent: int,
    starts: Array,
    rooms: Array,
    out: Array,
    counts: Array,
) -> None:
    """Write the distinct keys that the cells of one axis lead to, ascending, in some parts.

    Args:
        first, last: parts of the keys.
        bases, places, phases: of :func:`place`, in the order of the keys.
        shifts: int64 ``[cells, phases]``, by how many places a cell moves an input of a phase.
        fits: bool ``[cells, phases]``, whether it leads to an output at all.
        step: by how much a place moves the key.
        extent: places inside the box.
        starts: ``[parts + 1, cells]``, which inputs each cell moves into which part.
        rooms: ``[parts + 1]``, where in ``out`` the keys of a part begin.
        out: int64, with room for them.
        counts: ``[parts]``, how many keys were written, written here.
    """
    cells = shifts.shape[0]
    heads = np.empty(cells, np.int64)
    for part in range(first, last):
        entries, ends, count = starts[part].copy(), starts[part + 1], rooms[part]
        for cell in range(cells):
            entries[cell], heads[cell] = _next(
                cell, entries[cell], ends[cell], bases, places, phases, shifts, fits, step, extent
            )
        while True:
            least = heads[0]
            for cell in range(1, cells):
                least = min(least, heads[cell])
            if least == NONE:
                break
            out[count] = least
            count += 1
            for cell in range(cells):
                if heads[cell] == least:
                    entry, end = entries[cell] + 1, ends[cell]
                    entries[cell], heads[cell] = _next(
                        cell, entry, end, bases, places, phases, shifts, fits, step, extent
                    )
        counts[part] = count - rooms[part]

"""Kernels of the Numba engine for the site law: which output sites the inputs reach.

What a site reaches is a product of what it reaches on each axis. So the axes are taken one after
the other: on one axis every kernel cell moves the inputs in ascending order, and the moved runs are
merged without repeats. Nothing is sorted, and each pass reads and writes every site once per cell.

Benchmark: sites sites and rulebook of stride 2, k=3
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.keys.kernels import MAX_EXACT_KEY, quotient
from sparseconv.engines.numba.machine.compile import Kernel, ParallelKernel

NO_KEY = 2**63 - 1  # larger than any key


class Axis(NamedTuple):
    """One axis of the keys of some inputs.

    Attributes:
        step: by how much one place moves the key.
        radix: places that the keys have there.
        new_radix: places that the keys of the outputs have there.
        origin: coordinate of place 0, as the layer counts it.
        stride: coordinates of one phase after the other.
    """

    step: int
    radix: int
    new_radix: int
    origin: int
    stride: int


class Inputs(NamedTuple):
    """Inputs on one axis, in the order of their keys; int64 ``[N]`` each.

    Attributes:
        bases: the keys with place 0 there, in keys that have ``new_radix`` places.
        places, phases: the coordinate is ``places * stride + phases``.
    """

    bases: Array
    places: Array
    phases: Array


class Moves(NamedTuple):
    """Where the kernel cells move the inputs on one axis.

    Attributes:
        shifts: int64 ``[cells, phases]``, by how many places a cell moves an input of a phase.
        fits: bool ``[cells, phases]``, whether it leads to an output at all.
        step: by how much a place moves the key of an output.
        extent: places inside the box.
    """

    shifts: Array
    fits: Array
    step: int
    extent: int


@ParallelKernel
def take_axis(start: int, end: int, keys: Array, axis: Axis, inputs: Inputs) -> None:
    """Take one axis out of the keys ``start`` to ``end``, and write their ``inputs``."""
    step, radix, new_step = axis.step, axis.radix, axis.new_radix * axis.step
    origin, stride = axis.origin, axis.stride
    # a loop from 0 over slices becomes vector instructions
    part, base = keys[start:end], inputs.bases[start:end]
    whole, phase = inputs.places[start:end], inputs.phases[start:end]
    if keys[-1] < MAX_EXACT_KEY and abs(origin) + radix < MAX_EXACT_KEY:
        by_step, by_radix, by_stride = 1 / step, 1 / radix, 1 / stride
        for entry in range(len(part)):
            rest = quotient(part[entry], step, by_step)
            high = quotient(rest, radix, by_radix)
            position = rest - high * radix + origin
            whole[entry] = quotient(position, stride, by_stride)
            phase[entry] = position - whole[entry] * stride
            base[entry] = high * new_step + part[entry] - rest * step
        return
    for entry in range(len(part)):
        rest = part[entry] // step
        high = rest // radix
        position = rest - high * radix + origin
        whole[entry] = position // stride
        phase[entry] = position - whole[entry] * stride
        base[entry] = high * new_step + part[entry] - rest * step


@register_jitable
def _next(cell: int, entry: int, last: int, inputs: Inputs, moves: Moves) -> tuple[int, int]:
    """Return the first entry from ``entry`` on that the cell moves into the box, and its key."""
    while entry < last:
        phase = inputs.phases[entry]
        if moves.fits[cell, phase]:
            moved = inputs.places[entry] + moves.shifts[cell, phase]
            if 0 <= moved < moves.extent:
                return entry, inputs.bases[entry] + moved * moves.step
        entry += 1
    return entry, NO_KEY


@Kernel
def split_axis(inputs: Inputs, moves: Moves, span: int, entries: Array, starts: Array) -> None:
    """Write which inputs each cell moves to what lies from some output keys on.

    Args:
        inputs, moves: on the axis.
        span: keys that the axis and those behind it take together.
        entries: ascending; the keys are those that these inputs are near.
        starts: ``[len(entries), cells]``, written here, a row for each key; ascending.
    """
    bases, places, phases = inputs.bases, inputs.places, inputs.phases
    shifts, fits = moves.shifts, moves.fits
    cells, count = shifts.shape[0], bases.shape[0]
    for part in range(entries.shape[0]):
        middle = entries[part]
        high = bases[middle] // span
        low = bases[middle] - high * span
        place = places[middle] + shifts[cells // 2, phases[middle]]
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


@ParallelKernel
def merge_axis(
    first: int,
    last: int,
    inputs: Inputs,
    moves: Moves,
    starts: Array,
    begins: Array,
    out: Array,
    counts: Array,
) -> None:
    """Write the distinct keys that the cells of one axis lead to, ascending, in some parts.

    Args:
        first, last: parts of the keys.
        inputs, moves: on the axis.
        starts: ``[parts + 1, cells]``, which inputs each cell moves into which part.
        begins: ``[parts + 1]``, where in ``out`` the keys of a part begin.
        out: int64, with room for them.
        counts: ``[parts]``, how many keys were written, written here.
    """
    cells = moves.shifts.shape[0]
    heads = np.empty(cells, np.int64)
    for part in range(first, last):
        entries, ends, count = starts[part].copy(), starts[part + 1], begins[part]
        for cell in range(cells):
            entries[cell], heads[cell] = _next(cell, entries[cell], ends[cell], inputs, moves)
        while True:
            least = heads[0]
            for cell in range(1, cells):
                least = min(least, heads[cell])
            if least == NO_KEY:
                break
            out[count] = least
            count += 1
            for cell in range(cells):
                if heads[cell] == least:
                    entry, end = entries[cell] + 1, ends[cell]
                    entries[cell], heads[cell] = _next(cell, entry, end, inputs, moves)
        counts[part] = count - begins[part]

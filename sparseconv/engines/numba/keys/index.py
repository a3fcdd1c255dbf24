"""The index of the Numba engine: packed keys in order, look-ups, and the sites that are reached.

Benchmark: sites sites, index, submanifold rulebook, unsorted
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.keys import kernels, reach
from sparseconv.engines.numba.keys.sort import sort_by
from sparseconv.engines.numba.machine.arrays import (
    CHUNK_ROWS,
    MIN_ROWS_PER_TASK,
    TASKS_PER_THREAD,
    by_chunks,
    by_shares,
)
from sparseconv.engines.torch import maps as plain

MIN_SITES_PER_MERGE = 8192  # sites that one task merges


def bounds(coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest value per column."""
    values = _integers(coords)
    chunks = -(-values.shape[0] // CHUNK_ROWS)
    extremes = np.empty((chunks, 2, values.shape[1]), np.int64)
    by_chunks(kernels.extremes, values.shape[0], values, CHUNK_ROWS, extremes)
    return tuple(extremes[:, 0].min(axis=0).tolist()), tuple(extremes[:, 1].max(axis=0).tolist())


def build_index(coords: Tensor, packing: Packing) -> Index:
    """Return the index; keys that come in order are not sorted.

    Where key and row fit into 64 bits together, one sort of both at once is many times as fast as
    finding the order of the keys, and keeps rows of one site in their order.
    """
    values = _integers(coords)
    count = values.shape[0]
    keys = empty_array(count, np.int64)
    lower, weights = np.array(packing.lower), np.array(packing.weights)
    by_chunks(kernels.pack, count, values, lower, weights, keys)
    if count < 2 or bool(kernels.ascends(keys, 0, count)):
        return Index(torch.from_numpy(keys), None, packing)
    bits = (count - 1).bit_length()
    order = empty_array(count, np.int64)
    if math.prod(packing.radix) < 2 ** (63 - bits):
        by_chunks(kernels.number, count, keys, bits)
        keys = sort_by(keys, bits, bits + math.prod(packing.radix).bit_length())
        by_chunks(kernels.split, count, keys, bits, order)
    else:
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
    return Index(torch.from_numpy(keys), torch.from_numpy(order), packing)


def ascends(keys: Tensor) -> bool:
    """Return whether each key is larger than the one before."""
    return bool(kernels.strictly_ascends(keys.numpy()))


def _integers(coords: Tensor) -> Array:
    """Return int32 or int64 coordinates, row after row: two dtypes to compile for, not five."""
    wide = coords if coords.dtype in (torch.int32, torch.int64) else coords.long()
    values: Array = wide.contiguous().numpy()
    return values


def lookup(index: Index, keys: Tensor) -> Tensor:
    """Return the rows of ``keys``, -1 where absent, through a hash table made at the first call."""
    values = index.keys.numpy()
    if "numba" not in index.tables:
        size = 1 << max(2 * values.size, 2).bit_length()
        table = np.full(size, -1, np.int64), np.empty(size, np.int64)
        kernels.fill_table(values, *table)
        index.tables["numba"] = table
    wanted = keys.contiguous().numpy()
    rows = empty_array(wanted.size, np.int64)
    by_chunks(kernels.probe_table, wanted.size, wanted, *index.tables["numba"], rows)
    found = torch.from_numpy(rows)
    if index.order is None or found.numel() == 0:
        return found
    return torch.where(found < 0, found, index.order[found])


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the distinct keys of the sites that the inputs reach, ascending: axis by axis."""
    radix = list(index.packing.radix)
    axes = range(len(radix) - 1, 0, -1)
    largest = math.prod(map(max, radix, packing.radix))
    if largest >= 2**63:  # no key on the way from one box to the other fits into 64 bits
        return plain.reached_keys(index, geometry, packing)
    keys = index.keys.numpy()
    for axis in axes:
        keys = _reached_on_axis(keys, axis, radix, index.packing, geometry, packing)
        radix[axis] = packing.radix[axis]
    keys += (index.packing.lower[0] - packing.lower[0]) * packing.weights[0]
    return torch.from_numpy(keys)


def _reached_on_axis(
    keys: Array, axis: int, radix: list[int], source: Packing, geometry: Geometry, packing: Packing
) -> Array:
    """Return the keys with one axis replaced by what it reaches; a fresh array."""
    cells, stride = geometry.kernel_size[axis - 1], geometry.stride[axis - 1]
    padding, dilation = geometry.padding[axis - 1], geometry.dilation[axis - 1]
    cell = np.arange(cells)[:, None]
    if geometry.kind is Kind.TRANSPOSED:
        # an input at i reaches i * stride - padding + k * dilation
        factor, divisor, origin = stride, 1, source.lower[axis]
        shifts = cell * dilation - padding - packing.lower[axis]
        fits = np.ones((cells, 1), np.bool_)
    else:
        # an input at i reaches (i + padding - k * dilation) / stride, where that is whole
        factor, divisor, origin = 1, stride, source.lower[axis] + padding
        moved = np.arange(stride)[None] - cell * dilation
        shifts, fits = moved // stride - packing.lower[axis], moved % stride == 0
    step = math.prod(radix[axis + 1 :])
    inputs = reach.Inputs(*(empty_array(keys.size, np.int64) for _ in range(3)))
    one_axis = reach.Axis(step, radix[axis], packing.radix[axis], origin, divisor)
    by_shares(reach.take_axis, keys.size, MIN_ROWS_PER_TASK, keys, one_axis, inputs)
    if factor > 1:
        np.multiply(inputs.places, factor, out=inputs.places)
    shifts, fits = np.ascontiguousarray(shifts, np.int64), np.ascontiguousarray(fits)
    moves = reach.Moves(shifts, fits, step, packing.extent[axis])
    parts = max(
        1, min(TASKS_PER_THREAD * torch.get_num_threads(), keys.size // MIN_SITES_PER_MERGE)
    )
    starts = np.zeros((parts + 1, cells), np.int64)
    starts[-1] = keys.size
    entries = np.arange(1, parts) * keys.size // parts
    reach.split_axis(inputs, moves, packing.radix[axis] * step, entries, starts[1:-1])
    begins = [0, *np.cumsum((starts[1:] - starts[:-1]).sum(axis=1)).tolist()]
    out, counts = empty_array(begins[-1], np.int64), np.zeros(parts, np.int64)
    reach.merge_axis.run(parts, 1, inputs, moves, starts, np.array(begins, np.int64), out, counts)
    reached = empty_array(int(counts.sum()), np.int64)
    runs = [out[begin : begin + n] for begin, n in zip(begins, counts.tolist(), strict=False)]
    return np.concatenate(runs, out=reached)


def box(packing: Packing) -> tuple[Array, Array, Array]:
    """Return lower, extent and radix with missing axes put in behind the batch."""
    missing = 5 - len(packing.lower)
    sides = []
    for values, fill in ((packing.lower, 0), (packing.extent, 1), (packing.radix, 1)):
        sides.append(np.array((values[0], *(fill,) * missing, *values[1:]), np.int64))
    return sides[0], sides[1], sides[2]


def table(geometry: Geometry) -> Array:
    """Return ``[4, 4]``: kernel size, stride, padding, dilation; missing axes put in front."""
    rows = (geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation)
    neutral = (1, 1, 0, 1)
    missing = 4 - geometry.dimensions
    return np.array(
        [(fill,) * missing + row for fill, row in zip(neutral, rows, strict=True)], np.int64
    )

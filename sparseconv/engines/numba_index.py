"""The index of the Numba engine: packed keys in order, look-ups, and the sites that are reached."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_sites as kernels
from sparseconv.engines.numba_arrays import CHUNK_ROWS, by_chunks
from sparseconv.engines.numba_compile import in_parallel
from sparseconv.engines.protocol import Index
from sparseconv.geometry import Geometry, Kind
from sparseconv.packing import Packing

Array = np.ndarray[Any, Any]


def bounds(coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest value per column."""
    values = _integers(coords)
    chunks = -(-values.shape[0] // CHUNK_ROWS)
    extremes = np.empty((chunks, 2, values.shape[1]), np.int64)
    by_chunks(
        values.shape[0], lambda s, e: kernels.extremes(values, s, e, extremes[s // CHUNK_ROWS])
    )
    return tuple(extremes[:, 0].min(axis=0).tolist()), tuple(extremes[:, 1].max(axis=0).tolist())


def build_index(coords: Tensor, packing: Packing) -> Index:
    """Return the index; keys that come in order are not sorted.

    Where key and row fit into 64 bits together, one sort of both at once is several times as fast
    as finding the order of the keys, and keeps rows of one site in their order.
    """
    values = _integers(coords)
    count = values.shape[0]
    keys = np.empty(count, np.int64)
    lower, weights = np.array(packing.lower), np.array(packing.weights)
    by_chunks(count, lambda s, e: kernels.pack(values, lower, weights, s, e, keys))
    if count < 2 or bool(kernels.ascends(keys, 0, count)):
        return Index(torch.from_numpy(keys), None, packing)
    bits = (count - 1).bit_length()
    order = np.empty(count, np.int64)
    if math.prod(packing.radix) < 2 ** (63 - bits):
        by_chunks(count, lambda s, e: kernels.number(keys, bits, s, e))
        keys.sort()
        by_chunks(count, lambda s, e: kernels.split(keys, bits, s, e, order))
    else:
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
    return Index(torch.from_numpy(keys), torch.from_numpy(order), packing)


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
    rows = np.empty(wanted.size, np.int64)
    by_chunks(
        wanted.size, lambda s, e: kernels.probe_table(wanted, *index.tables["numba"], s, e, rows)
    )
    found = torch.from_numpy(rows)
    if index.order is None or found.numel() == 0:
        return found
    return torch.where(found < 0, found, index.order[found])


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the distinct keys of the sites that the inputs reach, ascending."""
    coords = unpacked(index)
    arrays = table(geometry), *box(packing)
    transposed = geometry.kind is Kind.TRANSPOSED
    most = math.prod(geometry.kernel_size if transposed else _cells_in_phase(geometry))
    starts = list(range(0, coords.shape[0], CHUNK_ROWS))
    parts: list[Array] = [np.empty(0, np.int64)] * len(starts)

    def run(number: int) -> None:
        start = starts[number]
        end = min(start + CHUNK_ROWS, coords.shape[0])
        keys = np.empty((end - start) * most, np.int64)
        count = kernels.reach(coords, *arrays, transposed, start, end, keys)
        parts[number] = np.sort(keys[:count])
        parts[number] = parts[number][: kernels.drop_repeats(parts[number])]

    in_parallel(run, len(starts))
    keys = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    return torch.from_numpy(keys[: kernels.drop_repeats(keys)].copy())


def _cells_in_phase(geometry: Geometry) -> list[int]:
    """Return the most cells per axis through which one input can reach a whole output."""
    counts = []
    for size, stride, dilation in zip(
        geometry.kernel_size, geometry.stride, geometry.dilation, strict=True
    ):
        period = stride // math.gcd(stride, dilation)
        counts.append(-(-size // period))
    return counts


def unpacked(index: Index) -> Array:
    """Return coordinates ``[N, 5]`` in key order."""
    keys = index.keys.numpy()
    coords = np.empty((keys.size, 5), np.int64)
    lower, _, radix = box(index.packing)
    by_chunks(keys.size, lambda s, e: kernels.unpack(keys, lower, radix, s, e, coords))
    return coords


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

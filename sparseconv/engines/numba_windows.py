"""Kernels of the Numba engine for windows: largest values, sums, and the way back.

A task owns a tile of output rows and walks the pairs that end there cell by cell, so that a value
depends on its own pairs alone. All kernels read the tiled pairs of the products: ``in_rows`` and
``out_rows`` int32 ``[P]``, ``starts`` int64 ``[K, T + 1]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]


@Kernel
def argmax_tile(
    x: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile_rows: int,
    tile: int,
    chosen: Array,
) -> None:
    """Write the row of the first largest value of ``x`` ``[n_in, C]`` per window to ``chosen``.

    NaN counts as larger than everything, the last one of a window most of all; -1 where a window
    holds no row. ``chosen`` is int32 ``[n_out, C]``.
    """
    first = tile * tile_rows
    last = min(first + tile_rows, chosen.shape[0])
    best = np.empty((last - first, x.shape[1]), x.dtype)
    chosen[first:last] = -1
    for cell in range(starts.shape[0]):
        for pair in range(starts[cell, tile], starts[cell, tile + 1]):
            source, target = in_rows[pair], out_rows[pair]
            for column in range(x.shape[1]):
                value = x[source, column]
                held = best[target - first, column]
                if chosen[target, column] < 0 or value > held or np.isnan(value):
                    best[target - first, column] = value
                    chosen[target, column] = source


@Kernel
def sum_tile(
    x: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile_rows: int,
    tile: int,
    out: Array,
) -> None:
    """Write the sum of ``x`` ``[n_in, C]`` over each window to ``out`` ``[n_out, C]``."""
    first = tile * tile_rows
    out[first : min(first + tile_rows, out.shape[0])] = 0
    for cell in range(starts.shape[0]):
        for pair in range(starts[cell, tile], starts[cell, tile + 1]):
            source, target = in_rows[pair], out_rows[pair]
            for column in range(x.shape[1]):
                out[target, column] += x[source, column]


@Kernel
def scatter_tile(
    values: Array,
    chosen: Array,
    value_rows: Array,
    out_rows: Array,
    starts: Array,
    tile_rows: int,
    tile: int,
    out: Array,
) -> None:
    """Add ``values[o]`` ``[n_out, C]`` to the row of ``out`` that ``chosen[o]`` names.

    The pairs are those of the transposed rulebook: they lead from ``o`` to the rows of its window.
    """
    first = tile * tile_rows
    out[first : min(first + tile_rows, out.shape[0])] = 0
    for cell in range(starts.shape[0]):
        for pair in range(starts[cell, tile], starts[cell, tile + 1]):
            source, target = value_rows[pair], out_rows[pair]
            for column in range(values.shape[1]):
                if chosen[source, column] == target:
                    out[target, column] += values[source, column]

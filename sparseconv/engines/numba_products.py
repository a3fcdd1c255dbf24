"""Kernels of the Numba engine for features: the two products and sums over segments.

The products are output-stationary: a thread owns a tile of output rows that stays in its cache,
walks the kernel cells in order, and adds the contribution of each pair to its row. So no gathered
copy exists, no addition is atomic, and the order of additions into a row is fixed: cell by cell,
channel by channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]


@Kernel
def tile_starts(out_rows: Array, first: int, last: int, tile: int, starts: Array) -> None:
    """Write where each tile of output rows begins among the pairs ``first`` to ``last``.

    ``out_rows`` ascend there; ``starts`` ``[T + 1]`` gets the pair that opens each tile.
    """
    pair = first
    for number in range(starts.shape[0]):
        while pair < last and out_rows[pair] < number * tile:
            pair += 1
        starts[number] = pair


@Kernel
def ascends(rows: Array, first: int, last: int) -> bool:
    """Return whether ``rows[first:last]`` ascend."""
    for entry in range(first + 1, last):
        if rows[entry] < rows[entry - 1]:
            return False
    return True


@Kernel
def scatter_tile(
    features: Array,
    weight: Array,
    in_rows: Array,
    out_rows: Array,
    starts: Array,
    tile: int,
    number: int,
    out: Array,
) -> None:
    """Compute output rows ``number * tile`` to ``(number + 1) * tile``.

    Args:
        features: ``[n_in, G * c_in]``.
        weight: ``[K, G, c_in, c_out]``.
        in_rows, out_rows: ``[P]``.
        starts: ``[K, T + 1]`` pairs that open each tile, per cell.
        tile, number: rows per tile, and which tile.
        out: ``[n_out, G * c_out]``, written here for the rows of the tile.
    """
    cells, groups, c_in, c_out = weight.shape
    out[number * tile : min((number + 1) * tile, out.shape[0])] = 0
    for cell in range(cells):
        for pair in range(starts[cell, number], starts[cell, number + 1]):
            source = features[in_rows[pair]]
            target = out[out_rows[pair]]
            for group in range(groups):
                for channel in range(c_in):
                    value = source[group * c_in + channel]
                    for column in range(c_out):
                        target[group * c_out + column] += (
                            value * weight[cell, group, channel, column]
                        )


@Kernel
def reduce_block(
    features: Array,
    grad: Array,
    in_rows: Array,
    out_rows: Array,
    first: int,
    last: int,
    weight: Array,
) -> None:
    """Add ``features[i]^T grad[o]`` of the pairs ``first`` to ``last`` into ``[G, c_in, c_out]``."""
    groups, c_in, c_out = weight.shape
    weight[:] = 0
    for pair in range(first, last):
        source = features[in_rows[pair]]
        target = grad[out_rows[pair]]
        for group in range(groups):
            for channel in range(c_in):
                value = source[group * c_in + channel]
                for column in range(c_out):
                    weight[group, channel, column] += value * target[group * c_out + column]


@Kernel
def segment_sums(
    values: Array, order: Array, starts: Array, first: int, last: int, out: Array
) -> None:
    """Write the sums of segments ``first`` to ``last`` to ``out`` ``[S, C]``."""
    for segment in range(first, last):
        out[segment] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = order[entry]
            for column in range(values.shape[1]):
                out[segment, column] += values[row, column]


@Kernel
def segment_argmaxes(
    values: Array, order: Array, starts: Array, first: int, last: int, out: Array
) -> None:
    """Write the row of the first largest value of segments ``first`` to ``last`` to ``out``."""
    for segment in range(first, last):
        for column in range(values.shape[1]):
            best = order[starts[segment]]
            for entry in range(starts[segment] + 1, starts[segment + 1]):
                if values[order[entry], column] > values[best, column]:
                    best = order[entry]
            out[segment, column] = best

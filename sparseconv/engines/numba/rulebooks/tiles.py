"""The order in which products and windows walk the pairs of a rulebook, kept on the rulebook.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.keys.kernels import ascends, invert, take
from sparseconv.engines.numba.keys.sort import sort_parts
from sparseconv.engines.numba.machine.arrays import by_chunks
from sparseconv.engines.numba.machine.compile import ParallelKernel

TILE_ROWS = 128  # places of a tile
SPAN_TILES = 4  # tiles that are taken together where there are enough of them
PREFETCH_PAIRS = 32  # pairs by which a window's rows are fetched into the cache before their use
ORDER = "numba order"  # under which a rulebook keeps the row at each place of its output


class TiledPairs(NamedTuple):
    """Pairs in ascending order of their output places, and where each tile of places begins.

    A place is a row, or where the sites are in no order, the place that the row would have in that
    of their keys: so a tile's rows are near each other in space, and share the rows that they read.

    Attributes:
        in_rows, out_rows, out_places: int32 ``[P]``.
        starts: int64 ``[K, T + 1]``, the pair that opens each tile, per cell.
        order: int64 ``[n_out]``, the row at each place; without entries where that is the place.
        single: whether no row of the output has more than one pair.
        unreached: int64, ascending: the rows of the output without a pair, where ``single``.
    """

    in_rows: Array
    out_rows: Array
    out_places: Array
    starts: Array
    order: Array
    single: bool
    unreached: Array


class WindowRows(NamedTuple):
    """The pairs of a rulebook, those of one output row side by side in the order of their cells.

    Output rows stand at the places of :class:`TiledPairs`.

    Attributes:
        rows: int32 ``[P + PREFETCH_PAIRS]``, the input row of each pair, and zeros behind them.
        cells: int32 ``[P]``, the kernel cell of each.
        starts: int64 ``[n_out + 1]``, where the pairs of each place begin.
        order: int64 ``[n_out]``, the row at each place; without entries where that is the place.
    """

    rows: Array
    cells: Array
    starts: Array
    order: Array


def tiled_pairs(rulebook: Rulebook) -> TiledPairs:
    """Return the pairs in tile order: derived once per direction and kept on the rulebook."""
    layout: TiledPairs | None = rulebook.layouts.get("numba")
    if layout is None:
        layout = rulebook.layouts["numba"] = _tile(rulebook)
    return layout


def window_rows(rulebook: Rulebook) -> WindowRows:
    """Return the pairs by output place: derived once per direction and kept on the rulebook."""
    layout: WindowRows | None = rulebook.layouts.get("numba windows")
    if layout is None:
        tiled, pairs = tiled_pairs(rulebook), rulebook.num_pairs
        rows = empty_array(pairs + PREFETCH_PAIRS, np.int32)
        rows[pairs:] = 0
        cells, starts = empty_array(pairs, np.int32), np.zeros(rulebook.n_out + 1, np.int64)
        layout = WindowRows(rows, cells, starts, tiled.order)
        order_tiles.run(tiled.starts.shape[1] - 1, 1, tiled, layout)
        rulebook.layouts["numba windows"] = layout
    return layout


def _tile(rulebook: Rulebook) -> TiledPairs:
    in_rows, out_rows = rulebook.in_rows.numpy(), rulebook.out_rows.numpy()
    ranges = list(itertools.pairwise(rulebook.splits))
    order = rulebook.layouts.get(ORDER)
    if order is None:  # not of this engine's ``build_rulebook``
        order = np.empty(0, np.int64)
        if not all(ascends(out_rows, start, end) for start, end in ranges):
            in_rows, out_rows = _by_output(in_rows, out_rows, ranges)
    places = _places(out_rows, order) if order.size else out_rows
    tiles = -(-rulebook.n_out // TILE_ROWS)
    starts = np.empty((len(ranges), tiles + 1), np.int64)
    cells = np.array(ranges, np.int64).reshape(-1, 2)
    tile_starts.run(len(ranges), 1, places, cells, starts)
    single, unreached = _unreached(out_rows, rulebook.n_out)
    return TiledPairs(in_rows, out_rows, places, starts, order, single, unreached)


def _unreached(rows: Array, count: int) -> tuple[bool, Array]:
    """Return whether no row occurs twice in ``rows``, and then which of ``count`` do not occur."""
    if rows.size <= count:
        reached = np.zeros(count, bool)
        reached[rows] = True
        missing = np.flatnonzero(~reached)
        if missing.size == count - rows.size:
            return True, missing
    return False, np.empty(0, np.int64)


def _places(rows: Array, order: Array) -> Array:
    """Return the place of each row in ``order``."""
    inverse, places = empty_array(order.size, np.int32), empty_array(rows.size, np.int32)
    by_chunks(invert, order.size, order, inverse)
    by_chunks(take, rows.size, inverse, rows, places)
    return places


def _by_output(
    in_rows: Array, out_rows: Array, ranges: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """Return the pairs of each cell in ascending order of their output rows."""
    pairs = out_rows.astype(np.int64) << 32 | in_rows
    bits = 32 + (int(out_rows.max()) if len(out_rows) else 0).bit_length()
    sort_parts(pairs, np.array(ranges, np.int64), 32, bits)
    return pairs.astype(np.int32), (pairs >> 32).astype(np.int32)


@ParallelKernel
def tile_starts(begin: int, stop: int, out_places: Array, ranges: Array, starts: Array) -> None:
    """Write where each tile of output places begins among the pairs of some cells.

    Args:
        begin, stop: cells.
        out_places: int32 ``[P]``, ascending for each cell.
        ranges: ``[K, 2]``, the first pair of each cell and the one behind the last.
        starts: ``[K, T + 1]``, written here: the pair that opens each tile.
    """
    for cell in range(begin, stop):
        pair, last = ranges[cell]
        for number in range(starts.shape[1]):
            while pair < last and out_places[pair] < number * TILE_ROWS:
                pair += 1
            starts[cell, number] = pair


@ParallelKernel
def order_tiles(first: int, last: int, tiled: TiledPairs, windows: WindowRows) -> None:
    """Write the rows, cells and starts of the window rows that belong to some tiles.

    Args:
        first, last: tiles.
        tiled: the pairs.
        windows: written here.
    """
    starts = tiled.starts
    for tile in range(first, last):
        begin = tile * TILE_ROWS
        end = min(begin + TILE_ROWS, windows.starts.shape[0] - 1)
        entry = np.zeros(end - begin + 1, np.int64)  # where the next pair of each place belongs
        for cell in range(starts.shape[0]):
            entry[0] += starts[cell, tile] - starts[cell, 0]
            for pair in range(starts[cell, tile], starts[cell, tile + 1]):
                entry[tiled.out_places[pair] - begin + 1] += 1
        for row in range(end - begin):
            entry[row + 1] += entry[row]
            windows.starts[begin + row] = entry[row]
        windows.starts[end] = entry[end - begin]  # the next tile writes the same
        for cell in range(starts.shape[0]):
            for pair in range(starts[cell, tile], starts[cell, tile + 1]):
                row = tiled.out_places[pair] - begin
                windows.rows[entry[row]] = tiled.in_rows[pair]
                windows.cells[entry[row]] = cell
                entry[row] += 1

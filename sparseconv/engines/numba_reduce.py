"""Sums over tiles of pairs, in parts that are added in a fixed order: weight gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sparseconv.engines.numba_arrays import LEAST_VALUES, by_shares, ranges
from sparseconv.engines.numba_rulebook import TiledPairs, tiled_pairs
from sparseconv.engines.numba_threads import in_parallel
from sparseconv.memory import empty_array
from sparseconv.rulebook import Rulebook

Array = np.ndarray[Any, Any]

REDUCE_PARTS = 16  # parts of the tiles whose weight gradients are summed apart
REDUCE_TASKS = 32  # tasks where there are fewer parts, so that none waits long for the last
REDUCE_TILES = 8  # tiles that a partial sum covers at least
REDUCE_BYTES = 2**26  # most memory for partial sums


def reduced(
    run: Callable[[tuple[Array, ...], Array, Array, Array], None],
    rulebook: Rulebook,
    shape: tuple[int, ...],
    dtype: Any,
) -> Array:
    """Return ``[K, *shape]``: what ``run`` sums over some tiles and cells, added up in order.

    Args:
        run: called with the input rows, output rows and tile starts of the pairs, ``[2]`` tiles and
            ``[2]`` cells, and the array ``[cells, *shape]`` that the sums are written to.
        rulebook, shape, dtype: of the sums.
    """
    tiled = tiled_pairs(rulebook)
    shape = (rulebook.num_cells, *shape)
    parts, cell_groups = _reduce_tasks(tiled, math.prod(shape) * dtype.itemsize)
    partial = empty_array((len(parts), *shape), dtype)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts

    def task(number: int) -> None:
        part, cells = divmod(number, len(cell_groups))
        first, last = cell_groups[cells]
        run(pairs, parts[part], cell_groups[cells], partial[part, first:last])

    in_parallel(task, len(parts) * len(cell_groups))
    sums = partial.reshape(len(parts), -1)
    total = empty_array(sums.shape[1], dtype)

    def add(first: int, last: int) -> None:
        total[first:last] = 0
        for part in sums:
            total[first:last] += part[first:last]

    by_shares(total.size, add, LEAST_VALUES // max(len(parts), 1))
    return total.reshape(shape)


def _reduce_tasks(tiled: TiledPairs, size: int) -> tuple[Array, Array]:
    """Return the ranges of tiles and of cells that a weight gradient is summed over apart.

    They depend on the shapes alone, never on the number of threads, and so does the order of
    additions. Few rows are split by cell, many by tile; partial sums take ``REDUCE_BYTES`` at most.
    """
    cells, tiles = tiled.starts.shape[0], tiled.starts.shape[1] - 1
    parts = max(1, min(REDUCE_PARTS, tiles // REDUCE_TILES, REDUCE_BYTES // size))
    groups = min(cells, -(-REDUCE_TASKS // parts)) if parts < REDUCE_PARTS else 1
    return ranges(tiles, parts), ranges(cells, groups)

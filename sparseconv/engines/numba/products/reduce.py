"""Sums over tiles of pairs, in parts that are added in a fixed order: weight gradients."""

from __future__ import annotations

import math
from typing import Any

import torch

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty_array
from sparseconv.engines.numba.machine.arrays import LEAST_VALUES, by_shares, ranges
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.rulebooks.build import SPAN, TiledPairs, tiled_pairs

REDUCE_PARTS = 16  # parts of the lots whose weight gradients are summed apart
REDUCE_TASKS = 32  # tasks where there are fewer parts, so that none waits long for the last
REDUCE_TILES = 8  # lots of SPAN tiles that a partial sum covers at least
TASKS = 4  # of each thread at least
REDUCE_BYTES = 2**26  # most memory for partial sums


@Loop
def _add_parts(first: int, last: int, parts: Array, total: Array) -> None:
    """Write the sums of columns ``first`` to ``last`` of ``parts`` ``[P, n]``, row after row."""
    own = total[first:last]
    own[:] = 0
    for part in range(parts.shape[0]):
        more = parts[part, first:last]
        for place in range(len(own)):
            own[place] += more[place]


def reduced(
    loop: Loop,
    x: Array,
    grad: Array,
    rulebook: Rulebook,
    shape: tuple[int, ...],
    dtype: Any,
) -> Array:
    """Return ``[K, *shape]``: what a loop sums over some tiles and cells, added up in order.

    Args:
        loop: runs over tasks; behind ``x`` and ``grad`` it takes the input rows, output rows and
            tile starts of the pairs, how many tiles are taken together, such lots of the parts, the
            cells of the groups, and the array ``[parts, K, *shape]`` that the sums are written to.
        x, grad: the rows on both sides.
        rulebook, shape, dtype: of the sums.
    """
    tiled = tiled_pairs(rulebook)
    shape = (rulebook.num_cells, *shape)
    parts, cell_groups = _reduce_tasks(tiled, math.prod(shape) * dtype.itemsize)
    partial = empty_array((len(parts), *shape), dtype)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    loop.run(len(parts) * len(cell_groups), 1, x, grad, *pairs, SPAN, parts, cell_groups, partial)
    sums = partial.reshape(len(parts), -1)
    total = empty_array(sums.shape[1], dtype)
    by_shares(_add_parts, total.size, LEAST_VALUES // max(len(parts), 1), sums, total)
    return total.reshape(shape)


def _reduce_tasks(tiled: TiledPairs, size: int) -> tuple[Array, Array]:
    """Return the ranges of tiles and of cells that a weight gradient is summed over apart.

    The former depend on the shapes alone, never on the number of threads, and so does the order of
    additions; the latter never meet in a sum. Few rows are split by cell, many by tile; partial
    sums take ``REDUCE_BYTES`` at most.
    """
    cells, tiles = tiled.starts.shape[0], -(-(tiled.starts.shape[1] - 1) // SPAN)
    parts = max(1, min(REDUCE_PARTS, tiles // REDUCE_TILES, REDUCE_BYTES // size))
    tasks = max(REDUCE_TASKS if parts < REDUCE_PARTS else 1, TASKS * torch.get_num_threads())
    return ranges(tiles, parts), ranges(cells, min(cells, -(-tasks // parts)))

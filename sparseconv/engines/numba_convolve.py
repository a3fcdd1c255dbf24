"""The products of the Numba engine: convolution and weight gradient, by tiles of output rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_products as products
from sparseconv.engines.numba_arrays import array, columns_of, ranges
from sparseconv.engines.numba_compile import in_parallel
from sparseconv.engines.numba_rulebook import TILE_ROWS, TiledPairs, tiled_pairs
from sparseconv.rulebook import Rulebook

Array = np.ndarray[Any, Any]

REDUCE_TASKS = 16  # tasks that a weight gradient is split into
REDUCE_TILES = 8  # tiles that a partial sum covers at least
REDUCE_BYTES = 2**26  # most memory for partial sums


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution, tile by tile of output rows."""
    _, groups, c_in, c_out = weight.shape
    x = array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = columns_of(c_out, x.dtype)
    # [K, G, c_in, c_out] -> [K, G, blocks, c_in, block]: a block of columns is one run of memory
    packed = torch.nn.functional.pad(weight.detach(), (0, columns - c_out))
    w = array(packed.unflatten(3, (-1, block)).transpose(2, 3))
    out = np.empty((rulebook.n_out, groups, columns), x.dtype)
    tiled = tiled_pairs(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(
        lambda number: products.scatter_tile(x, w, *pairs, TILE_ROWS, number, out),
        tiled.starts.shape[1] - 1,
    )
    result = torch.from_numpy(out)[:, :, :c_out].reshape(rulebook.n_out, groups * c_out)
    return result.to(features.dtype).contiguous()


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: partial sums over groups of tiles, added in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    x = array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = columns_of(c_out, x.dtype)
    split = grad.detach().reshape(rulebook.n_out, groups, c_out)
    g = array(torch.nn.functional.pad(split, (0, columns - c_out)))
    tiled = tiled_pairs(rulebook)
    shape = (rulebook.num_cells, groups, columns // block, c_in, block)
    parts, cell_groups = _reduce_tasks(tiled, math.prod(shape) * x.itemsize)
    partial = np.empty((len(parts), *shape), x.dtype)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts

    def run(number: int) -> None:
        part, cells = divmod(number, len(cell_groups))
        first, last = cell_groups[cells]
        target = partial[part, first:last]
        products.reduce_tiles(x, g, *pairs, parts[part], cell_groups[cells], target)

    in_parallel(run, len(parts) * len(cell_groups))
    packed = np.zeros(shape, x.dtype)
    for part in partial:
        packed += part
    weight = torch.from_numpy(packed).transpose(2, 3).flatten(3)[..., :c_out]
    return weight.to(features.dtype).contiguous()


def _reduce_tasks(tiled: TiledPairs, size: int) -> tuple[Array, Array]:
    """Return the ranges of tiles and of cells that a weight gradient is summed over apart.

    They depend on the shapes alone, never on the number of threads, and so does the order of
    additions. Few rows are split by cell, many by tile; partial sums take ``REDUCE_BYTES`` at most.
    """
    cells, tiles = tiled.starts.shape[0], tiled.starts.shape[1] - 1
    parts = max(1, min(REDUCE_TASKS, tiles // REDUCE_TILES, REDUCE_BYTES // size))
    groups = min(cells, -(-REDUCE_TASKS // parts))
    return ranges(tiles, parts), ranges(cells, groups)

"""Weights in blocks of columns, and the product by tiles of output rows.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array, wider
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    TASKS_PER_THREAD,
    array,
    by_shares,
    columns_of,
    computed_in,
    contiguous,
    converted,
    copy,
    memory_of,
    padded,
)
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.numba.machine.widths import BFLOAT_DOTS
from sparseconv.engines.numba.products.epilogue import epilogue_arrays
from sparseconv.engines.numba.products.tiles import Cut, scatter_tiles, single_tiles
from sparseconv.engines.numba.rulebooks.tiles import SPAN_TILES, tiled_pairs
from sparseconv.engines.protocol import Epilogue

LARGE_WEIGHT_BYTES = 2**19  # from here on it does not stay in the second-level cache


def by_dots(dtype: torch.dtype) -> bool:
    """Return whether products in ``dtype`` are made of bfloat16 dot products."""
    return dtype == torch.bfloat16 and BFLOAT_DOTS


def blocks_of(weight: Tensor) -> Array:
    """Return ``[K, G, c_in, c_out]`` as ``[K, G, blocks, c_in, BLOCK]``, zeros behind ``c_out``."""
    columns, block = columns_of(weight.shape[3], computed_in(weight.dtype))
    source = memory_of(converted(padded(weight, columns), wider(weight.dtype)))
    return contiguous(
        source.reshape(*source.shape[:3], columns // block, block).transpose(0, 1, 3, 2, 4)
    )


def _pairs_of(bits: Array) -> Array:
    """Return bits of bfloat16 two by two, side by side in the last axis, as uint32."""
    return np.require(bits.view(np.uint32), requirements="A")


@dataclass(frozen=True, eq=False)
class TileWeight:
    """A weight whose columns of a block lie in one run of memory.

    Attributes:
        c_in, c_out: channels of a group.
        blocks: ``[K, G, blocks, c_in, BLOCK]``, or for bfloat16 dot products uint32
            ``[K, G, blocks, c_in / 2, BLOCK]``.
    """

    c_in: int
    c_out: int
    blocks: Array

    @classmethod
    def of(cls, weight: Tensor) -> TileWeight:
        """Return the layout of a weight ``[K, G, c_in, c_out]``."""
        cells, groups, c_in, c_out = weight.shape
        if not by_dots(weight.dtype):
            return cls(c_in, c_out, blocks_of(weight))
        columns, block = columns_of(c_out, np.dtype(np.float32))
        wide = weight.new_zeros(cells, groups, c_in + c_in % 2, columns)
        wide[:, :, :c_in, :c_out] = weight
        steps = wide.reshape(cells, groups, -1, 2, columns // block, block)
        pairs = _pairs_of(bits_or_numbers(steps.permute(0, 1, 4, 2, 5, 3)))
        return cls(c_in, c_out, pairs[..., 0])

    def product(self, features: Tensor, rulebook: Rulebook, epilogue: Epilogue) -> Tensor:
        """Return the product, tile by tile of output rows."""
        _, groups, blocks, _, block = self.blocks.shape
        columns, dots = blocks * block, by_dots(features.dtype)
        shape = rulebook.n_in, groups, self.c_in
        if dots:
            x = padded(features.detach().reshape(shape), self.c_in + self.c_in % 2)
            rows = _pairs_of(bits_or_numbers(x))
        else:
            rows = array(features).reshape(shape)
        dtype = features.dtype if dots else wider(features.dtype)
        result = empty((rulebook.n_out, groups * columns), dtype)
        tiled = tiled_pairs(rulebook)
        ending = epilogue_arrays(epilogue, (groups, self.c_out), columns, dtype)
        tiles = tiled.starts.shape[1] - 1
        cut = _cut(tiles, groups * blocks, self.blocks.nbytes, torch.get_num_threads())
        single = tiled.single and epilogue.factor is None and epilogue.other is None
        loop = single_tiles if single and not dots else scatter_tiles
        target = bits_or_numbers(result) if dots else result.numpy()
        arrays = rows, self.blocks, tiled, cut, ending, target
        by_shares(loop, -(-tiles // cut.span) * cut.parts, 1, *arrays)
        if columns > self.c_out:
            wide = result.view(-1, groups, columns)
            result = empty((rulebook.n_out, groups * self.c_out), dtype)
            copy(wide[:, :, : self.c_out], result.view(-1, groups, self.c_out))
        return converted(result, features.dtype)


@functools.lru_cache(maxsize=256)
def _cut(tiles: int, blocks: int, weight_bytes: int, threads: int) -> Cut:
    """Return how many tiles a task takes, and into how many parts the columns are cut.

    A task with more rows reads each weight less often, so a few columns of many rows are better
    than all columns of a few where the weight is large; a small one stays in the cache anyway.
    """
    tasks = TASKS_PER_THREAD * threads if threads > 1 else 1
    ways = [Cut(span, parts) for parts in (1, blocks) for span in (SPAN_TILES, SPAN_TILES // 2, 1)]
    if weight_bytes > LARGE_WEIGHT_BYTES:
        ways = [Cut(SPAN_TILES, 1), *ways[3:]]
    enough = (way for way in ways if -(-tiles // way.span) * way.parts >= tasks)
    return next(enough, Cut(1, blocks))

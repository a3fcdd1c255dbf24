"""The products of the Numba engine: convolution and weight gradient, by tiles of output rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_bfloat as bfloat
from sparseconv.engines import numba_depthwise as depthwise
from sparseconv.engines import numba_products as products
from sparseconv.engines.numba_arrays import array, columns_of, padded, ranges
from sparseconv.engines.numba_compile import in_parallel
from sparseconv.engines.numba_rulebook import TILE_ROWS, TiledPairs, tiled_pairs
from sparseconv.engines.numba_vectors import BFLOAT_DOTS, VECTOR_BYTES
from sparseconv.rulebook import Rulebook

Array = np.ndarray[Any, Any]

REDUCE_TASKS = 16  # tasks that a weight gradient is split into
REDUCE_TILES = 8  # tiles that a partial sum covers at least
REDUCE_BYTES = 2**26  # most memory for partial sums


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution, tile by tile of output rows."""
    _, groups, c_in, c_out = weight.shape
    if groups > 1 and min(c_in, c_out) == 1:
        return depthwise_product(features, weight, rulebook)
    weight = _joined(weight)
    if features.dtype == torch.bfloat16 and BFLOAT_DOTS:
        return _bfloat_product(features, weight, rulebook)
    _, groups, c_in, c_out = weight.shape
    x = array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = columns_of(c_out, x.dtype)
    # [K, G, c_in, c_out] -> [K, G, blocks, c_in, block]: a block of columns is one run of memory
    w = array(padded(weight, columns).unflatten(3, (-1, block)).transpose(2, 3))
    out = np.empty((rulebook.n_out, groups, columns), x.dtype)
    tiled = tiled_pairs(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(
        lambda number: products.scatter_tile(x, w, *pairs, TILE_ROWS, number, out),
        tiled.starts.shape[1] - 1,
    )
    result = torch.from_numpy(out)[:, :, :c_out].reshape(rulebook.n_out, groups * c_out)
    return result.to(features.dtype).contiguous()


def _joined(weight: Tensor) -> Tensor:
    """Return the weight with groups that are narrower than a vector joined, block-diagonally.

    A narrow group would fill its vector with zeros; so its neighbours' zeros fill it instead, and
    rows of the output need no padding.
    """
    cells, groups, c_in, c_out = weight.shape
    fitting = [
        n for n in range(1, groups + 1) if groups % n == 0 and n * c_out <= VECTOR_BYTES // 4
    ]
    count = max(fitting, default=1)
    if count == 1:
        return weight
    joined = weight.new_zeros(cells, groups // count, count, c_in, count, c_out)
    blocks = weight.detach().unflatten(1, (-1, count))
    for number in range(count):
        joined[:, :, number, :, number] = blocks[:, :, number]
    return joined.flatten(4).flatten(2, 3)


def _bfloat_product(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution of bfloat16 numbers, summed in float32."""
    cells, groups, c_in, c_out = weight.shape
    even = c_in + c_in % 2
    columns, block = columns_of(c_out, np.dtype(np.float32))
    x = padded(features.detach().reshape(rulebook.n_in, groups, c_in), even).contiguous()
    w = weight.detach().new_zeros(cells, groups, even, columns)
    w[:, :, :c_in, :c_out] = weight.detach()
    # [K, G, even / 2, 2, blocks, block] -> [K, G, blocks, even / 2, block, 2]
    w = w.reshape(cells, groups, even // 2, 2, -1, block).permute(0, 1, 4, 2, 5, 3).contiguous()
    out = torch.empty(rulebook.n_out, groups * columns, dtype=torch.bfloat16)
    bits = [t.view(torch.uint16).numpy() for t in (x, w, out)]
    tiled = tiled_pairs(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(
        lambda number: bfloat.bfloat_tile(*bits[:2], *pairs, TILE_ROWS, number, bits[2]),
        tiled.starts.shape[1] - 1,
    )
    result: Tensor = out.unflatten(1, (groups, columns))[:, :, :c_out]
    return result.reshape(rulebook.n_out, groups * c_out)


def _repeated(x: Tensor, times: int) -> Tensor:
    """Return ``x`` with each channel so many times over, side by side."""
    return x.detach().repeat_interleave(times, dim=1) if times > 1 else x.detach()


def depthwise_product(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the product of groups with one channel on one side: channel by channel.

    Args:
        features, weight, rulebook: as of :func:`gather_gemm_scatter`; groups of one channel in, or
            one out.
    """
    cells, groups, c_in, c_out = weight.shape
    channels = groups * max(c_in, c_out)
    lanes = columns_of(channels, array(features[:0]).dtype)[0]
    x = array(padded(_repeated(features, c_out), lanes))
    w = array(padded(weight.detach().reshape(cells, channels), lanes))
    out = np.empty((rulebook.n_out, lanes), x.dtype)
    tiled = tiled_pairs(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(
        lambda number: depthwise.scale_tile(x, w, *pairs, TILE_ROWS, number, out),
        tiled.starts.shape[1] - 1,
    )
    result: Tensor = torch.from_numpy(out)[:, :channels]
    if c_in > 1:
        parts: tuple[Tensor, ...] = result.unflatten(1, (groups, c_in)).unbind(2)
        result = functools.reduce(torch.add, parts)
    return result.to(features.dtype).contiguous()


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: partial sums over groups of tiles, added in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    if groups > 1 and min(c_in, c_out) == 1:
        return _depthwise_reduce(features, grad, rulebook, groups)
    x = array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = columns_of(c_out, x.dtype)
    g = array(padded(grad.detach().reshape(rulebook.n_out, groups, c_out), columns))
    shape = (groups, columns // block, c_in, block)

    def run(pairs: tuple[Array, ...], tiles: Array, cells: Array, target: Array) -> None:
        products.reduce_tiles(x, g, *pairs, tiles, cells, target)

    packed = _reduced(run, rulebook, shape, x.dtype)
    weight = torch.from_numpy(packed).transpose(2, 3).flatten(3)[..., :c_out]
    return weight.to(features.dtype).contiguous()


def _depthwise_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient of groups with one channel on one side."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    channels = groups * max(c_in, c_out)
    lanes = columns_of(channels, array(features[:0]).dtype)[0]
    x = array(padded(_repeated(features, c_out), lanes))
    g = array(padded(_repeated(grad, c_in), lanes))

    def run(pairs: tuple[Array, ...], tiles: Array, cells: Array, target: Array) -> None:
        depthwise.dot_tiles(x, g, *pairs, tiles, cells, target)

    weight = torch.from_numpy(_reduced(run, rulebook, (lanes,), x.dtype))[:, :channels]
    return weight.reshape(-1, groups, c_in, c_out).to(features.dtype).contiguous()


def _reduced(
    run: Callable[[tuple[Array, ...], Array, Array, Array], None],
    rulebook: Rulebook,
    shape: tuple[int, ...],
    dtype: Any,
) -> Array:
    """Return ``[K, *shape]``: what ``run`` sums over some tiles and cells, added up in order."""
    tiled = tiled_pairs(rulebook)
    shape = (rulebook.num_cells, *shape)
    parts, cell_groups = _reduce_tasks(tiled, math.prod(shape) * dtype.itemsize)
    partial = np.empty((len(parts), *shape), dtype)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts

    def task(number: int) -> None:
        part, cells = divmod(number, len(cell_groups))
        first, last = cell_groups[cells]
        run(pairs, parts[part], cell_groups[cells], partial[part, first:last])

    in_parallel(task, len(parts) * len(cell_groups))
    total = np.zeros(shape, dtype)
    for part in partial:
        total += part
    return total


def _reduce_tasks(tiled: TiledPairs, size: int) -> tuple[Array, Array]:
    """Return the ranges of tiles and of cells that a weight gradient is summed over apart.

    They depend on the shapes alone, never on the number of threads, and so does the order of
    additions. Few rows are split by cell, many by tile; partial sums take ``REDUCE_BYTES`` at most.
    """
    cells, tiles = tiled.starts.shape[0], tiled.starts.shape[1] - 1
    parts = max(1, min(REDUCE_TASKS, tiles // REDUCE_TILES, REDUCE_BYTES // size))
    groups = min(cells, -(-REDUCE_TASKS // parts))
    return ranges(tiles, parts), ranges(cells, groups)

"""The deformable product of the Numba engine: columns are interpolated tile by tile, in the cache.

Forward, a task owns a tile of output rows: for each kernel cell it interpolates the tile's rows
into a scratch column and multiplies that with the cell's weight. Backward, a task owns a block of
input channels of some samples, and nobody else writes what it adds up: the gradients of those
channels, a partial gradient of the shares, rows of the weight gradient. So nothing needs an atomic
addition, and what is added in which order depends on shapes alone.

Benchmark: deform 1x64x128x128, k=3, 64 output channels, v2, float32
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES
from sparseconv.engines.numba.products.gradient import outer_add
from sparseconv.engines.numba.products.multiply import multiply_add


class Samples(NamedTuple):
    """What a deformable product reads of its input.

    Attributes:
        features: ``[n_in, G * c_in]``.
        shares, rows: ``[H, K, Q, n_out]``; a negative row is absent.
        lines: int32 ``[tile]``, 0, 1, 2, ...
    """

    features: Array
    shares: Array
    rows: Array
    lines: Array


class SampleTasks(NamedTuple):
    """The tasks of the gradients: each takes a range of output rows and a block of channels.

    Attributes:
        samples: ``[P, 2]``, the first output row of a range and the one behind the last.
        blocks: ``[Q, 3]``, a block's group, its number in the group, and its first partial share.
    """

    samples: Array
    blocks: Array


class SampleGradients(NamedTuple):
    """What the gradients are added to.

    Attributes:
        features: ``[n_in, G * c_in]``.
        shares: ``[parts, K, Q, n_out]``: a part for each of the offset groups that a block's
            channels lie in.
        weight: ``[P, K, G, blocks_out, c_in, BLOCK_OUT]``.
    """

    features: Array
    shares: Array
    weight: Array


# "reassoc" lets a dot product be summed in lanes: the same ones at every call
@numba.njit(nogil=True, fastmath={"contract", "reassoc", "nsz"}, boundscheck=False)
def _dot(left: Array, right: Array) -> Any:
    total = left.dtype.type(0)
    for channel in range(left.shape[0]):
        total += left[channel] * right[channel]
    return total


@numba.njit(nogil=True, fastmath={"contract"}, boundscheck=False)
def _add(target: Array, source: Array, share: float) -> None:
    for channel in range(target.shape[0]):
        target[channel] += share * source[channel]


@ParallelKernel
def sample_tiles(
    begin_tile: int, end_tile: int, source: Samples, weight: Array, out: Array
) -> None:
    """Compute some tiles of output rows.

    Args:
        begin_tile, end_tile: the first of them, and the one behind the last.
        source: what is read.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        out: ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tiles.
    """
    features, shares, rows, lines = source
    cells, groups, blocks, c_in, width = weight.shape
    offset_groups, _, corners, n_out = rows.shape
    channels = features.shape[1] // offset_groups
    column = np.empty((lines.shape[0], features.shape[1]), features.dtype)
    size, vectors = features.itemsize, width * features.itemsize // VECTOR_BYTES
    line = lines.ctypes.data
    for number in range(begin_tile, end_tile):
        first = number * lines.shape[0]
        count = min(lines.shape[0], n_out - first)
        out[first : first + count] = 0
        for cell in range(cells):
            column[:] = 0
            for group in range(offset_groups):
                start, end = group * channels, (group + 1) * channels
                for entry in range(count):
                    target = column[entry, start:end]
                    for corner in range(corners):
                        row = rows[group, cell, corner, first + entry]
                        if row >= 0:
                            share = shares[group, cell, corner, first + entry]
                            _add(target, features[row, start:end], share)
            for group in range(groups):
                x = column.ctypes.data + group * c_in * size, column.strides[0], line
                for block in range(blocks):
                    y = out[first, group, block * width :].ctypes.data, out.strides[0], line
                    w = weight[cell, group, block].ctypes.data, c_in
                    multiply_add(features, vectors, x, y, w, (0, count))


@ParallelKernel
def sample_gradients(
    begin: int,
    stop: int,
    source: Samples,
    weight: Array,
    grad: Array,
    tasks: SampleTasks,
    gradients: SampleGradients,
) -> None:
    """Add up gradients of blocks of input channels, each over a range of output rows.

    Args:
        begin, stop: tasks.
        source: what is read.
        weight: ``[K, G, blocks_in, c_out, BLOCK]``: columns are input channels.
        grad: ``[n_out, G, blocks_out * BLOCK_OUT]``, zero behind its ``c_out`` columns.
        tasks: which rows and channels each takes.
        gradients: added to here.
    """
    features, shares, rows, lines = source
    d_features, d_shares, d_weight = gradients
    cells, _, _, c_out, block = weight.shape
    _, _, _, blocks_out, c_in, width = d_weight.shape
    offset_groups, _, corners, _ = rows.shape
    channels = features.shape[1] // offset_groups
    column = np.empty((lines.shape[0], block), features.dtype)
    back = np.empty((lines.shape[0], block), features.dtype)
    size, line = features.itemsize, lines.ctypes.data
    vectors, out_vectors = block * size // VECTOR_BYTES, width * size // VECTOR_BYTES
    columns = column.ctypes.data, column.strides[0], line
    backs = back.ctypes.data, back.strides[0], line
    for task in range(begin, stop):
        part, number = task // len(tasks.blocks), task % len(tasks.blocks)
        bounds, sums = tasks.samples[part], d_weight[part]
        group, number, first_share = tasks.blocks[number]
        low, high = group * c_in + number * block, group * c_in + min((number + 1) * block, c_in)
        for first in range(bounds[0], bounds[1], lines.shape[0]):
            count = min(lines.shape[0], bounds[1] - first)
            for cell in range(cells):
                back[:] = 0
                column[:] = 0
                g = grad[first, group].ctypes.data, grad.strides[0], line
                w = weight[cell, group, number].ctypes.data, c_out
                multiply_add(features, vectors, g, backs, w, (0, count))
                for offset_group in range(low // channels, (high - 1) // channels + 1):
                    start = max(low, offset_group * channels)
                    end = min(high, (offset_group + 1) * channels)
                    share_part = first_share + offset_group - low // channels
                    for entry in range(count):
                        target = column[entry, start - low : end - low]
                        returned = back[entry, start - low : end - low]
                        for corner in range(corners):
                            row = rows[offset_group, cell, corner, first + entry]
                            if row < 0:
                                d_shares[share_part, cell, corner, first + entry] = 0
                                continue
                            share = shares[offset_group, cell, corner, first + entry]
                            values = features[row, start:end]
                            product = _dot(values, returned)
                            d_shares[share_part, cell, corner, first + entry] = product
                            _add(target, values, share)
                            _add(d_features[row, start:end], returned, share)
                for other in range(blocks_out):
                    g = grad[first, group, other * width :].ctypes.data, grad.strides[0], line
                    w = sums[cell, group, other, low - group * c_in].ctypes.data, high - low
                    outer_add(features, out_vectors, columns, g, w, (0, count))

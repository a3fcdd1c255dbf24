"""The deformable product of the Numba engine: columns are interpolated tile by tile, in the cache.

Forward, a task owns a tile of output rows: for each kernel cell it interpolates the tile's rows
into a scratch column and multiplies that with the cell's weight. Backward, a task owns a block of
input channels of some samples, and nobody else writes what it adds up: the gradients of those
channels, a partial gradient of the shares, rows of the weight gradient. So nothing needs an atomic
addition, and what is added in which order depends on shapes alone.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import Loop
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES
from sparseconv.engines.numba.products.outer import outer_one, outer_two
from sparseconv.engines.numba.products.tiles import multiply_one, multiply_two


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


@Loop
def sample_tiles(
    begin_tile: int,
    end_tile: int,
    features: Array,
    shares: Array,
    rows: Array,
    weight: Array,
    lines: Array,
    out: Array,
) -> None:
    """Compute some tiles of output rows.

    Args:
        begin_tile, end_tile: the first of them, and the one behind the last.
        features: ``[n_in, G * c_in]``.
        shares, rows: ``[H, K, Q, n_out]``; a negative row is absent.
        weight: ``[K, G, blocks, c_in, BLOCK]``, BLOCK one or two vectors of columns.
        lines: int32 ``[tile]``, 0, 1, 2, ...
        out: ``[n_out, G, blocks * BLOCK]``, written here for the rows of the tiles.
    """
    cells, groups, blocks, c_in, width = weight.shape
    offset_groups, _, corners, n_out = rows.shape
    channels = features.shape[1] // offset_groups
    column = np.empty((lines.shape[0], features.shape[1]), features.dtype)
    for number in range(begin_tile, end_tile):
        first = number * lines.shape[0]
        count = min(lines.shape[0], n_out - first)
        out[first : first + count] = 0
        size, line = features.itemsize, lines.ctypes.data
        for cell in range(cells):
            column[:] = 0
            for group in range(offset_groups):
                start, end = group * channels, (group + 1) * channels
                for place in range(count):
                    target = column[place, start:end]
                    for corner in range(corners):
                        row = rows[group, cell, corner, first + place]
                        if row >= 0:
                            share = shares[group, cell, corner, first + place]
                            _add(target, features[row, start:end], share)
            for group in range(groups):
                x, xs = column.ctypes.data + group * c_in * size, column.strides[0]
                for block in range(blocks):
                    y, ys = out[first, group, block * width :].ctypes.data, out.strides[0]
                    w = weight[cell, group, block].ctypes.data
                    if width * size == VECTOR_BYTES:
                        multiply_one(features, x, xs, line, y, ys, line, w, c_in, 0, count)
                    else:
                        multiply_two(features, x, xs, line, y, ys, line, w, c_in, 0, count)


@Loop
def sample_gradients(
    begin: int,
    stop: int,
    features: Array,
    shares: Array,
    rows: Array,
    weight: Array,
    grad: Array,
    lines: Array,
    samples: Array,
    places: Array,
    d_features: Array,
    d_shares: Array,
    d_weight: Array,
) -> None:
    """Add up gradients of blocks of input channels, each over a range of output rows.

    Args:
        begin, stop: tasks; each takes a range of rows and a block.
        features: ``[n_in, G * c_in]``.
        shares, rows: ``[H, K, Q, n_out]``; a negative row is absent.
        weight: ``[K, G, blocks_in, c_out, BLOCK]``: columns are input channels.
        grad: ``[n_out, G, blocks_out * BLOCK_OUT]``, zero behind its ``c_out`` columns.
        lines: int32 ``[tile]``, 0, 1, 2, ...
        samples: ``[P, 2]``, the first output row of a range and the one behind the last.
        places: ``[Q, 3]``, a block's group, its number in the group, and its first partial share.
        d_features: ``[n_in, G * c_in]``, the block's channels added to here.
        d_shares: ``[parts, K, Q, n_out]``, written here: a part for each of the offset groups
            that the block's channels lie in.
        d_weight: ``[P, K, G, blocks_out, c_in, BLOCK_OUT]``, the block's channels added to here.
    """
    cells, _, _, c_out, block = weight.shape
    _, _, _, blocks_out, c_in, width = d_weight.shape
    offset_groups, _, corners, _ = rows.shape
    channels = features.shape[1] // offset_groups
    column = np.empty((lines.shape[0], block), features.dtype)
    back = np.empty((lines.shape[0], block), features.dtype)
    like, size, line = features, features.itemsize, lines.ctypes.data
    gs, cs, ws = grad.strides[0], column.strides[0], width * size
    for task in range(begin, stop):
        bounds, sums = samples[task // len(places)], d_weight[task // len(places)]
        group, number, part = places[task % len(places)]
        low, high = group * c_in + number * block, group * c_in + min((number + 1) * block, c_in)
        for first in range(bounds[0], bounds[1], lines.shape[0]):
            count = min(lines.shape[0], bounds[1] - first)
            for cell in range(cells):
                back[:] = 0
                column[:] = 0
                g, b, c = grad[first, group].ctypes.data, back.ctypes.data, column.ctypes.data
                w = weight[cell, group, number].ctypes.data
                if block * size == VECTOR_BYTES:
                    multiply_one(like, g, gs, line, b, cs, line, w, c_out, 0, count)
                else:
                    multiply_two(like, g, gs, line, b, cs, line, w, c_out, 0, count)
                for offset_group in range(low // channels, (high - 1) // channels + 1):
                    start = max(low, offset_group * channels)
                    end = min(high, (offset_group + 1) * channels)
                    own = part + offset_group - low // channels
                    for entry in range(count):
                        target = column[entry, start - low : end - low]
                        returned = back[entry, start - low : end - low]
                        for corner in range(corners):
                            row = rows[offset_group, cell, corner, first + entry]
                            if row < 0:
                                d_shares[own, cell, corner, first + entry] = 0
                                continue
                            share = shares[offset_group, cell, corner, first + entry]
                            source = features[row, start:end]
                            d_shares[own, cell, corner, first + entry] = _dot(source, returned)
                            _add(target, source, share)
                            _add(d_features[row, start:end], returned, share)
                for other in range(blocks_out):
                    g = grad[first, group, other * width :].ctypes.data
                    w = sums[cell, group, other, low - group * c_in].ctypes.data
                    if width * size == VECTOR_BYTES:
                        outer_one(like, c, cs, line, g, gs, line, w, ws, high - low, 0, count)
                    else:
                        outer_two(like, c, cs, line, g, gs, line, w, ws, high - low, 0, count)

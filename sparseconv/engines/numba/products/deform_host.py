"""The deformable product of the Numba engine and its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Taps
from sparseconv.engines.numba.machine.arrays import array, columns_of, padded, ranges
from sparseconv.engines.numba.products import deform
from sparseconv.engines.numba.products.reduce import REDUCE_BYTES, REDUCE_PARTS

SAMPLE_ROWS = 128  # output rows of a deformable tile: its interpolated column stays in the cache


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product, tile by tile of output rows."""
    _, groups, _, c_out = weight.shape
    x = array(features)
    w, columns = _blocks(weight, x.dtype)
    memory = np.empty((shares.shape[3], groups * columns), x.dtype)
    out = memory.reshape(-1, groups, columns)
    lines = np.arange(SAMPLE_ROWS, dtype=np.int32)
    s, rows = array(shares).astype(x.dtype, copy=False), taps.rows.numpy()
    deform.sample_tiles.run(-(-out.shape[0] // SAMPLE_ROWS), 1, x, s, rows, w, lines, out)
    result = torch.from_numpy(memory)
    if columns > c_out:
        result = result.new_empty(out.shape[0], groups * c_out)
        result.view(-1, groups, c_out).copy_(torch.from_numpy(out)[:, :, :c_out])
    return result.to(features.dtype)


def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the deformable product: tasks of samples and input channels."""
    cells, groups, c_in, c_out = weight.shape
    x = array(features)
    s, rows = array(shares).astype(x.dtype, copy=False), taps.rows.numpy()
    w, _ = _blocks(weight.transpose(2, 3), x.dtype)
    columns, block_out = columns_of(c_out, x.dtype)
    split = grad.detach().reshape(-1, groups, c_out)
    g = array(padded(split, columns))
    places, owners = _channel_blocks(groups, c_in, w.shape[4], rows.shape[0])
    shape = (cells, groups, columns // block_out, c_in, block_out)
    samples = _sampleranges(taps, math.prod(shape) * x.itemsize)
    lines = np.arange(SAMPLE_ROWS, dtype=np.int32)
    d_x = np.zeros_like(x)
    partial = np.zeros((len(owners), *rows.shape[1:]), x.dtype)
    d_w = np.zeros((len(samples), *shape), x.dtype)
    tasks = len(samples) * len(places)
    given = x, s, rows, w, g, lines, samples, places
    deform.sample_gradients.run(tasks, 1, *given, d_x, partial, d_w)
    d_s = np.zeros(rows.shape, x.dtype)
    for own, owner in zip(partial, owners, strict=True):
        d_s[owner] += own
    total = np.zeros(shape, x.dtype)
    for own in d_w:
        total += own
    d_weight = torch.from_numpy(total).transpose(2, 3).flatten(3)[..., :c_out].contiguous()
    return (
        torch.from_numpy(d_x).to(features.dtype),
        torch.from_numpy(d_s).to(shares.dtype),
        d_weight.to(weight.dtype),
    )


def _blocks(weight: Tensor, dtype: Any) -> tuple[Array, int]:
    """Return ``[K, G, c_in, c_out]`` as ``[K, G, blocks, c_in, BLOCK]``, and all its columns."""
    columns, block = columns_of(weight.shape[3], dtype)
    wide = padded(weight, columns)
    return array(wide.unflatten(3, (-1, block)).transpose(2, 3)), columns


def _channel_blocks(
    groups: int, c_in: int, block: int, offset_groups: int
) -> tuple[Array, list[int]]:
    """Return the blocks of input channels: group, number, first part; each part's offset group."""
    channels = groups * c_in // offset_groups
    places: list[tuple[int, int, int]] = []
    owners: list[int] = []
    for group in range(groups):
        for number in range(-(-c_in // block)):
            places.append((group, number, len(owners)))
            low, high = number * block, min((number + 1) * block, c_in)
            low, high = (group * c_in + end for end in (low, high))
            owners += range(low // channels, (high - 1) // channels + 1)
    return np.array(places, np.int64).reshape(-1, 3), owners


def _sampleranges(taps: Taps, size: int) -> Array:
    """Return the ranges of output rows that a weight gradient is summed over apart.

    A sample is never split, so that each input row is written to from one range alone.
    """
    count = len(taps.splits) - 1
    parts = max(1, min(REDUCE_PARTS, count, REDUCE_BYTES // size))
    splits = np.array(taps.splits)
    return splits[ranges(count, parts)]

"""The deformable product of the Numba engine and its gradients.

Benchmark: deform 1x64x128x128, k=3, 64 output channels, v2, float32
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Taps
from sparseconv.engines.numba.machine.arrays import array, columns_of, padded, ranges
from sparseconv.engines.numba.products import deform
from sparseconv.engines.numba.products.blocks import blocks_of
from sparseconv.engines.numba.products.gradient import MAX_PARTIAL_BYTES, MAX_PARTS

SAMPLE_ROWS = 128  # output rows of a deformable tile: its interpolated column stays in the cache


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Interpolate a tile's rows in the cache, and multiply them there."""
    _, groups, _, c_out = weight.shape
    w, source = blocks_of(weight), _samples(features, shares, taps)
    columns = w.shape[2] * w.shape[4]
    rows = np.empty((shares.shape[3], groups * columns), source.features.dtype)
    out = rows.reshape(-1, groups, columns)
    deform.sample_tiles.run(-(-out.shape[0] // SAMPLE_ROWS), 1, source, w, out)
    result = torch.from_numpy(rows)
    if columns > c_out:
        result = result.new_empty(out.shape[0], groups * c_out)
        result.view(-1, groups, c_out).copy_(torch.from_numpy(out)[:, :, :c_out])
    return result.to(features.dtype)


def _samples(features: Tensor, shares: Tensor, taps: Taps) -> deform.Samples:
    """Return what the kernels read of the input."""
    x, lines = array(features), np.arange(SAMPLE_ROWS, dtype=np.int32)
    return deform.Samples(x, array(shares).astype(x.dtype, copy=False), taps.rows.numpy(), lines)


def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Add up the gradients of blocks of input channels over ranges of samples."""
    cells, groups, c_in, c_out = weight.shape
    source = _samples(features, shares, taps)
    x, rows, w = source.features, source.rows, blocks_of(weight.transpose(2, 3))
    columns, block_out = columns_of(c_out, x.dtype)
    g = array(padded(grad.detach().reshape(-1, groups, c_out), columns))
    blocks, owners = _channel_blocks(groups, c_in, w.shape[4], rows.shape[0])
    shape = (cells, groups, columns // block_out, c_in, block_out)
    samples = _sample_ranges(taps, math.prod(shape) * x.itemsize)
    gradients = deform.SampleGradients(
        np.zeros_like(x),
        np.zeros((len(owners), *rows.shape[1:]), x.dtype),
        np.zeros((len(samples), *shape), x.dtype),
    )
    tasks = deform.SampleTasks(samples, blocks)
    deform.sample_gradients.run(len(samples) * len(blocks), 1, source, w, g, tasks, gradients)
    d_shares = np.zeros(rows.shape, x.dtype)
    for part, owner in zip(gradients.shares, owners, strict=True):
        d_shares[owner] += part
    total = np.zeros(shape, x.dtype)
    for part in gradients.weight:
        total += part
    d_weight = torch.from_numpy(total).transpose(2, 3).flatten(3)[..., :c_out].contiguous()
    return (
        torch.from_numpy(gradients.features).to(features.dtype),
        torch.from_numpy(d_shares).to(shares.dtype),
        d_weight.to(weight.dtype),
    )


def _channel_blocks(
    groups: int, c_in: int, block: int, offset_groups: int
) -> tuple[Array, list[int]]:
    """Return the blocks of input channels: group, number, first part; each part's offset group."""
    channels = groups * c_in // offset_groups
    blocks: list[tuple[int, int, int]] = []
    owners: list[int] = []
    for group in range(groups):
        for number in range(-(-c_in // block)):
            blocks.append((group, number, len(owners)))
            low, high = number * block, min((number + 1) * block, c_in)
            low, high = (group * c_in + end for end in (low, high))
            owners += range(low // channels, (high - 1) // channels + 1)
    return np.array(blocks, np.int64).reshape(-1, 3), owners


def _sample_ranges(taps: Taps, size: int) -> Array:
    """Return the ranges of output rows that a weight gradient is summed over apart.

    A sample is never split, so that each input row is written to from one range alone.
    """
    count = len(taps.splits) - 1
    parts = max(1, min(MAX_PARTS, count, MAX_PARTIAL_BYTES // size))
    splits = np.array(taps.splits)
    return splits[ranges(count, parts)]

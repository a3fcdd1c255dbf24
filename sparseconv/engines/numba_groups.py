"""Products of groups of few channels, lane by lane; their weights and gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_depthwise as kernels
from sparseconv.engines.numba_arrays import (
    LEAST,
    LEAST_VALUES,
    array,
    by_shares,
    columns_of,
    contiguous,
    converted,
    padded,
    without_padding,
)
from sparseconv.engines.numba_bits import bits_or_numbers
from sparseconv.engines.numba_reduce import reduced
from sparseconv.engines.numba_rulebook import window_rows
from sparseconv.engines.numba_vectors import VECTOR_BYTES
from sparseconv.engines.protocol import Finish, wider
from sparseconv.memory import empty, empty_array
from sparseconv.rulebook import Rulebook

Array = np.ndarray[Any, Any]


def lane_by_lane(groups: int, c_in: int, c_out: int) -> bool:
    """Return whether groups are multiplied lane by lane.

    Those with one channel on one side, or few and as many on both.
    """
    return groups > 1 and (min(c_in, c_out) == 1 or (c_in == c_out and c_in in kernels.WIDTHS))


def _width(c_in: int, c_out: int) -> int:
    """Return the channels of a group of the kernels: those with one on one side are repeated."""
    return min(c_in, c_out)


def lanes_of_weight(weight: Tensor) -> Array:
    """Return ``[K, C / lanes, width, lanes]`` of a weight ``[K, G, c_in, c_out]``.

    Lane by lane what an output channel takes from each input channel of its group; zeros behind.
    """
    cells, groups, c_in, c_out = weight.shape
    width, channels = _width(c_in, c_out), groups * max(c_in, c_out)
    apart = weight.detach() if width > 1 else weight.detach().reshape(cells, channels, 1, 1)
    columns = apart.transpose(1, 2).reshape(cells, width, channels)
    lanes = columns_of(channels, array(weight[:0]).dtype)[0]
    numbers = array(padded(columns, lanes))
    vectors = numbers.reshape(cells, width, -1, VECTOR_BYTES // numbers.itemsize)
    return contiguous(vectors.transpose(0, 2, 1, 3))


def product_by_lanes(
    features: Tensor, weight: Tensor, blocks: Array, rulebook: Rulebook, finish: Finish
) -> Tensor:
    """Return the convolution of groups that are :func:`lane_by_lane`.

    Args:
        features, weight, rulebook: as of the engine's ``gather_gemm_scatter``.
        blocks: :func:`lanes_of_weight`.
        finish: what is done to its rows.
    """
    dtype, (_, groups, c_in, c_out) = features.dtype, weight.shape
    width, channels = _width(c_in, c_out), groups * max(c_in, c_out)
    summed = c_in > width  # what a group's channels add up to is rounded once
    inside = not summed and finish.factor is None and finish.other is None
    features = converted(features, wider(dtype)) if summed else features
    lanes = blocks.shape[1] * blocks.shape[3]
    x = _repeated(features, c_out // width, lanes)
    bias = torch.zeros(lanes, dtype=torch.from_numpy(blocks[:0]).dtype)
    if inside and finish.bias is not None:
        bias[:channels] = finish.bias.detach()
    kept = torch.float32 if features.dtype == torch.float16 else features.dtype
    out = empty((rulebook.n_out, lanes), kept)
    own = window_rows(rulebook)
    pairs = own.rows, own.cells, own.starts, own.order
    ending = bias.numpy(), inside and finish.relu, bits_or_numbers(out)
    by_shares(
        rulebook.n_out, lambda s, e: kernels.scale_rows(x, blocks, *pairs, s, e, *ending), LEAST
    )
    result = without_padding(out, channels)
    if summed:
        parts: tuple[Tensor, ...] = result.unflatten(1, (groups, c_in)).unbind(2)
        result = functools.reduce(torch.add, parts)
    result = converted(result, dtype)
    return result if inside else finish.apply(result)


def reduce_by_lanes(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient of groups that are :func:`lane_by_lane`."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    width, channels = _width(c_in, c_out), groups * max(c_in, c_out)
    dtype = array(features[:0]).dtype
    lanes, each = columns_of(channels, dtype)[0], VECTOR_BYTES // dtype.itemsize
    x, g = _repeated(features, c_out // width, lanes), _repeated(grad, c_in // width, lanes)

    def run(pairs: tuple[Array, ...], tiles: Array, cells: Array, target: Array) -> None:
        kernels.dot_tiles(x, g, *pairs, tiles, cells, target)

    total = torch.from_numpy(reduced(run, rulebook, (lanes // each, width, each), dtype))
    columns = total.transpose(1, 2).reshape(-1, width, lanes)[..., :channels]
    apart = columns.reshape(len(columns), width, groups, channels // groups).transpose(1, 2)
    return apart.reshape(-1, groups, c_in, c_out).to(features.dtype)


def _repeated(rows: Tensor, times: int, lanes: int) -> Array:
    """Return each channel so many times over, side by side, and zeros up to ``lanes`` columns."""
    if times == 1:
        return bits_or_numbers(padded(rows, lanes))
    x = bits_or_numbers(rows)
    out = empty_array((len(x), lanes), x.dtype)
    by_shares(
        len(x), lambda s, e: kernels.repeat_columns(x, times, s, e, out), LEAST_VALUES // lanes
    )
    return out

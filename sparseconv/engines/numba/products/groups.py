"""Products of groups of few channels, lane by lane; their weights and gradients.

Benchmark: shape submanifold k=3, depthwise, 64 channels, forward
Benchmark: shape submanifold k=3, 16 groups, 64 channels, forward
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array, wider
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty, empty_array
from sparseconv.engines.numba.machine.arrays import (
    MIN_ROWS_PER_TASK,
    MIN_VALUES_PER_TASK,
    array,
    by_shares,
    computed_in,
    contiguous,
    converted,
    padded,
    rows_of,
    without_padding,
)
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES
from sparseconv.engines.numba.products import lanes as kernels
from sparseconv.engines.numba.products.gradient import reduced
from sparseconv.engines.numba.rulebooks.tiles import window_rows
from sparseconv.engines.protocol import Epilogue


@dataclass(frozen=True)
class Lanes:
    """How groups of few channels lie in vectors.

    Attributes:
        groups, c_in, c_out: of the weight.
        width: channels of a group in the vectors, a power of two; 1 where one side has one channel,
            and that is repeated for those of the other.
        each: lanes of a vector.
    """

    groups: int
    c_in: int
    c_out: int
    width: int
    each: int

    @classmethod
    def of(cls, groups: int, c_in: int, c_out: int, dtype: torch.dtype) -> Lanes | None:
        """Return how the groups lie in vectors, or None for those that are multiplied otherwise."""
        each = VECTOR_BYTES // wider(dtype).itemsize
        width = 1 if min(c_in, c_out) == 1 else 1 << (max(c_in, c_out) - 1).bit_length()
        if groups == 1 or width > min(max(kernels.WIDTHS), each):
            return None
        return cls(groups, c_in, c_out, width, each)

    @property
    def channels(self) -> int:
        """The channels that are written."""
        return self.groups * (max(self.c_in, self.c_out) if self.width == 1 else self.width)

    @property
    def columns(self) -> int:
        """Those, in whole vectors."""
        return -(-self.channels // self.each) * self.each

    def rows(self, x: Tensor, repeated: int) -> Array:
        """Return rows as vectors: zeros behind a group's channels, or each so many times over."""
        each = x.shape[1] // self.groups
        if self.width == 1 < repeated:
            return _repeated(bits_or_numbers(x), repeated, self.columns)
        if each < self.width:
            return _regrouped(bits_or_numbers(x), each, self.width, self.columns)
        return bits_or_numbers(padded(x, self.columns))

    def weight(self, weight: Tensor) -> Array:
        """Return ``[K, vectors, width, lanes]`` of a weight ``[K, G, c_in, c_out]``.

        Lane by lane what an output channel takes from each input channel of its group.
        """
        cells, weight = len(weight), weight.detach()
        if self.width == 1:
            rows = weight.reshape(cells, 1, self.channels)
        else:
            wide = weight.new_zeros(cells, self.groups, self.width, self.width)
            wide[:, :, : self.c_in, : self.c_out] = weight
            rows = wide.transpose(1, 2).reshape(cells, self.width, self.channels)
        vectors = array(padded(rows, self.columns)).reshape(cells, self.width, -1, self.each)
        return contiguous(vectors.transpose(0, 2, 1, 3))

    def unpacked(self, vectors: Array) -> Tensor:
        """Return the weight ``[K, G, c_in, c_out]`` that lies in :meth:`weight`."""
        rows = torch.from_numpy(vectors).transpose(1, 2).reshape(-1, self.width, self.columns)
        grouped = rows[..., : self.channels].reshape(len(rows), self.width, self.groups, -1)
        if self.width == 1:
            return grouped.reshape(-1, self.groups, self.c_in, self.c_out)
        return grouped.transpose(1, 2)[:, :, : self.c_in, : self.c_out]

    def result(self, rows: Tensor) -> Tensor:
        """Return the channels that a product wrote, in memory of their own."""
        if self.width in (1, self.c_out):
            return without_padding(rows, self.channels)
        out = empty((len(rows), self.groups * self.c_out), rows.dtype)
        least = rows_of(MIN_VALUES_PER_TASK, self.columns)
        widths = self.width, self.c_out
        source, target = bits_or_numbers(rows), bits_or_numbers(out)
        by_shares(kernels.regroup, len(source), least, source, *widths, target)
        return out


@dataclass(frozen=True, eq=False)
class LaneWeight:
    """A weight of groups of few channels, lane by lane.

    Attributes:
        lanes: how the groups lie in vectors.
        vectors: the weight in them, ``[K, vectors, width, lanes]``.
    """

    lanes: Lanes
    vectors: Array

    @classmethod
    def of(cls, weight: Tensor) -> LaneWeight | None:
        """Return the layout of a weight ``[K, G, c_in, c_out]``, or None for another kernel."""
        _, groups, c_in, c_out = weight.shape
        lanes = Lanes.of(groups, c_in, c_out, weight.dtype)
        return None if lanes is None else cls(lanes, lanes.weight(weight))

    def product(self, features: Tensor, rulebook: Rulebook, epilogue: Epilogue) -> Tensor:
        """Return the product, row by row."""
        dtype, lanes = features.dtype, self.lanes
        summed = lanes.width == 1 < lanes.c_in
        inside = not summed and epilogue.factor is None and epilogue.other is None
        # what the kernel leaves to sum or add is rounded once, at the end
        features = features if inside else converted(features, wider(dtype))
        x = lanes.rows(features, lanes.c_out)
        stored = torch.float32 if features.dtype == torch.float16 else features.dtype
        out = empty((rulebook.n_out, lanes.columns), stored)
        bias = self._bias(epilogue.bias if inside else None)
        ending = bias, inside and epilogue.relu, bits_or_numbers(out)
        arrays = x, self.vectors, window_rows(rulebook), *ending
        by_shares(kernels.scale_rows, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
        result = lanes.result(out)
        if summed:
            parts: tuple[Tensor, ...] = result.unflatten(1, (lanes.groups, lanes.c_in)).unbind(2)
            result = functools.reduce(torch.add, parts)
        return converted(result if inside else epilogue.apply(result), dtype)

    def _bias(self, bias: Tensor | None) -> Array:
        """Return what is added to each column."""
        lanes, dtype = self.lanes, self.vectors.dtype
        if bias is None:
            return np.zeros(lanes.columns, dtype)
        row = bias.detach().to(wider(bias.dtype)).reshape(1, -1)
        if lanes.width > 1:
            row = padded(row.unflatten(1, (lanes.groups, -1)), lanes.width).flatten(1)
        numbers: Array = array(padded(row, lanes.columns))[0].astype(dtype)
        return numbers


def reduce_by_lanes(features: Tensor, grad: Tensor, rulebook: Rulebook, lanes: Lanes) -> Tensor:
    """Return the weight gradient of groups of few channels."""
    x, g = lanes.rows(features, lanes.c_out), lanes.rows(grad, lanes.c_in)
    shape = (lanes.columns // lanes.each, lanes.width, lanes.each)
    dtype = computed_in(features.dtype)
    total = reduced(kernels.dot_tiles, x, g, rulebook, shape, dtype)
    return lanes.unpacked(total).to(features.dtype).contiguous()


def _repeated(x: Array, times: int, columns: int) -> Array:
    """Return each channel so many times over, side by side, and zeros up to ``columns``."""
    out = empty_array((len(x), columns), x.dtype)
    by_shares(kernels.repeat_columns, len(x), rows_of(MIN_VALUES_PER_TASK, columns), x, times, out)
    return out


def _regrouped(x: Array, width: int, new: int, columns: int) -> Array:
    """Return groups of ``width`` columns as groups of ``new``, and zeros up to ``columns``."""
    out = empty_array((len(x), columns), x.dtype)
    by_shares(kernels.regroup, len(x), rows_of(MIN_VALUES_PER_TASK, columns), x, width, new, out)
    return out

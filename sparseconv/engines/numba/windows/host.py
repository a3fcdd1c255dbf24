"""The functions of windows of the Numba engine: what they hand to the kernels of this room.

Benchmark: stream max pooling, k=2, stride 2, 64 channels
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    MIN_ROWS_PER_TASK,
    by_shares,
    columns_of,
    computed_in,
    converted,
    padded,
    without_padding,
)
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.rulebooks.tiles import window_rows
from sparseconv.engines.numba.windows import largest, sums
from sparseconv.engines.torch import windows as plain

MOST_CELLS = 2**15  # of a window whose choice is an int16


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return each window's largest value per column."""
    x, out = _rows_and_target(features, rulebook.n_out)
    arrays = x, window_rows(rulebook), bits_or_numbers(out)
    by_shares(largest.max_rows, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
    return converted(without_padding(out, features.shape[1]), features.dtype)


def window_argmax(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return each window's first largest value, and the kernel cell that holds it, per column."""
    if rulebook.num_cells > MOST_CELLS:
        return plain.window_argmax(features, rulebook)
    x, out = _rows_and_target(features, rulebook.n_out)
    chosen = empty(tuple(out.shape), torch.int16)
    arrays = x, window_rows(rulebook), bits_or_numbers(out), chosen.numpy()
    by_shares(largest.choose_rows, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
    values = converted(without_padding(out, features.shape[1]), features.dtype)
    return values, without_padding(chosen, features.shape[1])


def window_sum(features: Tensor, rulebook: Rulebook, divisor: float) -> Tensor:
    """Return each window's sum by the divisor."""
    exact = abs(math.frexp(divisor)[0]) == 0.5  # a power of two has an exact inverse
    if not exact and features.dtype == torch.bfloat16:  # a sum is not rounded before it is divided
        total = window_sum(converted(features, torch.float32), rulebook, divisor)
        return converted(total, features.dtype)
    x, out = _rows_and_target(features, rulebook.n_out)
    by = np.array([1 / divisor, 1] if exact else [1, divisor], computed_in(features.dtype))
    arrays = x, window_rows(rulebook), by, bits_or_numbers(out)
    by_shares(sums.sum_rows, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
    return converted(without_padding(out, features.shape[1]), features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    if rulebook.num_cells > MOST_CELLS:
        return plain.window_scatter(values, chosen, rulebook)
    return _hits(largest.scatter_hits, values, chosen, rulebook.transposed)


def window_pick(features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return what each window chose, per column."""
    if rulebook.num_cells > MOST_CELLS:
        return plain.window_pick(features, chosen, rulebook)
    return _hits(largest.pick_hits, features, chosen, rulebook)


def _hits(loop: ParallelKernel, values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    x, out = _rows_and_target(values, rulebook.n_out)
    cells = padded(chosen.short(), x.shape[1]).contiguous().numpy()
    arrays = x, cells, window_rows(rulebook), bits_or_numbers(out)
    by_shares(loop, rulebook.n_out, MIN_ROWS_PER_TASK, *arrays)
    return converted(without_padding(out, values.shape[1]), values.dtype)


def _rows_and_target(features: Tensor, count: int) -> tuple[Array, Tensor]:
    """Return the features in whole vectors, and memory for ``count`` rows as long.

    Of bfloat16 the bits, and of float16 numbers in float32.
    """
    columns = columns_of(features.shape[1], computed_in(features.dtype))[0]
    x = bits_or_numbers(padded(features, columns))
    half = features.dtype == torch.float16
    return x, empty((count, columns), torch.float32 if half else features.dtype)

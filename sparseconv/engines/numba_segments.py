"""Kernels of the Numba engine for segments of rows: sums and maxima."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseconv.engines.numba_compile import Kernel

Array = np.ndarray[Any, Any]


@Kernel
def segment_sums(
    values: Array, order: Array, starts: Array, first: int, last: int, out: Array
) -> None:
    """Write the sums of segments ``first`` to ``last`` to ``out`` ``[S, C]``."""
    for segment in range(first, last):
        out[segment] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = order[entry]
            for column in range(values.shape[1]):
                out[segment, column] += values[row, column]


@Kernel
def segment_moments(
    left: Array,
    right: Array,
    centre: Array,
    both: bool,
    order: Array,
    starts: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Write the sums of ``(left - centre) * right`` of some segments to ``out`` ``[S, C]``.

    ``centre`` is ``[S, C]``; with ``both`` it is taken off ``right`` too.
    """
    for segment in range(first, last):
        out[segment] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = order[entry]
            for column in range(left.shape[1]):
                off = left[row, column] - centre[segment, column]
                other = off if both else right[row, column]
                out[segment, column] += off * other


@Kernel
def segment_argmaxes(
    values: Array, order: Array, starts: Array, first: int, last: int, out: Array
) -> None:
    """Write the row of the first largest value of segments ``first`` to ``last`` to ``out``.

    NaN counts as larger than everything.
    """
    for segment in range(first, last):
        for column in range(values.shape[1]):
            best = order[starts[segment]]
            for entry in range(starts[segment] + 1, starts[segment + 1]):
                value, held = values[order[entry], column], values[best, column]
                if value > held or (np.isnan(value) and not np.isnan(held)):
                    best = order[entry]
            out[segment, column] = best

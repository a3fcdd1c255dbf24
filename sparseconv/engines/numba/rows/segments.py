"""Kernels of the Numba engine for segments of rows: sums and maxima."""

from __future__ import annotations

import numpy as np

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.compile import Loop


@Loop
def segment_sums(
    first: int, last: int, order: Array, starts: Array, values: Array, out: Array
) -> None:
    """Write the sums of segments ``first`` to ``last`` to ``out`` ``[S, C]``."""
    for segment in range(first, last):
        total = out[segment]
        total[:] = 0
        for entry in range(starts[segment], starts[segment + 1]):
            row = values[order[entry]]
            for column in range(len(total)):
                total[column] += row[column]


@Loop
def segment_argmaxes(
    first: int, last: int, order: Array, starts: Array, values: Array, out: Array
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

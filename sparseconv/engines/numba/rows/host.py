"""The functions of rows of the Numba engine: what they hand to the kernels of this room.

Benchmark: stream batch norm, train (reads twice), 64 channels
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array, wider
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    MIN_ROWS_PER_TASK,
    MIN_VALUES_PER_TASK,
    Segments,
    array,
    by_segments,
    by_shares,
    columns_of,
    computed_in,
    converted,
    padded,
    rows_of,
    without_padding,
)
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.numba.rows import statistics, sums
from sparseconv.engines.numba.rows.affine import Term, affine
from sparseconv.engines.torch import rows as plain

SUM_ROWS = 2048  # rows that are summed in one go; the sums are added in float64
_NO_ROWS = np.empty(0, np.int64)


def scaled_rows(rows: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows times their factors, and the sum of the rows, in one pass over them."""
    channels = rows.shape[1]
    if factor.shape[1] > 1 or rows.dtype != factor.dtype:
        return plain.scaled_rows(rows, factor)
    columns = columns_of(channels, computed_in(rows.dtype))[0]
    x, scale = array(padded(rows, columns)), array(factor)
    out = empty(x.shape, rows.dtype)
    target = out.numpy()
    count = -(-len(x) // SUM_ROWS)
    parts = np.zeros((count, columns), x.dtype)
    arguments = x, scale, SUM_ROWS, target, parts
    by_shares(sums.scale_and_sum, count, MIN_ROWS_PER_TASK // SUM_ROWS, *arguments)
    total = torch.from_numpy(parts.sum(axis=0, dtype=np.float64)).to(rows.dtype)
    return without_padding(out, channels), total[:channels]


def column_sum(rows: Tensor) -> Tensor:
    """Return the sum of all rows; those of ``SUM_ROWS`` at a time are added in float64."""
    x = bits_or_numbers(rows)
    count = -(-len(x) // SUM_ROWS)
    parts = np.zeros((count, x.shape[1]), np.float64 if x.itemsize == 8 else np.float32)
    by_shares(sums.chunk_sums, count, MIN_ROWS_PER_TASK // SUM_ROWS, x, SUM_ROWS, parts)
    return torch.from_numpy(parts.sum(axis=0, dtype=np.float64)).to(rows.dtype)


def segment_sum(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of each segment, row after row."""
    x = array(values)
    out = empty((starts.numel() - 1, x.shape[1]), wider(values.dtype))
    by_segments(sums.segment_sums, Segments(order.numpy(), starts.numpy()), x, out.numpy())
    return converted(out, values.dtype)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, per column."""
    x = array(values)
    out = empty((starts.numel() - 1, x.shape[1]), torch.int64)
    by_segments(sums.segment_argmaxes, Segments(order.numpy(), starts.numpy()), x, out.numpy())
    return out


def segment_statistics(values: Tensor, order: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each segment's sum, and the sum of squares off its mean, in one pass over the rows."""
    x, segments = bits_or_numbers(values), Segments(order.numpy(), starts.numpy())
    shape, dtype = (starts.numel() - 1, x.shape[1]), wider(values.dtype)
    total, squares = empty(shape, dtype), empty(shape, dtype)
    by_segments(statistics.segment_statistics, segments, x, total.numpy(), squares.numpy())
    return total, squares


def merge_statistics(
    sums: Tensor, squares: Tensor, counts: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, squares off the mean, and numbers of rows of segments of segments."""
    parts = statistics.Statistics(array(sums), array(squares), counts.numpy())
    shape = (starts.numel() - 1, sums.shape[1])
    total, off, numbers = (
        empty(shape, sums.dtype),
        empty(shape, sums.dtype),
        empty(shape[:1], counts.dtype),
    )
    merged = statistics.Statistics(total.numpy(), off.numpy(), numbers.numpy())
    segments = Segments(order.numpy(), starts.numpy())
    by_segments(statistics.merge_statistics, segments, parts, merged)
    return total, off, numbers


def segment_moment(
    left: Tensor, right: Tensor, centre: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each segment's sum of ``right``, and of ``(left - centre) * right``, in one pass."""
    arrays = bits_or_numbers(left), bits_or_numbers(right), array(centre)
    sums, moments = (empty(tuple(centre.shape), centre.dtype) for _ in range(2))
    segments = Segments(order.numpy(), starts.numpy())
    by_segments(statistics.segment_moments, segments, *arrays, sums.numpy(), moments.numpy())
    return sums, moments


def normalised_rows(
    rows: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Return the rows, normalised by known statistics.

    The scales come from NumPy: its few lines of code are fetched sooner than the operators of
    PyTorch when a product has emptied the cache.
    """
    dtype = wider(rows.dtype)
    given = [mean, variance]
    given += [] if weight is None else [weight]
    given += [] if bias is None else [bias]
    # no array may hold the memory of a parameter, which training in several processes gives back
    numbers = iter(torch.stack(given).detach().to(dtype).numpy())
    with np.errstate(all="ignore"):  # PyTorch returns inf and NaN without a word
        centre, spread = next(numbers), next(numbers)
        # of Python's own type: one of NumPy's would make all of it float64
        scale = 1 / np.sqrt(spread + float(eps))
        if weight is not None:
            scale *= next(numbers)
        shift = centre * -scale
        if bias is not None:
            shift += next(numbers)
    return _affine([bits_or_numbers(rows)], [scale[None]], shift[None], None, rows.dtype)


def affine_rows(
    terms: Sequence[tuple[Tensor, Tensor]], shift: Tensor, segment: Tensor | None
) -> Tensor:
    """Return the sum of the terms' rows times their scales, and the shift, in one pass."""
    rows = [bits_or_numbers(entry) for entry, _ in terms]
    scales = [array(scale) for _, scale in terms]
    return _affine(rows, scales, array(shift), segment, terms[0][0].dtype)


def _affine(
    rows: list[Array], scales: list[Array], shift: Array, segment: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return the sum of one or two terms and the shift, in a dtype."""
    left, right = Term(rows[0], scales[0]), Term(rows[0][:0], scales[0])
    if len(rows) > 1:
        right = Term(rows[1], scales[1])
    segments = _NO_ROWS if segment is None else segment.numpy()
    # the kernel reads all of them as numbers of one dtype
    assert {left.scale.dtype, right.scale.dtype, shift.dtype} == {computed_in(dtype)}
    out = empty(rows[0].shape, torch.float32 if dtype == torch.float16 else dtype)
    least = rows_of(MIN_VALUES_PER_TASK, out.shape[1])
    by_shares(affine, out.shape[0], least, left, right, shift, segments, bits_or_numbers(out))
    return converted(out, dtype)

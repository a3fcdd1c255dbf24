"""The CPU engine: Numba kernels over sorted keys, in parallel, the same bits twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import FLOATS, Array, wider
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.keys.index import ascends as ascends
from sparseconv.engines.numba.keys.index import bounds as bounds
from sparseconv.engines.numba.keys.index import build_index as build_index
from sparseconv.engines.numba.keys.index import lookup as lookup
from sparseconv.engines.numba.keys.index import reached_keys as reached_keys
from sparseconv.engines.numba.machine.arrays import (
    LEAST,
    LEAST_VALUES,
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
from sparseconv.engines.numba.products.convolve import gather_gemm_epilogue as gather_gemm_epilogue
from sparseconv.engines.numba.products.convolve import gather_gemm_reduce as gather_gemm_reduce
from sparseconv.engines.numba.products.convolve import gather_gemm_scatter as gather_gemm_scatter
from sparseconv.engines.numba.products.convolve import pack_weight as pack_weight
from sparseconv.engines.numba.products.deform_host import sample_gemm as sample_gemm
from sparseconv.engines.numba.products.deform_host import sample_gemm_grads as sample_gemm_grads
from sparseconv.engines.numba.rows import chunks, segments, statistics
from sparseconv.engines.numba.rows.affine import affine
from sparseconv.engines.numba.rulebooks.build import build_rulebook as build_rulebook
from sparseconv.engines.numba.rulebooks.build import window_rows
from sparseconv.engines.numba.windows import largest
from sparseconv.engines.numba.windows import sums as windows
from sparseconv.engines.torch import engine as torch_engine

MOST_CELLS = 2**15  # of a window whose choice is an int16
SUM_ROWS = 2048  # rows that are summed in one go; the sums are added in float64


_NO_ROWS = np.empty(0, np.int64)


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why tensors of this kind cannot run here, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if dtype.is_floating_point and dtype not in FLOATS:
        return f"it has no arithmetic in {dtype}"
    return None


def scaled_rows(rows: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows times their factors, and the sum of the rows, in one pass over them."""
    channels = rows.shape[1]
    if factor.shape[1] > 1 or rows.dtype != factor.dtype:
        return torch_engine.scaled_rows(rows, factor)
    columns = columns_of(channels, computed_in(rows.dtype))[0]
    x, scale = array(padded(rows, columns)), array(factor)
    out = empty(x.shape, rows.dtype)
    target = out.numpy()
    count = -(-len(x) // SUM_ROWS)
    sums = np.zeros((count, columns), x.dtype)
    numbers = x, scale, SUM_ROWS, target, sums
    by_shares(chunks.scale_and_sum, count, LEAST // SUM_ROWS, *numbers)
    total = torch.from_numpy(sums.sum(axis=0, dtype=np.float64)).to(rows.dtype)
    return without_padding(out, channels), total[:channels]


def column_sum(rows: Tensor) -> Tensor:
    """Return the sum of all rows; those of ``SUM_ROWS`` at a time are added in float64."""
    x = bits_or_numbers(rows)
    count = -(-len(x) // SUM_ROWS)
    sums = np.zeros((count, x.shape[1]), np.float64 if x.itemsize == 8 else np.float32)
    by_shares(chunks.chunk_sums, count, LEAST // SUM_ROWS, x, SUM_ROWS, sums)
    return torch.from_numpy(sums.sum(axis=0, dtype=np.float64)).to(rows.dtype)


def segment_sum(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of each segment, row after row."""
    x = array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), x.dtype)
    rows = order.numpy(), starts.numpy()
    by_segments(segments.segment_sums, rows, x, out)
    return torch.from_numpy(out).to(values.dtype)


def segment_statistics(values: Tensor, order: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each segment's sum, and the sum of squares off its mean, in one pass over the rows."""
    x, rows = bits_or_numbers(values), (order.numpy(), starts.numpy())
    shape = (starts.numel() - 1, x.shape[1])
    found = [torch.empty(shape, dtype=wider(values.dtype)) for _ in range(2)]
    out = [entry.numpy() for entry in found]
    by_segments(statistics.segment_statistics, rows, x, *out)
    return found[0], found[1]


def merge_statistics(
    sums: Tensor, squares: Tensor, counts: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, squares off the mean, and numbers of rows of segments of segments."""
    arrays = array(sums), array(squares), counts.numpy()
    rows = order.numpy(), starts.numpy()
    shape = (starts.numel() - 1, sums.shape[1])
    found = torch.empty(shape, dtype=sums.dtype), torch.empty(shape, dtype=sums.dtype)
    total = torch.empty(shape[0], dtype=torch.int64)
    out = [entry.numpy() for entry in (*found, total)]
    by_segments(statistics.merge_statistics, rows, *arrays, *out)
    return *found, total


def segment_moment(
    left: Tensor, right: Tensor, centre: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each segment's sum of ``right``, and of ``(left - centre) * right``, in one pass."""
    arrays = bits_or_numbers(left), bits_or_numbers(right), array(centre)
    rows = order.numpy(), starts.numpy()
    found = [torch.empty_like(centre, memory_format=torch.contiguous_format) for _ in range(2)]
    out = [entry.numpy() for entry in found]
    by_segments(statistics.segment_moments, rows, *arrays, *out)
    return found[0], found[1]


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
    with np.errstate(all="ignore"):  # PyTorch returns inf and NaN without a word
        # of Python's own type: one of NumPy's would make all of it float64
        scale = 1 / np.sqrt(converted(variance, dtype).numpy() + float(eps))
        if weight is not None:
            scale *= converted(weight, dtype).numpy()
        shift = converted(mean, dtype).numpy() * -scale
        if bias is not None:
            shift += converted(bias, dtype).numpy()
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
    if len(rows) == 1:
        rows, scales = [rows[0], rows[0][:0]], [scales[0], scales[0]]
    own = _NO_ROWS if segment is None else segment.numpy()
    # the kernel reads all of them as numbers of one dtype
    assert {scales[0].dtype, scales[1].dtype, shift.dtype} == {computed_in(dtype)}
    out = empty(rows[0].shape, torch.float32 if dtype == torch.float16 else dtype)
    least = rows_of(LEAST_VALUES, out.shape[1])
    target = bits_or_numbers(out)
    by_shares(affine, out.shape[0], least, *rows, *scales, shift, own, target)
    return converted(out, dtype)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, per column."""
    x = array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), np.int64)
    rows = order.numpy(), starts.numpy()
    by_segments(segments.segment_argmaxes, rows, x, out)
    return torch.from_numpy(out)


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return each window's largest value per column."""
    x, out = _rows_and_target(features, rulebook.n_out)
    own, target = window_rows(rulebook), bits_or_numbers(out)
    pairs = own.rows, own.starts, own.order
    by_shares(largest.max_rows, rulebook.n_out, LEAST, x, *pairs, target)
    return converted(without_padding(out, features.shape[1]), features.dtype)


def window_argmax(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return each window's first largest value, and the kernel cell that holds it, per column."""
    if rulebook.num_cells > MOST_CELLS:
        return torch_engine.window_argmax(features, rulebook)
    x, out = _rows_and_target(features, rulebook.n_out)
    chosen = empty(tuple(out.shape), torch.int16)
    own, found = window_rows(rulebook), (bits_or_numbers(out), chosen.numpy())
    pairs = own.rows, own.cells, own.starts, own.order
    by_shares(largest.choose_rows, rulebook.n_out, LEAST, x, *pairs, *found)
    values = converted(without_padding(out, features.shape[1]), features.dtype)
    return values, without_padding(chosen, features.shape[1])


def _rows_and_target(features: Tensor, count: int) -> tuple[Array, Tensor]:
    """Return the features in whole vectors, and memory for ``count`` rows as long.

    Of bfloat16 the bits, and of float16 numbers in float32.
    """
    columns = columns_of(features.shape[1], computed_in(features.dtype))[0]
    x = bits_or_numbers(padded(features, columns))
    half = features.dtype == torch.float16
    return x, empty((count, columns), torch.float32 if half else features.dtype)


def window_sum(features: Tensor, rulebook: Rulebook, divisor: float) -> Tensor:
    """Return each window's sum by the divisor."""
    exact = abs(math.frexp(divisor)[0]) == 0.5  # a power of two has an exact inverse
    if not exact and features.dtype == torch.bfloat16:  # a sum is not rounded before it is divided
        total = window_sum(converted(features, torch.float32), rulebook, divisor)
        return converted(total, features.dtype)
    x, out = _rows_and_target(features, rulebook.n_out)
    own, target = window_rows(rulebook), bits_or_numbers(out)
    by = np.array([1 / divisor, 1] if exact else [1, divisor], computed_in(features.dtype))
    pairs = own.rows, own.starts, own.order
    by_shares(windows.sum_rows, rulebook.n_out, LEAST, x, *pairs, by, target)
    return converted(without_padding(out, features.shape[1]), features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    if rulebook.num_cells > MOST_CELLS:
        return torch_engine.window_scatter(values, chosen, rulebook)
    return _hits(values, chosen, rulebook.transposed, of_pairs=True)


def window_pick(features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return what each window chose, per column."""
    if rulebook.num_cells > MOST_CELLS:
        return torch_engine.window_pick(features, chosen, rulebook)
    return _hits(features, chosen, rulebook, of_pairs=False)


def _hits(values: Tensor, chosen: Tensor, rulebook: Rulebook, of_pairs: bool) -> Tensor:
    x, out = _rows_and_target(values, rulebook.n_out)
    cells = padded(chosen.short(), x.shape[1]).contiguous().numpy()
    own, target = window_rows(rulebook), bits_or_numbers(out)
    pairs = own.rows, own.cells, own.starts, own.order, of_pairs
    by_shares(largest.add_hits, rulebook.n_out, LEAST, x, cells, *pairs, target)
    return converted(without_padding(out, values.shape[1]), values.dtype)

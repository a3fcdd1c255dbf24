"""The CPU engine: Numba kernels over sorted keys, in parallel, the same bits twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_segments as segments
from sparseconv.engines import numba_windows as windows
from sparseconv.engines.numba_arrays import CHUNK_ROWS, array, by_chunks
from sparseconv.engines.numba_compile import in_parallel
from sparseconv.engines.numba_convolve import gather_gemm_reduce as gather_gemm_reduce
from sparseconv.engines.numba_convolve import gather_gemm_scatter as gather_gemm_scatter
from sparseconv.engines.numba_index import bounds as bounds
from sparseconv.engines.numba_index import build_index as build_index
from sparseconv.engines.numba_index import lookup as lookup
from sparseconv.engines.numba_index import reached_keys as reached_keys
from sparseconv.engines.numba_rulebook import TILE_ROWS, tiled_pairs
from sparseconv.engines.numba_rulebook import build_rulebook as build_rulebook
from sparseconv.engines.numba_sample import sample_gemm as sample_gemm
from sparseconv.engines.numba_sample import sample_gemm_grads as sample_gemm_grads
from sparseconv.rulebook import Rulebook

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why tensors of this kind cannot run here, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if dtype.is_floating_point and dtype not in _FLOATS:
        return f"it has no arithmetic in {dtype}"
    return None


def segment_sum(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of each segment, row after row."""
    x = array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), x.dtype)
    rows = order.numpy(), starts.numpy()
    count = out.shape[0]
    # as many segments to a task as hold CHUNK_ROWS rows on average
    step = max(1, CHUNK_ROWS * count // max(order.numel(), count, 1))
    by_chunks(count, lambda s, e: segments.segment_sums(x, *rows, s, e, out), step)
    return torch.from_numpy(out).to(values.dtype)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, per column."""
    x = array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), np.int64)
    rows = order.numpy(), starts.numpy()
    by_chunks(out.shape[0], lambda s, e: segments.segment_argmaxes(x, *rows, s, e, out))
    return torch.from_numpy(out)


def window_argmax(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the row of each window's first largest value, per column."""
    x = array(features)
    chosen = np.empty((rulebook.n_out, x.shape[1]), np.int32)
    _by_tiles(rulebook, lambda pairs, tile: windows.argmax_tile(x, *pairs, TILE_ROWS, tile, chosen))
    return torch.from_numpy(chosen)


def window_sum(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the sum of each window, cell by cell."""
    x = array(features)
    out = np.empty((rulebook.n_out, x.shape[1]), x.dtype)
    _by_tiles(rulebook, lambda pairs, tile: windows.sum_tile(x, *pairs, TILE_ROWS, tile, out))
    return torch.from_numpy(out).to(features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    x, rows = array(values), chosen.contiguous().numpy()
    out = np.empty((rulebook.n_in, x.shape[1]), x.dtype)
    _by_tiles(
        rulebook.transposed,
        lambda pairs, tile: windows.scatter_tile(x, rows, *pairs, TILE_ROWS, tile, out),
    )
    return torch.from_numpy(out).to(values.dtype)


def _by_tiles(rulebook: Rulebook, task: Any) -> None:
    """Call ``task(pairs, tile)`` for every tile of output rows, in parallel."""
    tiled = tiled_pairs(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(lambda tile: task(pairs, tile), tiled.starts.shape[1] - 1)

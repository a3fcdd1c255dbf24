"""The CPU engine: Numba kernels over sorted keys, in parallel, the same bits twice; by name."""

from __future__ import annotations

import functools
import logging

import torch
from numba import config

from sparseconv.core.dtypes import FLOATS
from sparseconv.engines.numba.first_calls import ascends as ascends
from sparseconv.engines.numba.first_calls import bounds as bounds
from sparseconv.engines.numba.first_calls import build_index as build_index
from sparseconv.engines.numba.first_calls import build_rulebook as build_rulebook
from sparseconv.engines.numba.first_calls import lookup as lookup
from sparseconv.engines.numba.first_calls import reached_keys as reached_keys
from sparseconv.engines.numba.products.convolve import gather_gemm_epilogue as gather_gemm_epilogue
from sparseconv.engines.numba.products.convolve import gather_gemm_reduce as gather_gemm_reduce
from sparseconv.engines.numba.products.convolve import gather_gemm_scatter as gather_gemm_scatter
from sparseconv.engines.numba.products.convolve import pack_weight as pack_weight
from sparseconv.engines.numba.products.deform_host import sample_gemm as sample_gemm
from sparseconv.engines.numba.products.deform_host import sample_gemm_grads as sample_gemm_grads
from sparseconv.engines.numba.rows.host import affine_rows as affine_rows
from sparseconv.engines.numba.rows.host import column_sum as column_sum
from sparseconv.engines.numba.rows.host import merge_statistics as merge_statistics
from sparseconv.engines.numba.rows.host import normalised_rows as normalised_rows
from sparseconv.engines.numba.rows.host import scaled_rows as scaled_rows
from sparseconv.engines.numba.rows.host import segment_argmax as segment_argmax
from sparseconv.engines.numba.rows.host import segment_moment as segment_moment
from sparseconv.engines.numba.rows.host import segment_statistics as segment_statistics
from sparseconv.engines.numba.rows.host import segment_sum as segment_sum
from sparseconv.engines.numba.windows.host import window_argmax as window_argmax
from sparseconv.engines.numba.windows.host import window_max as window_max
from sparseconv.engines.numba.windows.host import window_pick as window_pick
from sparseconv.engines.numba.windows.host import window_scatter as window_scatter
from sparseconv.engines.numba.windows.host import window_sum as window_sum


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why tensors of this kind cannot run here, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if config.DISABLE_JIT:
        return _not_compiled()
    if dtype.is_floating_point and dtype not in FLOATS:
        return f"it has no arithmetic in {dtype}"
    return None


@functools.cache
def _not_compiled() -> str:
    """Return why nothing runs, and say once that another engine does."""
    reason = "NUMBA_DISABLE_JIT is set, so nothing is compiled"
    logging.getLogger("sparseconv").warning("%s: the plain engine runs, and is slower", reason)
    return reason

"""The plain engine: PyTorch's own operators, on any device; its functions by name."""

from __future__ import annotations

import torch

from sparseconv.core.dtypes import FLOATS
from sparseconv.engines.torch.deform import sample_gemm as sample_gemm
from sparseconv.engines.torch.deform import sample_gemm_grads as sample_gemm_grads
from sparseconv.engines.torch.keys import ascends as ascends
from sparseconv.engines.torch.keys import bounds as bounds
from sparseconv.engines.torch.keys import build_index as build_index
from sparseconv.engines.torch.keys import lookup as lookup
from sparseconv.engines.torch.maps import build_rulebook as build_rulebook
from sparseconv.engines.torch.maps import reached_keys as reached_keys
from sparseconv.engines.torch.products import gather_gemm_epilogue as gather_gemm_epilogue
from sparseconv.engines.torch.products import gather_gemm_reduce as gather_gemm_reduce
from sparseconv.engines.torch.products import gather_gemm_scatter as gather_gemm_scatter
from sparseconv.engines.torch.products import pack_weight as pack_weight
from sparseconv.engines.torch.rows import affine_rows as affine_rows
from sparseconv.engines.torch.rows import column_sum as column_sum
from sparseconv.engines.torch.rows import merge_statistics as merge_statistics
from sparseconv.engines.torch.rows import normalised_rows as normalised_rows
from sparseconv.engines.torch.rows import scaled_rows as scaled_rows
from sparseconv.engines.torch.rows import segment_argmax as segment_argmax
from sparseconv.engines.torch.rows import segment_moment as segment_moment
from sparseconv.engines.torch.rows import segment_statistics as segment_statistics
from sparseconv.engines.torch.rows import segment_sum as segment_sum
from sparseconv.engines.torch.windows import window_argmax as window_argmax
from sparseconv.engines.torch.windows import window_max as window_max
from sparseconv.engines.torch.windows import window_pick as window_pick
from sparseconv.engines.torch.windows import window_scatter as window_scatter
from sparseconv.engines.torch.windows import window_sum as window_sum


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return None for every floating point dtype on every device."""
    if dtype not in FLOATS and dtype.is_floating_point:
        return f"it has no arithmetic in {dtype}"
    return None

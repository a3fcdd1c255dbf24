"""What acts on each value alone, and pooling over whole samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.core.arguments import check_kind
from sparseconv.functional.pooling import global_pool


def fapply(
    input: SparseTensor, fn: Callable[..., Tensor], *args: Any, **kwargs: Any
) -> SparseTensor:
    """Return ``fn`` of the features, on the same coordinates."""
    check_kind("input", input, SparseTensor, "a SparseTensor")
    return input.with_feats(fn(input.feats, *args, **kwargs))


def relu(input: SparseTensor, inplace: bool = True) -> SparseTensor:
    """Return the larger of each value and 0."""
    return fapply(input, F.relu, inplace=inplace)


def silu(input: SparseTensor, inplace: bool = True) -> SparseTensor:
    """Return each value times its sigmoid."""
    return fapply(input, F.silu, inplace=inplace)


def leaky_relu(
    input: SparseTensor, negative_slope: float = 0.1, inplace: bool = True
) -> SparseTensor:
    """Return each value, times ``negative_slope`` below 0."""
    return fapply(input, F.leaky_relu, negative_slope=negative_slope, inplace=inplace)


def global_avg_pool(inputs: SparseTensor) -> Tensor:
    """Return the mean over the rows of each sample, ``[B, C]``; 0 for a sample without any."""
    check_kind("inputs", inputs, SparseTensor, "a SparseTensor")
    return global_pool.global_avg_pool(inputs.on_sites)


def global_max_pool(inputs: SparseTensor) -> Tensor:
    """Return the largest value over the rows of each sample, ``[B, C]``; 0 without any."""
    check_kind("inputs", inputs, SparseTensor, "a SparseTensor")
    return global_pool.global_max_pool(inputs.on_sites)


__all__ = ["fapply", "global_avg_pool", "global_max_pool", "leaky_relu", "relu", "silu"]

"""Choices under MinkowskiEngine's names; those of how to compute are taken without effect."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

VERSION = "0.5.4"  # of MinkowskiEngine, whose names these are


class RegionType(Enum):
    """The shape of a kernel; layers take the hypercube."""

    HYPER_CUBE = 0
    HYPER_CROSS = 1
    CUSTOM = 2


class PoolingMode(Enum):
    """What a pooling does with the values that it joins."""

    LOCAL_SUM_POOLING = 0
    LOCAL_AVG_POOLING = 1
    LOCAL_MAX_POOLING = 2
    GLOBAL_SUM_POOLING_DEFAULT = 3
    GLOBAL_AVG_POOLING_DEFAULT = 4
    GLOBAL_MAX_POOLING_DEFAULT = 5
    GLOBAL_SUM_POOLING_KERNEL = 6
    GLOBAL_AVG_POOLING_KERNEL = 7
    GLOBAL_MAX_POOLING_KERNEL = 8
    GLOBAL_SUM_POOLING_PYTORCH_INDEX = 9
    GLOBAL_AVG_POOLING_PYTORCH_INDEX = 10
    GLOBAL_MAX_POOLING_PYTORCH_INDEX = 11


class BroadcastMode(Enum):
    """What a broadcast does with a sample's row at each of its sites."""

    ELEMENTWISE_ADDITON = 0  # its own spelling
    ELEMENTWISE_MULTIPLICATION = 1


class SparseTensorOperationMode(Enum):
    """Whether tensors share one coordinate manager."""

    SEPARATE_COORDINATE_MANAGER = 0
    SHARE_COORDINATE_MANAGER = 1


class SparseTensorQuantizationMode(Enum):
    """How rows that fall on one site become one."""

    RANDOM_SUBSAMPLE = 0
    UNWEIGHTED_AVERAGE = 1
    UNWEIGHTED_SUM = 2
    NO_QUANTIZATION = 3
    MAX_POOL = 4
    SPLAT_LINEAR_INTERPOLATION = 5


# What merges rows under each mode, as `reduce=` of `sparseconv.SparseTensor` names it.
REDUCTIONS = {
    SparseTensorQuantizationMode.RANDOM_SUBSAMPLE: "first",
    SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE: "mean",
    SparseTensorQuantizationMode.UNWEIGHTED_SUM: "sum",
    SparseTensorQuantizationMode.MAX_POOL: "max",
}


class MinkowskiAlgorithm(Enum):
    """Taken without effect."""

    DEFAULT = 0
    MEMORY_EFFICIENT = 1
    SPEED_OPTIMIZED = 2


class ConvolutionMode(Enum):
    """Taken without effect."""

    DEFAULT = 0
    DIRECT_GEMM = 1
    COPY_GEMM = 2


class CoordinateMapType(Enum):
    """Taken without effect: coordinates lie where their tensor does."""

    CPU = 0
    CUDA = 1


class GPUMemoryAllocatorType(Enum):
    """Taken without effect."""

    PYTORCH = 0
    CUDA = 1


def set_gpu_allocator(backend: Any) -> None:
    """Take a choice of allocator, without effect."""


def set_memory_manager_backend(backend: Any) -> None:
    """Take a choice of allocator, without effect."""


def is_cuda_available() -> bool:
    """Return whether PyTorch sees a CUDA device."""
    return torch.cuda.is_available()


def cuda_version() -> int:
    """Return the version of CUDA that PyTorch was built for, 11080 for 11.8; -1 for none."""
    major, _, minor = (torch.version.cuda or "").partition(".")
    return int(major) * 1000 + int(minor) * 10 if major else -1


__all__ = [
    "BroadcastMode",
    "ConvolutionMode",
    "CoordinateMapType",
    "GPUMemoryAllocatorType",
    "MinkowskiAlgorithm",
    "PoolingMode",
    "RegionType",
    "SparseTensorOperationMode",
    "SparseTensorQuantizationMode",
    "cuda_version",
    "is_cuda_available",
    "set_gpu_allocator",
    "set_memory_manager_backend",
]

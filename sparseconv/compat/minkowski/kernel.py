"""Kernels: their shape, and the windows that they are at a tensor stride."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.minkowski.constants import RegionType
from sparseconv.core.arguments import Ints, check_int, plain
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError


def convert_to_int_list(arg: Any, dimension: int) -> list[int]:
    """Return a number, or one per axis, as a list of ``dimension`` ints."""
    if not hasattr(arg, "__len__") or (isinstance(arg, Tensor) and arg.ndim == 0):
        return [int(plain(arg))] * dimension
    entries = [int(entry) for entry in arg]
    if len(entries) != dimension:
        raise SparseConvValueError(
            f"arg: must have {dimension} entries, one per axis, got {entries}"
        )
    return entries


def convert_to_int_tensor(arg: Any, dimension: int) -> Tensor:
    """Return the same as an int32 tensor."""
    return torch.tensor(convert_to_int_list(arg, dimension), dtype=torch.int32)


class KernelGenerator:
    """The shape of a kernel.

    The first axis of a hypercube runs fastest. A kernel that is odd along an axis has its middle on
    the site; one that is even begins on it.

    Args:
        kernel_size, stride, dilation: int or one per axis.
        is_transpose: taken without effect, as there.
        region_type: must be ``RegionType.HYPER_CUBE``.
        region_offsets, axis_types: must be None.
        expand_coordinates: whether the output is every site that an input reaches.
        dimension: number of spatial axes.

    Raises:
        SparseConvError: an argument that no kernel can have; another region.
    """

    def __init__(
        self,
        kernel_size: Any = -1,
        stride: Any = 1,
        dilation: Any = 1,
        is_transpose: bool = False,
        region_type: RegionType = RegionType.HYPER_CUBE,
        region_offsets: Tensor | None = None,
        expand_coordinates: bool = False,
        axis_types: Any = None,
        dimension: int = -1,
    ) -> None:
        check_int("dimension", dimension, least=1)
        check_region(region_type, region_offsets, axis_types)
        self.kernel_size = convert_to_int_list(kernel_size, dimension)
        self.kernel_stride = convert_to_int_list(stride, dimension)
        self.kernel_dilation = convert_to_int_list(dilation, dimension)
        for name in ("kernel_size", "kernel_stride", "kernel_dilation"):
            if min(getattr(self, name)) < 1:
                raise SparseConvValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        self.region_type = region_type
        self.region_offsets = torch.empty(0, dtype=torch.int32)
        self.axis_types = axis_types
        self.dimension = dimension
        self.kernel_volume = math.prod(self.kernel_size)
        self.requires_strided_coordinates = set(self.kernel_stride) == {1}
        self.expand_coordinates = expand_coordinates

    def get_kernel(self, tensor_stride: Any, is_transpose: bool) -> tuple[RegionType, Tensor, int]:
        """Return the region, no offsets, and the number of kernel cells."""
        return self.region_type, self.region_offsets, self.kernel_volume

    def __repr__(self) -> str:
        """Return the arguments."""
        return (
            f"KernelGenerator(kernel_size={self.kernel_size}, kernel_stride={self.kernel_stride}, "
            f"kernel_dilation={self.kernel_dilation}, region_type={self.region_type}, "
            f"expand_coordinates={self.expand_coordinates}, dimension={self.dimension})"
        )


def check_region(region_type: Any, region_offset: Any = None, axis_types: Any = None) -> None:
    """Raise for what is no hypercube."""
    given = region_type is RegionType.HYPER_CUBE and region_offset is None and axis_types is None
    if not given:
        raise SparseConvNotImplementedError(
            f"region_type: use RegionType.HYPER_CUBE without region_offset and axis_types, got "
            f"{region_type}; any other kernel is a hypercube whose other cells weigh 0"
        )


def get_kernel_volume(
    region_type: RegionType,
    kernel_size: Sequence[int],
    region_offset: Any,
    axis_types: Any,
    dimension: int,
) -> int:
    """Return the number of kernel cells."""
    check_region(region_type, region_offset, axis_types)
    return math.prod(convert_to_int_list(kernel_size, dimension))


@functools.lru_cache(maxsize=256)  # a network asks for the same few at every call
def window(kernel: Ints, stride: Ints, dilation: Ints, kind: Kind) -> Geometry:
    """Return a layer's window and site law; see :class:`KernelGenerator` for where it begins."""
    odd = all(size % 2 for size in kernel)
    if kind is Kind.STRIDED and odd and set(stride) == {1}:
        return make_geometry(kernel, dilation=dilation, kind=Kind.SUBMANIFOLD)
    both = zip(kernel, dilation, strict=True)
    padding = tuple(step * (size - 1) // 2 if size % 2 else 0 for size, step in both)
    return make_geometry(kernel, stride=stride, padding=padding, dilation=dilation, kind=kind)


@functools.lru_cache(maxsize=256)
def block(stride: Ints, kind: Kind = Kind.STRIDED) -> Geometry:
    """Return the cells of a stride as windows: what falls into one site of the next level."""
    return make_geometry(stride, stride=stride, kind=kind)


__all__ = [
    "KernelGenerator",
    "convert_to_int_list",
    "convert_to_int_tensor",
    "get_kernel_volume",
]

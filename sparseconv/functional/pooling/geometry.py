"""The geometry of a pooling: windows, their steps, and ends behind the padding."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparseconv.core.arguments import Ints, Size, check_kind, entries_of, per_axis
from sparseconv.core.geometry import Geometry, make_geometry
from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError
from sparseconv.functional.checks import check_axes
from sparseconv.tensor import SparseTensor


def pool_geometry(
    shape: Ints,
    dimensions: int,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Geometry:
    """Return the checked geometry of a pooling over a tensor of ``shape``.

    Raises:
        SparseConvValueError: another number of axes, padding beyond half of the window, an output
            size below 1.
    """
    check_axes(len(shape) - 2, dimensions, "pooling")
    geometry = check_pooling(dimensions, kernel_size, stride, padding, dilation)
    geometry = _with_mode(geometry, shape[2:], ceil_mode)
    geometry.output_shape(shape[2:])
    return geometry


def check_pooling(
    dimensions: int,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
) -> Geometry:
    """Return the geometry of a pooling; what depends on the input's extent is not checked."""
    kernel = per_axis("kernel_size", kernel_size, dimensions, least=1)
    if stride is None or entries_of(stride) == ():
        stride = kernel
    geometry = make_geometry(kernel, stride=stride, padding=padding, dilation=dilation)
    for pad, size, step in zip(geometry.padding, kernel, geometry.dilation, strict=True):
        window = step * (size - 1) + 1
        if 2 * pad > window:
            raise SparseConvValueError(
                f"padding: must be at most half of the window, got {pad} for a window of {window}"
            )
    return geometry


def _with_mode(geometry: Geometry, spatial_shape: Ints, ceil_mode: bool) -> Geometry:
    """Return the geometry whose last windows may, with ``ceil_mode``, end behind the padding.

    Windows that would start behind the input and the padding in front of it are left out, which is
    torch's rule. An axis of extent 0 has no last window.
    """
    check_kind("ceil_mode", ceil_mode, bool, "a bool")
    if not ceil_mode:
        return geometry
    ends = []
    for axis, length in enumerate(spatial_shape):
        if length == 0:
            ends.append(geometry.padding[axis])
            continue
        size, step, pad = geometry.kernel_size[axis], geometry.stride[axis], geometry.padding[axis]
        window = geometry.dilation[axis] * (size - 1) + 1
        windows = -(-(length + 2 * pad - window) // step) + 1
        if (windows - 1) * step >= length + pad:
            windows -= 1
        fits = (length + 2 * pad - window) // step + 1
        # equal geometries share a rulebook: change nothing where the number of windows stays
        reach = (windows - 1) * step + window - length - pad
        ends.append(pad if windows == fits else reach)
    return replace(geometry, padding_end=tuple(ends))


def sparse_pool_geometry(
    input: SparseTensor,
    dimensions: int,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Geometry:
    """Return the geometry of a pooling of a sparse tensor; a graph knows no extent to check.

    Raises:
        SparseConvError: as :func:`pool_geometry`; ``ceil_mode`` in a graph.
    """
    if not torch.compiler.is_compiling():
        check_axes(input.ndim - 2, dimensions, "pooling")
        geometry = check_pooling(dimensions, kernel_size, stride, padding, dilation)
        closed = tuple(end or 0 for end in input.sites.ends[1:])
        geometry = _with_mode(geometry, closed, ceil_mode)
        geometry.output_shape(closed, whole=input.sites.inferred)
        return geometry
    if ceil_mode:
        raise SparseConvNotImplementedError(
            "ceil_mode: depends on the extent, which a compiled graph does not know; pool without"
        )
    return check_pooling(dimensions, kernel_size, stride, padding, dilation)

"""Locally connected layers: a convolution whose weights differ from place to place."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.autograd.products import gather_gemm_scatter
from sparseconv.autograd.segments import place_rows
from sparseconv.core.arguments import Size, check_tensor
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Geometry, make_geometry
from sparseconv.core.index import Packing
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input, check_same
from sparseconv.functional.convolution.dense import with_ends
from sparseconv.tensor import SparseTensor


@dispatched
def locally_connected(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
) -> Tensor:
    """Convolution with unshared weights: each output position has its own.

    ``y[o] = bias[o] + sum over k of weight[o, k] x[o * stride - padding + k * dilation]``.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor (regular site law) or dense, 1 or 2 axes.
        weight: ``[*output, C_out, C_in, *kernel]``.
        bias: ``[C_out, *output]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.

    Returns:
        ``[B, C_out, *output]``, of the input's kind.

    Raises:
        SparseConvError: channels, extents, dtypes or devices that do not fit.

    Source:
        Taigman et al. 2014, "DeepFace", section 3.2; LeCun 1989, "Generalization and network
        design strategies".

    Example:
        >>> import torch, sparseconv as sc
        >>> weight = torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1)
        >>> sc.functional.locally_connected(torch.ones(1, 1, 2), weight)
        tensor([[[ 1., 10.]]])
    """
    geometry = _checked(input, weight, bias, stride, padding, dilation)
    windows = with_ends(input, geometry.padding, geometry.padding_end)
    for axis in range(geometry.dimensions):
        step = geometry.dilation[axis]
        span = step * (geometry.kernel_size[axis] - 1) + 1
        windows = windows.unfold(2 + axis, span, geometry.stride[axis])[..., ::step]
    # [B, C_in, *output, *kernel] -> [B, P, C_in * K]
    rows = windows.flatten(2, 1 + geometry.dimensions).flatten(3).transpose(1, 2).flatten(2)
    out = _products(rows, weight, bias, geometry)
    result: Tensor = out.transpose(1, 2).unflatten(2, weight.shape[: geometry.dimensions])
    return result


@implements(locally_connected)
def _sparse_locally_connected(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
) -> SparseTensor:
    geometry = _checked(input, weight, bias, stride, padding, dilation)
    if min(input.sites.lower) < 0:
        raise SparseConvValueError(
            f"input: give spatial_shape, every position has weights of its own: axes have no end, "
            f"{input.sites.ends[1:]}"
        )
    sites, rulebook = input.sites.convolve(geometry)
    # a depthwise product with one-hot weights lays each window's rows side by side: [n_out, C * K]
    one_hot = torch.eye(geometry.num_cells, dtype=input.dtype, device=input.device)
    cells = one_hot[:, None, None].expand(-1, input.channels, -1, -1)
    rows = gather_gemm_scatter(input.features, cells.contiguous(), rulebook)
    positions = Packing.dense(sites.dense_extent).pack(sites.shared_coords)
    count = sites.index.keys.new_tensor(sites.spatial_shape).prod()
    windows = rows.new_zeros(sites.batch_size * int(count), rows.shape[1])
    windows = place_rows(rows, positions, windows).unflatten(0, (sites.batch_size, int(count)))
    out = _products(windows, weight, bias, geometry).flatten(0, 1)
    return SparseTensor.unchecked(out[positions], sites)


def _products(rows: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return ``[B, P, C_out]`` from windows ``[B, P, C_in * K]``.

    One sample at a time, so that its bits do not depend on the others.
    """
    matrices = weight.flatten(0, geometry.dimensions - 1).flatten(2)
    if rows.shape[0] == 0:
        return torch.einsum("bpi,poi->bpo", rows, matrices)
    out = torch.stack([torch.bmm(matrices, sample[:, :, None])[:, :, 0] for sample in rows])
    return out if bias is None else out + bias.flatten(1).T


def _checked(
    input: Input,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size | str,
    dilation: Size,
) -> Geometry:
    """Return the geometry of the layer, whose arguments fit each other."""
    for name, value in (("weight", weight), ("bias", bias)):
        if name != "bias" or value is not None:
            check_tensor(name, value)
    axes = input.ndim - 2
    if axes not in (1, 2) or weight.ndim != 2 * axes + 2:
        raise SparseConvValueError(
            f"weight: must have shape (*output, C_out, C_in, *kernel) for an input of 1 or 2 "
            f"spatial axes, got {tuple(weight.shape)} for {axes} axes"
        )
    geometry = make_geometry(
        weight.shape[2 + axes :], stride=stride, padding=padding, dilation=dilation
    )
    output = geometry.output_shape(tuple(input.shape[2:]))
    channels = (weight.shape[axes], input.shape[1])
    if tuple(weight.shape[: 2 + axes]) != (*output, *channels):
        raise SparseConvValueError(
            f"weight: must have shape (*output, C_out, C_in, *kernel) = "
            f"{(*output, *channels, *geometry.kernel_size)} for this input, "
            f"got {tuple(weight.shape)}"
        )
    check_same("weight", weight, input)
    if bias is not None:
        if tuple(bias.shape) != (channels[0], *output):
            raise SparseConvValueError(
                f"bias: must have shape (C_out, *output) = {(channels[0], *output)}, "
                f"got {tuple(bias.shape)}"
            )
        check_same("bias", bias, input)
    return geometry

"""Partial convolution: what is missing is not zero, and the rest of the window stands in for it.

A mask says which values are valid. A dense tensor is given one and returns the output's along with
the output; without one every value is valid. A SparseTensor needs none: its sites are the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.products import scaled_gather_gemm_scatter
from sparseconv.core.arguments import Size
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.functional.checks import check_convolution
from sparseconv.functional.convolution import masks
from sparseconv.functional.convolution.products import cells_first, cells_first_transposed
from sparseconv.functional.precision import lowered
from sparseconv.tensor import SparseTensor

_TRANSPOSED: dict[int, Callable[..., Any]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


@dispatched
def partial_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    """Partial convolution: a convolution of the valid values, times window size over valid count.

    ``y = |1| / sum(m) * sum(m * w * x) + b`` where the window holds a valid value, else 0; its
    mask is ``[sum(m) > 0]``. ``|1|`` is the whole window, padding included: with every value
    valid (``mask=None``, "partial convolution based padding") the result is the zero-padded
    convolution with its border reweighted. What lies under mask 0 is never read, not even NaN.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_out, C_in / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.
        groups: divides both channel counts; a mask per channel is counted in its own group.
        mask: bool. Dense: ``[B, 1, *spatial]``, ``[B, *spatial]``, or ``[B, C_in, *spatial]`` with
            a mask per channel. Sparse: None, or ``[N, C_in]`` where a site has missing channels.
        normalize: ``"ratio"``, the formula; ``"mean"`` without ``|1|``: the mean over the valid
            places (of a mask per channel: over the valid values, per channel of the group).

    Returns:
        y ``[B, C_out, *output]`` of the input's kind, on sparse input by the regular site law.
        Where a mask was given, ``(y, mask)``: the mask ``[B, 1, *output]``, or per channel where
        that was.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what a convolution cannot have.

    Source:
        Liu et al. 2018, "Image Inpainting for Irregular Holes Using Partial Convolutions" (arXiv
        1804.07723), and "Partial Convolution based Padding" (arXiv 1811.11718); ``"mean"``: Uhrig
        et al. 2017, "Sparsity Invariant CNNs" (arXiv 1708.06500).

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[1.0, 2.0, torch.nan]]]), torch.tensor([[[True, True, False]]])
        >>> y, mask = sc.functional.partial_conv(x, torch.ones(1, 1, 3), padding=1, mask=mask)
        >>> y, mask
        (tensor([[[4.5000, 4.5000, 6.0000]]]), tensor([[[True, True, True]]]))
    """
    check_convolution(input, weight, bias, groups)
    masks.check_normalize(normalize)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    geometry.output_shape(tuple(input.shape[2:]))
    known = masks.dense_mask(mask, input)
    total = masks.padded_conv(masks.hidden(input, known), weight, geometry, groups)
    left = masks.dense_coverage(known, geometry, groups, normalize, input.dtype)
    y, reached = _finish(total, masks.per_channel(left, weight.shape[0]), bias)
    return y if mask is None else (y, masks.out_mask(reached, known, weight.shape[0]))


@implements(partial_conv)
def _sparse_partial_conv(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    check_convolution(input, weight, bias, groups)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    cells = cells_first(weight, groups)
    return _sparse(input, cells, bias, geometry, mask, normalize)


@dispatched
def subm_partial_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    """Submanifold partial convolution: :func:`partial_conv` at the active sites alone.

    No site is added: on a dense tensor with a mask, ``y`` is 0 where no channel was valid.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_out, C_in / groups, *kernel]``, odd on every axis.
        bias: ``[C_out]`` or None.
        dilation: int or one per axis.
        groups, mask, normalize: as of :func:`partial_conv`.

    Returns:
        y ``[B, C_out, *spatial]`` of the input's kind, on the input's sites; ``(y, mask)`` where a
        mask was given.

    Raises:
        SparseConvError: an even kernel; a mask that is not bool or does not fit; what a
            convolution cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (5,))
        >>> sc.functional.subm_partial_conv(x, torch.ones(1, 1, 3)).features.flatten()
        tensor([3., 3.])
    """
    check_convolution(input, weight, bias, groups)
    masks.check_normalize(normalize)
    geometry = make_geometry(weight.shape[2:], dilation=dilation, kind=Kind.SUBMANIFOLD)
    known = masks.dense_mask(mask, input)
    total = masks.padded_conv(masks.hidden(input, known), weight, geometry, groups)
    left = masks.dense_coverage(known, geometry, groups, normalize, input.dtype)
    left = left._replace(reached=left.reached & known.any(dim=1, keepdim=True))
    y, reached = _finish(total, masks.per_channel(left, weight.shape[0]), bias)
    return y if mask is None else (y, masks.out_mask(reached, known, weight.shape[0]))


@implements(subm_partial_conv)
def _sparse_subm_partial_conv(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    check_convolution(input, weight, bias, groups)
    geometry = make_geometry(weight.shape[2:], dilation=dilation, kind=Kind.SUBMANIFOLD)
    cells = cells_first(weight, groups)
    return _sparse(input, cells, bias, geometry, mask, normalize)


@dispatched
def partial_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    """Partial transposed convolution: valid values are scattered, sums reweighted.

    ``y = |1| / sum(m) * sum(m * w * x) + b`` over the values that reach a site, 0 where none does.
    ``|1|`` counts those that would reach it without border and holes: it depends on the site's
    place between two strides, so that with every value valid nothing but the border changes.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 3 spatial axes.
        weight: ``[C_in, C_out / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, padding, output_padding, groups, dilation: as of torch's transposed convolution.
        mask, normalize: as of :func:`partial_conv`.

    Returns:
        y ``[B, C_out, *output]`` of the input's kind; ``(y, mask)`` where a mask was given.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what a transposed convolution
            cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])
        >>> weight = torch.ones(1, 1, 2)
        >>> sc.functional.partial_conv_transpose(x, weight, mask=mask)[0]
        tensor([[[2., 2., 0.]]])
    """
    axes = weight.ndim - 2 if weight.ndim - 2 in _TRANSPOSED else max(_TRANSPOSED)
    check_convolution(input, weight, bias, groups, axes, transposed=True)
    masks.check_normalize(normalize)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    geometry = make_geometry(
        weight.shape[2:], **options, output_padding=output_padding, kind=Kind.TRANSPOSED
    )
    size = geometry.output_shape(tuple(input.shape[2:]))
    known = masks.dense_mask(mask, input)
    conv = _TRANSPOSED[axes]
    options["output_padding"] = output_padding
    total = conv(masks.hidden(input, known), weight, None, groups=groups, **options)
    values, most = masks.per_group(known, groups, input.dtype)
    counted = values.shape[1]
    with torch.autocast(values.device.type, enabled=False):
        ones = values.new_ones(counted, 1, *geometry.kernel_size)
        count = conv(values, ones, None, groups=counted, **options)
    windows = masks.dense_windows(geometry, size, count)
    left = masks.per_channel(masks.coverage(count, most, windows, normalize), total.shape[1])
    y, reached = _finish(total, left, bias)
    return y if mask is None else (y, masks.out_mask(reached, known, total.shape[1]))


@implements(partial_conv_transpose)
def _sparse_partial_conv_transpose(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
) -> Any:
    check_convolution(input, weight, bias, groups, transposed=True)
    geometry = make_geometry(
        weight.shape[2:],
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=output_padding,
        kind=Kind.TRANSPOSED,
    )
    cells = cells_first_transposed(weight, groups)
    return _sparse(input, cells, bias, geometry, mask, normalize)


def _finish(total: Tensor, left: masks.Coverage, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the normalised sums, 0 where nothing is valid (the bias does not reach there)."""
    y = masks.normalised(total, left.factor, bias)
    return masks.hidden(y, left.reached), left.reached


def _sparse(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    mask: Tensor | None,
    normalize: str,
) -> Any:
    """Return the plain product, one multiplication a site later; with a mask, also the mask.

    ``weight`` is ``[K, G, c_in, c_out]``.
    """
    masks.check_normalize(normalize)
    masks.check_row_mask(mask, input)
    sites, rulebook = input.sites.convolve(geometry)
    groups, channels = weight.shape[1], weight.shape[1] * weight.shape[3]
    features = input.features if mask is None else masks.hidden(input.features, mask)
    features, weight = lowered(features), lowered(weight)
    window = (sites, rulebook, geometry)
    if mask is None:
        factor = masks.row_factor(*window, normalize, features.dtype)
        out = scaled_gather_gemm_scatter(features, weight, factor, bias, rulebook)
        return SparseTensor.on_sites(out, sites)
    left = masks.row_coverage(mask, *window, groups, normalize, features.dtype)
    factor, reached = masks.per_channel(left, channels)
    out = scaled_gather_gemm_scatter(features, weight, factor, bias, rulebook)
    y = SparseTensor.on_sites(masks.hidden(out, reached), sites)
    return y, masks.out_mask(reached, mask, channels)

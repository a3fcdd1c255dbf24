"""Deformable convolution, v1 and v2: every kernel cell reads from where its offset points."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from sparseconv.autograd.sampling import equal_taps, sample_gemm
from sparseconv.core.arguments import Size, check_device, check_kind, per_axis
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.dtypes import summable
from sparseconv.core.geometry import Geometry
from sparseconv.core.rulebook import Taps
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.checks import Input, check_tensors
from sparseconv.functional.convolution.products import (
    cells_first,
    check_extent,
    checked,
    target_sites,
)
from sparseconv.functional.convolution.table import CONVOLUTIONS
from sparseconv.sites.sites import Sites
from sparseconv.sites.taps import low_sites
from sparseconv.tensor import SparseTensor

# Farther than this nothing is read: offsets are cut off here before they become integers.
FARTHEST = 1e9


@dispatched
def deform_conv(
    input: Tensor,
    offset: Input,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    mask: Input | None = None,
    *,
    submanifold: bool = False,
    like: Input | None = None,
) -> Tensor:
    """Deformable convolution: each kernel cell is moved by its own offset at every output site.

    ``y[o] = bias + sum over k of mask[k, o] * weight[k] x(o * stride - padding + k * dilation +
    offset[k, o])``, where ``x(q)`` is N-linear between the 2^D sites around ``q``; a site that is
    outside or inactive counts 0. Arguments, channel layout and behaviour at the border are
    those of ``torchvision.ops.deform_conv2d``.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 3 spatial axes.
        offset: ``[B, H * K * D, *output]``, in sites, of the input's kind: for each of H offset
            groups and each of the K kernel cells the shift along each axis, first axis first.
            On sparse input a SparseTensor on the output sites.
        weight: ``[C_out, C_in / groups, *kernel]``; it tells the number of groups.
        bias: ``[C_out]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.
        mask: ``[B, H * K, *output]``, of the offset's kind: what each cell's sample is multiplied
            with (v2); None for v1.
        submanifold: keep the input's sites; the kernel is odd, the stride 1 and the padding what
            centres it.
        like: as of :func:`conv`; offset and mask lie on its sites.

    Returns:
        ``[B, C_out, *output]``, of the input's kind; a SparseTensor by the site law of the
        convolution without offsets.

    Raises:
        SparseConvError: channels, offsets or masks that do not fit, other sites than the output's.

    Source:
        Dai et al. 2017, "Deformable Convolutional Networks" (arXiv 1703.06211); Zhu et al. 2019,
        "Deformable ConvNets v2" (arXiv 1811.11168).

    Example:
        >>> import torch, sparseconv as sc
        >>> x, half = torch.tensor([[[10.0, 20.0, 30.0]]]), torch.full((1, 1, 3), 0.5)
        >>> sc.functional.deform_conv(x, half, torch.ones(1, 1, 1))
        tensor([[[15., 25., 15.]]])
    """
    geometry, groups = _checked(input, weight, bias, (stride, padding, dilation), submanifold)
    out_shape = check_extent(geometry, input, like)
    shift, share = _dense("offset", offset), None if mask is None else _dense("mask", mask)
    x, shift, share, parameters = _in_one_dtype(input, shift, share, weight, bias)
    _check_offset(shift, share, geometry, (input.shape[0], *out_shape), input.shape[1])
    planes = _planes(shift.transpose(0, 1).flatten(1), geometry)
    modulation = None if share is None else _planes(share.transpose(0, 1).flatten(1), geometry, 1)
    cells, part = _whole_and_part(planes)
    taps = _dense_taps(cells, geometry, tuple(input.shape), out_shape)
    rows = x.movedim(1, -1).reshape(-1, input.shape[1])
    out = _product(rows, part, modulation, parameters, groups, taps)
    return out.reshape(input.shape[0], *out_shape, weight.shape[0]).movedim(-1, 1).contiguous()


@implements(deform_conv)
def _sparse_deform_conv(
    input: SparseTensor,
    offset: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    mask: SparseTensor | None = None,
    *,
    submanifold: bool = False,
    like: SparseTensor | None = None,
) -> SparseTensor:
    geometry, groups = _checked(input, weight, bias, (stride, padding, dilation), submanifold)
    sites, _ = input.sites.convolve(geometry, target_sites(like, input))
    for name, given in (("offset", offset), ("mask", mask)):
        if given is not None or name == "offset":
            _check_sites(name, given, sites)
    shift = offset.features
    x, shift, share, parameters = _in_one_dtype(
        input.features, shift, None if mask is None else mask.features, weight, bias
    )
    # in ascending order of the sites, so that what adds up does not depend on the rows' order
    order = sites.row_order
    shift, share = _rows(shift, order), None if share is None else _rows(share, order)
    _check_offset(shift, share, geometry, (sites.num_sites,), input.channels)
    planes = _planes(shift.t(), geometry)
    modulation = None if share is None else _planes(share.t(), geometry, 1)
    cells, part = _whole_and_part(planes)
    guides = [offset.sites] if mask is None else [offset.sites, mask.sites]
    taps = input.sites.taps(cells, geometry, sites, guides)
    out = _product(x, part, modulation, parameters, groups, taps)
    back = None if order is None else torch.argsort(order)
    return SparseTensor.unchecked(_rows(out, back), sites)


def _checked(
    input: Input,
    weight: Tensor,
    bias: Tensor | None,
    steps: tuple[Size, Size | str, Size],
    submanifold: bool,
) -> tuple[Geometry, int]:
    """Return the geometry of the kernel and the number of groups that the weight implies."""
    check_tensors(input, weight, bias)
    axes = input.ndim - 2
    if not 1 <= axes <= 3:
        raise SparseConvValueError(f"input: must have 1 to 3 spatial axes, got {axes}")
    share = weight.shape[1] if weight.ndim > 1 else 0
    channels: Any = input.size(1)
    stride, padding, dilation = steps
    bound = {"dilation": dilation, "groups": max(1, channels // max(share, 1))}
    if not submanifold:
        bound |= {"stride": stride, "padding": padding}
        return checked(CONVOLUTIONS["conv"], input, weight, bias, bound)
    if per_axis("stride", stride, axes) != (1,) * axes:
        raise SparseConvValueError(f"stride: must be 1 with submanifold=True, got {stride}")
    if padding not in (0, (0,) * axes, [0] * axes):
        raise SparseConvValueError(
            f"padding: must be left out with submanifold=True, which centres the kernel, "
            f"got {padding}"
        )
    return checked(CONVOLUTIONS["subm_conv"], input, weight, bias, bound)


def _check_offset(
    offset: Tensor, mask: Tensor | None, geometry: Geometry, extent: tuple[int, ...], channels: int
) -> None:
    """Raise unless offset and mask have the channels and the extent that the kernel asks for."""
    per_group = geometry.num_cells * geometry.dimensions
    count = offset.shape[1] if offset.ndim > 1 else 0
    groups = count // per_group
    if count % per_group or groups < 1 or channels % groups:
        raise SparseConvValueError(
            f"offset: must have {per_group} channels (axes times kernel cells) for each offset "
            f"group, whose number divides the {channels} input channels; got {tuple(offset.shape)}"
        )
    named = [("offset", offset, offset.shape[1])]
    if mask is not None:
        named.append(("mask", mask, groups * geometry.num_cells))
    for name, given, count in named:
        expected = (extent[0], count, *extent[1:])
        if tuple(given.shape) != expected:
            raise SparseConvValueError(
                f"{name}: must have the shape {expected} for this input and kernel, "
                f"got {tuple(given.shape)}"
            )


def _dense(name: str, given: Input) -> Tensor:
    check_kind(name, given, Tensor, "a dense torch.Tensor as the input is")
    return cast(Tensor, given)


def _check_sites(name: str, given: Any, sites: Sites) -> None:
    check_kind(name, given, SparseTensor, "a SparseTensor as the input is")
    if not given.sites.may_be(sites):
        raise SparseConvValueError(
            f"{name}: must lie on the output sites, {sites}; got {given.sites}; a convolution of "
            f"the same input with the same kernel_size, stride, padding and dilation has them"
        )


def _in_one_dtype(
    input: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, Tensor | None]]:
    """Return the tensors ready to compute with: under autocast in float32, as torchvision does."""
    autocast = torch.is_autocast_enabled(input.device.type)
    for name, given in (("offset", offset), ("mask", mask)):
        if given is None:
            continue
        check_device(name, given, input.device)
        if given.dtype != input.dtype and not autocast:
            raise SparseConvTypeError(
                f"{name}: {given.dtype}, but the input is {input.dtype}; convert one of them"
            )

    def wide(x: Tensor) -> Tensor:
        return x.float() if autocast and x.dtype != torch.float64 else x

    # positions and shares of half precision are worked out in float32
    shift, share = (None if x is None else summable(x) for x in (offset, mask))
    assert shift is not None
    return wide(input), shift, share, (wide(weight), None if bias is None else wide(bias))


def _planes(values: Tensor, geometry: Geometry, axes: int | None = None) -> Tensor:
    """Return ``[H * K * D, N]`` as ``[H, K, D, N]``."""
    axes = geometry.dimensions if axes is None else axes
    groups = values.shape[0] // (geometry.num_cells * axes)
    return values.reshape(groups, geometry.num_cells, axes, values.shape[1])


def _rows(x: Tensor, order: Tensor | None) -> Tensor:
    return x if order is None else x.index_select(0, order)


def _whole_and_part(shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shifts' floor, as int32, and what is left over, in [0, 1)."""
    near = shift.clamp(-FARTHEST, FARTHEST)
    whole = near.detach().floor()
    return whole.nan_to_num(0).int(), near - whole


def _product(
    features: Tensor,
    part: Tensor,
    modulation: Tensor | None,
    parameters: tuple[Tensor, Tensor | None],
    groups: int,
    taps: Taps,
) -> Tensor:
    """Return the product ``[N, C_out]`` with the N-linear shares of each position's taps."""
    first, *others = torch.stack([1 - part, part], dim=3).unbind(2)  # [H, K, 2, N] an axis
    shares = first if modulation is None else first * modulation
    for both in others:
        shares = (shares.unsqueeze(3) * both.unsqueeze(2)).flatten(2, 3)
    weight, bias = parameters
    with torch.autocast(features.device.type, enabled=False):
        out = sample_gemm(features, shares, cells_first(weight, groups), taps)
    return out if bias is None else out + bias


def _dense_taps(
    cells: Tensor, geometry: Geometry, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> Taps:
    """Return the rows of a dense grid, whose sites are numbered row-major, batch first."""
    batch, _, *size = shape
    step = math.prod(size)
    count, places = batch * step, math.prod(out_shape)
    # half the memory is half the time; enough for all sums below but on the largest grids
    kind = torch.int32 if (1 + len(size)) * count < 2**31 else torch.int64
    grid = [torch.arange(n, dtype=kind, device=cells.device) for n in (batch, *out_shape)]
    numbers = [axis.flatten() for axis in torch.meshgrid(*grid, indexing="ij")]
    rows = (numbers[0] * step).reshape(1, 1, 1, -1)
    for axis, length in enumerate(size):
        step //= length
        low = low_sites(cells, numbers[1 + axis], geometry, axis)
        corners = torch.stack([low, low + 1], dim=2)  # [H, K, 2, N]
        inside = (corners >= 0) & (corners < length)
        # a single axis that leaves the grid makes the whole row negative
        along = torch.where(inside, corners * step, -count)
        rows = (rows.unsqueeze(3) + along.unsqueeze(2)).flatten(2, 3)
    return equal_taps(rows.int(), batch, places, count)

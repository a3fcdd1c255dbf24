"""Convolution: torch's own on a sparse tensor, submanifold, four axes, and the inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Size, came
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.checks import Input, check_convolution
from sparseconv.functional.convolution.products import (
    DENSE,
    DENSE_TRANSPOSED,
    Plan,
    cells_first,
    cells_first_transposed,
    convolved,
)
from sparseconv.tensor import SparseTensor


@dispatched
def subm_conv(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: Size = 1, groups: int = 1
) -> Tensor:
    """Submanifold convolution: the output sites are the input sites.

    ``y[o] = bias + sum over k of weight[k] x[o + (k - centre) * dilation]`` at the active sites;
    inactive sites count 0. On a dense tensor every site is active: a "same" convolution.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_out, C_in / groups, *kernel]``, odd on every axis.
        bias: ``[C_out]`` or None.
        dilation: int or one per axis.
        groups: divides both channel counts.

    Returns:
        ``[B, C_out, *spatial]``, of the input's kind, on the input's sites.

    Raises:
        SparseConvError: an even kernel; channels, groups, dtypes or devices that do not fit.

    Source:
        Graham and van der Maaten 2017, "Submanifold Sparse Convolutional Networks", section 2.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (5,))
        >>> sc.functional.subm_conv(x, torch.ones(1, 1, 3)).features.flatten()
        tensor([2., 2.])
    """
    check_convolution(input, weight, bias, groups)
    geometry = make_geometry(weight.shape[2:], dilation=dilation, kind=Kind.SUBMANIFOLD)
    dense = DENSE[geometry.dimensions]
    return dense(input, weight, bias, 1, geometry.padding, geometry.dilation, groups)


@implements(subm_conv)
def _sparse_subm_conv(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
) -> SparseTensor:
    return convolved(input, bias, plan_subm(input, weight, bias, dilation, groups))


def plan_subm(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
) -> Plan:
    """Return the plan of a submanifold convolution; arguments as of :func:`subm_conv`."""
    check_convolution(input, weight, bias, groups)
    geometry = make_geometry(weight.shape[2:], dilation=dilation, kind=Kind.SUBMANIFOLD)
    return Plan(*input.sites.convolve(geometry), cells_first(weight, groups))


@dispatched
def conv4d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over four axes, for space and time together; torch stops at three.

    Args:
        input: ``[B, C_in, *spatial]`` with four spatial axes, a SparseTensor or dense.
        weight: ``[C_out, C_in / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.
        groups: divides both channel counts.

    Returns:
        ``[B, C_out, *output]``, of the input's kind; on sparse input by the regular site law.

    Raises:
        SparseConvError: an output size below 1; channels, groups, dtypes or devices that do not
            fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.functional.conv4d(torch.ones(1, 1, 2, 2, 2, 2), torch.ones(1, 1, 2, 2, 2, 2)).item()
        16.0
    """
    check_convolution(input, weight, bias, groups, 4)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    geometry.output_shape(tuple(input.shape[2:]))
    ends = zip(reversed(geometry.padding), reversed(geometry.padding_end), strict=True)
    padded = F.pad(input, [pad for pair in ends for pad in pair])
    return DENSE[4](padded, weight, bias, geometry.stride, (0,) * 4, geometry.dilation, groups)


Planner = Callable[..., Plan]


def plan_conv(dimensions: int) -> Planner:
    """Return the planner of the convolution over ``dimensions`` axes; arguments as of torch's."""

    def plan(
        input: SparseTensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
    ) -> Plan:
        check_convolution(input, weight, bias, groups, dimensions)
        geometry = make_geometry(
            weight.shape[2:], stride=stride, padding=padding, dilation=dilation
        )
        return Plan(*input.sites.convolve(geometry), cells_first(weight, groups))

    return plan


def plan_conv_transpose(dimensions: int) -> Planner:
    """Return the planner of the transposed convolution over ``dimensions`` axes."""

    def plan(
        input: SparseTensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
    ) -> Plan:
        check_convolution(input, weight, bias, groups, dimensions, transposed=True)
        geometry = make_geometry(
            weight.shape[2:],
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
            kind=Kind.TRANSPOSED,
        )
        return Plan(*input.sites.convolve(geometry), cells_first_transposed(weight, groups))

    return plan


def _planned(plan: Planner) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of a convolution: what its planner plans, and the bias."""

    def convolution(
        input: SparseTensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **options: Any
    ) -> SparseTensor:
        return convolved(input, bias, plan(input, weight, bias, *args, **options))

    return convolution


implements(torch.conv1d)(_planned(plan_conv(1)))
implements(torch.conv2d)(_planned(plan_conv(2)))
implements(torch.conv3d)(_planned(plan_conv(3)))
implements(conv4d)(_planned(plan_conv(4)))
implements(torch.conv_transpose1d)(_planned(plan_conv_transpose(1)))
implements(torch.conv_transpose2d)(_planned(plan_conv_transpose(2)))
implements(torch.conv_transpose3d)(_planned(plan_conv_transpose(3)))


@dispatched
def inverse_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: Input | None = None,
) -> Tensor:
    """The adjoint of a strided convolution, back on the sites that the convolution read.

    With the same ``weight``, ``<conv(x), y> = <x, inverse_conv(y)>``. On a dense tensor it is
    torch's transposed convolution with the output size of ``like``.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_in, C_out / groups, *kernel]``, the layout of torch's transposed weight.
        bias: ``[C_out]`` or None.
        stride, padding, dilation: as of the strided layer to undo.
        groups: divides both channel counts.
        like: a tensor on the sites to return to; a sparse input finds them by itself where a
            layer of this geometry made its sites.

    Returns:
        ``[B, C_out, *spatial of like]``, of the input's kind.

    Raises:
        SparseConvError: no layer of this geometry made the input's sites and ``like`` is not
            given; channels, groups, dtypes or devices that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (6,))
        >>> down = torch.nn.functional.conv1d(x, torch.ones(1, 1, 2), stride=2)
        >>> up = sc.functional.inverse_conv(down, torch.ones(1, 1, 2), stride=2)
        >>> up.sites is x.sites
        True
    """
    check_convolution(input, weight, bias, groups, transposed=True)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    shortest = make_geometry(
        weight.shape[2:], stride=stride, dilation=dilation, kind=Kind.TRANSPOSED
    ).output_shape(tuple(input.shape[2:]))
    size = _inverse_size(geometry, shortest, like)
    full = DENSE_TRANSPOSED[geometry.dimensions](
        input, weight, None, geometry.stride, 0, 0, groups, geometry.dilation
    )
    # the padding of the strided layer is cut off here, and what it never read is added as zeros
    cut = []
    for length, wanted, start in zip(shortest, size, geometry.padding, strict=True):
        cut.append((-start, start + wanted - length))
    result = F.pad(full, [pad for pair in reversed(cut) for pad in pair])
    if bias is None:
        return result
    return result + bias.reshape(-1, *(1,) * geometry.dimensions)


def _inverse_size(
    geometry: Geometry, shortest: tuple[int, ...], like: Input | None
) -> tuple[int, ...]:
    """Return the extent of a dense inverse: that of ``like``, or the shortest that fits."""
    both = zip(geometry.padding, geometry.padding_end, strict=True)
    least = tuple(size - sum(pads) for size, pads in zip(shortest, both, strict=True))
    if like is None:
        if min(least) < 1:
            raise SparseConvValueError(
                f"padding: {geometry.padding} gives an output size of {least}; every axis must "
                f"have at least 1"
            )
        return least
    size = tuple(like.shape[2:])
    fits = len(size) == len(least) and all(
        low <= length < low + stride
        for low, length, stride in zip(least, size, geometry.stride, strict=True)
    )
    if not fits:
        raise SparseConvValueError(
            f"like: spatial shape {size} is not what the strided layer can have read; it maps "
            f"{least} up to stride - 1 more per axis to the input's shape"
        )
    return size


@implements(inverse_conv)
def _sparse_inverse_conv(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: Input | None = None,
) -> SparseTensor:
    plan = plan_inverse(input, weight, bias, stride, padding, dilation, groups, like=like)
    return convolved(input, bias, plan)


def plan_inverse(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: Input | None = None,
) -> Plan:
    """Return the plan of an inverse convolution; arguments as of :func:`inverse_conv`."""
    check_convolution(input, weight, bias, groups, transposed=True)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    if like is not None and not isinstance(like, SparseTensor):
        raise SparseConvTypeError(f"like: must be a SparseTensor, got {came(like)}")
    sites, rulebook = input.sites.inverse(geometry, None if like is None else like.sites)
    return Plan(sites, rulebook, cells_first_transposed(weight, groups))

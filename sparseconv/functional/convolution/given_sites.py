"""Convolution at output sites that the caller names."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Size, check_device, check_kind
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import make_geometry
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input, check_convolution
from sparseconv.functional.convolution.products import DENSE, Plan, cells_first, convolved
from sparseconv.tensor import SparseTensor


@dispatched
def conv(
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
    """Convolution over 1 to 4 axes, at the sites of ``like`` where that is given.

    ``y[o] = bias + sum over k of weight[k] x[o * stride - padding + k * dilation]``; inactive sites
    count 0. Torch's own functions and modules do the same at the sites of the regular site law.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense.
        weight: ``[C_out, C_in / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.
        groups: divides both channel counts.
        like: a tensor of the output's extent, on whose sites to compute: any set of sites, also
            ones that no input reaches (they get the bias). A dense input gives a dense output,
            at every site.

    Returns:
        ``[B, C_out, *output]``, of the input's kind.

    Raises:
        SparseConvError: an output size below 1; channels, groups, dtypes, devices or an extent of
            ``like`` that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (5,))
        >>> here = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0], [0, 4]]), (5,))
        >>> y = sc.functional.conv(x, torch.ones(1, 1, 3), padding=1, like=here)
        >>> y.features.flatten()
        tensor([1., 0.])
    """
    check_convolution(input, weight, bias, groups)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    shape = geometry.output_shape(tuple(input.shape[2:]))
    if like is not None and (like.shape[0], *like.shape[2:]) != (input.shape[0], *shape):
        raise SparseConvValueError(
            f"like: shape {tuple(like.shape)} is not on the output's grid, batch {input.shape[0]} "
            f"and spatial shape {shape}"
        )
    ends = zip(reversed(geometry.padding), reversed(geometry.padding_end), strict=True)
    padded = F.pad(input, [pad for pair in ends for pad in pair])
    dense = DENSE[geometry.dimensions]
    none = (0,) * geometry.dimensions
    return dense(padded, weight, bias, geometry.stride, none, geometry.dilation, groups)


@implements(conv)
def _sparse_conv_at(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: SparseTensor | None = None,
) -> SparseTensor:
    check_convolution(input, weight, bias, groups)
    if like is not None:
        check_kind("like", like, SparseTensor, "a SparseTensor")
        check_device("like", like, input.device)
    geometry = make_geometry(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    given = input.sites.convolve(geometry, None if like is None else like.sites)
    return convolved(input, bias, Plan(*given, cells_first(weight, groups)))

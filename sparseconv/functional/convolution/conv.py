"""Convolution: torch's own on a sparse tensor, over four axes, and the inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Size
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution.dense import (
    dense_conv,
    dense_conv_transpose,
    inverse_size,
)
from sparseconv.functional.convolution.products import border_pads, check_extent, checked, meaning
from sparseconv.functional.convolution.table import CONVOLUTIONS, Convolution, line_of


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
    sites: str = "reached",
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
        sites: ``"reached"``, every site whose window holds an input; or ``"strided"``, as
            MinkowskiEngine has it: the sites ``i // stride`` of the inputs ``i``, ``ceil(L / s)``
            to an axis, whatever the window. With stride 1 these are the input's own sites.

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
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    window["sites"] = sites
    return dense_meaning(CONVOLUTIONS["conv"], input, weight, bias, window, like)


@dispatched
def conv4d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: Input | None = None,
    sites: str = "reached",
) -> Tensor:
    """Convolution over four axes, for space and time together; torch stops at three.

    Args:
        input: ``[B, C_in, *spatial]`` with four spatial axes, a SparseTensor or dense.
        weight: ``[C_out, C_in / groups, *kernel]``.
        bias, stride, padding, dilation, groups, like, sites: as of :func:`conv`.

    Returns:
        ``[B, C_out, *output]``, of the input's kind.

    Raises:
        SparseConvError: an output size below 1; channels, groups, dtypes or devices that do not
            fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.functional.conv4d(torch.ones(1, 1, 2, 2, 2, 2), torch.ones(1, 1, 2, 2, 2, 2)).item()
        16.0
    """
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    window["sites"] = sites
    return dense_meaning(CONVOLUTIONS["conv4d"], input, weight, bias, window, like)


@dispatched
def subm_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
    *,
    like: Input | None = None,
    padding_mode: str = "zeros",
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
        like: a tensor of the same extent, on whose sites to compute instead.
        padding_mode: what lies beyond the ends of the axes, as of ``torch.nn.Conv3d``: ``"zeros"``,
            ``"circular"``, ``"reflect"`` or ``"replicate"``.

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
    window = {"dilation": dilation, "groups": groups}
    if padding_mode == "zeros":
        return dense_meaning(CONVOLUTIONS["subm_conv"], input, weight, bias, window, like)
    geometry, _ = checked(CONVOLUTIONS["subm_conv"], input, weight, bias, window)
    padded = F.pad(input, border_pads(geometry, padding_mode), mode=padding_mode)
    return dense_meaning(CONVOLUTIONS["conv"], padded, weight, bias, window, like)


@dispatched
def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    like: Input | None = None,
) -> Tensor:
    """Transposed convolution over 1 to 4 axes, at the sites of ``like`` where that is given.

    Torch's own functions and modules do the same at every site that an input reaches.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense.
        weight: ``[C_in, C_out / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, padding, output_padding, groups, dilation: as of torch's transposed convolution.
        like: as of :func:`conv`.

    Returns:
        ``[B, C_out, *output]``, of the input's kind.

    Raises:
        SparseConvError: an output size below 1; channels, groups, dtypes, devices or an extent of
            ``like`` that do not fit.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 1]]), (2,))
        >>> here = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 3]]), (4,))
        >>> y = sc.functional.conv_transpose(x, torch.ones(1, 1, 2), stride=2, like=here)
        >>> y.coords, y.features
        (tensor([[0, 3]]), tensor([[1.]]))
    """
    window = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "groups": groups,
        "dilation": dilation,
    }
    return dense_meaning(CONVOLUTIONS["conv_transpose"], input, weight, bias, window, like)


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
    sites: str = "reached",
) -> Tensor:
    """The adjoint of a strided convolution, back on the sites that the convolution read.

    With the same ``weight``, ``<conv(x), y> = <x, inverse_conv(y)>``. On a dense tensor it is
    torch's transposed convolution with the output size of ``like``.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_in, C_out / groups, *kernel]``, the layout of torch's transposed weight.
        bias: ``[C_out]`` or None.
        stride, padding, dilation, sites: as of the strided layer to undo.
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
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    window["sites"] = sites
    geometry, groups = checked(CONVOLUTIONS["inverse_conv"], input, weight, bias, window)
    size = inverse_size(geometry, tuple(input.shape[2:]), like)
    return dense_conv_transpose(input, weight, bias, geometry, groups, size)


def dense_meaning(
    convolution: Convolution,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: dict[str, Any],
    like: Input | None,
) -> Tensor:
    """Return a convolution of a dense tensor; of ``like`` it takes the extent alone."""
    geometry, groups = checked(convolution, input, weight, bias, window)
    shape = check_extent(geometry, input, like)
    if convolution.transposed:
        return dense_conv_transpose(input, weight, bias, geometry, groups, shape)
    return dense_conv(input, weight, bias, geometry, groups)


for _function in (
    conv,
    conv4d,
    subm_conv,
    conv_transpose,
    inverse_conv,
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
):
    implements(_function)(meaning(line_of(_function)))

"""Submanifold convolution, and what lies beyond the ends of its axes."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import Size
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Geometry
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution.conv import conv, dense_meaning
from sparseconv.functional.convolution.products import checked, meaning
from sparseconv.functional.convolution.table import CONVOLUTIONS
from sparseconv.sites.borders import MODES
from sparseconv.tensor import SparseTensor


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
    padded = F.pad(input, _pads(geometry, padding_mode), mode=padding_mode)
    return dense_meaning(CONVOLUTIONS["conv"], padded, weight, bias, window, like)


def _sparse_subm_conv(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    like: SparseTensor | None = None,
    padding_mode: str = "zeros",
    **options: Any,
) -> SparseTensor:
    convolution = CONVOLUTIONS["subm_conv"]
    if padding_mode == "zeros":
        return _SUBMANIFOLD(input, weight, bias, *args, like=like, **options)
    bound = convolution.bind(args, options)
    geometry, _ = checked(convolution, input, weight, bias, bound)
    padded: Any = F.pad(cast(Any, input), _pads(geometry, padding_mode), mode=padding_mode)
    target = input if like is None else like
    return cast(SparseTensor, conv(padded, weight, bias, like=target, **bound))


_SUBMANIFOLD = meaning(CONVOLUTIONS["subm_conv"])
implements(subm_conv)(_sparse_subm_conv)


def _pads(geometry: Geometry, padding_mode: str) -> list[int]:
    """Return the pads of a submanifold window in PyTorch's order, the last axis first."""
    if padding_mode not in MODES:
        raise SparseConvValueError(
            f"padding_mode: must be 'zeros' or one of {MODES}, got {padding_mode!r}"
        )
    return [pad for pad in reversed(geometry.padding) for _ in range(2)]

"""Functions over the channels of each site: softmax, gates, linear maps, normalised vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import is_int
from sparseconv.core.dispatch import implements
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.convolution.conv import subm_conv
from sparseconv.functional.site_sets.parts import parts_of
from sparseconv.tensor import SparseTensor


def check_channel_axis(input: SparseTensor, dim: int | None) -> None:
    """Raise unless ``dim`` is the channel axis, 1 (or its negative name)."""
    if not is_int(dim):
        raise SparseConvTypeError(f"dim: must be 1, the channels, got {dim!r}")
    if dim not in (1, 1 - input.ndim):
        raise SparseConvValueError(
            f"dim: on a SparseTensor this runs over the channels, dim=1, got {dim}"
        )


def _over_channels(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return ``function`` on the channels of each site."""

    def over_channels(
        input: SparseTensor, dim: int | None = None, *args: Any, **options: Any
    ) -> SparseTensor:
        check_channel_axis(input, dim)
        return input.replace(function(input.features, 1, *args, **options))

    return over_channels


_SOFTMAXES: tuple[Callable[..., Any], ...] = (
    F.softmax,
    F.softmin,
    F.log_softmax,
    torch.softmax,
    torch.log_softmax,
)

for _function in _SOFTMAXES:
    implements(
        _function,
        meaning="over the channels of each active site (dim=1)",
        law="each site by itself",
    )(_over_channels(_function))


@implements(
    F.glu,
    meaning="gates the first half of the channels by the second (dim=1)",
    law="each site by itself",
)
def _sparse_glu(input: SparseTensor, dim: int = -1) -> SparseTensor:
    check_channel_axis(input, dim)
    if input.channels % 2:
        raise SparseConvValueError(
            f"input: gating takes an even number of channels, got {input.channels}"
        )
    return input.replace(F.glu(input.features, 1))


@implements(
    F.gumbel_softmax,
    meaning="a random choice among the channels of each active site (dim=1)",
    law="each site by itself",
)
def _sparse_gumbel_softmax(
    logits: SparseTensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> SparseTensor:
    check_channel_axis(logits, dim)
    return logits.replace(F.gumbel_softmax(logits.features, tau, hard, eps, 1))


@implements(
    F.normalize,
    meaning="divides the channels of each active site by their p-norm (dim=1)",
    law="each site by itself",
)
def _sparse_normalize(
    input: SparseTensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> SparseTensor:
    check_channel_axis(input, dim)
    if out is not None:
        raise SparseConvTypeError("out: a sparse result cannot be written into a given tensor")
    return input.replace(F.normalize(input.features, p, 1, eps))


@implements(
    F.linear,
    meaning="a linear map of the channels of each active site",
    law="a convolution of kernel size 1: the bias too falls on active sites alone; on a dense "
    "tensor torch's Linear takes the last axis, so there it is linear(x.movedim(1, -1))",
)
def _sparse_linear(input: SparseTensor, weight: Tensor, bias: Tensor | None = None) -> SparseTensor:
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise SparseConvValueError("weight: must be a torch.Tensor of shape (out, in)")
    return subm_conv(input, weight.reshape(*weight.shape, *(1,) * (input.ndim - 2)), bias)


@implements(
    F.channel_shuffle,
    torch.channel_shuffle,
    meaning="interleaves groups of channels",
    law="each site by itself",
)
def _sparse_channel_shuffle(input: SparseTensor, groups: int) -> SparseTensor:
    if groups < 1 or input.channels % groups:
        raise SparseConvValueError(
            f"groups: must divide the {input.channels} channels, got {groups}"
        )
    order = torch.arange(input.channels, device=input.device)
    return input.replace(input.features[:, order.reshape(groups, -1).t().flatten()])


def _parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which cuts a tensor along an axis."""

    def parts(input: SparseTensor, sizes: Any, dim: int = 0) -> tuple[SparseTensor, ...]:
        return parts_of(function, input, sizes, dim)

    return parts


for _function in (torch.chunk, torch.split):
    implements(
        _function,
        meaning="one axis in several parts: channels, cells or samples",
        law="dense law; x.split() without arguments cuts the batch into its samples",
    )(_parts(_function))

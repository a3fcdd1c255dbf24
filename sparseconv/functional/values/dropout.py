"""Dropout: of values of the active sites, and of whole channels of a sample."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch.nn import functional as F

from sparseconv.core.dispatch import implements
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.checks import check_axes
from sparseconv.tensor import SparseTensor


def _dropout(function: Callable[..., Any]) -> Callable[..., SparseTensor]:
    def dropout(input: SparseTensor, p: float = 0.5, *args: Any, **kwargs: Any) -> SparseTensor:
        _check_probability(p)
        return input.replace(function(input.features, p, *args, **kwargs))

    return dropout


for _function in (F.dropout, F.alpha_dropout):
    implements(
        _function,
        meaning="drops values of the active sites",
        law="sites stay, dropped values count 0 (alpha dropout: its saturation value)",
    )(_dropout(_function))


@implements(
    torch.feature_dropout,
    meaning="drops whole channels of a sample",
    law="one draw per sample and channel; sites stay, dropped values count 0",
)
def _sparse_feature_dropout(
    input: SparseTensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> SparseTensor:
    _check_probability(p)
    if not training or p == 0:
        return input
    # these are the draws that PyTorch makes for a dense tensor
    ones = torch.ones(input.batch_size, input.channels, 1, dtype=input.dtype, device=input.device)
    noise = torch.feature_dropout(ones, p, True)[:, :, 0][input.sites.shared_coords[:, 0].long()]
    return input.replace(input.features.mul_(noise) if inplace else input.features * noise)


def _feature_dropout(dimensions: int) -> Callable[..., SparseTensor]:
    """Return the sparse meaning of the dropout of channels over ``dimensions`` axes."""

    def feature_dropout(
        input: SparseTensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> SparseTensor:
        check_axes(input.ndim - 2, dimensions, "dropout")
        return _sparse_feature_dropout(input, p, training, inplace)

    return feature_dropout


for _axes, _function in enumerate((F.dropout1d, F.dropout2d, F.dropout3d), start=1):
    implements(
        _function,
        meaning="drops whole channels of a sample",
        law="one draw per sample and channel; sites stay, dropped values count 0",
    )(_feature_dropout(_axes))


@implements(
    F.feature_alpha_dropout,
    torch.feature_alpha_dropout,
    meaning="drops whole channels of a sample to SELU's saturation value",
    law="one draw per sample and channel; sites stay",
)
def _sparse_feature_alpha_dropout(
    input: SparseTensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> SparseTensor:
    _check_probability(p)
    if not training or p == 0:
        return input
    if p == 1:
        return input.replace(input.features.mul_(0) if inplace else input.features * 0)
    mask = torch.empty(input.batch_size, input.channels, dtype=input.dtype, device=input.device)
    mask.bernoulli_(1 - p)
    # Klambauer et al. 2017 (arXiv 1706.02515): the value that SELU saturates at, and the affine
    # map that brings mean 0 and variance 1 back
    saturation = -1.7580993408473766
    scale = ((saturation**2 * p + 1) * (1 - p)) ** -0.5
    mask_rows = mask[input.sites.shared_coords[:, 0].long()]
    shift = scale * (saturation * (1 - mask_rows) - saturation * p)
    x = input.features.mul_(mask_rows * scale) if inplace else input.features * mask_rows * scale
    return input.replace(x.add_(shift) if inplace else x + shift)


def _check_probability(p: float) -> None:
    if not isinstance(p, Real):
        raise SparseConvTypeError(f"p: must be a number, got {p!r}")
    if not 0 <= p <= 1:
        raise SparseConvValueError(f"p: must be between 0 and 1, got {p}")

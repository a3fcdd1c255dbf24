"""Functions that act on each value alone: they run on the features, and the sites stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from sparseconv.dispatch import HANDLERS
from sparseconv.tensor import SparseTensor

POINTWISE: tuple[Callable[..., Any], ...] = (
    torch.relu,
    torch.relu_,
    torch.sigmoid,
    torch.tanh,
    torch.selu,
    torch.celu,
    torch.rrelu,
    torch.prelu,
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.hardtanh,
    F.hardsigmoid,
    F.hardswish,
    F.hardshrink,
    F.softshrink,
    F.softplus,
    F.softsign,
    F.tanhshrink,
    F.logsigmoid,
    F.threshold,
    F.rrelu,
    F.prelu,
    F.dropout,
    F.alpha_dropout,
)


def _on_features(function: Callable[..., Any]) -> Callable[..., SparseTensor]:
    def pointwise(input: SparseTensor, *args: Any, **kwargs: Any) -> SparseTensor:
        return input.replace(function(input.features, *args, **kwargs))

    return pointwise


for _function in POINTWISE:
    HANDLERS[_function] = _on_features(_function)

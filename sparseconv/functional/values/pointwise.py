"""Functions that act on each value alone: they run on the features, and the sites stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd import elementwise
from sparseconv.autograd.samples import sample_spread
from sparseconv.core.dispatch import implements
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.precision import lowered
from sparseconv.functional.values.rows import Operand, first_sparse, rows_beside
from sparseconv.tensor import SparseTensor

ACTIVATIONS: tuple[Callable[..., Any], ...] = (
    torch.relu,
    torch.relu_,
    torch.sigmoid,
    torch.tanh,
    torch.selu,
    torch.celu,
    torch.rrelu,
    torch.threshold,
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.leaky_relu_,
    F.elu,
    F.elu_,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.hardtanh,
    F.hardtanh_,
    F.hardsigmoid,
    F.hardswish,
    F.hardshrink,
    F.softshrink,
    F.softplus,
    F.softsign,
    F.tanhshrink,
    F.logsigmoid,
    F.threshold,
    torch.threshold_,
    F.rrelu,
    F.rrelu_,
)

UNARY: tuple[Callable[..., Any], ...] = (
    torch.abs,
    torch.neg,
    torch.positive,
    torch.sign,
    torch.square,
    torch.sqrt,
    torch.rsqrt,
    torch.reciprocal,
    torch.exp,
    torch.exp2,
    torch.expm1,
    torch.log,
    torch.log2,
    torch.log10,
    torch.log1p,
    torch.sin,
    torch.cos,
    torch.tan,
    torch.asin,
    torch.acos,
    torch.atan,
    torch.sinh,
    torch.cosh,
    torch.asinh,
    torch.acosh,
    torch.atanh,
    torch.erf,
    torch.erfc,
    torch.erfinv,
    torch.logit,
    torch.round,
    torch.floor,
    torch.ceil,
    torch.trunc,
    torch.frac,
    torch.nan_to_num,
    torch.clone,
)

# Features are floating point, so a bool result is a plain tensor with a row per site.
TESTS: tuple[Callable[..., Any], ...] = (
    torch.isnan,
    torch.isinf,
    torch.isfinite,
    torch.signbit,
    torch.isneginf,
    torch.isposinf,
)
COMPARISONS: tuple[tuple[Callable[..., Any], ...], ...] = (
    (torch.eq, torch.Tensor.eq, torch.Tensor.__eq__),
    (torch.ne, torch.not_equal, torch.Tensor.ne, torch.Tensor.__ne__),
    (torch.gt, torch.greater, torch.Tensor.gt, torch.Tensor.__gt__),
    (torch.ge, torch.greater_equal, torch.Tensor.ge, torch.Tensor.__ge__),
    (torch.lt, torch.less, torch.Tensor.lt, torch.Tensor.__lt__),
    (torch.le, torch.less_equal, torch.Tensor.le, torch.Tensor.__le__),
    (torch.isclose, torch.Tensor.isclose),
)
PAIRWISE: tuple[Callable[..., Any], ...] = (
    torch.maximum,
    torch.minimum,
    torch.fmax,
    torch.fmin,
    torch.pow,
    torch.clamp,
    torch.clamp_min,
    torch.clamp_max,
    torch.lerp,
    torch.atan2,
    torch.remainder,
    torch.floor_divide,
    torch.fmod,
)
OF_THREE: tuple[Callable[..., Any], ...] = (torch.addcmul, torch.addcdiv)


def _on_features(function: Callable[..., Any]) -> Callable[..., SparseTensor]:
    def pointwise(input: SparseTensor, *args: Any, **kwargs: Any) -> SparseTensor:
        return input.replace(function(input.features, *args, **kwargs))

    return pointwise


def _on_rows(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function with every operand brought to the rows of the first sparse one."""

    def on_rows(*operands: Operand, **options: Any) -> Tensor:
        x = first_sparse(*operands, *options.values())
        rows = (rows_beside(x, operand) for operand in operands)
        named = {name: rows_beside(x, value) for name, value in options.items()}
        return function(*rows, **named)

    return on_rows


def pairwise(function: Callable[..., Tensor]) -> Callable[..., SparseTensor]:
    """Return the function on tensors on the same sites, row by row, as a SparseTensor."""
    on_rows = _on_rows(function)

    def on_sites(*operands: Operand, **options: Any) -> SparseTensor:
        x = first_sparse(*operands, *options.values())
        return x.replace(on_rows(*operands, **options))

    return on_sites


def _relu(input: SparseTensor, inplace: bool = False) -> SparseTensor:
    features = torch.relu_(input.features) if inplace else elementwise.relu(input.features)
    return SparseTensor.unchecked(features, input.sites)


for _function in ACTIVATIONS + UNARY:
    implements(
        _function,
        meaning="applied to each value of the active sites",
        law="sites stay; inactive ones stay inactive, also where the function of 0 is not 0",
    )(_relu if _function in (torch.relu, F.relu) else _on_features(_function))
for _function in TESTS:
    implements(
        _function,
        meaning="a plain bool tensor (N, C), a row per active site",
        law="each value alone; sparseconv.prune takes such a mask after .any(dim=1)",
    )(_on_rows(_function))
for _names in COMPARISONS:
    implements(
        *_names,
        meaning="a plain bool tensor (N, C), a row per active site of the first sparse operand",
        law="row by row on the same sites; torch.where takes such a mask",
    )(_on_rows(_names[0]))
for _function in PAIRWISE + OF_THREE:
    implements(
        _function,
        # the method that Python calls when the left operand is a dense tensor
        *(getattr(Tensor, name) for name in [_function.__name__] if hasattr(Tensor, name)),
        meaning="applied to each value of the active sites, operands row by row",
        law="operands on the same sites, numbers, or dense tensors that broadcast to the shape",
    )(pairwise(_function))


@implements(
    torch.where,
    meaning="chooses between two operands, value by value",
    law="operands on the same sites; the condition is a bool tensor (N, C) or broadcasts",
)
def _sparse_where(condition: Tensor, input: Operand, other: Operand) -> SparseTensor:
    x = first_sparse(input, other)
    rows = rows_beside(x, condition)
    return x.replace(torch.where(rows, rows_beside(x, input), rows_beside(x, other)))


@implements(
    F.prelu,
    torch.prelu,
    meaning="applied to each value of the active sites, one slope per channel",
    law="sites stay",
)
def _sparse_prelu(input: SparseTensor, weight: Tensor) -> SparseTensor:
    if weight.numel() not in (1, input.channels):
        raise SparseConvValueError(
            f"weight: must have 1 or {input.channels} entries, one per channel, "
            f"got {weight.numel()}"
        )
    # PyTorch's prelu adds the slope's gradient in an order that changes with the number of threads
    slope = lowered(weight).reshape(1, -1).expand(1, input.channels)
    x = lowered(input.features)
    return input.replace(torch.where(x > 0, x, x * sample_spread(slope, input.sites.whole_batch)))

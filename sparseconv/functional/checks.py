"""Checks of a convolution's arguments, made once, above every engine."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from sparseconv.core.arguments import check_device, check_int, check_kind, check_tensor
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import MAX_DIMENSIONS
from sparseconv.tensor import SparseTensor

Input: TypeAlias = Tensor | SparseTensor
AnyTensor = TypeVar("AnyTensor", Tensor, SparseTensor)


def check_input(input: Any) -> None:
    """Raise unless ``input`` is a tensor of either kind."""
    check_kind("input", input, Tensor | SparseTensor, "a SparseTensor or a torch.Tensor")


def check_convolution(
    input: Input,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    dimensions: int | None = None,
    transposed: bool = False,
) -> None:
    """Raise unless ``weight`` and ``bias`` fit ``input``.

    Args:
        input: ``[B, C_in, *spatial]``, dense or sparse.
        weight: ``[C_out, C_in / groups, *kernel]``, transposed ``[C_in, C_out / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        groups: divides both channel counts.
        dimensions: the number of spatial axes that the function is for; the weight's if left out.
        transposed: which of the two weight layouts holds.

    Raises:
        SparseConvTypeError: dtypes or devices that differ, an argument that is no tensor.
        SparseConvValueError: channels, groups or axes that do not fit.
    """
    check_input(input)
    check_tensor("weight", weight)
    if 0 in weight.shape[:2]:
        raise SparseConvValueError(
            f"weight: must not be empty, got shape {tuple(weight.shape)}; a convolution has at "
            f"least 1 channel on both sides"
        )
    axes = weight.ndim - 2 if dimensions is None else dimensions
    if weight.ndim - 2 != axes or input.ndim - 2 != axes:
        raise SparseConvValueError(
            f"input: has {input.ndim - 2} spatial axes and the weight {weight.ndim - 2}, "
            f"this convolution takes {axes}"
        )
    if not 1 <= axes <= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"input: must have 1 to {MAX_DIMENSIONS} spatial axes, got {axes}"
        )
    _check_groups(weight, groups, transposed)
    needed = weight.shape[0] if transposed else weight.shape[1] * groups
    if input.size(1) != needed:
        raise SparseConvValueError(
            f"input: has {input.size(1)} channels, but the weight {tuple(weight.shape)} with "
            f"groups={groups} takes {needed}"
        )
    _check_bias(bias, weight.shape[1] * groups if transposed else weight.shape[0])
    check_same("weight", weight, input)
    if bias is not None:
        check_same("bias", bias, input)


def _check_groups(weight: Tensor, groups: Any, transposed: bool) -> None:
    groups = check_int("groups", groups, least=1)
    if weight.shape[0] % groups:
        name = "input" if transposed else "output"
        raise SparseConvValueError(
            f"groups: {groups} does not divide the {weight.shape[0]} {name} channels of the weight"
        )


def _check_bias(bias: Any, channels: int) -> None:
    if bias is None:
        return
    check_tensor("bias", bias)
    if tuple(bias.shape) != (channels,):
        raise SparseConvValueError(
            f"bias: must have shape ({channels},), one entry per output channel, "
            f"got {tuple(bias.shape)}"
        )


def check_same(name: str, parameter: Tensor, input: Input) -> None:
    """Raise unless a parameter has the input's device and, outside autocast, its dtype."""
    if parameter.device != input.device:
        check_device(name, parameter, input.device)
    if parameter.dtype != input.dtype and not torch.is_autocast_enabled(input.device.type):
        raise SparseConvTypeError(
            f"{name}: {parameter.dtype}, but the input is {input.dtype}; convert one of them"
        )

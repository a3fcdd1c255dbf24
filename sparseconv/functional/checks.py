"""Checks of a convolution's arguments, made once, above every engine."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints, check_device, check_int, check_kind, check_tensor
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import MAX_DIMENSIONS
from sparseconv.tensor import SparseTensor

Input: TypeAlias = Tensor | SparseTensor
_EXAMPLES = {"pooling": "MaxPool", "dropout": "Dropout"}  # names of layers, without their axes
AnyTensor = TypeVar("AnyTensor", Tensor, SparseTensor)


def check_input(input: Any) -> None:
    """Raise unless ``input`` is a tensor of either kind."""
    check_kind("input", input, Tensor | SparseTensor, "a SparseTensor or a torch.Tensor")


def check_axes(axes: int, expected: int, layer: str) -> None:
    """Raise unless an input has as many spatial axes as the layer takes."""
    if axes != expected:
        name = f"{_EXAMPLES[layer]}{axes}d"
        hint = f"; a layer over {axes} axes is named so, such as {name}" if 1 <= axes <= 3 else ""
        raise SparseConvValueError(
            f"input: has {axes} spatial axes, this {layer} takes {expected}{hint}"
        )


def check_tensors(input: Any, weight: Any, bias: Any) -> None:
    """Raise unless a convolution's tensors are tensors: the input of either kind."""
    check_input(input)
    check_tensor("weight", weight)
    if bias is not None:
        check_tensor("bias", bias)


def check_shapes(
    extent: tuple[int, int],
    weight: Ints,
    bias: Ints | None,
    groups: Any,
    dimensions: int | None = None,
    *,
    transposed: bool = False,
) -> int:
    """Return the number of groups; raise unless a convolution's shapes fit each other.

    Args:
        extent: the input's number of spatial axes, and of channels.
        weight: ``[C_out, C_in / groups, *kernel]``, transposed ``[C_in, C_out / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        groups: divides both channel counts.
        dimensions: the number of spatial axes that the function is for; the weight's if left out.
        transposed: which of the two weight layouts holds.

    Raises:
        SparseConvTypeError: groups that are no int.
        SparseConvValueError: channels, groups or axes that do not fit.
    """
    if 0 in weight[:2]:
        raise SparseConvValueError(
            f"weight: must not be empty, got shape {tuple(weight)}; a convolution has at "
            f"least 1 channel on both sides"
        )
    input_axes, channels = extent
    axes = len(weight) - 2 if dimensions is None else dimensions
    if len(weight) - 2 != axes or input_axes != axes:
        raise SparseConvValueError(
            f"input: has {input_axes} spatial axes and the weight {len(weight) - 2}, "
            f"this convolution takes {axes}{_axes_hint(input_axes, axes)}"
        )
    if not 1 <= axes <= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"input: must have 1 to {MAX_DIMENSIONS} spatial axes, got {axes}"
        )
    count = check_int("groups", groups, least=1)
    if weight[0] % count:
        name = "input" if transposed else "output"
        raise SparseConvValueError(
            f"groups: {count} does not divide the {weight[0]} {name} channels of the weight"
        )
    needed = weight[0] if transposed else weight[1] * count
    if channels != needed:
        raise SparseConvValueError(
            f"input: has {channels} channels, but the weight {tuple(weight)} with "
            f"groups={count} takes {needed}"
        )
    out = weight[1] * count if transposed else weight[0]
    if bias is not None and tuple(bias) != (out,):
        raise SparseConvValueError(
            f"bias: must have shape ({out},), one entry per output channel, got {tuple(bias)}"
        )
    return count


def _axes_hint(found: int, axes: int) -> str:
    """Return the likely cause of a number of axes that does not fit, as the end of a message."""
    if found == 0:
        return "; points go through sparseconv.voxelize(points, voxel_size)"
    if found == axes - 1:
        return "; is the batch missing, column 0 of coords or the first axis of a dense tensor?"
    return f"; a layer over {found} axes is named so, such as Conv{found}d"


def check_same(name: str, parameter: Tensor, input: Input) -> None:
    """Raise unless a parameter has the input's device and, outside autocast, its dtype."""
    if parameter.device != input.device:
        check_device(name, parameter, input.device)
    if parameter.dtype != input.dtype and not torch.is_autocast_enabled(input.device.type):
        raise SparseConvTypeError(
            f"{name}: {parameter.dtype}, but the input is {input.dtype}; convert one of them"
        )

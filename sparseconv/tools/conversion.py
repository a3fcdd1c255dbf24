"""From PyTorch's "same" convolutions to submanifold ones."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch.nn.utils import parametrize

from sparseconv.core.arguments import check_kind
from sparseconv.core.private_torch import ConvNd
from sparseconv.nn import SubmConv1d, SubmConv2d, SubmConv3d

Model = TypeVar("Model", bound=torch.nn.Module)

_SUBMANIFOLD: dict[type, type] = {
    torch.nn.Conv1d: SubmConv1d,
    torch.nn.Conv2d: SubmConv2d,
    torch.nn.Conv3d: SubmConv3d,
}


def submanifold(model: Model, inplace: bool = False) -> Model:
    """Turn a model's stride-1 "same" convolutions into submanifold ones, weights kept.

    A ``torch.nn.Conv1d``, ``Conv2d`` or ``Conv3d`` becomes a ``SubmConv`` where it keeps extent and
    centre: stride 1, odd kernel, zero padding of ``dilation * (kernel_size - 1) / 2`` or
    ``"same"``. On a dense tensor it computes what it computed; on a sparse one the sites stay as
    they are, where they would grow. Everything else stays as it is: strided layers, hooks,
    parametrizations (``weight_norm``), names, and subclasses of PyTorch's convolutions, whose
    ``forward`` is theirs.

    Args:
        model: any module, nested or a convolution itself.
        inplace: whether to change ``model``. Otherwise it stays, and the result is a copy of its
            modules **on the same parameters and buffers**: an optimizer of one trains both, and a
            state dict of one fits the other. ``copy.deepcopy`` first where they should part.

    Returns:
        The model with submanifold convolutions.

    Raises:
        SparseConvTypeError: ``model`` is no module.

    Example:
        >>> import torch, sparseconv as sc
        >>> plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> sparse = sc.submanifold(plain)
        >>> sparse[0]
        SubmConv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        >>> sparse[0].weight is plain[0].weight
        True
    """
    check_kind("model", model, torch.nn.Module, "a torch.nn.Module")
    if not inplace:
        model = copy.deepcopy(model, _tensors(model))
    for module in model.modules():
        if _is_same(module):
            _convert(module)
    return model


def _tensors(model: torch.nn.Module) -> dict[int, torch.Tensor]:
    """Return the memo by which a deep copy keeps every tensor that the modules hold."""
    held: dict[int, torch.Tensor] = {}
    for module in model.modules():
        # weight_norm's computed weight is neither parameter nor buffer, but an attribute
        attributes = vars(module)
        for values in (attributes, attributes["_parameters"], attributes["_buffers"]):
            held |= {id(v): v for v in values.values() if isinstance(v, torch.Tensor)}
    return held


def _is_same(module: torch.nn.Module) -> bool:
    """Return whether this is a convolution that a submanifold one can stand in for."""
    kind = parametrize.type_before_parametrizations(module)
    if kind not in _SUBMANIFOLD or not isinstance(module, ConvNd):
        return False
    if module.padding_mode != "zeros":
        return False
    kernel, dilation, padding = module.kernel_size, module.dilation, module.padding
    if any(size % 2 == 0 for size in kernel) or any(step != 1 for step in module.stride):
        return False
    centred = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    none = not any(centred)
    return padding in ("same", centred) or (none and padding == "valid")


def _convert(module: torch.nn.Module) -> None:
    """Make the convolution a submanifold one: the object, its weights, hooks and names stay."""
    plain = type(module)
    target = _SUBMANIFOLD[parametrize.type_before_parametrizations(module)]
    if parametrize.is_parametrized(module):
        # PyTorch makes a class for each parametrized module; the class holds its properties
        attributes = {k: v for k, v in vars(plain).items() if k not in ("__dict__", "__weakref__")}
        target = type(f"Parametrized{target.__name__}", (target,), attributes)
    module.__class__ = target

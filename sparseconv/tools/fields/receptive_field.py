"""Receptive fields of the layers of a model, without data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from sparseconv.core.arguments import check_kind, is_int
from sparseconv.errors import SparseConvValueError
from sparseconv.tools.fields.intervals import Field, Number, plain
from sparseconv.tools.fields.rules import rule
from sparseconv.tools.fields.stand_in import Axes, Axis, StandIn, Trace
from sparseconv.tools.watching import is_leaf, running_in_eval


class ReceptiveField(NamedTuple):
    """What one position behind a layer sees of the model's input, one entry per axis.

    Attributes:
        name: the layer's qualified name; with the function's behind it where a larger module calls
            one itself.
        r: number of inputs that it sees, those in the padding counted.
        jump: distance of what neighbouring positions see, in inputs.
        start: the middle of what the first position sees, in inputs, the first of which is 0.
        size: number of positions.
    """

    name: str
    r: tuple[int, ...]
    jump: tuple[Number, ...]
    start: tuple[Number, ...]
    size: tuple[int, ...]


def receptive_field(model: torch.nn.Module, input_size: Sequence[int]) -> list[ReceptiveField]:
    """Return the receptive field behind every layer that has a window, in the order of the run.

    ``r' = r + (kernel - 1) * dilation * jump`` and ``jump' = jump * stride`` along a chain of
    convolutions and pooling. A stand-in without data goes through the model by
    ``__torch_function__``, so branches, additions, concatenations and transposed layers come out as
    they are wired: branches that meet see what any of them sees. Behind a transposed layer ``r`` is
    that of the position that sees the most. Normalisation counts as one position to one.

    Args:
        model: any PyTorch module with one input. It is run in eval mode, on no data, and left as
            it was.
        input_size: extent per spatial axis, ``(C, *spatial)`` or ``(B, C, *spatial)``; how many
            axes there are is read off the model's first layer with a number in its name
            (``Conv2d``), and without one all of ``(B, C, *spatial)`` is needed.

    Returns:
        One :class:`ReceptiveField` per call of a layer: convolutions, pooling, interpolation,
        means over an axis, linear layers over flattened axes.

    Raises:
        SparseConvValueError: an ``input_size`` that does not fit the model.
        SparseConvNotImplementedError: a function that needs data, or one of which nothing is known.

    Source:
        Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning" (arXiv
        1603.07285); Araujo et al. 2019, "Computing receptive fields of convolutional neural
        networks".

    Example:
        >>> import torch, sparseconv as sc
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Conv2d(4, 4, 3, 2))
        >>> for layer in sc.receptive_field(model, (1, 32, 32)):
        ...     print(layer.name, layer.r, layer.jump)
        0 (3, 3) (2, 2)
        1 (7, 7) (4, 4)
    """
    check_kind("model", model, torch.nn.Module, "a torch.nn.Module")
    shape = _full_shape(model, input_size)
    trace = Trace(rule)
    axes = tuple(Axis(dim, Field(), size) for dim, size in enumerate(shape) if dim > 1)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    with named(model, trace), torch.no_grad():
        model(StandIn.of(torch.empty(shape, dtype=dtype, device="meta"), axes, trace))
    return [_row(name, behind) for name, behind in trace.windows]


def _row(name: str, axes: Axes) -> ReceptiveField:
    fields = [axis.field for axis in axes]
    return ReceptiveField(
        name,
        tuple(field.reach for field in fields),
        tuple(plain(field.jump) for field in fields),
        tuple(plain(field.start) for field in fields),
        tuple(axis.size for axis in axes),
    )


def named(model: torch.nn.Module, trace: Trace) -> AbstractContextManager[None]:
    """Run the model in eval mode and keep the name of the module at work in ``trace``."""

    def enter(name: str, module: torch.nn.Module, args: Any) -> None:
        leaf = is_leaf(module)
        trace.names.append(type(module).__name__ if leaf and not name else name)
        trace.leaf.append(leaf)

    def leave(output: Any) -> None:
        trace.names.pop()
        trace.leaf.pop()

    return running_in_eval(model, enter, leave)


def number_of_axes(model: torch.nn.Module) -> int | None:
    """Return the number in the name of the first layer that has one (3 of ``Conv3d``), or None."""
    numbers = (re.search(r"([1-4])d$", type(module).__name__) for module in model.modules())
    number = next(filter(None, numbers), None)
    return None if number is None else int(number[1])


def _full_shape(model: torch.nn.Module, input_size: Sequence[int]) -> tuple[int, ...]:
    """Return ``(B, C, *spatial)`` from an input size that may leave out the first two."""
    shape = tuple(input_size) if isinstance(input_size, list | tuple) else ()
    if not shape or not all(is_int(n) and n > 0 for n in shape):
        raise SparseConvValueError(f"input_size: must be positive integers, got {input_size!r}")
    spatial = number_of_axes(model) or len(shape) - 2
    missing = spatial + 2 - len(shape)
    if spatial < 1 or not 0 <= missing <= 2:
        raise SparseConvValueError(
            f"input_size: must be the extent per axis, (C, *spatial) or (B, C, *spatial) with "
            f"{max(spatial, 1)} spatial axes, got {shape}"
        )
    channels = (getattr(module, "in_channels", None) for module in model.modules())
    first = next((int(count) for count in channels if count is not None), 1)
    return ((), (1,), (1, first))[missing] + shape

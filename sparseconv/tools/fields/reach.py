"""How far a model's output reads to each side: what tiles need to give the bits of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import nn

from sparseconv.core.arguments import came, check_int, check_kind
from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError
from sparseconv.functional.convolution.conv import conv, conv_transpose, subm_conv
from sparseconv.functional.convolution.table import line_of
from sparseconv.tools.fields.intervals import Field
from sparseconv.tools.fields.receptive_field import named, number_of_axes
from sparseconv.tools.fields.rules import rule
from sparseconv.tools.fields.stand_in import Axes, Axis, Call, StandIn, Trace

# extents to run a stand-in at: multiples of most products of strides, so that branches meet
_EXTENTS = (2880, 11520)
_NORMS = (nn.modules.batchnorm._NormBase,)
_WHOLE = "reads all sites of a sample"
# why a function has no reach, by the beginning of its name
_REASONS = {
    "adaptive_": "takes windows that depend on the extent of the input",
    "global_": _WHOLE,
    "group_norm": "takes its statistics over all sites of a sample",
    "scaled_dot_product_attention": _WHOLE,
    "multi_head_attention": _WHOLE,
}
# a partial convolution reads what the plain one reads; its masks need data
_WITHOUT_MASK: dict[str, Callable[..., Any]] = {
    "partial_conv": conv,
    "subm_partial_conv": subm_conv,
    "partial_conv_transpose": conv_transpose,
}


class Reach(NamedTuple):
    """How far a model reads, one entry per axis.

    Attributes:
        left: inputs that an output reads below its own place, at most, in input voxels.
        right: inputs that it reads above its own place, at most.
        stride: the total stride: an input that is shifted by a multiple of it gives the same
            output, shifted.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    stride: tuple[int, ...]


def reach(model: nn.Module, dimensions: int | None = None, channels: int | None = None) -> Reach:
    """Return how far each output of ``model`` reads to the left and to the right of its place.

    The output at ``p`` depends on the inputs from ``p - left`` to ``p + right`` and on no other,
    both ends included; some output reads exactly so far. So a tile that starts on a multiple of
    the total stride, with ``left`` and ``right`` more voxels around what is kept, gives the bits
    of the whole. A side that is not read at all, not even at ``p``, counts negative. Where outputs
    are ``jump`` inputs apart, the output ``n`` has its place at ``n * jump``.

    The model is run on no data, as by :func:`sparseconv.receptive_field`, on sparse terms: a
    ``LayerNorm`` is one over channels.

    Args:
        model: any PyTorch module with one input. Layers count as they act in evaluation.
        dimensions: number of spatial axes; read off the first layer with a number in its name
            (``SubmConv3d``) where left out.
        channels: of the input; those of the first layer that has ``in_channels`` where left out.

    Raises:
        SparseConvNotImplementedError: a layer without a reach, which is named: global and adaptive
            pooling, instance and group norm, batch norm in training, attention, squeeze and
            excitation, deformable convolution, interpolation to a fixed size; or a function of
            which nothing is known.
        SparseConvValueError: a model that does not run on an input of its own layers' channels.

    Example:
        >>> import torch, sparseconv as sc
        >>> down, up = torch.nn.Conv2d(4, 4, 2, 2), sc.nn.InverseConv2d(4, 1, 2, 2)
        >>> sc.reach(torch.nn.Sequential(sc.nn.SubmConv2d(1, 4, 3), down, up))
        Reach(left=(2, 2), right=(2, 2), stride=(2, 2))
    """
    return follow(model, dimensions, channels)[0]


def follow(
    model: nn.Module, dimensions: int | None, channels: int | None
) -> tuple[Reach, tuple[Fraction, ...]]:
    """Return the reach, and how many inputs apart the outputs are on each axis."""
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    if dimensions is None:
        dimensions = number_of_axes(model) or 3
    dimensions = check_int("dimensions", dimensions, least=1)
    if channels is None:
        widths = (getattr(module, "in_channels", None) for module in model.modules())
        channels = next((int(width) for width in widths if width is not None), 1)
    _check_norms(model)
    found = []
    for extent in _EXTENTS[: 1 if dimensions > 3 else 2]:
        shape = (1, check_int("channels", channels, least=1), *(extent,) * dimensions)
        found.append(_at_extent(model, shape))
    if found[0] != found[-1]:
        raise SparseConvNotImplementedError(
            "model: what it reads depends on the extent of its input, so that it has no reach"
        )
    return found[0]


class _SparseStandIn(StandIn):
    """A stand-in for a SparseTensor, on which some functions are others than on a dense one."""

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function without data, and those over channels as what they are on sites."""
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name.startswith("deform_conv"):
            raise SparseConvNotImplementedError(
                f"{name} reads where its offsets point, which depends on the data"
            )
        if name in ("layer_norm", "rms_norm") and isinstance(args[0], StandIn):
            return args[0]
        if name == "linear" and isinstance(args[0], StandIn):
            x, weight = args[0], args[1]
            shape = (x.shape[0], weight.shape[0], *x.shape[2:])
            return cls.of(torch.empty(shape, dtype=x.dtype, device="meta"), x.axes, x.history)
        if name == "fused_conv":
            return _unfused(*args, **kwargs)
        if name in _WITHOUT_MASK:
            function = _WITHOUT_MASK[name]
            by_place = [entry for entry in line_of(function).arguments if entry != "sites"]
            args = args[: 3 + len(by_place)]  # sites= goes by name alone, and the mask goes
            kwargs = {key: kwargs[key] for key in kwargs if key not in ("mask", "normalize")}
        return super().__torch_function__(function, types, args, kwargs)


def _unfused(
    input: Any,
    function: Callable[..., Any],
    weight: Any,
    bias: Any,
    options: dict[str, Any],
    packed: Any,
    other: Any = None,
    relu: bool = False,
) -> Any:
    """Return what a fused convolution reads: its convolution's inputs, and what is added."""
    output = function(input, weight, bias, **options)
    return output if other is None else output + other


class _Rule:
    """The rule of receptive fields, which also refuses, and collects strides."""

    def __init__(self, axes: int) -> None:
        self.strides = [1] * axes

    def __call__(self, call: Call) -> Sequence[Axes]:
        reason = _reason(call)
        if reason is not None:
            raise SparseConvNotImplementedError(f"{call.name} {reason}")
        results = rule(call)
        for axes in results:
            for number, axis in enumerate(axes):
                if axis.size == 1 or axis.field.always is not None:
                    raise SparseConvNotImplementedError(f"{call.name} {_WHOLE}")
                jump = axis.field.jump.numerator
                self.strides[number] = math.lcm(self.strides[number], max(jump, 1))
        return results


def _reason(call: Call) -> str | None:
    """Return why a call has no reach, None where it may have one."""
    for beginning, reason in _REASONS.items():
        if call.name.startswith(beginning):
            return reason
    if call.name in ("batch_norm", "instance_norm"):
        names = ("input", "running_mean", "running_var", "weight", "bias", "statistics")
        bound = call.bind(*names)
        default = call.name == "instance_norm"
        asked = bound.get("training", bound.get("use_input_stats", default))
        if bound.get("statistics", asked):
            return "takes its statistics over the sites that it is given"
    if call.name.startswith(("interpolate", "upsample")):
        bound = call.bind("input", "size", "scale_factor", "mode", "align_corners")
        if bound.get("size") is not None or bound.get("align_corners"):
            return "has a step that depends on the extent of the input"
    return None


def _check_norms(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _NORMS) and module.training:
            raise SparseConvNotImplementedError(
                f"model: {name or 'it'} ({type(module).__name__}) is in training and takes its "
                f"statistics over all sites, so that it has no reach; call model.eval() first"
            )


def _at_extent(model: nn.Module, shape: tuple[int, ...]) -> tuple[Reach, tuple[Fraction, ...]]:
    """Return reach and jump, worked out on an input of ``shape``."""
    collected = _Rule(len(shape) - 2)
    trace = Trace(collected)
    axes = tuple(Axis(dim, Field(), size) for dim, size in enumerate(shape) if dim > 1)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    empty = torch.empty(shape, dtype=dtype, device="meta")
    try:
        with named(model, trace), torch.no_grad():
            result = model(_SparseStandIn.of(empty, axes, trace))
    except NotImplementedError as error:
        raise SparseConvNotImplementedError(
            f"model: {_layer(model, trace)} has no reach: {error}"
        ) from error
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise SparseConvValueError(
            f"model: {_layer(model, trace)} cannot be followed on an input of shape {shape} "
            f"without data: {error}"
        ) from error
    if not isinstance(result, StandIn) or any(axis.merged for axis in result.axes):
        raise SparseConvValueError(
            f"model: must return one tensor of the input's axes, got {came(result)}, "
            f"so that it has no reach"
        )
    sides = [_sides(axis.field) for axis in result.axes]
    left, right = tuple(below for below, _ in sides), tuple(above for _, above in sides)
    return Reach(left, right, tuple(collected.strides)), tuple(a.field.jump for a in result.axes)


def _layer(model: nn.Module, trace: Trace) -> str:
    """Return the name and the kind of the module at work when the run stopped."""
    name = trace.names[-1] if trace.names else ""
    modules = dict(model.named_modules())
    kind = type(modules.get(name, model)).__name__
    return kind if name in ("", kind) else f"{name} ({kind})"


def _sides(field: Field) -> tuple[int, int]:
    """Return how far the positions of an axis read below and above their own places."""
    below, above = [], []
    for position, span in enumerate(field.spans):
        if span is not None:
            place = math.floor(position * field.jump)
            below.append(place - span[0])
            above.append(span[1] - place)
    return max(below, default=0), max(above, default=0)

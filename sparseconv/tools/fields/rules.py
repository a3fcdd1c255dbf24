"""What the results of PyTorch's functions (and ours) read, given what their arguments read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.functional.convolution.table import CONVOLUTIONS
from sparseconv.tools.fields.shapes import SHAPES
from sparseconv.tools.fields.stand_in import Axes, Axis, Call, meet, meeting
from sparseconv.tools.fields.windows import WINDOWS, convolution

# Elementwise functions that PyTorch does not mark as such, and normalisations: these move and scale
# by statistics, which no receptive field counts.
# fmt: off
_POINTWISE = {
    "_threshold", "__get__", "alpha_dropout", "batch_norm", "broadcast_to", "celu",
    "channel_shuffle", "clone", "contiguous", "data", "detach", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "elu", "expand", "expand_as", "feature_alpha_dropout", "feature_dropout",
    "float_power", "gelu", "group_norm", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "instance_norm", "layer_norm", "leaky_relu", "local_response_norm", "logsigmoid", "mish",
    "normalize", "prelu", "relu", "relu6", "requires_grad", "rms_norm", "rrelu", "selu", "sigmoid",
    "silu", "softplus", "softshrink", "softsign", "tanhshrink", "threshold", "where",
}
# In these any position may meet any other.
_MIXERS = {
    "addbmm", "addmm", "baddbmm", "bilinear", "bmm", "cdist", "cosine_similarity", "cumprod",
    "cumsum", "einsum", "matmul", "mm", "multi_head_attention_forward", "rmatmul",
    "scaled_dot_product_attention", "sort", "topk",
}
_REDUCTIONS = {
    "amax", "amin", "argmax", "argmin", "linalg_vector_norm", "logsumexp", "max", "mean", "median",
    "min", "nanmean", "nansum", "norm", "prod", "std", "sum", "var",
}
# fmt: on


def rule(call: Call) -> Sequence[Axes]:
    """Return the axes of each result of a call.

    Raises:
        SparseConvNotImplementedError: nobody wrote down what the function reads.
    """
    if call.name in CONVOLUTIONS:
        return [convolution(call)] * len(call.results)
    for prefix, axes_of in _BY_PREFIX.items():
        if call.name.startswith(prefix):
            return [axes_of(call)] * len(call.results)
    if call.name in SHAPES:
        return SHAPES[call.name](call)
    if call.name in _REDUCTIONS and not _is_elementwise(call):
        return [_reduced(call)] * len(call.results)
    if call.name in _MIXERS:
        return [_mixed(call)] * len(call.results)
    if call.name in _POINTWISE or _is_elementwise(call):
        return [meet(call.inputs, result.ndim) for result in call.results]
    raise SparseConvNotImplementedError(
        f"receptive_field: nothing is known about what {call.name} reads; take the model apart "
        f"there, or replace it by a function that PyTorch marks as elementwise"
    )


def _is_elementwise(call: Call) -> bool:
    """Return whether PyTorch marks the function as elementwise."""
    if call.name in ("max", "min") and len(call.args) < 2:
        return False
    if call.name in ("max", "min"):
        return isinstance(call.args[1], Tensor)
    packet = getattr(torch.ops.aten, call.name, None)
    if packet is None:
        return False
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def _reduced(call: Call) -> Axes:
    """Return the axes of a mean, sum or maximum over some dimensions."""
    bound = call.bind("input", "dim", "keepdim")
    (x,) = call.inputs[:1]
    dims = bound.get("dim", bound.get("axis"))
    entries = range(x.ndim) if dims is None else dims if isinstance(dims, Sequence) else [dims]
    gone = {entry % x.ndim for entry in entries} or set(range(x.ndim))
    keep = bool(bound.get("keepdim", False))
    axes, any_window = [], False
    for axis in x.axes:
        if axis.dim is None:
            axes.append(axis)
        elif axis.dim not in gone:
            below = 0 if keep else sum(entry < axis.dim for entry in gone)
            axes.append(replace(axis, dim=axis.dim - below))
        else:
            any_window |= axis.size > 1
            dim = axis.dim if keep and not axis.merged else None
            axes.append(Axis(dim, axis.field.whole(axis.size), 1))
    if any_window:
        x.history.record(call.name, tuple(axes))
    return tuple(axes)


def _global_pool(call: Call) -> Axes:
    (x,) = call.inputs[:1]
    axes = tuple(Axis(None, axis.field.whole(axis.size), 1) for axis in x.axes)
    x.history.record(call.name, axes)
    return axes


def _linear(call: Call) -> Axes:
    """A product over the last dimension: it reads an axis that lies along it."""
    (x,) = call.inputs[:1]
    if not any(axis.dim == x.ndim - 1 for axis in x.axes):
        return x.axes
    axes = tuple(
        Axis(None, axis.field.whole(axis.size), 1) if axis.dim == x.ndim - 1 else axis
        for axis in x.axes
    )
    x.history.record(call.name, axes)
    return axes


def _mixed(call: Call) -> Axes:
    """Products in which any position may meet any other, such as attention."""
    each = [tuple(axis.everywhere() for axis in entry.axes) for entry in call.inputs]
    return tuple(meeting(axes) for axes in zip(*each, strict=True))


def _softmax(call: Call) -> Axes:
    """Every position along the dimension divides by the sum over all."""
    (x,) = call.inputs[:1]
    dim = call.bind("input", "dim").get("dim")
    axes = []
    for axis in x.axes:
        if dim is not None and axis.dim == dim % x.ndim:
            field = axis.field.union(axis.field.everywhere(axis.size), axis.size)
            axes.append(replace(axis, field=field))
        else:
            axes.append(axis)
    return tuple(axes)


# by the beginning of their names, the longer ones first
_BY_PREFIX: dict[str, Callable[[Call], Axes]] = {
    **WINDOWS,
    "global_": _global_pool,
    "linear": _linear,
    "softmax": _softmax,
    "log_softmax": _softmax,
}

"""Functions that move values about: which dimension an axis runs along afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.tools.fields.intervals import Field, joined
from sparseconv.tools.fields.stand_in import Axes, Axis, Call, meet


def _permuted(call: Call) -> Sequence[Axes]:
    """Follow a permutation by running it on dimensions that can be told apart."""
    (x,) = call.inputs[:1]
    told = call.repeat(torch.empty(tuple(range(100, 100 + x.ndim)), device="meta"))
    dim_of = {size - 100: dim for dim, size in enumerate(told.shape)}
    return [tuple(a if a.dim is None else replace(a, dim=dim_of[a.dim]) for a in x.axes)]


def _reshaped(call: Call) -> Sequence[Axes]:
    """Follow axes through a change of shape: kept, merged with others, or taken apart again."""
    (x,) = call.inputs[:1]
    groups = _groups(tuple(x.shape), tuple(call.results[0].shape))
    axes: list[Axis] = []
    for axis in x.axes:
        if axis.dim is None:
            axes.append(axis)
            continue
        sources, targets = next(group for group in groups if axis.dim in group[0])
        axes.append(_regrouped(axis, x.axes, sources, targets, call.results[0]))
    return [tuple(axes)]


def _regrouped(
    axis: Axis, axes: Axes, sources: list[int], targets: list[int], result: Tensor
) -> Axis:
    """Return where one axis lies after its group of dimensions took another shape."""
    if axis.size == 1 and not axis.merged:
        alike = [dim for dim in targets if result.shape[dim] == 1]
        return replace(axis, dim=alike[0] if alike else None)
    wide = [dim for dim in targets if result.shape[dim] > 1]
    together = [other for other in axes if other.dim in sources and other.size > 1]
    whole = len(together) == 1 and not axis.merged and len(wide) == 1
    if whole and result.shape[wide[0]] == axis.size:
        return replace(axis, dim=wide[0])
    last = wide[-len(together) :]
    if len(last) == len(together) and [result.shape[d] for d in last] == [o.size for o in together]:
        return replace(axis, dim=last[together.index(axis)], merged=False)
    if len(wide) > 1:
        raise SparseConvNotImplementedError(
            f"receptive_field: cannot follow an axis of {axis.size} positions through a reshape "
            f"to {tuple(result.shape)}"
        )
    return replace(axis, dim=wide[0] if wide else None, merged=True)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return runs of dimensions that hold the same values before and after a reshape."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins: list[int] = []
        outs: list[int] = []
        product_in = product_out = 1
        while not ins or not outs or product_in != product_out:
            if i < len(before) and (not ins or product_in < product_out or j == len(after)):
                product_in, i = product_in * before[i], i + 1
                ins.append(i - 1)
            elif j < len(after):
                product_out, j = product_out * after[j], j + 1
                outs.append(j - 1)
            else:
                break
        groups.append((ins, outs))
    return groups


def _shifted(axis: Axis, low: int, step: int, size: int) -> Axis:
    """Return the axis of every ``step``-th position from ``low`` on."""
    field = axis.field.through(lambda n: (low + n * step,), 1, step)
    return replace(axis, field=field, size=size)


def _padded(call: Call) -> Sequence[Axes]:
    (x,) = call.inputs[:1]
    pads = call.bind("input", "pad")["pad"]
    axes = []
    for axis in x.axes:
        first = None if axis.dim is None else 2 * (x.ndim - 1 - axis.dim)
        if first is None or first >= len(pads) or axis.merged:
            axes.append(axis)
        else:
            axes.append(_shifted(axis, -pads[first], 1, axis.size + sum(pads[first : first + 2])))
    return [tuple(axes)]


def _indexed(call: Call) -> Sequence[Axes]:
    """Follow ``x[...]`` with whole numbers, slices, None and an ellipsis."""
    (x,) = call.inputs[:1]
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(isinstance(entry, Tensor | list) for entry in index):
        raise SparseConvNotImplementedError(
            "receptive_field: cannot follow x[...] with a tensor or list as the index"
        )
    used = sum(entry is not None and entry is not Ellipsis for entry in index)
    if Ellipsis not in index:
        index = (*index, Ellipsis)
    at = index.index(Ellipsis)
    index = (*index[:at], *(slice(None),) * (x.ndim - used), *index[at + 1 :])
    before, after = 0, 0
    axes = {axis.dim: axis for axis in x.axes if axis.dim is not None and not axis.merged}
    moved: dict[int, Axis] = {}
    for entry in index:
        if entry is None:
            after += 1
            continue
        if isinstance(entry, slice):
            if before in axes:
                positions = range(axes[before].size)[entry]
                cut = _shifted(axes[before], positions.start, positions.step, len(positions))
                moved[before] = replace(cut, dim=after)
            after += 1
        elif before in axes:
            position = range(axes[before].size)[entry]
            moved[before] = replace(_shifted(axes[before], position, 1, 1), dim=None)
        before += 1
    return [tuple(a if a.dim is None else moved.get(a.dim, a) for a in x.axes)]


def _pieces(call: Call) -> Sequence[Axes]:
    """Follow ``chunk``, ``split`` and ``unbind``: pieces along one dimension."""
    (x,) = call.inputs[:1]
    dim = call.bind("input", "parts", "dim").get("dim", 0) % x.ndim
    if call.name == "unbind":
        dim = call.bind("input", "dim").get("dim", 0) % x.ndim
        return _unbound(x.axes, dim, len(call.results))
    pieces, low = [], 0
    for result in call.results:
        size = result.shape[dim]
        pieces.append(tuple(_shifted(a, low, 1, size) if a.dim == dim else a for a in x.axes))
        low += size
    return pieces


def _unbound(axes: Axes, dim: int, count: int) -> Sequence[Axes]:
    def without(axis: Axis, position: int) -> Axis:
        if axis.dim == dim:
            return replace(_shifted(axis, position, 1, 1), dim=None)
        return axis if axis.dim is None or axis.dim < dim else replace(axis, dim=axis.dim - 1)

    return [tuple(without(axis, position) for axis in axes) for position in range(count)]


def _joined(call: Call) -> Sequence[Axes]:
    """Follow ``cat``: what the tensors read together, or one after another along an axis."""
    bound = call.bind("tensors", "dim")
    ndim = call.results[0].ndim
    dim = bound.get("dim", bound.get("axis", 0)) % ndim
    along = [next((a for a in x.axes if a.dim == dim), None) for x in call.inputs]
    if not any(along):
        return [meet(call.inputs, ndim)]
    if len(call.inputs) != len(bound["tensors"]) or not all(along):
        raise SparseConvNotImplementedError("receptive_field: cannot follow this torch.cat")
    chosen = [axis for axis in along if axis is not None]
    sizes = [axis.size for axis in chosen]
    long = Axis(dim, joined([axis.field for axis in chosen], sizes), sum(sizes))
    return [tuple(long if a.dim == dim else a for a in call.inputs[0].axes)]


def _stacked(call: Call) -> Sequence[Axes]:
    dim = call.bind("tensors", "dim").get("dim", 0) % call.results[0].ndim
    axes = meet(call.inputs, call.inputs[0].ndim)
    return [tuple(a if a.dim is None or a.dim < dim else replace(a, dim=a.dim + 1) for a in axes)]


def _shuffled(call: Call) -> Sequence[Axes]:
    """Follow ``pixel_shuffle``: a position becomes a square of them."""
    (x,) = call.inputs[:1]
    factor = call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))

    def spread(field: Field) -> Field:
        return field.through(lambda n: (n // factor,), factor, 1)

    def merged(field: Field) -> Field:
        return field.through(lambda n: range(n * factor, (n + 1) * factor), 1, factor)

    follow = spread if call.name == "pixel_shuffle" else merged
    axes = tuple(a if a.dim is None else replace(a, field=follow(a.field)) for a in x.axes)
    if call.name != "pixel_shuffle":
        x.history.record(call.name, axes)
    return [axes]


SHAPES: dict[str, Callable[[Call], Sequence[Axes]]] = {
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims",
                     "t", "adjoint"), _permuted),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze",
                     "reshape_as", "view_as", "ravel"), _reshaped),
    **dict.fromkeys(("chunk", "split", "unbind", "tensor_split"), _pieces),
    **dict.fromkeys(("cat", "concat", "concatenate"), _joined),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffled),
    "pad": _padded,
    "getitem": _indexed,
    "stack": _stacked,
}  # fmt: skip

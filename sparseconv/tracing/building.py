"""Operators that make sites from coordinates while a graph runs; see ``tracing/operators.py``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sparseconv import engines
from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import dynamic_size, onnx_registry
from sparseconv.sites.coordinates import grouped_sites, sites_from_coords
from sparseconv.sites.sites import Sites, rebuilt_sites
from sparseconv.tracing.handles import owning_handle

# A program for fixed sites holds what they are made of, and makes them at every call: what it made
# of a tensor that still lives, and still holds the same, is taken again, rulebooks and all.
_MADE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def unknown_sites() -> Tensor:
    """Return the handle of sites that a graph will make.

    Here sites enter a graph; so an export to ONNX that runs is told what stands for operators.
    """
    registry = onnx_registry()
    if registry is not None:
        DOORS.translate(registry)
    return torch.empty((), dtype=torch.int64, device="cpu")


@torch.library.custom_op("sparseconv::made_sites", mutates_args=())
def made_sites(
    coords: Tensor, shape: list[int] | None, batch_size: int | None, lower: list[int] | None
) -> Tensor:
    """Return the handle of the sites at coordinates ``[N, 1 + D]``."""
    key = (shape, batch_size, lower)
    known = _MADE.get(coords)
    if known is None or known[0] != key or not torch.equal(known[1].shared_coords, coords):
        floor = None if lower is None else tuple(lower)
        known = key, sites_from_coords(coords.clone(), shape, batch_size, floor)
        _MADE[coords] = known
    sites: Sites = known[1]
    return owning_handle(sites)


@made_sites.register_fake
def _(coords, shape, batch_size, lower):  # type: ignore[no-untyped-def]
    return unknown_sites()


@torch.library.custom_op("sparseconv::kept_sites", mutates_args=())
def kept_sites(
    keys: Tensor,
    order: Tensor | None,
    box: list[int],
    shape: list[int],
    batch_size: int,
    lower: list[int],
) -> Tensor:
    """Return the handle of sites that a program holds as the parts of their index.

    Args:
        keys, order: of the index.
        box: of the keys: the lower corner, the extent and the guard.
        shape, batch_size, lower: of the sites.
    """
    known = _MADE.get(keys)
    if known is None or not torch.equal(known[1].index.keys, keys):
        columns = 1 + len(lower)
        corners = tuple(box[:columns]), tuple(box[columns:-1]), box[-1]
        place = tuple(shape), batch_size, tuple(lower)
        rows = None if order is None else order.clone()
        known = None, rebuilt_sites(keys.clone(), rows, corners, *place)
        _MADE[keys] = known
    sites: Sites = known[1]
    return owning_handle(sites)


@kept_sites.register_fake
def _(keys, order, box, shape, batch_size, lower):  # type: ignore[no-untyped-def]
    return unknown_sites()


@torch.library.custom_op("sparseconv::merged_sites", mutates_args=())
def merged_sites(
    coords: Tensor, shape: list[int] | None, batch_size: int | None, lower: list[int] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return handle and ``[S, 0]`` of the distinct sites of coordinates, and their groups of rows.

    Order int64 ``[N]``, starts int64 ``[S + 1]``, site of row int64 ``[N]``.
    """
    floor = None if lower is None else tuple(lower)
    sites, groups = grouped_sites(coords, shape, batch_size, floor)
    rows = coords.new_empty(sites.num_sites, 0)
    order, starts, segment = (entry.clone() for entry in groups)
    return owning_handle(sites), rows, order, starts, segment


@merged_sites.register_fake
def _(coords, shape, batch_size, lower):  # type: ignore[no-untyped-def]
    count, (n, _) = dynamic_size(), coords.shape
    sizes = (n, count + 1, n)
    groups = (coords.new_empty(size, dtype=torch.int64) for size in sizes)
    return unknown_sites(), coords.new_empty(count, 0), *groups


@torch.library.custom_op("sparseconv::segment_sum", mutates_args=())
def segment_sum(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return the sums ``[S, C]`` of rows over segments."""
    return engines.for_tensor(values).segment_sum(values, order, starts).clone()


@torch.library.custom_op("sparseconv::segment_gather", mutates_args=())
def segment_gather(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return each row's segment's values ``[N, C]``, 0 where the segment is -1."""
    if values.shape[0] == 0:
        return values.new_zeros(segment.numel(), values.shape[1])
    return values[segment].masked_fill_((segment < 0)[:, None], 0)


@torch.library.custom_op("sparseconv::segment_argmax", mutates_args=())
def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, int64 ``[S, C]``."""
    return engines.for_tensor(values).segment_argmax(values, order, starts).clone()


@segment_sum.register_fake
def _(values, order, starts, segment):  # type: ignore[no-untyped-def]
    return values.new_empty(starts.shape[0] - 1, values.shape[1])


@segment_gather.register_fake
def _(values, order, starts, segment):  # type: ignore[no-untyped-def]
    return values.new_empty(segment.shape[0], values.shape[1])


@segment_argmax.register_fake
def _(values, order, starts):  # type: ignore[no-untyped-def]
    return values.new_empty(starts.shape[0] - 1, values.shape[1], dtype=torch.int64)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _back_from_sums(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return segment_gather(grad.contiguous(), *ctx.saved_tensors), None, None, None


def _back_from_rows(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return segment_sum(grad.contiguous(), *ctx.saved_tensors), None, None, None


segment_sum.register_autograd(_back_from_sums, setup_context=_save)
segment_gather.register_autograd(_back_from_rows, setup_context=_save)

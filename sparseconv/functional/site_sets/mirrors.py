"""Flips, rolls and quarter turns: the same extent, or two axes that change places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import check_int, entries_of
from sparseconv.core.grid import of_samples
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.axes import check_closed, frame_of, rearranged, sites_in
from sparseconv.functional.site_sets.permuted import held, shown, shown_axes
from sparseconv.functional.site_sets.shapes import axes_of, in_order, shape_function
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@shape_function(torch.flip, meaning="axes turned round; samples and channels too")
def _flip(input: Any, *dims: Any) -> Any:
    chosen = axes_of("dims", dims, input.ndim)
    return _turned(input, {axis: (-1, input.shape[axis] - 1) for axis in chosen}, "dims")


@shape_function(torch.roll, meaning="axes moved round by some cells; samples and channels too")
def _roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    if dims is None:
        raise SparseConvValueError("dims: name the axes; a SparseTensor has no flat order of cells")
    chosen = axes_of("dims", (dims,), input.ndim)
    entries = entries_of(shifts)
    amounts = [check_int("shifts", shift) for shift in ((shifts,) if entries is None else entries)]
    if len(amounts) != len(chosen):
        raise SparseConvValueError(
            f"shifts: must be one for each of the {len(chosen)} axes, got {len(amounts)}"
        )
    return _turned(input, dict(zip(chosen, ((1, amount) for amount in amounts), strict=True)),
                   "dims")  # fmt: skip


@shape_function(torch.rot90, meaning="quarter turns from one axis towards another")
def _rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    chosen = axes_of("dims", (dims,), input.ndim)
    if len(chosen) != 2:
        raise SparseConvValueError(f"dims: must name two axes, got {tuple(chosen)}")
    if 0 in chosen:
        raise SparseConvValueError(
            f"dims: rot90 turns axes from 1 on, the samples stay axis 0, got {tuple(chosen)}"
        )
    turns, (first, second) = check_int("k", k) % 4, chosen
    if turns == 2:
        return _flip(input, chosen)
    order = list(range(input.ndim))
    order[first], order[second] = second, first
    if turns == 0:
        return input
    if turns == 1:
        return in_order(_flip(input, second), order)
    return _flip(in_order(input, order), second)


def _turned(input: Any, maps: dict[int, tuple[int, int]], name: str) -> Any:
    """Return the tensor whose cell ``i`` of an axis goes to ``(sign * i + shift) mod extent``.

    Args:
        input: of either kind.
        maps: sign and shift by axis, as it is shown.
        name: of the argument that named the axes.
    """
    values, channel_dim = held(input)
    axes = shown_axes(values.ndim, channel_dim)
    spatial = {axes[axis] - 2: way for axis, way in maps.items() if axes[axis] > 1}
    check_closed(values, tuple(spatial), name)
    moved = values
    if spatial:
        moved = _turned_axes(values, spatial)
    if 0 in maps:
        moved = SparseTensor.unchecked(moved.features, _turned_samples(moved.sites, maps[0]))
    features = moved.features
    for axis, (sign, shift) in maps.items():
        if axes[axis] == 1:
            features = features.flip(1) if sign < 0 else features.roll(shift, 1)
    # a copy, as of a dense tensor: writing into the result must not change the input
    copy = features.clone() if features is values.features else features
    return shown(moved.replace(copy), channel_dim)


def _turned_axes(values: SparseTensor, ways: dict[int, tuple[int, int]]) -> SparseTensor:
    """Return the tensor with coordinates of some spatial axes moved round their extent."""
    # a grid has no axis that runs backwards
    frame = frame_of(values.sites)._replace(grid=None)

    def columns(old: Tensor) -> list[Tensor]:
        parts = list(old.unbind(1))
        for axis, (sign, shift) in ways.items():
            parts[axis] = (sign * parts[axis] + shift) % max(frame.shape[axis], 1)
        return parts

    return rearranged(values, ("turn", *sorted(ways.items())), frame, columns)


def _turned_samples(sites: Sites, way: tuple[int, int]) -> Sites:
    """Return the sites with their samples in another order."""
    sign, shift = way

    def build(old: Sites) -> Sites:
        coords = old.coords
        coords[:, 0] = (sign * coords[:, 0] + shift) % max(old.batch_size, 1)
        frame = frame_of(old)
        if isinstance(frame.grid, tuple):  # one of each sample
            numbers = range(old.batch_size)
            source = sorted(numbers, key=lambda b: (sign * b + shift) % old.batch_size)
            frame = frame._replace(grid=of_samples(frame.grid, source))
        return sites_in(frame, coords, old.batch_size)

    return sites.derived(("samples", way), build)

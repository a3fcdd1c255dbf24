"""The maps of the plain engine: all kernel cells at once, by one binary search or one sort.

A kernel cell is one addition to a packed key where the guard of the packing (see ``core.index``)
keeps neighbours apart. Elsewhere the place of each row along each axis is worked out for every
step of the kernel along that axis, and the axes are put together by broadcasting.

A hash table would answer in any order, and costs a write and a read of scattered slots. Here the
keys that are asked for ascend within each cell, as those that are searched do, so that
neighbouring threads of a card walk through the same cache lines; and sorted keys are what a set of
sites is kept in anyhow. See ``docs/devices.md`` for the bytes and launches of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import KEY_BYTES, MAX_COPY, Index, Packing, to_device
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch.apart import Finished, falls_apart, reached_apart
from sparseconv.engines.torch.keys import ABSENT, search

REACHED = "torch: reached"  # the name, in an index, of the map that came with its output sites


class Reached(NamedTuple):
    """The pairs that were found on the way to the sites that a layer reaches.

    Attributes:
        geometry: of the layer.
        keys: of the sites.
        present: bool ``[K, N]``, whether a row reaches a site through a kernel cell.
        sites: int64 ``[K * N]``, which one.
    """

    geometry: Geometry
    keys: Tensor
    present: Tensor
    sites: Tensor


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the keys of all sites that some input site reaches through some kernel cell."""
    if falls_apart(geometry):
        finished = reached_apart(index, geometry, packing)
        index.tables[REACHED] = finished
        return finished.keys
    back = geometry.kind is not Kind.TRANSPOSED
    parts = list(_targets(index, geometry, packing, back))
    found, sites = torch.unique(_with_absent([keys for keys, _ in parts]), return_inverse=True)
    keys: Tensor = found[:-1]
    if len(parts) == 1:
        index.tables[REACHED] = Reached(geometry, keys, parts[0][1], sites)
    return keys


def _with_absent(parts: list[Tensor]) -> Tensor:
    """Return the keys of all parts, and ``ABSENT`` at the end; of many parts each key once."""
    flat = [part.flatten() if len(parts) == 1 else torch.unique(part) for part in parts]
    return torch.cat([*flat, flat[0].new_full((1,), ABSENT)])


def build_rulebook(fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
    """Return the pairs, cell by cell: one search for all of them, one wait for their number."""
    n_in, n_out = fine.keys.numel(), coarse.keys.numel()
    if fine is coarse and geometry.is_pointwise:
        rows = _rows(fine, torch.arange(n_in, dtype=torch.int32, device=fine.keys.device))
        return Rulebook(rows, rows, (0, n_in), n_in, n_out)
    if n_in == 0 or n_out == 0:
        none = torch.empty(0, dtype=torch.int32, device=fine.keys.device)
        return Rulebook(none, none, (0,) * (geometry.num_cells + 1), n_in, n_out)
    transposed = geometry.kind is Kind.TRANSPOSED
    asked, other = (coarse, fine) if transposed else (fine, coarse)
    reached = asked.tables.pop(REACHED, None)
    if reached is None or reached.geometry != geometry or reached.keys is not other.keys:
        fine_rows, coarse_rows, splits = _searched(fine, coarse, geometry)
    else:
        mine, theirs, splits = _finished(reached)
        fine_rows, coarse_rows = (theirs, mine) if transposed else (mine, theirs)
    return Rulebook(_rows(fine, fine_rows), _rows(coarse, coarse_rows), splits, n_in, n_out)


def _rows(index: Index, places: Tensor) -> Tensor:
    """Return the rows, int32, of places among the ascending keys."""
    return places.int() if index.order is None else index.order[places].int()


def _searched(
    fine: Index, coarse: Index, geometry: Geometry
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Return the pairs as places among the keys, by asking for every source of a coarse site."""
    sources, targets, counts = [], [], []
    for keys, present in _sources(fine, coarse, geometry):
        position, found = search(fine.keys, keys, narrow=True)
        if present is not None:
            found &= present
        of_cells, flat, places = _pairs(found)
        sources.append(position.flatten()[flat])
        targets.append(places)
        counts += of_cells
    splits = (0, *itertools.accumulate(counts))
    return _joined(sources), _joined(targets), splits


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _finished(reached: Reached | Finished) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Return the rows, the sites and the splits of pairs that came with the sites."""
    if isinstance(reached, Finished):
        return reached.rows, reached.sites, reached.splits
    counts, flat, places = _pairs(reached.present)
    return places, reached.sites[flat], (0, *itertools.accumulate(counts))


def _pairs(present: Tensor) -> tuple[list[int], Tensor, Tensor]:
    """Return pairs a cell, and each pair's place in ``present`` ``[K, N]`` and in its row."""
    counts = present.sum(dim=1).tolist()
    flat = torch.nonzero_static(present.flatten(), size=sum(counts))[:, 0]
    places = torch.empty(flat.shape, dtype=torch.int32, device=flat.device)
    return counts, flat, torch.remainder(flat, present.shape[1], out=places)


def _sources(
    fine: Index, coarse: Index, geometry: Geometry
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield keys ``[cells, N]`` that coarse sites read, and which of them lie in the fine box.

    None where keys outside of the box are keys of no site.
    """
    steps = _steps_of_keys(fine, coarse, geometry)
    if steps is None:
        yield from _targets(coarse, geometry, fine.packing, back=False)
        return
    cells = max(MAX_COPY // (KEY_BYTES * coarse.keys.numel()), 1)
    on_device = to_device(steps, coarse.keys.device)[:, None]
    for first in range(0, len(steps), cells):
        yield coarse.keys + on_device[first : first + cells], None


def _steps_of_keys(fine: Index, coarse: Index, geometry: Geometry) -> list[int] | None:
    """Return what each kernel cell adds to a key, or None where coordinates must be looked at."""
    packing = fine.packing
    shifts = [_shifts(geometry, step) for step in range(max(geometry.kernel_size))]
    over = max(abs(shifts[size - 1][axis]) for axis, size in enumerate(geometry.kernel_size))
    over = max(over, *geometry.padding)
    if coarse.packing != packing or set(geometry.stride) != {1} or over > packing.guard:
        return None
    return [
        sum(shifts[step][axis] * packing.weights[1 + axis] for axis, step in enumerate(cell))
        for cell in geometry.cells
    ]


def _shifts(geometry: Geometry, step: int) -> list[int]:
    """Return how far a step of the kernel leads from a coarse site times the stride, per axis."""
    return [d * step - p for d, p in zip(geometry.dilation, geometry.padding, strict=True)]


def _targets(
    index: Index, geometry: Geometry, packing: Packing, back: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the keys ``[cells, N]`` in ``packing`` of where rows lead, and whether they do.

    ``back`` is from fine to coarse, where only multiples of the stride lead to a site. A key that
    leads nowhere is ``ABSENT``.
    """
    kernel = geometry.kernel_size
    small = KEY_BYTES * geometry.num_cells * index.keys.numel() <= MAX_COPY
    places, whole = places_of(index, geometry, packing, back)
    for first in range(0, kernel[0], kernel[0] if small else 1):
        keys, present = places[0, :1], whole[0, :1]
        for axis, size in enumerate(kernel, start=1):
            steps = slice(size) if small or axis > 1 else slice(first, first + 1)
            keys = (keys[:, None] + places[axis, steps]).flatten(0, 1)
            present = (present[:, None] & whole[axis, steps]).flatten(0, 1)
        yield torch.where(present, keys, ABSENT), present


def places_of(
    index: Index, geometry: Geometry, packing: Packing, back: bool
) -> tuple[Tensor, Tensor]:
    """Return what each column adds to a key, ``[1 + D, most steps, N]``, and whether it may.

    Source:
        ``fine = coarse * stride + dilation * step - padding`` along each axis, here counted from
        the low ends of the two boxes.
    """
    sign, strides = (-1 if back else 1), (1, *geometry.stride)
    corners = zip(index.packing.lower, packing.lower, strides, strict=True)
    lows = [low - other * s if back else low * s - other for low, other, s in corners]
    steps = ((0, *_shifts(geometry, step)) for step in range(max(geometry.kernel_size)))
    shifts = [[sign * a + low for a, low in zip(step, lows, strict=True)] for step in steps]
    last = [size - 1 for size in packing.extent]
    columns = [index.packing.weights, index.packing.radix, strides, packing.weights, last]
    table = to_device([*columns, [0] * len(last), *shifts], index.keys.device)[:, :, None]
    weights, radix, stride, out_weights, last, zero = (row[:, None] for row in table[:6])
    digits = torch.div(index.keys, weights, rounding_mode="floor") % radix  # [1 + D, 1, N]
    shift = table[6:].transpose(0, 1)
    if back:
        moved = digits + shift
        place = torch.div(moved, stride, rounding_mode="floor").clamp_(zero, last)
        return place * out_weights, place * stride == moved
    moved = digits * stride + shift
    place = moved.clamp(zero, last)
    return place * out_weights, place == moved

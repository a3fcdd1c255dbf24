"""Rulebooks where keys run short of room, windows are wide, or the given sites lie far away."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.core.index import MAX_DERIVED_CELLS, Packing

pytestmark = pytest.mark.usefixtures("engine")

EXTENTS = st.sampled_from([1, 2, 5, 9, 2**10, 2**20, 2**31 - 1])


def pairs(x: sc.SparseTensor, target: sc.SparseTensor, geometry: Geometry) -> list[set[tuple]]:
    """Return the pairs of each cell as coordinates, by comparing every site with every other."""
    found = []
    for cell in geometry.cells:
        met = set()
        for fine in x.coords.tolist():
            for coarse in target.coords.tolist():
                axes = zip(
                    *(fine[1:], coarse[1:], geometry.stride, geometry.padding),
                    *(cell, geometry.dilation),
                    strict=True,
                )
                meets = all(i == o * s - p + k * d for i, o, s, p, k, d in axes)
                if fine[0] == coarse[0] and meets:
                    met.add((tuple(fine), tuple(coarse)))
        found.append(met)
    return found


def cells_reached(x: sc.SparseTensor, geometry: Geometry) -> int:
    """Return how many cells the box around a layer's output sites holds, batch included."""
    low, high = (entry.tolist() for entry in (x.coords.amin(dim=0), x.coords.amax(dim=0)))
    first, last = geometry.reach(tuple(low[1:]), tuple(high[1:]))
    sizes = zip(first, last, geometry.output_shape(x.spatial_shape), strict=True)
    spatial = [min(top, size - 1) - max(bottom, 0) + 1 for bottom, top, size in sizes]
    return (high[0] - low[0] + 1) * math.prod(max(size, 1) for size in spatial)


@given(st.data())
def test_pairs_in_boxes_of_any_size(data: st.DataObject) -> None:
    """Corners of boxes up to the limit, kernels to 5, dilations to 4, strides to 3."""
    dimensions = data.draw(st.integers(1, 4))
    shape: list[int] = []
    for _ in range(dimensions):
        room = 2**61 // max(1, torch.tensor(shape).prod().item() if shape else 1)
        shape.append(min(data.draw(EXTENTS), max(room, 1)))
    columns = [st.sampled_from([0, min(1, size - 1), size // 2, size - 1]) for size in shape]
    rows = st.tuples(st.integers(0, 1), *columns)
    coords = data.draw(st.lists(rows, min_size=1, max_size=4, unique=True))
    x = sc.SparseTensor(torch.ones(len(coords), 1), torch.tensor(coords), shape, batch_size=2)
    kernel = data.draw(st.sampled_from([1, 2, 3, 5] if dimensions < 3 else [1, 2, 3]))
    dilation = data.draw(st.integers(1, 4))
    if kernel % 2 and data.draw(st.booleans()):
        padding = (kernel // 2 * dilation,) * dimensions
        geometry = make_geometry(
            (kernel,) * dimensions, padding=padding, dilation=dilation, kind=Kind.SUBMANIFOLD
        )
        target, rulebook = x.sites.convolve(geometry)
    else:
        stride = data.draw(st.integers(1, 3))
        reach = (kernel - 1) * dilation
        geometry = make_geometry(
            (kernel,) * dimensions, stride=stride, padding=reach, dilation=dilation
        )
        if cells_reached(x, geometry) >= MAX_DERIVED_CELLS:  # no 64 bits hold the output's keys
            with pytest.raises(sc.SparseConvValueError, match="can be packed into 64-bit keys"):
                x.sites.convolve(geometry)
            return
        target, rulebook = x.sites.convolve(geometry)
    y = sc.SparseTensor.on_sites(torch.ones(target.num_sites, 1), target)
    ends = zip(rulebook.splits, rulebook.splits[1:], strict=False)
    found = [
        {
            (tuple(x.coords[i].tolist()), tuple(y.coords[o].tolist()))
            for i, o in zip(
                rulebook.in_rows[s:e].tolist(), rulebook.out_rows[s:e].tolist(), strict=True
            )
        }
        for s, e in ends
    ]
    assert found == pairs(x, y, geometry)


def test_given_sites_far_from_the_input() -> None:
    """Output sites that lie a long way outside the box of the input, in samples it lacks."""
    x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[1, 5, 5], [1, 6, 900]]), (1000, 1000), 4)
    places = torch.tensor([[0, 5, 5], [1, 0, 0], [1, 999, 5], [1, 5, 6], [3, 6, 900], [1, 6, 999]])
    like = sc.SparseTensor(torch.ones(6, 1), places, (1000, 1000), 4)
    geometry = make_geometry((3, 3), padding=1)
    _, rulebook = x.sites.convolve(geometry, like.sites)
    ends = zip(rulebook.splits, rulebook.splits[1:], strict=False)
    found = [
        {
            (tuple(x.coords[i].tolist()), tuple(places[o].tolist()))
            for i, o in zip(
                rulebook.in_rows[s:e].tolist(), rulebook.out_rows[s:e].tolist(), strict=True
            )
        }
        for s, e in ends
    ]
    assert found == pairs(x, like, geometry)


def test_a_guard_is_left_out_where_keys_would_overflow() -> None:
    """A box that fills 62 bits and is thin on an axis has no room for a guard."""
    thin = Packing.around((0, 0, 0, 0), (0, 0, 2**31 - 2, 2**30 - 1))
    assert thin.guard == 2  # 3 * (2^31 + 1) * (2^30 + 2) still fits
    full = Packing.around((0, 0, 0, 0, 0), (0, 0, 0, 2**31 - 2, 2**30 - 1))
    assert full.guard == 0
    assert full.guarded(1) is None
    assert MAX_DERIVED_CELLS < 2**63

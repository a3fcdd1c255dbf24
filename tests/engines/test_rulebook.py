"""Rulebooks: worked by hand, against a loop over coordinates, and what every one must hold."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from cases import GRID, PROBLEMS, Ints, Problem, pairs_of, problems, random_input, random_mask
from hypothesis import given

import sparseconv as sc
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.numba.rulebooks.tiles import tiled_pairs
from sparseconv.sites.sites import Sites

pytestmark = pytest.mark.usefixtures("engine")

KINDS = {"conv": Kind.REGULAR, "transposed": Kind.TRANSPOSED, "subm": Kind.SUBMANIFOLD}


def sites_at(*spatial: Ints | int, shape: Ints) -> Sites:
    """Return the sites of one sample, rows in the order given."""
    coords = [(0, *((site,) if isinstance(site, int) else site)) for site in spatial]
    return sc.SparseTensor(torch.ones(len(coords), 1), torch.tensor(coords), shape).sites


def spatial_pairs(rulebook: Rulebook, sites: Sites, target: Sites) -> list[set[Any]]:
    """Return the pairs of each cell as spatial coordinates; plain numbers in one axis."""
    cells = pairs_of(rulebook, sites.coords[:, 1:], target.coords[:, 1:])
    if sites.dimensions == 1:
        return [{(i[0], o[0]) for i, o in cell} for cell in cells]
    return cells


BY_HAND_1D = {
    # input sites 0, 1 and 3 of 5, and for each kernel cell the pairs (input, output)
    "subm-3": (
        make_geometry((3,), kind=Kind.SUBMANIFOLD),
        [{(0, 1)}, {(0, 0), (1, 1), (3, 3)}, {(1, 0)}],
    ),
    "subm-3-dilation-2": (
        make_geometry((3,), dilation=2, kind=Kind.SUBMANIFOLD),
        [{(1, 3)}, {(0, 0), (1, 1), (3, 3)}, {(3, 1)}],
    ),
    "conv-2-stride-2": (make_geometry((2,), stride=2), [{(0, 0)}, {(1, 0), (3, 1)}]),
    "conv-3-stride-2-padding-1": (
        make_geometry((3,), stride=2, padding=1),
        [{(1, 1), (3, 2)}, {(0, 0)}, {(1, 0), (3, 1)}],
    ),
    "conv-2-same": (
        # the extra cell of an even window is behind the input: output 4 reads inputs 4 and 5
        make_geometry((2,), padding="same"),
        [{(0, 0), (1, 1), (3, 3)}, {(1, 0), (3, 2)}],
    ),
    "conv-1-stride-2": (make_geometry((1,), stride=2), [{(0, 0)}]),
    "transposed-2-stride-2": (
        make_geometry((2,), stride=2, kind=Kind.TRANSPOSED),
        [{(0, 0), (1, 2), (3, 6)}, {(0, 1), (1, 3), (3, 7)}],
    ),
    "transposed-3-padding-1": (
        make_geometry((3,), padding=1, kind=Kind.TRANSPOSED),
        [{(1, 0), (3, 2)}, {(0, 0), (1, 1), (3, 3)}, {(0, 1), (1, 2), (3, 4)}],
    ),
}


@pytest.mark.parametrize("name", BY_HAND_1D)
def test_one_axis_by_hand(name: str) -> None:
    geometry, expected = BY_HAND_1D[name]
    sites = sites_at(3, 0, 1, shape=(5,))
    target, rulebook = sites.convolve(geometry)
    assert spatial_pairs(rulebook, sites, target) == expected
    assert rulebook.num_cells == geometry.num_cells
    assert rulebook.num_pairs == sum(map(len, expected))
    assert (rulebook.n_in, rulebook.n_out) == (3, target.num_sites)
    assert rulebook.in_rows.dtype == rulebook.out_rows.dtype == torch.int32


def test_two_axes_by_hand() -> None:
    """Cells run with the last axis fastest, as weights do: (0, 0), (0, 1), (1, 0), (1, 1)."""
    sites = sites_at((0, 0), (0, 3), (1, 2), (3, 3), shape=(4, 4))
    target, rulebook = sites.convolve(make_geometry((2, 2), stride=(2, 1)))
    assert target.coords[:, 1:].tolist() == [[0, 0], [0, 1], [0, 2], [1, 2]]
    assert spatial_pairs(rulebook, sites, target) == [
        {((0, 0), (0, 0))},
        {((0, 3), (0, 2))},
        {((1, 2), (0, 2))},
        {((1, 2), (0, 1)), ((3, 3), (1, 2))},
    ]
    target, rulebook = sites.convolve(make_geometry((1, 3), kind=Kind.SUBMANIFOLD))
    assert target is sites
    assert spatial_pairs(rulebook, sites, target) == [
        set(),
        {(site, site) for site in [(0, 0), (0, 3), (1, 2), (3, 3)]},
        set(),
    ]


def test_samples_do_not_meet() -> None:
    coords = torch.tensor([[0, 4], [1, 0], [1, 1], [0, 3]])
    sites = sc.SparseTensor(torch.ones(4, 1), coords, (5,)).sites
    _, rulebook = sites.convolve(make_geometry((3,), kind=Kind.SUBMANIFOLD))
    assert pairs_of(rulebook, coords, coords)[0] == {((0, 3), (0, 4)), ((1, 0), (1, 1))}


def geometry_of(problem: Problem) -> Geometry:
    """Return the layer's geometry."""
    return make_geometry(
        problem.layer.kernel, kind=KINDS[problem.layer.kind], **problem.layer.window
    )


def looped(problem: Problem) -> list[set[tuple[Ints, Ints]]]:
    """Return the pairs from the definition: fine = coarse * stride - padding + cell * dilation."""
    geometry = geometry_of(problem)
    transposed = geometry.kind is Kind.TRANSPOSED
    ins, outs = ({tuple(c) for c in m.nonzero().tolist()} for m in (problem.mask, problem.out_mask))
    fine, coarse = (outs, ins) if transposed else (ins, outs)
    cells = []
    for cell in itertools.product(*map(range, geometry.kernel_size)):
        meetings = set()
        for site in coarse:
            terms = zip(
                site[1:], geometry.stride, geometry.padding, cell, geometry.dilation, strict=True
            )
            met = (site[0], *(o * s - p + k * d for o, s, p, k, d in terms))
            if met in fine:
                meetings.add((site, met) if transposed else (met, site))
        cells.append(meetings)
    return cells


def check(problem: Problem) -> None:
    """Compare with the loop, and check what a rulebook promises."""
    geometry = geometry_of(problem)
    t = torch.ones(problem.batch, 1, *problem.mask.shape[1:])
    sites = problem.input(t).sites
    target, rulebook = sites.convolve(geometry)
    assert pairs_of(rulebook, sites.coords, target.coords) == looped(problem)
    assert rulebook.splits[0] == 0
    assert rulebook.num_pairs == len(rulebook.in_rows) == len(rulebook.out_rows)
    for start, end in itertools.pairwise(rulebook.splits):
        for rows in (rulebook.in_rows[start:end], rulebook.out_rows[start:end]):
            assert len(set(rows.tolist())) == end - start
    for direction in (rulebook, rulebook.transposed):
        tiled = tiled_pairs(direction)
        for start, end in itertools.pairwise(direction.splits):
            assert bool((np.diff(tiled.out_places[start:end]) > 0).all())
    if geometry.kind is Kind.SUBMANIFOLD:
        cells = pairs_of(rulebook, sites.coords, sites.coords)
        assert [{(o, i) for i, o in cell} for cell in cells] == cells[::-1]


@given(problem=problems(list(KINDS)))
def test_rulebooks_are_the_loop_over_coordinates(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if p.layer.kind != "inverse"])
def test_rulebooks_of_every_layer(name: str) -> None:
    check(PROBLEMS[name])


def test_rulebooks_between_sites_that_the_caller_names() -> None:
    """With `like`, only pairs of sites that both sets hold."""
    x = sc.SparseTensor.from_dense(random_mask(1, (9,), 0.5)[:, None].double())
    y = sc.SparseTensor.from_dense(random_mask(1, (5,), 0.6, 1)[:, None].double())
    geometry = make_geometry((3,), stride=2, padding=1)
    target, rulebook = x.sites.convolve(geometry, like=y.sites)
    assert target is y.sites
    ins, outs = (set(entry.coords[:, 1].tolist()) for entry in (x, y))
    assert spatial_pairs(rulebook, x.sites, y.sites) == [
        {(2 * o - 1 + k, o) for o in outs if 2 * o - 1 + k in ins} for k in range(3)
    ]
    assert x.sites.convolve(geometry, like=y.sites)[1] is rulebook


def test_transposed_twice_is_the_rulebook_and_shares_what_engines_derived() -> None:
    sites = random_input(30, 1, GRID[3]).sites
    _, rulebook = sites.convolve(make_geometry((2, 2, 2), stride=2))
    swapped = rulebook.transposed
    assert swapped.in_rows is rulebook.out_rows
    assert swapped.out_rows is rulebook.in_rows
    assert (swapped.n_in, swapped.n_out) == (rulebook.n_out, rulebook.n_in)
    assert swapped.splits == rulebook.splits
    again = swapped.transposed
    assert again.in_rows is rulebook.in_rows
    assert again.layouts is rulebook.layouts
    assert again.transposed_layouts is swapped.layouts

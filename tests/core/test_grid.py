"""Grids: what layers make of them, judged by the windows of the layers themselves."""

from __future__ import annotations

import pickle
from fractions import Fraction

import pytest
import torch
from cases import random_sites
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import sparseconv as sc
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.core.grid import Grid

PLACE = Grid((-1.0, 2.0), (0.5, 0.25))


def on_grid(shape: tuple[int, ...] = (12, 12), grid: Grid | None = PLACE) -> sc.SparseTensor:
    coords = random_sites(40, shape)
    features = torch.ones(len(coords), 2, dtype=torch.float64)
    return sc.SparseTensor(features, coords, shape, 1).with_grid(grid)


@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 8),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)
def test_a_coarse_voxel_is_the_middle_of_its_window(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    geometry = make_geometry((kernel,), stride=stride, padding=padding, dilation=dilation)
    grid = Grid((3.0,), (0.5,))
    coarse = grid.under(geometry)
    assert coarse.voxel_size == (0.5 * stride,)
    first = int(coarse.shift[0])
    assert coarse.origin == (3.0 + 0.5 * first,)
    block = set(range(first, first + stride))
    window = set(range(-padding, -padding + dilation * (kernel - 1) + 1))
    assert block <= window or window <= block
    middle = -padding + (dilation * (kernel - 1) + 1 - stride) / 2
    assert abs(first - middle) <= max(stride / 2, 1 / 2)
    back = make_geometry(
        (kernel,), stride=stride, padding=padding, dilation=dilation, kind=Kind.TRANSPOSED
    )
    again = coarse.under(back)
    assert (again.origin, again.voxel_size) == (grid.origin, grid.voxel_size)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "first"),
    [(2, 2, 0, 0), (3, 2, 1, 0), (7, 2, 3, 0), (1, 2, 0, 0), (3, 1, 1, 0), (3, 1, 0, 1),
     (3, 3, 1, -1), (2, 2, 1, -1), (7, 4, 3, 0), (5, 1, 0, 2), (4, 2, 1, 0)],
)  # fmt: skip
def test_the_usual_padding_keeps_the_origin(
    kernel: int, stride: int, padding: int, first: int
) -> None:
    geometry = make_geometry((kernel,), stride=stride, padding=padding)
    assert Grid((0.0,), (1.0,)).under(geometry).origin == (float(first),)


def test_layers_scale_the_grid() -> None:
    x = on_grid()
    weight = torch.ones(2, 2, 2, 2, dtype=torch.float64)
    coarse = F.conv2d(x, weight, stride=2)
    assert coarse.grid == Grid((-1.0, 2.0), (1.0, 0.5))
    assert F.max_pool2d(x, 2).grid == coarse.grid
    assert F.conv_transpose2d(coarse, weight, stride=2).grid == x.grid
    assert F.interpolate(coarse, scale_factor=2).grid == x.grid
    assert F.interpolate(on_grid((11, 11)), size=(5, 6)).grid == coarse.grid
    assert sc.functional.inverse_conv(coarse, weight, stride=2).grid == x.grid
    for same in (torch.relu(x), x + 1, x.float(), x[0], sc.prune(x, x.coords[:, 1] > 2)):
        assert same.grid == x.grid
    assert F.pixel_unshuffle(x, 2).grid == coarse.grid
    assert F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2).grid == x.grid
    assert pickle.loads(pickle.dumps(x)).grid == x.grid


def test_cropped_and_padded_sites_stay_where_they_were() -> None:
    x = on_grid()
    assert sc.crop(x, 3, 9).grid == Grid((0.5, 2.75), (0.5, 0.25))
    assert F.pad(x, (2, 2, 1, 1)).grid == Grid((-1.5, 1.5), (0.5, 0.25))
    valid = F.conv2d(x, torch.ones(2, 2, 3, 3, dtype=torch.float64))
    assert valid.grid == sc.crop(x, 1, 11).grid
    assert (valid + sc.crop(x, 1, 11)).grid == valid.grid


def test_tensors_on_different_grids_do_not_join() -> None:
    x = on_grid()
    y = x.with_grid(Grid((-0.5, 2.0), (0.5, 0.25)))
    for join in (
        lambda: x + y,
        lambda: x * y,
        lambda: torch.cat([x, y], 1),
        lambda: sc.cat([x, y]),
        lambda: sc.union(x, y),
        lambda: sc.intersect(x, y),
        lambda: sc.difference(x, y),
        lambda: torch.maximum(x, y),
        lambda: sc.functional.conv(x, torch.ones(2, 2, 1, 1, dtype=torch.float64), like=y),
    ):
        with pytest.raises(sc.SparseConvValueError, match=r"voxelize both on one grid"):
            join()
    assert (x + y.with_grid(None)).grid == x.grid


def test_branches_of_a_network_join() -> None:
    x = on_grid()
    ones = lambda k: torch.ones(2, 2, k, k, dtype=torch.float64)  # noqa: E731
    main = F.conv2d(x, ones(3), stride=2, padding=1)
    for branch in (
        F.conv2d(x, ones(1), stride=2),
        F.avg_pool2d(x, 2),
        F.conv2d(F.pad(x, (1, 1, 1, 1)), ones(3), stride=2),
        F.conv2d(F.pad(x, (0, 1, 0, 1)), ones(3), stride=2),
    ):
        assert (main + branch).num_sites >= main.num_sites


def test_sites_on_one_grid_join_whatever_their_extents() -> None:
    x, y = on_grid((12, 12)), on_grid((9, 14))
    both = x + y
    assert both.spatial_shape == (12, 14)
    cells = {tuple(c) for c in (*x.coords.tolist(), *y.coords.tolist())}
    assert {tuple(c) for c in both.coords.tolist()} == cells
    assert torch.equal(both.at(x.coords)[1], torch.ones(x.num_sites, dtype=torch.bool))
    with pytest.raises(sc.SparseConvValueError, match="other: lives on a grid"):
        x.with_grid(None) + y


def test_samples_keep_grids_of_their_own() -> None:
    x = on_grid()
    y = x.with_grid(Grid((7.0, 0.0), (0.5, 0.25)))
    batch = sc.collate([x, y, x])
    assert batch.grid == (x.grid, y.grid, x.grid)
    assert [sample.grid for sample in batch] == [x.grid, y.grid, x.grid]
    assert batch[0:3:2].grid == x.grid
    coarse = F.max_pool2d(batch, 2)
    assert coarse.grid == tuple(grid.scaled(2) for grid in batch.grid)
    assert (batch + batch.replace(batch.features)).grid == batch.grid
    with pytest.raises(sc.SparseConvValueError, match="voxelize both on one grid"):
        batch + sc.collate([y, x, x])
    assert sc.collate([x, x]).grid == x.grid
    with pytest.raises(sc.SparseConvValueError, match=r"sparseconv\.collate keeps a grid for each"):
        torch.cat([x, y])
    assert torch.cat([batch, x]).grid == (x.grid, y.grid, x.grid, x.grid)
    assert sc.collate([x, x.with_grid(None)]).grid is None


def test_axes_of_a_grid() -> None:
    grid = Grid((1.0, 2.0), (0.5, 0.25), (False, True), "m").scaled((2, 4))
    swapped = grid.axes((1, 0))
    assert swapped == Grid((2.0, 1.0), (1.0, 1.0), (True, False), "m")
    assert swapped.stride == (Fraction(4), Fraction(2))
    assert swapped.axes((1, 0)) == grid


WRONG = {
    "origin": lambda: Grid((float("nan"),), (1.0,)),
    "voxel_size": lambda: Grid((0.0,), (0.0,)),
    "voxel_size: axes": lambda: Grid((0.0, 0.0), (1.0, 1.0, 1.0)),
    "circular": lambda: Grid((0.0,), (1.0,), (True, False)),
    "grid": lambda: on_grid(grid="here"),  # type: ignore[arg-type]
    "grid: axes": lambda: on_grid(grid=Grid((0.0,), (1.0,))),
    "grid: samples": lambda: on_grid().with_grid((PLACE, PLACE)),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_grids(case: str) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{case.partition(':')[0]}: "):
        WRONG[case]()

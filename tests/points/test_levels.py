"""From any level of a network to points, labels and metres, judged by arithmetic on the points."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from cases import assert_close, generator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

import sparseconv as sc

SIZE = 0.1


def cloud(count: int = 60, axes: int = 2, seed: int = 0) -> Tensor:
    """Return whole millimetres, some of them on faces."""
    whole = torch.randint(-2500, 2500, (count, axes), generator=generator(seed))
    whole[::3] = whole[::3] // 100 * 100
    return whole.double() / 1000


def cells_of(xyz: Tensor, origin: tuple[float, ...], size: float) -> list[tuple[int, ...]]:
    """Return the voxel of each point by exact arithmetic on decimals."""
    edge = Fraction(str(size))
    starts = [Fraction(str(round(entry, 9))) for entry in origin]
    return [
        tuple(
            math.floor((Fraction(str(p)) - low) / edge) for p, low in zip(row, starts, strict=True)
        )
        for row in xyz.tolist()
    ]


def by_hand(coords: Tensor, origin: tuple[float, ...], size: Tensor) -> Tensor:
    """Return the centres of voxels."""
    return torch.tensor(origin, dtype=torch.float64) + (coords[:, 1:].double() + 0.5) * size


def level(x: sc.SparseTensor, strides: list[int], seed: int = 0) -> sc.SparseTensor:
    y = x
    for number, stride in enumerate(strides):
        weight = torch.randn(3, y.channels, stride, stride, generator=generator(seed + number))
        y = F.conv2d(y, weight.to(y.dtype), stride=stride)
    return y


@given(
    seed=st.integers(0, 99),
    strides=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3),
    samples=st.integers(1, 3),
)
def test_any_level_comes_back_to_the_points(seed: int, strides: list[int], samples: int) -> None:
    xyz = cloud(seed=seed)
    batch = torch.randint(samples, (len(xyz),), generator=generator(seed + 1))
    total = math.prod(strides)
    x, to_points = sc.voxelize(xyz, SIZE, batch=batch, multiple_of=48)
    y = level(x.double(), strides)
    assert y.grid is not None
    assert isinstance(y.grid, sc.Grid)
    assert y.grid.origin == to_points.origin
    table = {tuple(c): f for c, f in zip(y.coords.tolist(), y.features, strict=True)}
    cells = cells_of(xyz, to_points.origin, round(total * SIZE, 9))
    nothing = torch.zeros(3, dtype=torch.float64)
    expected = torch.stack(
        [table.get((int(b), *cell), nothing) for b, cell in zip(batch, cells, strict=True)]
    )
    assert torch.equal(to_points(y), expected)
    coarse = to_points.coarsen(total)
    assert torch.equal(coarse(y), expected)
    others = cloud(20, seed=seed + 7)
    there = torch.randint(samples, (20,), generator=generator(seed + 2))
    rows = [
        table.get((int(b), *cell), nothing)
        for b, cell in zip(
            there, cells_of(others, to_points.origin, round(total * SIZE, 9)), strict=True
        )
    ]
    if samples == x.batch_size:
        assert torch.equal(to_points(y, points=others, batch=there), torch.stack(rows))


def test_a_padded_window_of_three_holds_the_block_of_two() -> None:
    """The usual strided layers agree about which voxel a point lies in."""
    xyz = cloud()
    x, to_points = sc.voxelize(xyz, SIZE, multiple_of=2)
    y = F.conv2d(x.double(), torch.rand(2, 1, 3, 3).double(), stride=2, padding=1)
    rows, found = y.at(torch.cat([torch.zeros(60, 1).long(), torch.tensor(
        cells_of(xyz, to_points.origin, 2 * SIZE))], dim=1))  # fmt: skip
    assert bool(found.all())
    assert torch.equal(to_points(y), y.features[rows])


def test_finer_levels_and_pruned_ones() -> None:
    xyz = cloud()
    x, to_points = sc.voxelize(xyz, SIZE)
    fine = F.interpolate(x.double(), scale_factor=2)
    fine = fine.replace(torch.rand(fine.num_sites, 2, dtype=torch.float64))
    cells = cells_of(xyz, to_points.origin, SIZE / 2)
    rows, found = fine.at(torch.tensor([(0, *cell) for cell in cells]))
    assert bool(found.all())
    assert torch.equal(to_points(fine), fine.features[rows])
    few = sc.prune(x, x.coords[:, 1] > 20)
    kept = x.coords[to_points.rows, 1] > 20
    assert torch.equal(to_points(few, fill=-1)[:, 0] == -1, ~kept)


def test_linear_interpolation_between_the_centres_of_a_level() -> None:
    xyz = cloud().requires_grad_()
    x, to_points = sc.voxelize(xyz, SIZE)
    y = F.conv2d(x.double(), torch.ones(1, 1, 4, 4).double(), stride=4)
    plane = y.replace(y.centres() @ torch.tensor([[2.0], [-3.0]]).double() + 1)
    full = sc.SparseTensor.from_dense(torch.ones(1, 1, *y.spatial_shape).double()).with_grid(y.grid)
    plane = full.replace(full.centres() @ torch.tensor([[2.0], [-3.0]]).double() + 1)
    inside = ((xyz > full.centres().amin(0)) & (xyz < full.centres().amax(0))).all(1)
    expected = xyz @ torch.tensor([[2.0], [-3.0]]).double() + 1
    assert_close(to_points(plane, "linear")[inside], expected[inside])
    some = xyz.detach()[inside][:5]
    assert_close(to_points(plane, "linear", points=some), expected[inside][:5])
    values = torch.rand(y.num_sites, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: to_points(y.replace(v), "linear"), values)
    assert gradcheck(lambda v: to_points(y.replace(v)), values)


@given(seed=st.integers(0, 99), factor=st.sampled_from([1, 2, 3, 8, (2, 4)]))
def test_a_coarser_map_is_a_loop_over_points(seed: int, factor: int | tuple[int, int]) -> None:
    xyz = cloud(seed=seed)
    x, to_points = sc.voxelize(xyz, SIZE, bounds=((-1, -2), (2, 2)))
    coarse = to_points.coarsen(factor)
    steps = torch.tensor(factor).expand(2)
    blocks = x.coords.clone()
    blocks[:, 1:] //= steps
    assert torch.equal(coarse.sites.coords, torch.unique(blocks, dim=0))
    inside = to_points.rows >= 0
    assert torch.equal(coarse.rows >= 0, inside)
    assert torch.equal(coarse.sites.coords[coarse.rows[inside]], blocks[to_points.rows[inside]])
    values, labels = torch.rand(60, 2).double(), torch.randint(4, (60,))
    merged = coarse.splat(values, "max").features
    winners = coarse.majority(labels, 4)
    for row in range(coarse.num_sites):
        mine = coarse.rows == row
        assert int(coarse.counts[row]) == int(mine.sum())
        assert torch.equal(merged[row], values[mine].amax(0))
        assert int(winners[row]) == int(torch.bincount(labels[mine], minlength=4).argmax())
    assert_close(
        coarse.centres(),
        torch.tensor(coarse.origin, dtype=torch.float64)
        + (coarse.sites.coords[:, 1:] + 0.5).double() * steps * SIZE,
    )


def test_the_map_to_the_sites_of_a_layer() -> None:
    """A window of three makes sites without a point: no votes there, and zeros."""
    xyz = cloud()
    x, to_points = sc.voxelize(xyz, SIZE)
    y = F.conv2d(x.double(), torch.ones(1, 1, 3, 3).double(), stride=2, padding=1)
    coarse = to_points.coarsen(y)
    assert coarse.sites is y.sites
    empty = coarse.counts == 0
    assert bool(empty.any())
    for reduce in ("mean", "sum", "max", "min", "first", "last"):
        merged = coarse.splat(xyz + 9, reduce).features
        assert torch.equal((merged == 0).all(1), empty)
    assert torch.equal(coarse.majority(torch.ones(60).long(), 2) == -1, empty)
    with pytest.raises(sc.SparseConvValueError, match="fragments: "):
        next(coarse.fragments())


@given(strides=st.lists(st.sampled_from([1, 2, 3]), max_size=3), seed=st.integers(0, 99))
def test_centres_at_every_level(strides: list[int], seed: int) -> None:
    x, to_points = sc.voxelize(cloud(seed=seed), SIZE)
    y = level(x.double(), strides)
    size = SIZE * math.prod(strides)
    assert_close(
        y.centres(),
        torch.tensor(to_points.origin, dtype=torch.float64)
        + (y.coords[:, 1:].double() + 0.5) * size,
    )
    assert torch.equal(to_points.centres(), x.centres())


def test_other_grids_are_refused() -> None:
    x, to_points = sc.voxelize(cloud(), SIZE)
    other, _ = sc.voxelize(cloud() + 1, SIZE, multiple_of=1)
    with pytest.raises(sc.SparseConvValueError, match=r"^features: must lie on the grid"):
        to_points(other)
    unknown = F.max_pool2d(x.with_grid(None), 2)
    with pytest.raises(sc.SparseConvValueError, match=r"with_grid"):
        to_points(unknown)
    with pytest.raises(sc.SparseConvValueError, match=r"^x: nobody knows .*with_grid"):
        unknown.centres()
    with pytest.raises(sc.SparseConvValueError, match=r"^features: must have 1 samples"):
        to_points(sc.collate([x, x]))
    assert torch.equal(to_points(x.with_grid(None)), to_points(x))

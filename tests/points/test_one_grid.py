"""Many scans on one grid: the cells of a scan depend on nothing but the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import generator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc

SIZE = 0.3


def scan(count: int, seed: int, shift: float = 0.0) -> Tensor:
    points = 6 * torch.rand(count, 3, generator=generator(seed), dtype=torch.float64)
    return points - 3 + shift


def u_net() -> torch.nn.Module:
    torch.manual_seed(0)
    down = torch.nn.Conv3d(4, 6, 2, stride=2), torch.nn.Conv3d(6, 6, 2, stride=2)
    up = sc.nn.InverseConv3d(6, 6, 2, stride=2), sc.nn.InverseConv3d(6, 2, 2, stride=2)
    layers = (sc.nn.SubmConv3d(1, 4, 3), torch.nn.ReLU(), *down, torch.nn.ReLU(), *up)
    return torch.nn.Sequential(*layers).double()


def world(x: sc.SparseTensor) -> set[tuple[int, ...]]:
    """Return the sites as voxels of the world."""
    first = torch.tensor(x.grid.origin).div(torch.tensor(x.grid.voxel_size)).round().long()  # type: ignore[union-attr]
    return set(map(tuple, (x.coords[:, 1:] + first).tolist()))


@given(seed=st.integers(0, 99), shift=st.floats(-20, 20), size=st.sampled_from([0.3, 0.25, 1.0]))
def test_a_scan_gives_the_same_alone_and_in_a_batch(seed: int, shift: float, size: float) -> None:
    a, b = scan(60, seed), scan(40, seed + 1, shift)
    net = u_net()
    values = [
        torch.rand(len(cloud), 1, generator=generator(2), dtype=torch.float64) for cloud in (a, b)
    ]
    x, to_points = sc.voxelize([a, b], size, values)
    alone, to_alone = sc.voxelize(a, size, values[0])
    assert world(x[0]) == world(alone)
    assert torch.equal(to_points(net(x))[:60], to_alone(net(alone)))
    collated, _ = sc.voxelize(b, size, values[1])
    both = sc.collate([alone, collated])
    maps = sc.collate([to_alone, sc.voxelize(b, size)[1]])
    assert torch.equal(maps(net(both)), to_points(net(x)))


@given(seed=st.integers(0, 999), shift=st.floats(-20, 20), pool=st.booleans())
def test_windows_beyond_the_last_voxel_do_not_depend_on_the_batch(
    seed: int, shift: float, pool: bool
) -> None:
    """Kernel 3, stride 2, padding 1: the last window is centred one step beyond the last voxel."""
    a, b = scan(20, seed), scan(20, seed + 1, shift)
    torch.manual_seed(1)
    net = torch.nn.Sequential(sc.nn.SubmConv3d(1, 2, 3))
    for _ in range(4):
        net.append(
            torch.nn.MaxPool3d(3, 2, 1) if pool else torch.nn.Conv3d(2, 2, 3, stride=2, padding=1)
        )
    if not pool:
        net.extend([sc.nn.InverseConv3d(2, 2, 3, stride=2, padding=1) for _ in range(4)])
    net.double()
    values = [torch.rand(20, 1, generator=generator(2), dtype=torch.float64) for _ in "ab"]
    x, to_points = sc.voxelize([a, b], SIZE, values)
    alone, to_alone = sc.voxelize(a, SIZE, values[0])
    many, one = net(x)[0], net(alone)
    assert world(many) == world(one)
    torch.testing.assert_close(many.features.sum(0), one.features.sum(0), rtol=1e-12, atol=0)
    if not pool:
        assert torch.equal(to_points(net(x))[:20], to_alone(one))


@given(
    seed=st.integers(0, 99),
    shift=st.floats(-9, 9),
    multiple=st.sampled_from([1, 4, 16, (2, 8, 1)]),
)
def test_the_origin_lies_on_a_multiple_and_the_extent_is_one(
    seed: int, shift: float, multiple: Any
) -> None:
    x, _ = sc.voxelize(scan(30, seed, shift), SIZE, multiple_of=multiple)
    multiples = torch.tensor(multiple).expand(3)
    steps = torch.tensor(x.grid.origin, dtype=torch.float64) / SIZE / multiples  # type: ignore[union-attr]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-6)
    extent = torch.tensor(x.spatial_shape)
    assert not bool((extent % multiples).any())
    assert bool((extent > x.coords[:, 1:].amax(0)).all())
    assert bool((x.coords[:, 1:].amin(0) < multiples).all())
    assert bool((extent - x.coords[:, 1:].amax(0) < 2 * multiples).all())


def test_no_site_vanishes_in_a_u_net() -> None:
    x, _ = sc.voxelize(scan(200, 0) * torch.tensor([1.0, 0.7, 0.4]), SIZE)
    net = torch.nn.Sequential(*[torch.nn.Conv3d(1, 1, 2, stride=2) for _ in range(4)])
    assert not sc.summary(net, x.float(), show=False).warnings
    odd = (torch.rand(1, 1, 5, 7, 9, generator=generator(0)) < 0.4).float()
    x = sc.SparseTensor.from_dense(odd)
    unread = int((x.coords[:, 1:] >= torch.tensor([4, 6, 8])).any(1).sum())
    (warning,) = sc.summary(net[0], x, show=False).warnings
    assert f"{unread} of {x.num_sites} input sites are read by no window" in warning


@given(seed=st.integers(0, 99), steps=st.lists(st.integers(-8, 8), min_size=3, max_size=3))
def test_scans_on_one_grid_meet_where_they_lie(seed: int, steps: list[int]) -> None:
    a = scan(80, seed)
    b = scan(70, seed + 1) + SIZE * torch.tensor(steps)
    x, to_points = sc.voxelize(a, SIZE)
    truth = world(x) | world(sc.voxelize(b, SIZE)[0])
    for like in (to_points, x, x.grid):
        y, to_others = sc.voxelize(b, like=like)
        assert y.grid == x.grid
        both = x + y
        assert both.num_sites == len(truth)
        assert world(both) == truth
        assert both.features.sum() == x.num_sites + y.num_sites
        assert to_others(y).shape == (70, 1)
    z, _ = sc.voxelize(b, SIZE, origin=to_points.origin)
    assert torch.equal(z.coords, y.coords)


def test_scans_on_grids_of_their_own_do_not_mix() -> None:
    """The same extent and the same coordinates, two voxels further in the world."""
    a = scan(50, 0)
    x, _ = sc.voxelize(a, SIZE, multiple_of=1)
    y, _ = sc.voxelize(a + 2 * SIZE, SIZE, multiple_of=1)
    assert x.shape == y.shape
    for join in (lambda: x + y, lambda: torch.cat([x, y], 1), lambda: sc.union(x, y)):
        with pytest.raises(sc.SparseConvValueError, match=r"by like= or origin="):
            join()
    net = torch.nn.Conv3d(1, 1, 2, stride=2)
    with pytest.raises(sc.SparseConvValueError, match=r"by like= or origin="):
        net(x.float()) + net(y.float())


def test_points_outside_the_grid_of_like() -> None:
    x, to_points = sc.voxelize(torch.tensor([[0.1], [3.9]]), 1.0)
    y, _ = sc.voxelize(torch.tensor([[-2.5], [40.5]]), like=to_points)
    assert y.coords[:, 1].tolist() == [-3, 40]
    assert (x + y).coords[:, 1].tolist() == [-3, 0, 3, 40]
    _, bounded = sc.voxelize(torch.tensor([[0.1], [3.9]]), 1.0, bounds=(0, 4))
    z, to_z = sc.voxelize(torch.tensor([[-2.5], [2.5], [40.5]]), like=bounded)
    assert to_z.rows.tolist() == [-1, 0, -1]
    assert z.spatial_shape == (4,)


def test_like_a_coarse_tensor() -> None:
    x, _ = sc.voxelize(scan(100, 0), SIZE)
    coarse = torch.nn.MaxPool3d(4)(x)
    y, _ = sc.voxelize(scan(100, 0), like=coarse)
    assert y.grid == coarse.grid
    assert torch.equal(y.coords, coarse.coords)
    assert (y + coarse).num_sites == y.num_sites


@pytest.mark.parametrize("kind", ["list", "batch", "array"])
def test_batches_of_clouds_in_three_forms(kind: str) -> None:
    clouds = torch.stack([scan(30, 0), scan(30, 1), scan(30, 2)])
    values = torch.rand(3, 30, 2, generator=generator(3))
    expected, _ = sc.voxelize(list(clouds), SIZE, list(values))
    if kind == "list":
        x, to_points = sc.voxelize(clouds, SIZE, values)
    elif kind == "batch":
        batch = torch.arange(3).repeat_interleave(30)
        x, to_points = sc.voxelize(clouds.flatten(0, 1), SIZE, values.flatten(0, 1), batch)
    else:
        x, to_points = sc.voxelize(clouds.numpy(), SIZE, values.numpy())
    assert torch.equal(x.coords, expected.coords)
    assert torch.equal(x.features, expected.features)
    assert to_points.samples.tolist() == np.repeat([0, 1, 2], 30).tolist()


P = torch.rand(5, 3)
X, MAP = sc.voxelize(P, 0.5)
WRONG = {
    "origin: two": lambda: sc.voxelize(P, 0.5, origin=(0, 0, 0), bounds=(0, 0, 0, 1, 1, 1)),
    "like: two": lambda: sc.voxelize(P, like=X, origin=(0, 0, 0)),
    "like: kind": lambda: sc.voxelize(P, like=0.5),  # type: ignore[arg-type]
    "like: axes": lambda: sc.voxelize(P[:, :2], like=X),
    "like: unknown": lambda: sc.voxelize(P, like=X.with_grid(None)),
    "voxel_size: none": lambda: sc.voxelize(P),
    "voxel_size: other": lambda: sc.voxelize(P, 0.4, like=X),
    "origin: axes": lambda: sc.voxelize(P, 0.5, origin=(0, 0)),
    "origin: nan": lambda: sc.voxelize(P, 0.5, origin=(0, 0, float("nan"))),
    "multiple_of: zero": lambda: sc.voxelize(P, 0.5, multiple_of=0),
    "batch: with rows": lambda: sc.voxelize(P[None], 0.5, batch=torch.zeros(5).long()),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_places(case: str) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{case.partition(':')[0]}: "):
        WRONG[case]()

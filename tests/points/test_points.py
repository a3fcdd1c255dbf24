"""Points to voxels and back: reductions, labels, splats and interpolation, judged by loops."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from cases import TOLERANCE, assert_close, generator, random_input
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

REDUCTIONS = ("mean", "sum", "max", "min", "first", "last")


def cloud(count: int = 60, axes: int = 3, extent: float = 4.0, seed: int = 0) -> Tensor:
    return extent * torch.rand(count, axes, generator=generator(seed), dtype=torch.float64)


def by_loop(values: Tensor, rows: Tensor, count: int, reduce: str) -> Tensor:
    """Merge the rows of each voxel, one voxel after another."""
    merged = []
    for site in range(count):
        own = values[rows == site]
        merged.append(
            {
                "mean": own.mean(0),
                "sum": own.sum(0),
                "max": own.amax(0),
                "min": own.amin(0),
                "first": own[0],
                "last": own[-1],
            }[reduce]
        )
    return torch.stack(merged)


def linear_by_loop(x: sc.SparseTensor, points: Tensor, renormalise: bool = False) -> Tensor:
    """Interpolate as the definition says, in a dictionary of sites."""
    table = {tuple(c): f for c, f in zip(x.coords.tolist(), x.features, strict=True)}
    out = []
    for point in points.tolist():
        total, weights = torch.zeros(x.channels, dtype=torch.float64), 0.0
        base = [math.floor(entry) for entry in point[1:]]
        for corner in itertools.product((0, 1), repeat=len(base)):
            weight = math.prod(
                1 - abs(p - (b + c)) for p, b, c in zip(point[1:], base, corner, strict=True)
            )
            site = (int(point[0]), *(b + c for b, c in zip(base, corner, strict=True)))
            if site in table:
                total, weights = total + weight * table[site].double(), weights + weight
        out.append(total / weights if renormalise and weights > 0 else total)
    return torch.stack(out)


def random_points(x: sc.SparseTensor, count: int = 40, seed: int = 3) -> Tensor:
    """Return points in and around the grid of ``x``."""
    source = generator(seed)
    extent = torch.tensor(x.spatial_shape, dtype=torch.float64)
    inside = torch.rand(count, len(x.spatial_shape), generator=source, dtype=torch.float64)
    samples = torch.randint(x.batch_size, (count, 1), generator=source).double()
    return torch.cat([samples, inside * (extent + 2) - 1.5], dim=1)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("bounds", [None, ((0.5, 0, 0), (3.5, 4, 2.5))])
def test_voxelize_merges_as_a_loop_does(engine: str, reduce: str, bounds: object) -> None:
    xyz = cloud()
    values = torch.randn(60, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)
    batch = torch.randint(3, (60,), generator=generator(2))
    x, to_points = sc.voxelize(xyz, 1.0, values, batch, bounds, reduce)
    low = torch.zeros(3) if bounds is None else torch.tensor(bounds[0])
    inside = to_points.rows >= 0
    if bounds is not None:
        within = (xyz >= low) & (xyz < torch.tensor(bounds[1]))
        assert torch.equal(inside, within.all(1))
    cells = torch.floor(xyz - torch.tensor(to_points.origin)).long()
    expected = torch.cat([batch[:, None], cells], dim=1)
    assert torch.equal(x.coords[to_points.rows[inside]], expected[inside])
    merged = by_loop(values[inside], to_points.rows[inside], x.num_sites, reduce)
    assert_close(x.features, merged)
    assert gradcheck(lambda v: sc.voxelize(xyz, 1.0, v, batch, bounds, reduce)[0].features, values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mean_of_many_halves_neither_overflows_nor_loses_count(dtype: torch.dtype) -> None:
    values = torch.full((5000, 1), 100.0, dtype=dtype)
    with sc.engine("torch"):
        x, _ = sc.voxelize(torch.zeros(5000, 2), 1.0, values)
    assert x.features.tolist() == [[100.0]]
    assert x.dtype == dtype


def test_a_list_of_clouds_is_a_batch() -> None:
    clouds = [cloud(20, seed=0), cloud(0), cloud(30, seed=1), cloud(0)]
    values = [torch.randn(len(c), 2, generator=generator(n)) for n, c in enumerate(clouds)]
    x, to_points = sc.voxelize(clouds, 1.0, values)
    batch = torch.tensor([0] * 20 + [2] * 30)
    y, _ = sc.voxelize(torch.cat(clouds), 1.0, torch.cat(values), batch)
    assert (x.batch_size, y.batch_size) == (4, 3)
    assert torch.equal(x.coords, y.coords)
    assert torch.equal(x.features, y.features)
    assert to_points(x).shape == (50, 2)
    assert sc.voxelize([c.numpy() for c in clouds], 1.0)[0].batch_size == 4


def test_voxels_do_not_depend_on_whole_shifts() -> None:
    xyz = cloud()
    x, _ = sc.voxelize(xyz, 0.5, multiple_of=1)
    y, _ = sc.voxelize(xyz + torch.tensor([-3.0, 2.5, 100.0]), 0.5, multiple_of=1)
    assert torch.equal(x.coords, y.coords)


def test_majority_is_the_most_frequent_label_and_the_smallest_of_equals() -> None:
    xyz = cloud(200, axes=2)
    labels = torch.randint(-1, 4, (200,), generator=generator(1))
    for bounds in (None, ((0.5, 0.5), (3.5, 3.0))):
        x, to_points = sc.voxelize(xyz, 1.0, bounds=bounds)
        expected = []
        for site in range(x.num_sites):
            own = labels[(to_points.rows == site) & (labels >= 0)]
            expected.append(int(torch.bincount(own, minlength=4).argmax()) if len(own) else -1)
        assert to_points.majority(labels, 4).tolist() == expected
    shifted = torch.where(labels < 0, 255, labels)
    winners = to_points.majority(shifted.to(torch.uint8), 4, ignore_index=255)
    assert winners.tolist() == [255 if label < 0 else label for label in expected]


def test_majority_of_no_vote() -> None:
    x, to_points = sc.voxelize(cloud(5), 1.0)
    assert to_points.majority(torch.full((5,), -1), 2).tolist() == [-1] * x.num_sites


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_splat_is_what_voxelize_does(engine: str, reduce: str) -> None:
    xyz = cloud()
    values = torch.randn(60, 2, generator=generator(1), dtype=torch.float64)
    bounds = ((0, 0, 0), (3, 3, 3))
    x, to_points = sc.voxelize(xyz, 1.0, values, bounds=bounds, reduce=reduce)
    y = to_points.splat(values, reduce)
    assert y.sites is x.sites
    assert torch.equal(y.features, x.features)


@pytest.mark.parametrize("bounds", [None, ((0, 0), (3, 3))])
def test_points_and_voxels_are_adjoint(engine: str, bounds: object) -> None:
    """<splat(p), v> = <p, back(v)>, and every derivative, nearest and linear."""
    xyz = cloud(30, axes=2)
    x, to_points = sc.voxelize(xyz, 1.0, bounds=bounds)
    p = torch.randn(30, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)
    v = torch.randn(x.num_sites, 2, generator=generator(2), dtype=torch.float64).requires_grad_()
    for mode in ("nearest", "linear"):
        inside = (to_points.rows >= 0)[:, None]
        left = (to_points.splat(p, "sum", mode).features * v).sum()
        right = (p * inside * to_points(v, mode)).sum()
        assert_close(left, right)
        for reduce in ("sum", "mean"):
            splat = lambda t, r=reduce, m=mode: to_points.splat(t, r, m).features  # noqa: E731
            assert gradcheck(splat, p)
            assert gradgradcheck(splat, p)
        back = lambda t, m=mode: to_points(t, m)  # noqa: E731
        assert gradcheck(back, v)
        assert gradgradcheck(back, v)


def test_the_linear_way_back_follows_the_points() -> None:
    xyz = cloud(12, axes=2).requires_grad_()
    x, _ = sc.voxelize(xyz.detach(), 1.0)
    values = torch.randn(x.num_sites, 2, generator=generator(2), dtype=torch.float64)

    def back(points: Tensor) -> Tensor:
        return sc.voxelize(points, 1.0)[1](values, mode="linear")

    assert gradcheck(back, xyz)
    assert_close(back(xyz), sc.interpolate(x.replace(values), sc.voxelize(xyz, 1.0)[1].points))


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_interpolate_is_its_definition(engine: str, axes: int, renormalise: bool) -> None:
    x = random_input(12, 3, (5, 4, 3, 3)[:axes] if axes > 1 else (20,), batch=2)
    points = random_points(x)
    y = sc.interpolate(x, points, renormalise=renormalise)
    assert_close(y, linear_by_loop(x, points, renormalise))
    assert_close(sc.interpolate(x, x.coords.double(), renormalise=renormalise), x.features)


def test_interpolate_nearest_is_the_row_of_the_nearest_site() -> None:
    x = random_input(12, 3, (5, 4), batch=2)
    points = random_points(x)
    rows, found = x.at(torch.floor(points + 0.5).long())
    expected = torch.where(found[:, None], x.features[rows], 0.0)
    assert torch.equal(sc.interpolate(x, points, mode="nearest"), expected)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_derivatives_by_features_and_points(engine: str, axes: int, renormalise: bool) -> None:
    """First and second, with points that share sites."""
    x = random_input(8, 2, (9,) if axes == 1 else (3, 3, 2, 2)[:axes], batch=2)
    points = random_points(x, 6)
    points = torch.cat([points, points[:2] + torch.tensor([0.0] + [0.01] * axes)])
    spatial = points[:, 1:].clone().requires_grad_()
    features = x.features.clone().requires_grad_()

    def run(features: Tensor, spatial: Tensor) -> Tensor:
        at = torch.cat([points[:, :1], spatial], dim=1)
        return sc.interpolate(x.replace(features), at, renormalise=renormalise)

    assert gradcheck(run, (features, spatial))
    assert gradgradcheck(run, (features, spatial))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_interpolate_in_other_dtypes(dtype: torch.dtype) -> None:
    x = random_input(30, 3, (4, 4, 4), dtype=dtype)
    points = random_points(x)
    with sc.engine("torch"):
        y = sc.interpolate(x, points.float())
    assert y.dtype == dtype
    expected = linear_by_loop(x, points.float().double())
    assert float((y.double() - expected).abs().max()) < TOLERANCE[dtype] * 4


def test_interpolate_gives_the_same_bits_on_any_number_of_threads(as_users_run: None) -> None:
    x = random_input(2000, 8, (20, 20, 20), dtype=torch.float32)
    points = random_points(x, 5000).float()
    runs = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaves = [x.features.clone().requires_grad_(), points.clone().requires_grad_()]
        y = sc.interpolate(x.replace(leaves[0]), leaves[1])
        runs.append([y.detach(), *torch.autograd.grad(y, leaves, y.detach())])
    torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, runs[0], strict=True))


def test_nothing_at_all() -> None:
    empty = sc.SparseTensor(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), (4, 4), 2)
    for mode in ("linear", "nearest"):
        points = torch.tensor([[1.0, 2.5, 2.5]])
        assert sc.interpolate(empty, points, mode).tolist() == [[0.0] * 3]
        assert sc.interpolate(empty, points[:0], mode).shape == (0, 3)
    x, to_points = sc.voxelize(torch.zeros(0, 3), 1.0)
    assert to_points(x).shape == (0, 1)
    assert to_points(x, "linear").shape == (0, 1)
    assert to_points.splat(torch.zeros(0, 2)).shape[1] == 2
    assert to_points.majority(torch.zeros(0, dtype=torch.long), 3).shape == (0,)


def test_points_far_away_meet_nothing() -> None:
    x = random_input(5, 1, (3, 3))
    far = torch.tensor([[0, 1e30, 1.0], [0, -(2.0**40), 1.0], [0, 2.0**32 + 1, 1.0]])
    assert sc.interpolate(x, far.double()).abs().sum() == 0


def test_a_point_map_survives_pickling() -> None:
    x, to_points = sc.voxelize(cloud(), 1.0)
    again = pickle.loads(pickle.dumps(to_points))
    assert torch.equal(again(x, "linear"), to_points(x, "linear"))


XYZ = torch.rand(4, 3)
X, MAP = sc.voxelize(XYZ, 0.5)
WRONG = {
    "xyz: dtype": (lambda: sc.voxelize(XYZ.long(), 1.0), "xyz"),
    "xyz: text": (lambda: sc.voxelize("points", 1.0), "xyz"),
    "xyz: shape": (lambda: sc.voxelize(torch.rand(4, 5), 1.0), "xyz"),
    "xyz: nan": (lambda: sc.voxelize(XYZ / 0, 1.0), "xyz"),
    "voxel_size: zero": (lambda: sc.voxelize(XYZ, 0.0), "voxel_size"),
    "voxel_size: nan": (lambda: sc.voxelize(XYZ, math.nan), "voxel_size"),
    "voxel_size: text": (lambda: sc.voxelize(XYZ, "big"), "voxel_size"),
    "voxel_size: too many": (lambda: sc.voxelize(XYZ, (1.0, 2.0)), "voxel_size"),
    "voxel_size: tiny": (lambda: sc.voxelize(XYZ, 1e-12), "voxel_size"),
    "features: rows": (lambda: sc.voxelize(XYZ, 1.0, torch.rand(3, 1)), "features"),
    "features: dtype": (lambda: sc.voxelize(XYZ, 1.0, torch.ones(4, 1).long()), "features"),
    "batch: negative": (lambda: sc.voxelize(XYZ, 1.0, batch=torch.tensor([0, 0, -1, 0])), "batch"),
    "batch: float": (lambda: sc.voxelize(XYZ, 1.0, batch=torch.zeros(4)), "batch"),
    "batch: length": (lambda: sc.voxelize(XYZ, 1.0, batch=torch.zeros(3).long()), "batch"),
    "batch: with a list": (lambda: sc.voxelize([XYZ], 1.0, batch=torch.zeros(4).long()), "batch"),
    "bounds: reversed": (lambda: sc.voxelize(XYZ, 1.0, bounds=((1, 1, 1), (0, 0, 0))), "bounds"),
    "bounds: text": (lambda: sc.voxelize(XYZ, 1.0, bounds="here"), "bounds"),
    "reduce: unknown": (lambda: sc.voxelize(XYZ, 1.0, reduce="median"), "reduce"),
    "list: axes": (lambda: sc.voxelize([XYZ, XYZ[:, :2]], 1.0), "xyz"),
    "list: features": (lambda: sc.voxelize([XYZ], 1.0, [XYZ, XYZ]), "features"),
    "list: rows": (lambda: sc.voxelize([XYZ], 1.0, [XYZ[:2]]), "features"),
    "map: rows": (lambda: MAP(torch.rand(X.num_sites + 1, 1)), "features"),
    "map: mode": (lambda: MAP(X, mode="cubic"), "mode"),
    "map: type": (lambda: MAP([1.0]), "features"),
    "splat: rows": (lambda: MAP.splat(torch.rand(3, 1)), "features"),
    "splat: reduce": (lambda: MAP.splat(XYZ, "median"), "reduce"),
    "splat: linear max": (lambda: MAP.splat(XYZ, "max", "linear"), "reduce"),
    "labels: range": (lambda: MAP.majority(torch.tensor([0, 1, 2, 3]), 3), "labels"),
    "labels: float": (lambda: MAP.majority(torch.zeros(4), 3), "labels"),
    "labels: length": (lambda: MAP.majority(torch.zeros(3).long(), 3), "labels"),
    "labels: classes": (lambda: MAP.majority(torch.zeros(4).long(), 0), "num_classes"),
    "points: dtype": (lambda: sc.interpolate(X, torch.zeros(1, 4).long()), "points"),
    "points: columns": (lambda: sc.interpolate(X, torch.zeros(1, 3)), "points"),
    "points: nan": (lambda: sc.interpolate(X, torch.full((1, 4), math.nan)), "points"),
    "points: sample": (lambda: sc.interpolate(X, torch.ones(1, 4)), "points"),
    "points: half a sample": (lambda: sc.interpolate(X, torch.full((1, 4), 0.5)), "points"),
    "points: mode": (lambda: sc.interpolate(X, torch.zeros(1, 4), mode="cubic"), "mode"),
    "x: dense": (lambda: sc.interpolate(torch.zeros(1, 1, 2), torch.zeros(1, 2)), "x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_names_its_argument(name: str) -> None:
    call, argument = WRONG[name]
    with pytest.raises(sc.SparseConvError, match=rf"^{argument}\b") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_arrays_of_numpy_are_taken() -> None:
    xyz = np.random.default_rng(0).random((10, 3))
    x, _ = sc.voxelize(xyz, 0.5, xyz.astype(np.float32), np.zeros(10, np.int32))
    assert x.dtype == torch.float32

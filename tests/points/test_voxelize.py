"""Voxelize and the way back to the points, against a dictionary of lists."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import assert_close, generator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

KITTI = Path(__file__).resolve().parents[3] / "shared" / "data" / "kitti_000008.bin"

MERGE: dict[str, Any] = {
    "mean": lambda rows: sum(rows) / len(rows),
    "sum": sum,
    "max": lambda rows: np.max(rows, axis=0),
    "min": lambda rows: np.min(rows, axis=0),
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}


def decimal(number: Any) -> Fraction:
    """Return the shortest decimal that a float of its dtype stands for."""
    return Fraction(str(number))


def in_a_dict(
    xyz: np.ndarray[Any, Any],
    size: tuple[float, ...],
    batch: np.ndarray[Any, Any],
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> dict[tuple[int, ...], list[int]]:
    """Return the points of each voxel, by absolute voxel numbers, in sorted order.

    Exact: every number is the shortest decimal that its float stands for.
    """
    voxels: dict[tuple[int, ...], list[int]] = {}
    edges = [decimal(edge) for edge in size]
    ends = [[decimal(entry) for entry in end] for end in bounds or ((0.0,) * len(size), ())]
    for number, row in enumerate(xyz):
        point = [decimal(entry) for entry in row]
        if bounds is not None and not all(
            bottom <= p < top for p, bottom, top in zip(point, *ends, strict=True)
        ):
            continue
        cell = (math.floor((p - b) / s) for p, b, s in zip(point, ends[0], edges, strict=True))
        voxels.setdefault((int(batch[number]), *cell), []).append(number)
    return dict(sorted(voxels.items()))


@st.composite
def clouds(draw: st.DrawFn) -> dict[str, Any]:
    """Draw points, some of them exactly on the borders of voxels, in one to four axes."""
    axes, count = draw(st.integers(1, 4)), draw(st.integers(0, 40))
    size = tuple(draw(st.sampled_from([0.25, 0.1, 1.0, 3.0])) for _ in range(axes))
    source = np.random.default_rng(draw(st.integers(0, 2**16)))
    xyz = source.normal(0, 1.5, (count, axes))
    on_border = source.random((count, axes)) < 0.3
    xyz = np.where(on_border, np.round(xyz / 0.25) * 0.25, xyz)
    bounds = None
    if draw(st.booleans()):
        bounds = ((-1.0,) * axes, tuple(-1.0 + 8 * s for s in size))
    return {
        "xyz": xyz.astype(draw(st.sampled_from([np.float32, np.float64]))),
        "voxel_size": size,
        "batch": source.integers(0, 3, count),
        "bounds": bounds,
    }


@given(cloud=clouds())
def test_voxels_are_those_of_a_dictionary(cloud: dict[str, Any]) -> None:
    xyz, batch = cloud["xyz"], cloud["batch"]
    features = np.random.default_rng(1).normal(size=(len(xyz), 2))
    expected = in_a_dict(xyz, cloud["voxel_size"], batch, cloud["bounds"])
    for reduce, merge in MERGE.items():
        x, to_points = sc.voxelize(features=features, reduce=reduce, multiple_of=1, **cloud)
        cells = torch.tensor(list(expected), dtype=torch.int64).reshape(-1, 1 + xyz.shape[1])
        if cloud["bounds"] is None and len(cells):
            first = cells[:, 1:].amin(0)
            cells[:, 1:] -= first
            size = torch.tensor(cloud["voxel_size"], dtype=torch.float64)
            assert to_points.origin == tuple((first * size).tolist())
            assert x.spatial_shape == tuple((cells[:, 1:].amax(0) + 1).tolist())
        if cloud["bounds"] is not None:
            assert to_points.origin == cloud["bounds"][0]
            assert x.spatial_shape == (8,) * xyz.shape[1]
        assert torch.equal(x.coords, cells)
        merged = np.array([merge(features[numbers]) for numbers in expected.values()])
        assert_close(x.features, torch.as_tensor(merged).reshape(-1, 2))
        rows = torch.full((len(xyz),), -1)
        for row, numbers in enumerate(expected.values()):
            rows[numbers] = row
        assert torch.equal(to_points.rows, rows)
        back = to_points(x)
        assert torch.equal(back[rows >= 0], x.features[rows[rows >= 0]])
        assert not bool(back[rows < 0].any())


@given(cloud=clouds(), seed=st.integers(0, 99))
def test_the_order_of_points_changes_nothing_but_rounding(cloud: dict[str, Any], seed: int) -> None:
    order = torch.randperm(len(cloud["xyz"]), generator=generator(seed))
    shuffled = dict(cloud, xyz=cloud["xyz"][order.numpy()], batch=cloud["batch"][order.numpy()])
    features = torch.randn(len(order), 3, generator=generator(1), dtype=torch.float64)
    for reduce in ("mean", "max"):
        x, to_points = sc.voxelize(features=features, reduce=reduce, **cloud)
        y, to_shuffled = sc.voxelize(features=features[order], reduce=reduce, **shuffled)
        assert torch.equal(y.coords, x.coords)
        assert torch.equal(to_shuffled.rows, to_points.rows[order])
        assert_close(y.features, x.features)
        if reduce == "max":
            assert torch.equal(y.features, x.features)


@given(cloud=clouds(), steps=st.integers(-50, 50))
def test_a_shift_by_whole_multiples_changes_nothing(cloud: dict[str, Any], steps: int) -> None:
    if cloud["bounds"] is not None:
        return
    size = (0.5,) * len(cloud["voxel_size"])  # exact in binary, so that the shift is
    xyz = np.round(cloud["xyz"].astype(np.float64) * 64) / 64
    x, to_points = sc.voxelize(xyz, size, batch=cloud["batch"])
    y, shifted = sc.voxelize(xyz + steps * 8, size, batch=cloud["batch"])
    assert torch.equal(y.coords, x.coords)
    assert y.spatial_shape == x.spatial_shape
    assert torch.equal(shifted.rows, to_points.rows)
    if len(xyz):
        assert shifted.origin == tuple(entry + steps * 8 for entry in to_points.origin)


def test_points_on_the_border_belong_to_the_voxel_that_they_begin() -> None:
    xyz = torch.tensor([[0.0], [0.5], [1.0], [-0.0], [0.9999999], [-1e-12]], dtype=torch.float64)
    x, to_points = sc.voxelize(xyz, 0.5, multiple_of=1)
    assert to_points.rows.tolist() == [1, 2, 3, 1, 2, 0]
    assert x.spatial_shape == (4,)
    assert to_points.origin == (-0.5,)
    bounded, inside = sc.voxelize(xyz, 0.5, bounds=((0.0,), (1.0,)))
    assert inside.rows.tolist() == [0, 1, -1, 0, 1, -1]
    assert bounded.spatial_shape == (2,)


@pytest.mark.parametrize("length", [0.3, 0.7, 70.4, 1.1])
def test_an_extent_of_whole_voxels_is_not_one_longer_by_rounding(length: float) -> None:
    xyz = torch.zeros(1, 1)
    x, _ = sc.voxelize(xyz, 0.1, bounds=((0.0,), (length,)))
    assert x.spatial_shape == (round(length / 0.1),)
    wider, _ = sc.voxelize(xyz, 0.1, bounds=((0.0,), (length + 0.05,)))
    assert wider.spatial_shape == (round(length / 0.1) + 1,)


def test_bounds_in_two_spellings() -> None:
    xyz = torch.rand(20, 3, generator=generator(0))
    first, _ = sc.voxelize(xyz, 0.2, bounds=((0, 0, 0), (0.5, 1, 1)))
    second, _ = sc.voxelize(xyz, 0.2, bounds=[0, 0, 0, 0.5, 1, 1])
    third, _ = sc.voxelize(xyz, 0.2, bounds=np.array([[0, 0, 0], [0.5, 1, 1]]))
    assert torch.equal(first.coords, second.coords)
    assert torch.equal(first.coords, third.coords)


@pytest.mark.parametrize("bounds", [None, ((0.0, 0.0), (1.0, 1.0))])
def test_no_points(bounds: Any) -> None:
    features = torch.zeros(0, 3, requires_grad=True)
    x, to_points = sc.voxelize(torch.zeros(0, 2), 0.1, features, bounds=bounds)
    assert x.num_sites == 0
    assert x.channels == 3
    assert to_points(x).shape == (0, 3)
    to_points(x).sum().backward()
    assert features.grad.shape == (0, 3)


def test_all_points_outside() -> None:
    x, to_points = sc.voxelize(torch.full((4, 2), 9.0), 0.5, bounds=((0, 0), (1, 1)))
    assert x.shape == (1, 1, 2, 2)
    assert x.num_sites == 0
    assert to_points.rows.tolist() == [-1] * 4
    assert to_points(x).tolist() == [[0.0]] * 4


def test_bounds_without_an_end() -> None:
    """More voxels than an integer of 64 bits counts, of which points reach few."""
    xyz = torch.tensor([[0.2], [0.8], [3.1]])
    x, _ = sc.voxelize(xyz, 0.5, bounds=([0.0], [1e19]))
    assert x.coords[:, 1].tolist() == [0, 1, 6]


def test_features_are_ones_where_left_out_and_keep_their_dtype_otherwise() -> None:
    xyz = torch.tensor([[0.1], [0.2], [2.0]])
    x, _ = sc.voxelize(xyz, 1.0, reduce="sum")
    assert x.features.tolist() == [[2.0], [1.0]]
    for dtype in (torch.float16, torch.float64):
        assert sc.voxelize(xyz, 1.0, torch.ones(3, 2, dtype=dtype))[0].dtype == dtype


@pytest.mark.parametrize("bounds", [None, ((0.0, 0.0), (2.0, 3.0))])
@pytest.mark.parametrize("reduce", MERGE)
def test_derivatives_there_and_back(reduce: str, bounds: Any) -> None:
    xyz = 3 * torch.rand(12, 2, generator=generator(0), dtype=torch.float64)
    features = torch.randn(12, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)

    def there_and_back(features: Tensor) -> Tensor:
        x, to_points = sc.voxelize(xyz, 1.0, features, bounds=bounds, reduce=reduce)
        return to_points(x * x)

    assert torch.autograd.gradcheck(there_and_back, features)
    assert torch.autograd.gradgradcheck(there_and_back, features)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_points_that_are_not_finite_are_refused(value: float) -> None:
    xyz = torch.zeros(5, 3)
    xyz[3, 1] = value
    with pytest.raises(sc.SparseConvValueError, match="xyz: 1 of 5 points are NaN or infinite"):
        sc.voxelize(xyz, 0.1)


@pytest.mark.parametrize(
    ("points", "size"),
    [([0.0, 1e12], 0.1), ([1e300, 2e300], 1e-300), ([-1e300, 1e300], 1e-300)],
)
def test_more_voxels_than_coordinates_reach_are_refused(points: list[float], size: float) -> None:
    xyz = torch.tensor(points, dtype=torch.float64)[:, None].expand(-1, 3)
    with pytest.raises(ValueError, match=r"voxel_size: .* int32 range"):
        sc.voxelize(xyz, size)


@pytest.mark.skipif(not KITTI.exists(), reason="the scan is not there")
def test_a_scan_of_a_street() -> None:
    """KITTI object 000008 on the grid of a car detector: 5 cm by 5 cm by 10 cm."""
    points = sc.io.read_points(KITTI)
    size, bounds = (0.05, 0.05, 0.1), [0, -40, -3, 70.4, 40, 1]
    x, to_points = sc.voxelize(points.xyz, size, points.features, bounds=bounds)
    assert x.num_sites == 13_082
    assert x.spatial_shape == (1408, 1600, 40)
    ends = tuple(bounds[:3]), tuple(bounds[3:])
    zeros = np.zeros(len(points), np.int64)
    expected = in_a_dict(points.xyz, size, zeros, ends)
    assert torch.equal(x.coords, torch.tensor(list(expected)))
    means = [points.features[numbers].astype(np.float64).mean(0) for numbers in expected.values()]
    assert_close(x.features, torch.as_tensor(np.array(means)))
    outside = len(points) - sum(map(len, expected.values()))
    assert int((to_points.rows < 0).sum()) == outside


def scan(features: int) -> sc.io.Points:
    """Return points as a reader does, with so many features."""
    random = np.random.default_rng(0)
    xyz, values = random.random((30, 3), np.float32), random.random((30, features), np.float32)
    return sc.io.Points(xyz, values, tuple(f"feature_{i}" for i in range(features)))


@pytest.mark.parametrize("features", [0, 1, 3])
def test_what_a_reader_returns_is_taken_as_it_is(features: int) -> None:
    """With its features, or a column of ones where the file has positions alone."""
    points = scan(features)
    values = points.features if features else None
    two = None if values is None else [values] * 2
    for read, xyz, rows in ((points, points.xyz, values), ([points] * 2, [points.xyz] * 2, two)):
        expected, _ = sc.voxelize(xyz, 0.3, rows)
        x, _ = sc.voxelize(read, 0.3)
        assert x.channels == max(features, 1)
        assert torch.equal(x.features, expected.features)
        assert torch.equal(x.coords, expected.coords)
    assert sc.voxelize(points, 0.3, torch.ones(30, 2))[0].channels == 2


def test_scans_with_other_features_do_not_mix() -> None:
    with pytest.raises(sc.SparseConvValueError, match=r"features: must be the same.*feature_0"):
        sc.voxelize([scan(1), scan(2)], 0.3)


def test_nan_features_are_named_and_infinite_ones_are_not() -> None:
    xyz, features = torch.rand(5, 3), torch.rand(5, 2)
    features[1, 0] = features[3, 1] = torch.nan
    with pytest.raises(sc.SparseConvValueError, match="features: 2 of 5 points have NaN"):
        sc.voxelize(xyz, 1.0, features)
    features = torch.tensor([[torch.inf], [-torch.inf], [1.0], [2.0], [3.0]])
    x, _ = sc.voxelize(xyz, 1e-6, features)
    assert x.features.isinf().sum() == 2

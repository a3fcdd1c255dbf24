"""What a voxel has of its points, the way back in any dtype, and maps that move and join."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from cases import generator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

BOUNDS = ((0.0, 0.0), (3.0, 4.0))


def scan(count: int, seed: int, bounds: Any = BOUNDS) -> tuple[sc.SparseTensor, sc.PointMap]:
    xyz = 5 * torch.rand(count, 2, generator=generator(seed), dtype=torch.float64) - 0.5
    return sc.voxelize(xyz, 1.0, xyz, bounds=bounds)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [(torch.int64, -1), (torch.int32, 255), (torch.uint8, 255), (torch.bool, False),
     (torch.float32, -1.0), (torch.float64, torch.nan), (torch.bfloat16, 0), (torch.complex64, 0)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_values_of_any_dtype_come_back(
    dtype: torch.dtype, fill: float, shape: tuple[int, ...]
) -> None:
    x, to_points = scan(40, 0)
    values = torch.randint(0, 2, (x.num_sites, *shape), generator=generator(1)).to(dtype)
    found = to_points(values, fill=fill)
    expected = torch.full((40, *shape), fill, dtype=dtype)
    inside = to_points.rows >= 0
    expected[inside] = values[to_points.rows[inside]]
    assert found.dtype == dtype
    assert torch.equal(found.isnan(), expected.isnan()) if dtype.is_floating_point else True
    assert torch.equal(found.nan_to_num() if dtype.is_floating_point else found,
                       expected.nan_to_num() if dtype.is_floating_point else expected)  # fmt: skip


@given(count=st.integers(0, 60), seed=st.integers(0, 99))
def test_fragments_hold_each_point_of_each_voxel(count: int, seed: int) -> None:
    x, to_points = scan(count, seed)
    passes = list(to_points.fragments())
    assert len(passes) == max(to_points.counts.tolist(), default=0)
    for rows in passes:
        assert torch.equal(to_points.rows[rows], torch.arange(x.num_sites))
        assert x.replace(to_points.xyz[rows]).sites is x.sites
    seen = torch.cat(passes).unique() if passes else torch.zeros(0).long()
    assert torch.equal(seen, torch.nonzero(to_points.rows >= 0)[:, 0])


@given(count=st.integers(0, 60), seed=st.integers(0, 99), most=st.integers(1, 5))
def test_the_first_points_of_each_voxel(count: int, seed: int, most: int) -> None:
    x, to_points = scan(count, seed)
    values, counts = to_points.gather(to_points.xyz, most)
    assert values.shape == (x.num_sites, most, 2)
    for row in range(x.num_sites):
        mine = to_points.xyz[to_points.rows == row][:most]
        assert int(counts[row]) == len(mine)
        assert torch.equal(values[row, : len(mine)], mine)
        assert not bool(values[row, len(mine) :].any())


def test_derivatives_of_gathered_points() -> None:
    _, to_points = scan(12, 0)
    features = torch.rand(12, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda f: to_points.gather(f, 2)[0], features)
    assert gradgradcheck(lambda f: to_points.gather(f, 2)[0] ** 2, features)


@given(count=st.integers(0, 60), seed=st.integers(0, 99))
def test_labels_where_a_voxel_disagrees(count: int, seed: int) -> None:
    x, to_points = scan(count, seed)
    labels = torch.randint(-1, 3, (count,), generator=generator(seed))
    found = to_points.majority(labels, 3, disagree="ignore")
    for row in range(x.num_sites):
        mine = set(labels[(to_points.rows == row) & (labels >= 0)].tolist())
        assert int(found[row]) == (mine.pop() if len(mine) == 1 else -1)


def of_a_batch(seed: int) -> tuple[list[Tensor], list[tuple[sc.SparseTensor, sc.PointMap]]]:
    clouds = [6 * torch.rand(n, 2, generator=generator(seed + n)) - 3 for n in (20, 0, 30)]
    return clouds, [sc.voxelize(entry, 0.5, torch.ones(len(entry), 1)) for entry in clouds]


@given(seed=st.integers(0, 99))
def test_maps_of_scans_that_were_voxelized_one_by_one(seed: int) -> None:
    clouds, pairs = of_a_batch(seed)
    x, to_points = sc.collate([x for x, _ in pairs]), sc.collate([m for _, m in pairs])
    assert len(to_points) == 3
    assert torch.equal(to_points.xyz, torch.cat(clouds))
    assert torch.equal(to_points(x), torch.cat([own(y) for y, own in pairs]))
    assert torch.equal(x.coords[to_points.rows, 0], to_points.samples)
    coarse = torch.nn.MaxPool2d(2)(x.replace(torch.rand(x.num_sites, 2)))
    expected = torch.cat([own(coarse[n]) for n, (_, own) in enumerate(pairs)])
    assert torch.equal(to_points(coarse), expected)
    linear = to_points(coarse, "linear")
    parts = [own(coarse[n], "linear") for n, (_, own) in enumerate(pairs)]
    torch.testing.assert_close(linear, torch.cat(parts))
    other = torch.rand(9, 2) * 4 - 2
    for sample, (_, own) in enumerate(pairs):
        there = to_points(coarse, points=other, batch=torch.full((9,), sample))
        assert torch.equal(there, own(coarse[sample], points=other))
    torch.testing.assert_close(
        to_points.coarsen(2).centres(),
        torch.cat([own.coarsen(2).centres() for _, own in pairs]),
    )


@given(seed=st.integers(0, 99))
def test_the_map_of_some_samples(seed: int) -> None:
    clouds, _ = of_a_batch(seed)
    x, to_points = sc.voxelize(clouds, 0.5, [torch.rand(len(c), 2) for c in clouds])
    for part in (0, 2, -1, slice(0, 2), slice(None, None, -1), slice(2, 0, -1)):
        few = to_points[part]
        chosen = [range(3)[part]] if isinstance(part, int) else list(range(3)[part])
        rows = torch.isin(to_points.samples, torch.tensor(chosen))
        assert torch.equal(few.xyz, to_points.xyz[rows])
        assert torch.equal(few(x[part]), to_points(x)[rows])
        assert few.counts.sum() == rows.sum()
    bounded = scan(30, seed)[1]
    assert torch.equal(bounded[0].rows, bounded.rows)
    assert [len(own) for own in to_points] == [1, 1, 1]


def test_a_loader_collates_tensors_and_maps() -> None:
    clouds, pairs = of_a_batch(0)
    loader = torch.utils.data.DataLoader(pairs, batch_size=3)  # type: ignore[arg-type]
    ((x, to_points),) = loader
    assert torch.equal(to_points(x), sc.collate([m for _, m in pairs])(x))
    assert torch.equal(to_points.xyz, torch.cat(clouds))
    assert repr(to_points) == f"PointMap(50 points, {x.num_sites} voxels, 3 samples, device=cpu)"


def test_maps_move_and_pickle() -> None:
    x, to_points = scan(30, 0)
    for again in (to_points.to("cpu"), to_points.cpu(), pickle.loads(pickle.dumps(to_points))):
        assert torch.equal(again(x), to_points(x))
        assert again.origin == to_points.origin
        assert again.bounds == to_points.bounds
    if torch.cuda.is_available():
        there = to_points.pin_memory().cuda()
        assert torch.equal(there(x.cuda()).cpu(), to_points(x))


X, MAP = scan(10, 0)
POINTS = torch.rand(4, 2, dtype=torch.float64)
WRONG = {
    "fill: of integers": lambda: MAP(torch.ones(X.num_sites).long(), fill=0.5),
    "fill: range": lambda: MAP(torch.ones(X.num_sites).byte(), fill=-1),
    "fill: kind": lambda: MAP(X, fill="none"),  # type: ignore[arg-type]
    "features: rows": lambda: MAP(torch.ones(X.num_sites + 1).long()),
    "features: kind": lambda: MAP([1, 2]),  # type: ignore[arg-type]
    "features: linear": lambda: MAP(torch.ones(X.num_sites).long(), "linear"),
    "batch: alone": lambda: MAP(X, batch=torch.zeros(4).long()),
    "batch: range": lambda: MAP(X, points=POINTS, batch=torch.ones(4).long()),
    "points: axes": lambda: MAP(X, points=torch.rand(4, 3)),
    "points: nan": lambda: MAP(X, points=POINTS / 0),
    "max_points: zero": lambda: MAP.gather(MAP.xyz, 0),
    "features: of points": lambda: MAP.gather(MAP.xyz[1:], 2),
    "disagree: rule": lambda: MAP.majority(torch.ones(10).long(), 2, disagree="vote"),
    "factor: zero": lambda: MAP.coarsen(0),
    "tensors: mixed": lambda: sc.collate([MAP, X]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_calls(case: str) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{case.partition(':')[0]}: "):
        WRONG[case]()

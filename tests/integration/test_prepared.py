"""Rulebooks that a worker prepared travel with the sites; who runs the network builds none."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import sparseconv as sc
from sparseconv import engines
from sparseconv.sites.record import SiteRecord


class Net(torch.nn.Module):
    """Submanifold, strided (both laws), generative and inverse layers, and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sc.nn.SubmConv3d(3, 8, 3)
        self.down = torch.nn.Conv3d(8, 8, 2, 2)
        self.norm = torch.nn.BatchNorm3d(8)
        self.same = sc.nn.SubmConv3d(8, 8, 3)
        self.up = sc.nn.InverseConv3d(8, 8, 2, 2)
        self.wide = torch.nn.ConvTranspose3d(8, 4, 3, 2)
        self.every_other = torch.nn.Parameter(torch.randn(8, 8, 3, 3, 3))

    def forward(self, x: sc.SparseTensor) -> tuple[sc.SparseTensor, sc.SparseTensor]:
        skip = self.first(x).relu()
        low = self.same(self.norm(self.down(skip)))
        pooled = torch.nn.functional.max_pool3d(low, 2)
        strided = sc.functional.conv(skip, self.every_other, stride=2, padding=1, sites="strided")
        back = sc.functional.inverse_conv(
            strided, self.every_other, stride=2, padding=1, sites="strided"
        )
        return self.up(low) + skip + back, self.wide(pooled)


NET = Net()
PLAN = sc.plan(NET, sc.SparseTensor(torch.ones(1, 3), torch.zeros(1, 4, dtype=torch.int64)))


def cloud(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(60 * seed, 3, generator=generator) * 4
    return xyz, torch.rand(60 * seed, 3, generator=generator)


def scan(seed: int) -> tuple[sc.SparseTensor, sc.PointMap]:
    xyz, features = cloud(seed)
    return sc.voxelize(xyz, 0.5, features)


def prepared(samples: list[Any]) -> Any:
    clouds, features = zip(*samples, strict=True)
    x, to_points = sc.voxelize(list(clouds), 0.5, list(features))
    x.sites.prepare(PLAN)
    return x, to_points


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What this process builds."""
    found: list[str] = []
    for name in ("pairs", "reached"):
        build = getattr(SiteRecord, name)
        monkeypatch.setattr(
            SiteRecord, name, lambda *given, b=build, n=name: (found.append(n), b(*given))[1]
        )
    for name in ("build_rulebook", "reached_keys", "build_index"):
        for engine in map(engines.get, engines.ENGINES):
            build = getattr(engine, name)
            monkeypatch.setattr(
                engine, name, lambda *given, b=build, n=name: (found.append(n), b(*given))[1]
            )
    yield found


def same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.features, b.features) and torch.equal(a.coords, b.coords)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_a_worker_builds_and_the_main_process_builds_none(start: str, built: list[str]) -> None:
    scans = [cloud(0), cloud(1), cloud(2), cloud(3)]
    wanted = [NET(prepared(scans[:2])[0]), NET(prepared(scans[2:])[0])]
    del built[:]
    loader = DataLoader(scans, 2, num_workers=1, collate_fn=prepared, multiprocessing_context=start)  # type: ignore[var-annotated]
    for (x, to_points), outputs in zip(loader, wanted, strict=True):
        assert x.sites is to_points.sites
        same(NET(x), outputs)
        NET(x)[0].features.sum().backward()
    assert built == []


def ways(x: sc.SparseTensor) -> dict[str, sc.SparseTensor]:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return {
        "pickle": pickle.loads(pickle.dumps(x)),
        "copy": copy.deepcopy(x),
        "torch.load": torch.load(file),
        "shared": pickle.loads(pickle.dumps(x)).share_memory_(),
        "double": x.double().float(),
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_prepared_rulebooks_go_where_the_sites_go(count: int, built: list[str]) -> None:
    x = scan(count)[0]
    wanted = NET.eval()(scan(count)[0])
    x.sites.prepare(PLAN)
    found = ways(x)
    held = found["shared"].sites.memory()
    levels = [layer.sites for layer in found["shared"].sites._layers.values() if layer.sites]
    assert levels and all(t.is_shared() for t in held)
    assert all(t.is_shared() for level in levels for t in level.memory())
    del built[:]
    for way, y in found.items():
        same(NET(y), wanted)
        assert built == [], way


def test_a_level_of_prepared_sites_travels_with_its_parents(built: list[str]) -> None:
    x = scan(2)[0]
    x.sites.prepare(PLAN)
    low = pickle.loads(pickle.dumps(NET.down(NET.first(x))))
    del built[:]
    assert NET.up(NET.same(low)).sites.same_as(x.sites)
    assert built == [], "on the level, and from it back to its parent"


def test_a_plan_is_numbers_and_leaves_the_model_as_it_was() -> None:
    NET.train()
    mean = NET.norm.running_mean.clone()
    x = scan(1)[0]
    plan = sc.plan(NET, x)
    assert NET.training and NET.norm.training and torch.equal(NET.norm.running_mean, mean)
    assert plan == PLAN == pickle.loads(pickle.dumps(plan)) and x.sites.rulebooks == {}
    assert plan.num_rulebooks == 6 and len(pickle.dumps(plan)) < 3000
    assert sc.plan(lambda x: x, x).num_rulebooks == 0
    with pytest.raises(sc.SparseConvTypeError, match=r"plan: must be what sparseconv.plan"):
        x.sites.prepare(NET)
    with pytest.raises(sc.SparseConvTypeError, match="x: must be a SparseTensor"):
        sc.plan(NET, torch.ones(2, 3))


def test_sites_that_were_moved_before_take_what_is_prepared_later(
    monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # no device here pins
    x, to_points = scan(2)
    before = x.pin_memory()
    assert to_points.pin_memory().sites is before.sites, "shared before, shared after"
    x.sites.prepare(PLAN)
    pinned = x.pin_memory()
    assert pinned.sites is to_points.pin_memory().sites
    wanted = NET.eval()(x)
    del built[:]
    same(NET(pinned), wanted)
    assert built == []
    y = pickle.loads(pickle.dumps(NET.down(NET.first(pinned)))).pin_memory()
    assert NET.up(y).sites.same_as(x.sites), "the way back survives"


def test_damaged_rulebooks_are_refused() -> None:
    x = scan(1)[0]
    x.sites.prepare(PLAN)
    _, _, (ways, layers, rows) = x.sites.__reduce__()
    for damaged in (rows + 10**6, rows - 1, rows[:-1], rows.long()):
        with pytest.raises(sc.SparseConvValueError, match="damaged"):
            scan(1)[0].sites.__setstate__((ways, layers, damaged))
    with pytest.raises(sc.SparseConvValueError, match="damaged"):
        scan(2)[0].sites.__setstate__((ways, layers, rows))


def test_point_maps_share_their_memory() -> None:
    _, to_points = scan(2)
    to_points.sites.prepare(PLAN)
    assert not to_points.is_shared() and not to_points.is_pinned()
    assert to_points.share_memory_() is to_points and to_points.is_shared()
    assert to_points.sites.index.keys.is_shared() and to_points.groups.order.is_shared()

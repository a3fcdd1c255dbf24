"""Stages at the same time, and consecutive sweeps as one tensor of time and space."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sparseconv as sc


def clouds(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(60 + n, 3, generator=generator) * 6 for n in range(count)]


def test_a_pipeline_gives_what_one_stage_after_the_other_gives(engine: str) -> None:
    net = nn.Sequential(
        sc.nn.SubmConv3d(1, 4, 3), nn.Conv3d(4, 4, 2, 2), sc.nn.InverseConv3d(4, 2, 2, 2)
    ).eval()
    scans = clouds(9)

    def voxels(xyz: torch.Tensor) -> sc.SparseTensor:
        return sc.voxelize(xyz, 0.5)[0]

    plan = sc.plan(net, voxels(scans[0]))

    def maps(x: sc.SparseTensor) -> sc.SparseTensor:
        x.sites.prepare(plan)
        return x

    with torch.no_grad():
        found = list(sc.pipeline(iter(scans), voxels, maps, net))
        expected = [net(voxels(xyz)) for xyz in scans]
    assert not any(y.features.requires_grad for y in found)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.features, theirs.features)
        assert torch.equal(ours.coords, theirs.coords)
    assert [y.features.requires_grad for y in sc.pipeline(scans[:1], voxels, net)] == [True]


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 3))
def test_items_stay_in_order_and_few_are_under_way(count: int, stages: int, ahead: int) -> None:
    drawn = [0]

    def items() -> object:
        for number in range(count):
            drawn[0] += 1
            yield number

    add = [lambda value: value + 1] * stages
    for place, value in enumerate(sc.pipeline(items(), *add, ahead=ahead)):
        assert value == place + stages
        assert drawn[0] <= place + ahead * stages
    assert drawn[0] == count


def test_stages_work_at_the_same_time_on_the_engine_of_the_caller() -> None:
    meet = threading.Barrier(2, timeout=20)  # breaks unless the next item is in the stage before

    def first(number: int) -> int:
        if number > 0:
            meet.wait()
        return number

    def second(number: int) -> str:
        if number < 4:
            meet.wait()
        return sc.engines.chosen(torch.zeros(1))

    with sc.engine("torch"):
        assert list(sc.pipeline(range(5), first, second)) == ["torch"] * 5
    threads = torch.get_num_threads()
    assert list(sc.pipeline([0], lambda _: torch.get_num_threads())) == [threads]


def test_what_a_stage_raises_comes_in_its_place_and_threads_end() -> None:
    before = threading.active_count()

    def fails(value: int) -> int:
        if value == 2:
            raise OSError("no such scan")
        return value

    found = []
    with pytest.raises(OSError, match="no such scan"):
        for value in sc.pipeline(range(9), fails, abs):
            found.append(value)
    assert found == [0, 1]
    left = sc.pipeline(range(9), fails)
    assert next(left) == 0
    left.close()
    assert threading.active_count() == before


def test_nothing_is_kept_of_what_was_yielded() -> None:
    class Item:
        pass

    seen: list[weakref.ref[Item]] = []

    def makes(_: int) -> Item:
        item = Item()
        seen.append(weakref.ref(item))
        return item

    def alive() -> int:
        return sum(ref() is not None for ref in seen)

    for item in sc.pipeline(range(40), makes, lambda item: item):
        del item
        if alive() > 4:
            gc.collect()
        assert alive() <= 4
    assert len(seen) == 40


@pytest.mark.parametrize(
    "stages, options, message",
    [((), {}, "stages: must"), ((3,), {}, r"stages\[0\]: must"), ((abs,), {"ahead": 0}, "ahead")],
)
def test_wrong_stages(stages: tuple[object, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(sc.SparseConvError, match=message):
        sc.pipeline([], *stages, **options)


def turned(angle: float, shift: tuple[float, ...]) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = shift
    return pose


@given(st.integers(1, 4), st.integers(0, 99))
def test_what_stands_still_has_one_place_at_all_times(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-20, 20, (50, 3))
    world = (voxels + rng.uniform(0.3, 0.7, (50, 3))) * 0.4
    poses = [turned(rng.uniform(0, 6), tuple(rng.uniform(-9, 9, 3))) for _ in range(count - 1)]
    poses.append(np.eye(4))  # the last frame is the world's
    scans = [
        torch.from_numpy((np.c_[world, np.ones(50)] @ np.linalg.inv(pose).T)[:, :3]).float()
        for pose in poses
    ]
    values = [torch.full((50, 2), float(time)) for time in range(count)]
    x, to_points = sc.sweeps(scans, poses, 0.4, values)
    assert x.spatial_shape[0] == count
    alone, _ = sc.voxelize(torch.from_numpy(world).float(), 0.4)
    for time in range(count):
        own = x.coords[:, 1] == time
        assert torch.equal(x.coords[own][:, 2:], alone.coords[:, 1:])
        assert bool((x.features[own] == time).all())
    assert to_points(x).shape == (50 * count, 2)


def test_batches_of_sweeps_go_through_layers_of_four_axes() -> None:
    scans = [
        sc.io.Points(xyz.numpy(), np.ones((len(xyz), 1), np.float32), ("i",)) for xyz in clouds(6)
    ]
    poses = [turned(0.1 * n, (n, 0.0, 0.0)) for n in range(6)]
    windows = [sc.sweeps(scans[n : n + 3], poses[n : n + 3], (0.5, 0.5, 1.0)) for n in range(3)]
    x = sc.collate([window for window, _ in windows])
    assert x.batch_size == 3
    net = nn.Sequential(sc.nn.SubmConv4d(1, 2, 3), sc.nn.Conv4d(2, 2, 2, 2))
    y = net(x)
    for sample, (window, _) in zip(y, windows, strict=True):
        assert torch.equal(sample.features, net(window).features)


def test_wrong_sweeps() -> None:
    cloud = torch.rand(3, 3)
    for scans, poses, message in (
        ([], [], "poses: must be one for each"),
        ([cloud], [], "poses: must be one for each"),
        ([cloud], [np.eye(3)], "poses: must be finite matrices"),
        ([cloud[:, :2]], [np.eye(4)], "scans: must be points"),
    ):
        with pytest.raises(sc.SparseConvError, match=message):
            sc.sweeps(scans, poses, 0.5)

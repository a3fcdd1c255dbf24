"""Tiles give the bits of one run over the whole cloud, whatever the cores, and lose nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import UNet


def cloud(count: int, axes: int = 3, seed: int = 0, side: float = 12.0) -> np.ndarray[Any, Any]:
    """Return points on centimetres, so that many lie on the faces of voxels."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-side / 3, side, (count, axes))
    points[:, -1] = np.sin(points[:, 0]) + rng.normal(0, 0.1, count)
    return np.round(points, 2)


def whole(net: nn.Module, points: Any, size: float, features: Any = None) -> Tensor:
    """Return the scores of one run over the whole cloud."""
    x, to_points = sc.voxelize(points, size, features)
    with torch.no_grad():
        scores: Tensor = to_points(net(x))
        return scores


def small_unet(axes: int = 3, channels: int = 1) -> nn.Module:
    torch.manual_seed(3)
    return UNet(channels, 4, (2, 3, 3), dimensions=axes, convolutions=1).eval()


class Strange(nn.Module):
    """A network of many kinds of layers whose borders matter."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        partial = (sc.nn.PartialConv1d, sc.nn.PartialConv2d, sc.nn.PartialConv3d)[axes - 1]
        inverse = (sc.nn.InverseConv1d, sc.nn.InverseConv2d, sc.nn.InverseConv3d)[axes - 1]
        pool = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
        subm = (sc.nn.SubmConv1d, sc.nn.SubmConv2d, sc.nn.SubmConv3d)[axes - 1]
        self.first = subm(1, 3, 5)
        self.down = conv(3, 4, 3, 3, 1)
        self.mean = pool(3, 1, 1, count_include_pad=False)
        self.partial = partial(4, 4, 3, padding=1)
        self.up = inverse(4, 3, 3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x).relu()
        y = self.partial(self.mean(self.down(skip)))
        return torch.cat([self.up(y, like=skip), skip], dim=1)


@pytest.mark.slow
@given(st.data())
def test_tiles_have_the_bits_of_the_whole(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([1, 2, 3]))
    torch.manual_seed(data.draw(st.integers(0, 3)))
    net = small_unet(axes) if data.draw(st.booleans()) else Strange(axes).eval()
    core = tuple(data.draw(st.integers(8, 40)) for _ in range(axes))
    count = data.draw(st.sampled_from([1, 5, 400]))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    points = cloud(count, axes, data.draw(st.integers(0, 9))).astype(dtype)
    engine = data.draw(st.sampled_from(["numba", "torch"]))
    with sc.engine(engine):
        tiles = sc.tiled(net, points, 0.4, core, keep="scores")
        assert torch.equal(tiles.result(), whole(net, points, 0.4))
    assert all(kept % step == 0 for kept, step in zip(tiles.core, tiles.reach.stride, strict=True))


@pytest.mark.parametrize("kind", ["array", "tensor", "Points", "pair", "list", "npy", "folder"])
def test_sources(kind: str, tmp_path: Path) -> None:
    net, points = small_unet(channels=2), cloud(300).astype(np.float32)
    features = np.random.default_rng(1).random((300, 2), np.float32)
    with_features = sc.io.Points(points, features, ("red", "green"))
    source: Any = {"Points": with_features, "pair": (points, features)}.get(kind)
    if kind in ("array", "tensor"):  # positions alone: a channel of ones
        net, source = small_unet(), points if kind == "array" else torch.from_numpy(points)
    if kind == "list":
        source = [(points[:100], features[:100]), (points[100:], features[100:])]
    if kind == "npy":
        source = tmp_path / "cloud.npy"
        np.save(source, np.concatenate([points, features], axis=1))
    if kind == "folder":
        source = tmp_path
        for name, rows in (("b.npz", slice(100, 300)), ("a.npz", slice(0, 100))):
            part = sc.io.Points(points[rows], features[rows], ("red", "green"))
            sc.io.write_points(tmp_path / name, part)
    expected = whole(net, points, 0.3, None if kind in ("array", "tensor") else features)
    assert torch.equal(sc.tiled(net, source, 0.3, 16, keep="scores").result(), expected)


def test_parts_of_different_dtypes_lie_on_one_grid() -> None:
    points = np.arange(400).reshape(-1, 1) * np.array([0.05, 0.15, 0.35])
    parts = [points[:200].astype(np.float32), points[200:]]
    net = small_unet()
    expected = whole(net, np.concatenate(parts), 0.05)
    assert torch.equal(sc.tiled(net, parts, 0.05, 64, keep="scores").result(), expected)


def test_labels_come_in_parts_and_go_to_files(tmp_path: Path) -> None:
    net, points = small_unet(), cloud(500)
    tiles = sc.tiled(net, points, 0.3, 16)
    expected = whole(net, points, 0.3).argmax(1)
    assert torch.equal(torch.cat(list(tiles)), expected)
    tiles.write(tmp_path / "labels.npy")
    assert np.array_equal(np.load(tmp_path / "labels.npy"), expected.numpy())
    seen = torch.full((500,), -1)

    def take(first: int, labels: Tensor) -> None:
        seen[first : first + len(labels)] = labels

    tiles.write(take)
    assert torch.equal(seen, expected)
    assert len(tiles) == 500 and sorted(p.name for p in tmp_path.iterdir()) == ["labels.npy"]


def test_a_las_file_gets_its_classification(tmp_path: Path) -> None:
    pytest.importorskip("laspy")
    points = cloud(300)
    intensity = np.arange(300, dtype=np.float32)[:, None]
    sc.io.write_points(tmp_path / "in.las", sc.io.Points(points, intensity, ("intensity",)))
    read = sc.io.read_points(tmp_path / "in.las")
    net = small_unet(channels=len(read.feature_names))
    tiles = sc.tiled(net, tmp_path / "in.las", 0.3, 16)
    tiles.write(tmp_path / "out.las")
    labelled = sc.io.read_points(tmp_path / "out.las")
    assert labelled.labels is not None
    assert np.array_equal(labelled.labels, tiles.result().numpy())
    assert np.array_equal(labelled.xyz, read.xyz)
    assert np.array_equal(labelled.features, read.features)
    with pytest.raises(sc.SparseConvValueError, match=r"target: .* write \.npy"):
        sc.tiled(small_unet(), points, 0.3, 16).write(tmp_path / "array.las")
    with pytest.raises(sc.SparseConvValueError, match="target: must be"):
        tiles.write(tmp_path / "labels.txt")


class Breaks(nn.Module):
    """A network that breaks at some tiles, as long as it is told to."""

    def __init__(self, when: Any) -> None:
        super().__init__()
        self.net, self.when = small_unet(), when

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, sc.SparseTensor):
            self.when(x)
        y: Tensor = self.net(x)
        return y


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    points, seen = cloud(400), list[Any]()

    def stop(x: Tensor) -> None:
        seen.append(x)
        if len(seen) == 4:
            raise KeyboardInterrupt

    net = Breaks(stop)
    tiles = sc.tiled(net.eval(), points, 0.3, 16, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tiles.run()
    assert tiles.num_done == 3
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    damaged = json.loads(lines[1])["number"]
    result = tmp_path / "results" / f"{damaged:08d}.npy"
    result.write_bytes(result.read_bytes()[:-1] + b"\xff")
    manifest.write_text("\n".join(lines) + '\n{"number": 7, "dig')  # killed while it wrote
    seen.clear()
    net.when = seen.append
    again = sc.tiled(net, points, 0.3, 16, folder=tmp_path)
    assert again.num_done == 2
    counts: list[tuple[int, int]] = []
    again.run(lambda done, total: counts.append((done, total)))
    assert len(seen) == again.num_tiles - 2 and counts[-1] == (again.num_tiles, again.num_tiles)
    assert torch.equal(again.result(), whole(net.net, points, 0.3).argmax(1))
    assert sc.tiled(net, points, 0.3, 16, folder=tmp_path).num_done == again.num_tiles
    assert not list(tmp_path.rglob("*.part"))


def test_a_broken_tile_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    points, broken = cloud(400), [True]

    def fail(x: sc.SparseTensor) -> None:
        if broken[0] and x.num_sites % 3 == 0:
            raise RuntimeError("no luck")

    net = Breaks(fail).eval()
    tiles = sc.tiled(net, points, 0.3, 16, folder=tmp_path)
    with pytest.raises(sc.SparseConvError, match=r"tiles broke, the first is tile \d+ \(.*no luck"):
        tiles.result()
    assert 0 < len(tiles.failed) < tiles.num_tiles
    assert tiles.num_done == tiles.num_tiles - len(tiles.failed)
    expected = whole(net.net, points, 0.3).argmax(1)
    some = tiles.result(fill=-1)
    assert torch.equal(some[some >= 0], expected[some >= 0]) and bool((some == -1).any())
    broken[0] = False
    assert torch.equal(tiles.result(), expected)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    points = cloud(50)
    sc.tiled(small_unet(), points, 0.3, 16, folder=tmp_path)
    other = small_unet()
    nn.init.ones_(other.head.bias)
    for arguments, name in (
        ((other, points, 0.3, 16), "model"),
        ((small_unet(), points[1:], 0.3, 16), "source"),
        ((small_unet(), points, 0.4, 16), "voxel_size"),
        ((small_unet(), points, 0.3, 32), "core"),
    ):
        with pytest.raises(sc.SparseConvValueError, match=f"another run.* {name}"):
            sc.tiled(*arguments, folder=tmp_path)


def test_cores_follow_a_budget() -> None:
    net, points = small_unet(), cloud(3000, side=200.0)
    budgets = (300_000, 500_000, 10**9)
    counts = [sc.tiled(net, points, 0.3, memory=budget).num_tiles for budget in budgets]
    assert counts[0] > counts[1] > counts[2] == 1
    with pytest.raises(sc.SparseConvValueError, match="memory: 1000 bytes do not hold a tile"):
        sc.tiled(net, points, 0.3, memory=1000)


def test_a_model_runs_in_evaluation_and_is_left_as_it_was() -> None:
    net = nn.Sequential(sc.nn.SubmConv3d(1, 4, 3), nn.Dropout(0.5))
    net[0].eval()
    expected = whole(net.eval(), cloud(50), 0.3)
    net[1].train()
    assert torch.equal(sc.tiled(net, cloud(50), 0.3, 16, keep="scores").result(), expected)
    assert [module.training for module in net] == [False, True]


def test_no_point() -> None:
    tiles = sc.tiled(small_unet(), np.zeros((0, 3)), 0.3)
    assert tiles.num_tiles == 0 and tiles.result().shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "nowhere.npy"}, "source: there is no file"),
        ({"source": 3}, "source: must be an array"),
        ({"source": np.zeros((4, 3), int)}, "source: must be floating point"),
        ({"source": np.zeros(4)}, "source: must have shape"),
        ({"source": (np.zeros((4, 3)), np.zeros((3, 1)))}, "source: its features"),
        ({"source": np.full((4, 3), np.nan)}, "source: xyz: NaN or infinite in row 0"),
        ({"source": [np.zeros((4, 3)), np.zeros((4, 2))]}, "source: must have 3 axes"),
        ({"voxel_size": 0}, "voxel_size"),
        ({"core": 0}, "core"),
        ({"memory": 0}, "memory"),
        ({"keep": "logits"}, "keep: must be"),
        ({"model": nn.Sequential(nn.Conv3d(1, 2, 2, 2))}, "outputs are .* voxels apart"),
        ({"model": nn.Sequential(sc.nn.SubmConv3d(1, 2, 3), nn.InstanceNorm3d(2))}, "no reach"),
        ({"model": None}, "model: must be a torch.nn.Module"),
    ],
)
def test_wrong_calls(arguments: dict[str, Any], message: str) -> None:
    call = {"model": small_unet(), "source": cloud(9), "voxel_size": 0.3} | arguments
    with pytest.raises(sc.SparseConvError, match=message):
        sc.tiled(**call)


class Summed(nn.Module):
    """A network that returns something else on sites than on what follows its reach."""

    def forward(self, x: Tensor) -> Any:
        return x.features.sum() if isinstance(x, sc.SparseTensor) else x


def test_outputs_of_another_kind_are_refused() -> None:
    tiles = sc.tiled(Summed(), cloud(9), 0.3, 16)
    with pytest.raises(sc.SparseConvError, match="model: must return a SparseTensor"):
        tiles.run()

"""Tiny trees in the layout of each data set; changes are seeded and keep labels with points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import sparseconv as sc
from sparseconv import datasets
from sparseconv.datasets import nuscenes as nuscenes_module
from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io import Points, write_points


def scan(rows: int = 20, seed: int = 0, names: tuple[str, ...] = ("intensity",)) -> Points:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 5, (rows, 3)).astype(np.float32)
    return Points(xyz, rng.random((rows, len(names))).astype(np.float32), names)


def semantickitti(root: Path, count: int = 3) -> None:
    folder = root / "sequences" / "08"
    for name in ("velodyne", "labels"):
        (folder / name).mkdir(parents=True)
    poses = []
    for number in range(count):
        write_points(folder / "velodyne" / f"{number:06}.bin", scan(seed=number))
        labels = np.tile(np.array([10, 0, 5 << 16 | 30, 252], "<u4"), 5)
        labels.tofile(folder / "labels" / f"{number:06}.label")
        poses.append(f"1 0 0 0 0 1 0 0 0 0 1 {number}")  # in the camera's frame: z is forward
    (folder / "poses.txt").write_text("\n".join(poses))
    (folder / "calib.txt").write_text("P0: 1\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")


def test_semantickitti(tmp_path: Path) -> None:
    semantickitti(tmp_path)
    found = datasets.SemanticKITTI(tmp_path, "val")
    assert len(found) == 3 and len(found.classes) == 19
    points = found[1]
    assert points.labels is not None and points.labels[:4].tolist() == [0, -1, 5, 0]
    assert points["instance"][:4].tolist() == [0, 0, 5, 0]
    np.testing.assert_allclose(found.pose(2)[:3, 3], [2, 0, 0], atol=1e-12)
    joined = datasets.SemanticKITTI(tmp_path, "val", sweeps=2)[2]
    assert joined["sweep"].tolist() == [0] * 20 + [1] * 20
    np.testing.assert_allclose(joined.xyz[20:], found[1].xyz - [1, 0, 0], atol=1e-5)
    assert len(datasets.SemanticKITTI(tmp_path, "val", sweeps=9)[1]) == 40
    with pytest.raises(SparseConvError, match="no scans of the split 'train' of SemanticKITTI"):
        datasets.SemanticKITTI(tmp_path, "train")
    with pytest.raises(SparseConvValueError, match="split: must be one of train, val, test, got"):
        datasets.SemanticKITTI(tmp_path, "valid")


def nuscenes(root: Path) -> None:
    tables = root / "v1.0-mini"
    samples = root / "samples" / "LIDAR_TOP"
    for folder in (tables, samples, root / "lidarseg" / "v1.0-mini"):
        folder.mkdir(parents=True)
    data, lidarseg, poses = [], [], []
    for number in range(3):
        name = f"samples/LIDAR_TOP/{number}.pcd.bin"
        points = scan(seed=number, names=("intensity", "ring"))
        np.column_stack([points.xyz, points.features]).astype("<f4").tofile(root / name)
        (root / f"lidarseg/v1.0-mini/{number}_lidarseg.bin").write_bytes(bytes([17, 0, 30, 9] * 5))
        data.append(
            {
                "token": f"d{number}", "sample_token": f"s{number > 1}", "timestamp": number,
                "ego_pose_token": f"p{number}", "calibrated_sensor_token": "c",
                "filename": name, "is_key_frame": number != 1,
                "prev": f"d{number - 1}" if number else "",
            }
        )  # fmt: skip
        file = f"lidarseg/v1.0-mini/{number}_lidarseg.bin"
        lidarseg.append(
            {"token": f"l{number}", "sample_data_token": f"d{number}", "filename": file}
        )
        turn = [np.cos(number / 2), 0, 0, np.sin(number / 2)]
        poses.append({"token": f"p{number}", "translation": [number, 0, 0], "rotation": turn})
    sensor = [{"token": "c", "translation": [0, 0, 1.8], "rotation": [1, 0, 0, 0]}]
    sample = [{"token": f"s{flag}", "scene_token": f"e{flag}"} for flag in (False, True)]
    scene = [{"token": "eFalse", "name": "scene-0061"}, {"token": "eTrue", "name": "scene-0103"}]
    for name, rows in (
        ("sample", sample), ("sample_data", data), ("ego_pose", poses), ("scene", scene),
        ("calibrated_sensor", sensor), ("lidarseg", lidarseg[::2]),
    ):  # fmt: skip
        (tables / f"{name}.json").write_text(json.dumps(rows))


def test_nuscenes(tmp_path: Path) -> None:
    nuscenes(tmp_path)
    found = datasets.NuScenes(tmp_path)
    assert len(found) == 2 and len(found.classes) == 16
    assert found[0].labels is not None and found[0].labels[:4].tolist() == [3, -1, 15, 0]
    assert len(datasets.NuScenes(tmp_path, "mini_val")) == 1
    assert len(datasets.NuScenes(tmp_path, scenes=["scene-0061"])) == 1
    joined = datasets.NuScenes(tmp_path, "mini_val", sweeps=3)[0]
    assert joined["sweep"].tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert joined.labels is not None and set(joined.labels[20:40].tolist()) == {-1}
    # the same point of the world, through both frames
    world = found.pose(1) @ np.array([*joined.xyz[45], 1.0])
    again = found.pose(0) @ np.array([*found[0].xyz[5], 1.0])
    np.testing.assert_allclose(world, again, atol=1e-5)
    with pytest.raises(SparseConvValueError, match="split: must be one of mini_train, mini_val"):
        datasets.NuScenes(tmp_path, "dev")
    with pytest.raises(
        SparseConvValueError, match=r"'val' is a split of v1\.0-trainval, got 'v1\.0-m"
    ):
        datasets.NuScenes(tmp_path, "val", version="v1.0-mini")
    # the official splits, by the same tables under the other names
    names = {"train": ["scene-0061"], "val": ["scene-0103"], "test": ["scene-0061", "scene-0103"]}
    for split, scenes in names.items():
        folder = "v1.0-test" if split == "test" else "v1.0-trainval"
        shutil.copytree(tmp_path / "v1.0-mini", tmp_path / folder, dirs_exist_ok=True)
        assert len(datasets.NuScenes(tmp_path, split)) == len(scenes)
    with pytest.raises(
        SparseConvError, match=r"found v1\.0-mini, v1\.0-test, v1\.0-trainval: version="
    ):
        datasets.NuScenes(tmp_path)
    for folder in ("v1.0-test", "v1.0-trainval"):
        shutil.rmtree(tmp_path / folder)
    held_out = [n for first, last in nuscenes_module.VALIDATION for n in range(first, last + 1)]
    assert len(held_out) == len(set(held_out)) == 150 and {3, 523, 802, 1073} <= set(held_out)
    (tmp_path / "v1.0-mini" / "scene.json").unlink()
    with pytest.raises(SparseConvError, match=r"scene\.json is missing or damaged"):
        datasets.NuScenes(tmp_path)


def test_scannet(tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "scene0000_00"
    folder.mkdir(parents=True)
    points = scan(4, names=("red", "green", "blue"))
    write_points(folder / "scene0000_00_vh_clean_2.ply", points)
    labelled = Points(points.xyz, points.features, points.feature_names, np.array([1, 0, 39, 13]))
    write_points(folder / "scene0000_00_vh_clean_2.labels.ply", labelled)
    with pytest.raises(SparseConvError, match=r"root: needs scannetv2_train\.txt"):
        datasets.ScanNet(tmp_path, "train")
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\n")
    found = datasets.ScanNet(tmp_path, "train")
    assert found[0].labels is not None and found[0].labels.tolist() == [0, -1, 19, -1]
    assert found[0].feature_names == ("red", "green", "blue")


def test_s3dis(tmp_path: Path) -> None:
    folder = tmp_path / "Area_5" / "office_1" / "Annotations"
    folder.mkdir(parents=True)
    for name in ("chair_1", "chair_2", "stairs_1"):
        (folder / f"{name}.txt").write_text("1 2 3 10 20 30\n4 5 6 10 20 30\n")
    found = datasets.S3DIS(tmp_path, "val")
    assert found[0].labels is not None and found[0].labels.tolist() == [8, 8, 8, 8, 12, 12]
    assert found[0]["instance"].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(datasets.S3DIS(tmp_path, "Area_5")) == 1
    (folder / "dragon_1.txt").write_text("1 2 3 10 20 30\n")
    with pytest.raises(SparseConvError, match=r"dragon_1\.txt: 'dragon' is no class of S3DIS"):
        found[0]


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_points(tmp_path / "train" / "b.ply", scan())
    write_points(tmp_path / "a.csv", scan())
    (tmp_path / "notes.md").write_text("none")
    assert [path.name for path in datasets.Folder(tmp_path).scans] == ["a.csv", "b.ply"]
    assert len(datasets.Folder(tmp_path, "train")[-1]) == 20
    with pytest.raises(SparseConvValueError, match="must be all or one of the folders train, got"):
        datasets.Folder(tmp_path, "test")
    with pytest.raises(SparseConvValueError, match="root: there is no folder"):
        datasets.Folder(tmp_path / "nowhere")
    with pytest.raises(SparseConvError, match="Folder has no poses, scan 0 stands alone"):
        datasets.Folder(tmp_path).pose(0)
    streets = datasets.Streets(Path(__file__).parents[2] / "data", "test")
    assert streets[0].labels is not None
    assert int(streets[0].labels.max()) < len(streets.classes)


CHANGES = {
    "rotate": datasets.Rotate(),
    "flip": datasets.Flip(),
    "scale": datasets.Scale(0.5, 2),
    "jitter": datasets.Jitter(0.1),
    "drop": datasets.Drop(0.5),
    "crop": datasets.Crop(6.0),
    "elastic": datasets.Elastic(2.0, 0.5),
}


@pytest.mark.parametrize("name", CHANGES)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_changes_are_seeded_and_keep_rows_together(name: str, seed: int, rows: int) -> None:
    points = scan(rows)
    numbers = np.arange(rows)
    labelled = Points(
        points.xyz, points.features, points.feature_names, numbers, {"id": numbers.copy()}
    )
    one, two = (CHANGES[name](labelled, np.random.default_rng(seed)) for _ in range(2))
    assert one.xyz.tobytes() == two.xyz.tobytes()
    assert one.labels is not None
    np.testing.assert_array_equal(one.labels, one["id"])
    np.testing.assert_array_equal(one.features, points.features[one.labels])
    assert one.xyz.dtype == points.xyz.dtype
    before = points.xyz[one.labels].astype(np.float64)
    if name in ("rotate", "flip"):
        lengths = [np.linalg.norm(xyz, axis=1) for xyz in (one.xyz, before)]
        np.testing.assert_allclose(*lengths, rtol=1e-5)
    if name in ("drop", "crop"):
        np.testing.assert_array_equal(one.xyz, before)
    np.testing.assert_array_equal(labelled.xyz, points.xyz)


def test_normals_turn_with_their_points() -> None:
    points = scan(30, names=("nx", "ny", "nz"))
    points = Points(points.xyz, points.xyz.copy(), points.feature_names)
    for change in (datasets.Rotate(), datasets.Flip(), datasets.Rotate(axis=0)):
        turned = change(points, np.random.default_rng(3))
        np.testing.assert_allclose(turned.xyz, turned.features, rtol=1e-5, atol=1e-5)
        assert not np.allclose(turned.xyz, points.xyz)


def test_mixing_and_pasting(tmp_path: Path) -> None:
    semantickitti(tmp_path)
    found = datasets.SemanticKITTI(tmp_path, "val")
    random = np.random.default_rng(0)
    assert len(datasets.Mix(found, 1.0)(found[0], random)) == 40
    assert len(datasets.Mix(found, 0.0)(found[0], random)) == 20
    pasted = datasets.CutAndPaste(found, classes=(5,))(found[0], random)
    assert pasted.labels is not None
    assert len(pasted) == 25 and set(pasted.labels[20:].tolist()) == {5}
    assert set(pasted["instance"][20:].tolist()) == {6}
    with pytest.raises(SparseConvValueError, match="scans: need labels and instances"):
        datasets.CutAndPaste([scan()], (1,))(found[0], random)


def test_loading_by_workers_gives_the_same_scans(tmp_path: Path) -> None:
    semantickitti(tmp_path)
    change = datasets.Compose([datasets.Rotate(), datasets.Drop(0.3)])
    found = datasets.SemanticKITTI(tmp_path, "val", change, seed=4)
    expected = [points.xyz for points in (found[0], found[1], found[2])]
    loader = DataLoader(found, batch_size=2, collate_fn=list, num_workers=1)
    loaded = [points.xyz for batch in loader for points in batch]
    for one, two in zip(expected, loaded, strict=True):
        np.testing.assert_array_equal(one, two)
    x, _ = sc.voxelize(next(iter(loader)), 1.0)
    assert x.batch_size == 2
    found.epoch = 1
    assert found[0].xyz.shape != expected[0].shape or not np.allclose(found[0].xyz, expected[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.Rotate(axis=3), "axis: must be 0, 1 or 2, got 3"),
        (lambda: datasets.Flip((0, 5)), "axes: must be 0, 1 or 2"),
        (lambda: datasets.Scale(0, 1), "low, high: got 0, 1"),
        (lambda: datasets.Drop(2), "share: must lie from 0 to 1, got 2"),
        (lambda: datasets.Elastic(0), "spacing: must be positive, got 0"),
    ],
)
def test_wrong_changes(make: object, message: str) -> None:
    with pytest.raises(SparseConvValueError, match=message):
        make()  # type: ignore[operator]

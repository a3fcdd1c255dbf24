"""The example, run as a user runs it: train and judge, then label a scan of one's own."""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CLASSES = list(runpy.run_path(str(ROOT / "data" / "street.py"))["CLASSES"])

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


def run(*arguments, status=0):
    command = [sys.executable, str(ROOT / "examples" / "segment_lidar.py"), *map(str, arguments)]
    # several tests at once keep the cores busy already
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder that a quick training run wrote, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    return out, run("--quick", "--output", out)


@pytest.fixture(scope="module")
def scan():
    with np.load(ROOT / "data" / "test" / "street_15.npz") as arrays:
        return dict(arrays)


def test_a_run_writes_what_it_says(trained):
    out, done = trained
    for name in ("segment_lidar.png", "segment_lidar.pt", "metrics.json"):
        assert (out / name).stat().st_size > 100, name
    assert (out / "segment_lidar.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in done.stdout for name in [*CLASSES, "mean", "points", "sites", "pairs"])
    assert all(word in done.stderr for word in ["training", "loss", "sites/s", "left"])


def test_the_metrics_are_complete_and_consistent(trained):
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert list(metrics["iou"]) == CLASSES
    assert metrics["mean_iou"] == pytest.approx(np.mean(list(metrics["iou"].values())))
    assert np.sum(metrics["confusion"]) == metrics["points"]
    assert metrics["points"] > metrics["sites"] > 0
    # every site meets itself, at least
    assert metrics["rulebook_pairs"] > metrics["sites"]
    assert set(metrics["seconds"]) == {"voxelize", "rulebooks", "forward", "backward"}
    assert all(seconds >= 0 for seconds in metrics["seconds"].values())
    assert metrics["settings"]["seed"] == 0
    assert {"python", "torch", "numpy", "sparseconv"} <= set(metrics["versions"])


def test_a_kitti_scan_is_labelled_with_the_trained_weights(trained, scan, tmp_path):
    out, _ = trained
    table = np.column_stack([scan["xyz"], scan["intensity"]]).astype("<f4")
    table[:3, 0] = np.nan
    path = tmp_path / "mine.bin"
    path.write_bytes(table.tobytes())
    done = run(path, "--output", out)
    assert "training" not in done.stderr
    assert "3 points are NaN" in done.stdout
    assert "warning: weights of 12 steps only" in done.stdout
    labels = np.load(out / "mine_labels.npy")
    assert labels.shape == (len(table),)
    assert (labels[:3] == -1).all()
    assert ((labels[3:] >= 0) & (labels[3:] < len(CLASSES))).all()
    assert (out / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("suffix", "highest", "ring"), [(".bin", 1, 0), (".pcd.bin", 255, 1)])
def test_kitti_and_nuscenes_intensities_come_to_one_scale(
    scan, tmp_path, monkeypatch, suffix, highest, ring
):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    scans = importlib.import_module("scans")
    columns = [scan["xyz"], highest * scan["intensity"], *[np.arange(len(scan["xyz"])) % 32] * ring]
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(np.column_stack(columns).astype("<f4").tobytes())
    loaded = scans.load(path)
    np.testing.assert_array_equal(loaded.xyz, scan["xyz"])
    np.testing.assert_allclose(loaded.intensity, scan["intensity"], atol=1e-6)
    # ground is near height 0 in most places, whatever the sensor's own height
    ground = loaded.height.numpy()[scan["label"] == 0]
    assert np.quantile(np.abs(ground), 0.9) < 0.4


def test_without_weights_it_trains_first_and_takes_points_without_intensity(scan, tmp_path):
    path = tmp_path / "bare.npy"
    np.save(path, scan["xyz"])
    done = run(path, "--quick", "--kernel-size", "1", "--output", tmp_path / "out")
    assert "training first" in done.stdout
    assert "no intensity" in done.stdout
    assert np.load(tmp_path / "out" / "bare_labels.npy").shape == (len(scan["xyz"]),)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["settings"]["kernel_size"] == 1


def test_a_file_that_is_none_is_refused_before_any_training(tmp_path):
    path = tmp_path / "scan.txt2"
    path.write_text("no scan")
    done = run(path, "--output", tmp_path, status=2)
    assert "scan.txt2" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_quick_run_leaves_the_weights_of_a_long_one_alone():
    """It has a folder of its own, which is where labelling with --quick looks too."""
    done = run("--help")
    assert "out/quick" in done.stdout
    for name in (
        "classify_digits",
        "complete_depth",
        "deformable",
        "inpaint_image",
        "thinned_scans",
    ):
        text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
        assert '"out/quick" if' in text, name


def test_a_scan_unlike_the_others_is_named(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    scans = importlib.import_module("scans")
    known = [scans.load(path) for path in sorted((ROOT / "data" / "train").glob("*.npz"))[:3]]
    seen = scans.spans(known)
    unseen = scans.load(ROOT / "data" / "test" / "street_15.npz")
    assert scans.unlike(unseen, seen) == []
    room = scans.replace(unseen, xyz=unseen.xyz / 10, intensity=0 * unseen.intensity)
    words = scans.unlike(room, seen)
    assert [word.split(" 0")[0].split(" in ")[0] for word in words] == [
        "extent", "height", "mean intensity"
    ]  # fmt: skip


def test_a_range_picture_has_a_point_in_every_row(monkeypatch):
    """Of a sensor with fewer beams than the picture could have rows, too."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    drawing = importlib.import_module("drawing")
    for beams in (16, 32, 64):
        angles = np.repeat(np.radians(np.linspace(-25, 5, beams)), 500)
        azimuth = np.tile(np.linspace(-np.pi, np.pi, 500, endpoint=False), beams)
        xyz = 20 * np.stack(
            [np.cos(angles) * np.cos(azimuth), np.cos(angles) * np.sin(azimuth), np.sin(angles)], 1
        )
        image = drawing.range_image(xyz, np.zeros((len(xyz), 3)))
        assert min(beams, drawing.ROWS) / 2 < len(image) <= min(beams, drawing.ROWS)
        assert (image.min(axis=(1, 2)) < 1).all()


@pytest.mark.slow
def test_the_shipped_weights_label_a_scan_without_training(scan, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, xyz=scan["xyz"], intensity=scan["intensity"])
    done = run(path, "--output", tmp_path / "out")
    assert "training first" not in done.stdout and "unlike" not in done.stdout
    labels = np.load(tmp_path / "out" / "mine_labels.npy")
    assert (labels == scan["label"]).mean() > 0.95

"""Scenes of points and voxels, the page in a real browser, the picture by Open3D."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sparseconv as sc
from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.view import View
from sparseconv.view.colors import CLASSES, of_values
from sparseconv.view.page import page_of
from sparseconv.view.scene import scene_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless=new --no-sandbox --disable-dev-shm-usage --use-angle=swiftshader "
    "--enable-unsafe-swiftshader --hide-scrollbars --window-size=600,400 --virtual-time-budget=2000"
)


def cube(size: int = 4) -> sc.SparseTensor:
    """Return a full cube of voxels of half a metre."""
    axes = torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij")
    xyz = (torch.stack(axes, -1).reshape(-1, 3) + 0.5) / 2
    return sc.voxelize(xyz, 0.5)[0]


def pixels(page: Path, tmp_path: Path) -> np.ndarray:  # type: ignore[type-arg]
    """Return what a browser makes of a page."""
    image = pytest.importorskip("PIL.Image")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    shot = tmp_path / "shot.png"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path}/profile"]
    subprocess.run(
        [*command, f"--screenshot={shot}", page.as_uri()],
        capture_output=True,
        check=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    return np.asarray(image.open(shot).convert("RGB")).astype(int)


def near(picture: np.ndarray, color: tuple[int, ...]) -> int:  # type: ignore[type-arg]
    """Return how many pixels have the hue of a colour, lit or in shadow."""
    wanted = np.array(color) / np.linalg.norm(color)
    lengths = np.linalg.norm(picture, axis=-1)
    likeness = (picture @ wanted) / np.maximum(lengths, 1)
    return int(((likeness > 0.995) & (lengths > 60)).sum())


@pytest.mark.slow
def test_a_browser_draws_the_voxels_in_their_colours(tmp_path: Path) -> None:
    x = cube()
    labels = (x.coords[:, 1] > 1).long() + 1  # half orange, half blue
    sc.view(x, labels, classes=["none", "left", "right"], output=tmp_path / "a.html")
    picture = pixels(tmp_path / "a.html", tmp_path)
    middle = picture[:, 150:]
    orange, blue = (near(middle, tuple(CLASSES[number].tolist())) for number in (1, 2))
    assert orange > 3000 and blue > 3000
    assert near(picture[:, 400:], (230, 227, 220)) > 20_000  # the background is seen too
    three = View(scene_of(x, labels, torch.ones_like(labels)))
    three.save(tmp_path / "b.html")
    picture = pixels(tmp_path / "b.html", tmp_path)
    assert near(picture[:, 400:], (214, 40, 40)) > 500  # wrong ones are red
    assert near(picture[:, :200], (214, 40, 40)) == 0


@pytest.mark.slow
def test_open3d_draws_off_screen(tmp_path: Path) -> None:
    pytest.importorskip("open3d")
    image = pytest.importorskip("PIL.Image")
    x = cube()
    sc.view(x, torch.ones(x.num_sites, dtype=torch.int64), output=tmp_path / "a.png")
    picture = np.asarray(image.open(tmp_path / "a.png")).astype(int)
    assert near(picture, tuple(CLASSES[1].tolist())) > 10_000


def data(page: str) -> dict[str, object]:
    """Return what a page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


def test_a_page_needs_nothing_but_itself() -> None:
    page = page_of(scene_of(cube(), color_by="height"), "a <title>")
    assert "http" not in page and "src=" not in page and "@import" not in page
    assert "a &lt;title&gt;" in page
    assert len(data(page)["panels"]) == 1  # type: ignore[arg-type]
    named = page_of(scene_of(cube(), torch.zeros(64, dtype=torch.int64), classes=["</script>"]))
    assert data(named)["legend"][0]["name"] == "</script>"  # type: ignore[index]


def test_voxels_lie_where_their_grid_says() -> None:
    scene = scene_of(cube(), color_by="height")
    np.testing.assert_allclose(scene.xyz.min(axis=0), 0.25)
    np.testing.assert_allclose(scene.xyz.max(axis=0), 1.75)
    assert scene.edges == (0.5, 0.5, 0.5)


def test_what_colours_mean() -> None:
    xyz = np.random.default_rng(0).normal(0, 1, (50, 3)).astype(np.float32)
    color = np.tile(np.array([[255, 0, 0]], np.float32), (50, 1))
    points = sc.io.Points(xyz, color, ("red", "green", "blue"), np.arange(50) % 3 - 1)
    scene = scene_of(points)
    assert [entry[0] for entry in scene.legend] == ["no label", "class 0", "class 1"]
    assert scene_of(points, color_by="rgb").panels[0].colors[0].tolist() == [255, 0, 0]
    assert scene_of(points, color_by="red").scale == ("red", 255.0, 255.0)
    assert scene_of(xyz).scale is not None
    both = scene_of(points, points.labels, np.zeros(50, np.int64))
    names = [panel.name for panel in both.panels]
    assert names[:2] == ["truth", "prediction"] and names[2].startswith("error, 48.5 %")
    points.xyz[3] = np.nan
    assert len(scene_of(points).xyz) == 49
    colors, ends = of_values(np.array([np.nan, 1.0, 1.0]))
    assert ends == (1.0, 1.0) and len(colors) == 3


def test_a_notebook_shows_a_page() -> None:
    assert "<iframe" in sc.view(cube(), color_by="height")._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cloud": np.zeros((5, 2))}, SparseConvTypeError, "cloud: must be Points, a SparseTensor"),
        ({"cloud": np.full((5, 3), np.nan)}, SparseConvValueError, "no point with a finite"),
        ({"cloud": np.zeros((5, 3)), "labels": np.zeros(4, int)}, SparseConvValueError, "labels: "),
        ({"cloud": np.zeros((5, 3)), "labels": np.zeros(5)}, SparseConvValueError, "whole numbers"),
        ({"cloud": np.zeros((5, 3)), "color_by": "ring"}, SparseConvValueError, "no 'ring', must"),
        ({"cloud": np.zeros((5, 3)), "color_by": "rgb"}, SparseConvValueError, "no red, green"),
        (
            {"cloud": np.zeros((5, 3)), "labels": np.full(5, 3), "classes": ["a"]},
            SparseConvValueError,
            "classes: has 1 names, there is a label 3",
        ),
        ({"cloud": np.zeros((5, 3)), "output": "a.jpg"}, SparseConvValueError, "must end in .html"),
    ],
)
def test_wrong_calls(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sc.view(**arguments)


def test_several_samples_are_refused() -> None:
    xyz = torch.rand(10, 3)
    x, _ = sc.voxelize([xyz, xyz], 0.5)
    with pytest.raises(SparseConvValueError, match=r"holds several samples, show one: x\[0\]"):
        sc.view(x)


def test_a_picture_without_open3d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(SparseConvError, match=r"needs Open3D \(pip install open3d-cpu\)"):
        sc.view(cube(), color_by="height", output=tmp_path / "a.png")

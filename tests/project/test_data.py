"""The sample scans are what their generator makes, small, and labelled with every class."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparseconv as sc

DATA = Path(__file__).resolve().parents[2] / "data"
SCANS = sorted(DATA.glob("t*/*.npz"))


def test_at_least_twelve_scans_in_eight_megabytes() -> None:
    assert len(SCANS) >= 12
    assert {path.parent.name for path in SCANS} == {"train", "test"}
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 8_000_000


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_scan_is_readable_and_has_every_class(path: Path) -> None:
    points = sc.io.read_points(path)
    assert points.labels is not None
    assert len(points) > 20_000
    assert np.isfinite(points.xyz).all()
    assert np.bincount(points.labels, minlength=6).min() > 100
    assert points.labels.max() == 5
    assert 0 <= points.features.min() <= points.features.max() <= 1


@pytest.mark.parametrize("split, name", [("train", "street_04"), ("test", "street_15")])
def test_generator_makes_the_same_scan(tmp_path: Path, split: str, name: str) -> None:
    command = [sys.executable, DATA / "make_scans.py", "--output", tmp_path, "--only", name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    made, kept = tmp_path / split / f"{name}.npz", DATA / split / f"{name}.npz"
    if made.read_bytes() == kept.read_bytes():
        return
    # another zlib packs the same arrays into other bytes
    with np.load(made) as arrays, np.load(kept) as expected:
        for key in ("xyz", "intensity", "label"):
            np.testing.assert_array_equal(arrays[key], expected[key])

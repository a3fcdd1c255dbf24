"""The example of tiles gives the same labels wherever they run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest


def test_the_pool_gives_the_labels_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples"))
    tile_cloud = importlib.import_module("tile_cloud")
    labels = {}
    for runner, core in (("here", "256"), ("pool", "80")):
        folder = tmp_path / runner
        command = f"tile_cloud.py --points 4000 --voxel-size 2 --runner {runner} --core {core}"
        monkeypatch.setattr(sys, "argv", [*command.split(), "--folder", str(folder)])
        tile_cloud.main()
        labels[runner] = np.load(folder / "labels.npy")
    assert len(labels["here"]) == 4000 and len(np.unique(labels["here"])) > 1
    assert np.array_equal(labels["here"], labels["pool"])

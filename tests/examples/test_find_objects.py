"""Objects of a labelled scan: one box for each block of points, turned as the block is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import sparseconv as sc

pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import find_objects


def test_a_box_for_each_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    block = rng.uniform(-0.5, 0.5, (4000, 3)) * (4, 2, 1.5)
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    second = block + np.array([20, 0, 0])
    block[:, :2] = block[:, :2] @ turn.T
    xyz = np.concatenate([block, second, rng.uniform(-9, 9, (500, 3))])
    labels = np.repeat([2, 2, 0], [4000, 4000, 500])
    points = sc.io.Points(xyz, np.zeros((len(xyz), 0), np.float32), (), labels)
    sc.io.write_points(tmp_path / "a.npz", points)
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "a.npz"), "--output", str(tmp_path)])
    find_objects.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 objects")
    sizes = sorted(tuple(map(float, line.split()[4:7])) for line in lines[2:4])
    np.testing.assert_allclose(sizes, [(4, 2, 1.5)] * 2, atol=0.15)
    yaws = sorted(float(line.split()[7].rstrip("°")) % 180 for line in lines[2:4])
    assert min(yaws[0], 180 - yaws[0]) < 3 and abs(yaws[1] - np.degrees(0.5)) < 3
    assert (tmp_path / "objects.html").exists()

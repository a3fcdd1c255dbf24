"""The picture of a street: every voxel is there, and what is nearer covers what is behind it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

for _needed in ("matplotlib", "PIL"):
    pytest.importorskip(_needed)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("draw_street")


def test_a_picture_is_written_and_points_without_a_class_are_left_out(
    example: ModuleType, tmp_path: Path
) -> None:
    xyz = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0), torch.arange(2.0))
    labels = torch.arange(len(xyz)) % len(example.CLASSES)
    labels[:4] = -1
    path = tmp_path / "street.png"
    assert example.draw(path, xyz, labels) == len(xyz) - 4
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_place_ahead_is_farther_and_higher_on_paper(example: ModuleType) -> None:
    ahead = np.array([np.cos(example.TURN), np.sin(example.TURN), 0.0])
    (near, close), (far, distant) = (example.project(ahead * metres) for metres in (1, 2))
    assert distant > close
    assert far[1] > near[1]
    assert far[0] == pytest.approx(near[0], abs=1e-12)

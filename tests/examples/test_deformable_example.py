"""The deformable example: its lines, the positions that it draws, and a run as a user runs it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sparseconv import nn

for _needed in ("matplotlib", "sklearn"):
    pytest.importorskip(_needed)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that imports an example by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in ("digits", "deformable", "tilted"):
        sys.modules.pop(name, None)


def test_lines_are_thin_whole_and_the_same_again(example: Callable) -> None:
    tilted = example("tilted")
    images, kinds = tilted.lines(300, 5)
    assert images.shape == (300, 1, 32, 32)
    assert set(kinds.tolist()) == {0, 1, 2}
    counts = images.sum((1, 2, 3))
    assert counts.min() > 12
    assert counts.max() < 45  # of 1024
    assert torch.equal(images, tilted.lines(300, 5)[0])
    assert not torch.equal(images, tilted.lines(300, 6)[0])


def test_a_pole_is_straight_and_the_others_are_not(example: Callable) -> None:
    images, kinds = example("tilted").lines(300, 7)
    spread = []
    for image in images[:, 0]:
        cells = image.nonzero().float()
        spread.append(torch.linalg.svdvals(cells - cells.mean(0))[1] / len(cells) ** 0.5)
    spread = torch.stack(spread)
    assert spread[kinds == 0].max() < 0.6
    assert spread[kinds != 0].min() > 0.6


def test_a_fresh_kernel_looks_at_the_grid_around_a_site(example: Callable) -> None:
    deformable, tilted = example("deformable"), example("tilted")
    network = deformable.Network(3, deformable=True).eval()
    assert isinstance(network[6], nn.DeformConv2d)
    x = tilted.sites(tilted.lines(1, 0)[0])
    places, shares, centre = deformable.samples(network, x, 0.5)
    assert places.shape == (81, 2)
    assert shares.unique().tolist() == [0.25]  # two layers, each half
    steps = (places - centre) / 2
    assert torch.equal(steps, steps.round())
    assert (steps == 0).all(dim=1).any()


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "deformable.py"), "--quick", "--output", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "deformable.json").read_text())
    assert list(report) == ["lines", "digits"]
    for task, row in report.items():
        assert (tmp_path / f"deformable_{task}.png").read_bytes().startswith(b"\x89PNG")
        for name, values in row["accuracy"].items():
            assert f"  {name:<12}{values[0]:>7.2f} %" in done.stdout

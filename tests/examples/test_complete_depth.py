"""The depth example's parts: what it reads, and that every variant of its network runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

for _library in ("matplotlib", "skimage.data", "tqdm"):
    pytest.importorskip(_library)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "complete_depth.py"
    spec = importlib.util.spec_from_file_location("complete_depth", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_scan_becomes_a_range_image(example: ModuleType) -> None:
    image, known = example.range_image(ROOT / "data" / "test" / "street_14.npz")
    assert image.shape == known.shape == (1, 1, example.BEAMS, example.COLUMNS)
    assert 0.6 < float(known.float().mean()) < 1
    assert float(image[known].min()) > 0.5 and float(image[known].max()) < 81


@pytest.mark.parametrize("variant", ["partial", "zero-filled", "mask as channel"])
def test_every_variant_learns_and_reads_no_hole(example: ModuleType, variant: str) -> None:
    torch.use_deterministic_algorithms(False)
    rows = torch.arange(64.0).expand(1, 1, 64, 64).clone() + 5
    known = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    known[..., :4] = False
    rows[~known] = torch.inf
    scene = [example.Depth(rows, known)]
    task = example.Task("rows", "m", scene, {"the same": scene}, 0.3, (0.1, 0.5))
    network, scale = example.trained(task, variant, 2)
    error = example.error_at(network, scale, scene, 0.5)
    assert 0 < error < 1000

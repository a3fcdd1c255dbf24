"""The tables of docs/scale.md are those that the benchmarks wrote."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import sparseconv as sc
from benchmarks import scale_training

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_memory_of_training() -> None:
    rows = json.loads(scale_training.RESULTS.read_text(encoding="utf-8"))["steps"]
    assert list(rows) == [f"{way}, {dtype}" for way, dtype in scale_training.WAYS]
    assert scale_training.table(rows) in PAGE


def test_what_is_computed_again_changes_no_gradient() -> None:
    x, _ = sc.voxelize(torch.rand(200, 3) * 8, 1.0, torch.rand(200, 1))
    found = []
    for way in scale_training.RECOMPUTED:
        net = scale_training.network(way)
        scale_training.step(net, x, "float32")
        found.append([parameter.grad for parameter in net.parameters()])
    for gradients in found[1:]:
        for ours, expected in zip(gradients, found[0], strict=True):
            assert torch.equal(ours, expected)

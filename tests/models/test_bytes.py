"""How many bytes of results live at once in a network, counted where they are made and freed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseconv as sc
from benchmarks.apart import apart
from benchmarks.nets import MinkUNet
from benchmarks.scale import GIVES_BACK
from benchmarks.scale_large import generate
from sparseconv.engines import memory

# of the last block, in float32: 128 channels in, and 96 out three times
LAST_BLOCK = 4 * (128 + 3 * 96)
PAIR = 8  # bytes


def most_alive(run: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the largest number of bytes of the pool that live at once during a call."""
    taken, counts = memory._taken, {"now": 0, "most": 0}

    class Counted(memory._Block):
        def __init__(self, block: Any) -> None:
            self.__array_interface__ = block.__array_interface__
            self.block, self.size = block, block.end - block.begin
            counts["now"] += self.size
            counts["most"] = max(counts.values())

        def __del__(self) -> None:
            counts["now"] -= self.size

    monkeypatch.setattr(memory, "_taken", lambda size: Counted(taken(size)))
    run()
    return counts["most"]


def surface() -> sc.SparseTensor:
    """Return a hilly sheet of 40,000 sites."""
    x, y = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    z = (20 + 8 * torch.sin(x / 17) + 8 * torch.cos(y / 13)).long()
    coords = torch.stack([torch.zeros_like(x), x, y, z], dim=-1).reshape(-1, 4)
    return sc.SparseTensor(torch.ones(len(coords), 1), coords, (208, 208, 48), 1)


@pytest.mark.parametrize(
    "optimized, bar", [(False, LAST_BLOCK + 110), (True, LAST_BLOCK - 4 * 96 + 110)]
)
@pytest.mark.parametrize("make", [MinkUNet, lambda c, k: sc.models.MinkUNet(c, k, "18A")])
def test_of_minkunet_hardly_more_than_its_last_block_lives(
    make: Any, optimized: bool, bar: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = make(1, 5).eval(), surface()
    net = sc.optimize(net) if optimized else net
    with torch.no_grad():
        net(surface())  # packs weights, which live on in an optimized network
        alive = most_alive(lambda: net(x), monkeypatch)
    pairs = sum(book.num_pairs for book in x.sites.rulebooks.values())
    assert alive / x.num_sites < bar + PAIR * pairs / x.num_sites


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measured by the marks of Linux")
def test_resident_memory_of_points_and_sites(tmp_path: Path) -> None:
    generate(tmp_path, 1_000_000)
    found = apart("benchmarks.scale", "whole", str(tmp_path), "minkunet optimized", **GIVES_BACK)
    assert found["voxelize_bytes_a_point"] < 66  # 60 at ten million, and pages of libraries
    assert found["network_bytes_a_site"] < 1800  # 1,600 at a million sites, and weights

"""Rows of the CPU table: what a site costs from 100 thousand to 10 million sites."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import sparseconv as sc
from benchmarks.apart import apart, peak_during, settle
from benchmarks.rows import Row
from benchmarks.setting import Setting

SIDES = (316, 1000, 3162)
CHANNELS = 16
FLAT = 1.3


def surface(side: int) -> sc.SparseTensor:
    """Return ``side * side`` sites of a wavy surface: the same neighbourhoods at every size."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    height = (8 * torch.sin(rows / 17) + 8 * torch.cos(columns / 23) + 20).round().long()
    coords = torch.stack([torch.zeros_like(rows), rows, columns, height], dim=-1).reshape(-1, 4)
    return sc.SparseTensor(torch.ones(coords.shape[0], 1), coords, (side, side, 40))


def step(x: sc.SparseTensor) -> object:
    """Build sites and rulebook of one layer, and run it forwards."""
    y = sc.SparseTensor(torch.ones(x.num_sites, CHANNELS), x.coords, x.spatial_shape)
    with torch.no_grad():
        return sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3, bias=False)(y)


def peak(side: int, threads: int) -> int:
    """Return the peak memory of a step; called in a process of its own."""
    x = surface(side)
    settle(lambda: step(surface(10)), threads)
    return peak_during(lambda: step(x))


def growth(setting: Setting) -> Iterator[Row]:
    """Yield time and peak memory a site."""
    cost: dict[int, tuple[float, float]] = {}
    for side in (10, 30) if setting.quick else SIDES:
        x = surface(side)
        ms = setting.measure({"ours": lambda x=x: step(x)}, rounds=3, seconds=12)["ours"]
        used = apart("benchmarks.cpu_growth", "peak", side, setting.threads)
        cost[x.num_sites] = (1e6 * ms / x.num_sites, used / x.num_sites)
    least = min(cost)
    for count in sorted(cost.keys() - {least}):
        place = "growth", "sites, rulebook, one layer of 16 channels", f"{count:,} sites"
        pairs = zip(("ns a site", "bytes a site"), cost[count], cost[least], strict=True)
        for unit, value, reference in pairs:
            against = f"at {least:,}"
            yield Row(*place, setting.threads, value, against, reference, FLAT, unit)


GROUPS = (growth,)

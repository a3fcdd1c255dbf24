"""Rows of the CPU table: how full a grid may be before the dense convolution is faster."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import sparseconv as sc
from benchmarks.cpu_layers import forward
from benchmarks.rows import Row
from benchmarks.setting import Setting

CHANNELS, SIDE = 64, 64
WANTED = 0.6


def at_random(share: float, side: int) -> sc.SparseTensor:
    """Return random features on a random share of the sites of a cube."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, side, side, side, generator=generator) < share
    return sc.SparseTensor.from_dense(torch.randn(1, CHANNELS, side, side, side), mask)


def dense(setting: Setting) -> Iterator[Row]:
    """Yield sparse against dense at some occupancies, and the occupancy where both are equal."""
    side, shares = (8, (0.5, 1.0)) if setting.quick else (SIDE, (0.1, 0.3, 0.5, 0.6, 0.8, 1.0))
    layer = sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3, bias=False)
    plain = torch.nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    grid = torch.randn(1, CHANNELS, side, side, side)
    tensors = {share: at_random(share, side) for share in shares}

    def run_plain() -> object:
        with torch.no_grad():
            return plain(grid)

    contenders = {"dense": run_plain}
    contenders |= {f"{share}": forward(layer, x) for share, x in tensors.items()}
    ms = setting.measure(contenders, rounds=3, seconds=4)
    times = [ms[f"{share}"] / ms["dense"] for share in shares]
    place = f"{side}^3, random sites"
    for share in shares:
        row = ("dense", f"submanifold 3x3x3, {CHANNELS} channels, {share:.0%} full", place)
        bar = 1.0 if share <= WANTED else None
        reference = ("dense Conv3d", ms["dense"])
        yield Row(*row, setting.threads, ms[f"{share}"], *reference, bar)
    row = ("dense", "occupancy below which sparse is faster", place, setting.threads)
    # a ratio is small where a value is small: so the wanted share over the one that was found
    yield Row(*row, WANTED, "found", crossing(shares, times), 1.0, "of the grid")


def crossing(shares: tuple[float, ...], times: list[float]) -> float:
    """Return the share at which the time is 1, between two of those measured; 1 if it never is."""
    before = (0.0, 0.0)
    for share, time in zip(shares, times, strict=True):
        if time >= 1:
            low, at = before
            return low + (share - low) * (1 - at) / (time - at)
        before = (share, time)
    return 1.0


GROUPS = (dense,)

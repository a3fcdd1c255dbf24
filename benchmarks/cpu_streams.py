"""Rows of the CPU table: layers without a matrix product, against a copy of the bytes they move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks import floors
from benchmarks.cpu_layers import backward, forward, with_channels
from benchmarks.rows import Row
from benchmarks.setting import Setting
from sparseconv.core.rulebook import Rulebook

CHANNELS = 64
ROW = 4 * CHANNELS
BAR = 2.0
Cases = dict[str, tuple[Callable[[], object], Tensor, float]]  # the layer, its input, bytes


def rulebook_of(layer: nn.Module, x: sc.SparseTensor) -> Rulebook:
    """Return the rulebook that a pooling of a new geometry builds on ``x``."""
    known = set(x.sites.rulebooks)
    forward(layer, x)()
    (geometry,) = set(x.sites.rulebooks) - known
    return x.sites.rulebooks[geometry]


def streams(setting: Setting) -> Iterator[Row]:
    """Yield every layer that does nothing but move bytes."""
    cases = _pooling(setting.x) | _features(setting.x)
    for what, (run, given, size) in cases.items():
        contenders = {"copy": floors.copy(size, given), "ours": run}
        ms = setting.measure(contenders, rounds=15, seconds=2)
        yield setting.row("stream", what, ms["ours"], "copy", ms["copy"], BAR)


def voxelize(setting: Setting) -> Iterator[Row]:
    """Yield voxelization, which sorts: against a copy alone, and against a sort and a copy."""
    points = _points(setting.x)
    keys = np.random.default_rng(0).integers(0, 2**40, len(points))
    copy = floors.copy(_voxel_bytes(points, setting.x))

    def sort_and_copy() -> None:
        np.argsort(keys)
        copy()

    contenders = {
        "copy": copy,
        "sorted": sort_and_copy,
        "ours": lambda: sc.voxelize(points[:, :3], 1.0, points),
    }
    ms = setting.measure(contenders)
    what = "voxelize, mean of 4 values a point"
    yield setting.row("stream", what, ms["ours"], "copy", ms["copy"], BAR)
    yield setting.row("stream", what, ms["ours"], "sort + copy", ms["sorted"])


def partial_ratio(setting: Setting) -> Iterator[Row]:
    """Yield what the ratio of a partial convolution costs on top of the plain layer."""
    y = with_channels(setting.x, CHANNELS)
    plain = sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3, bias=False)
    layer = sc.nn.SubmPartialConv3d(CHANNELS, CHANNELS, 3, bias=False)
    contenders = {
        "plain": forward(plain, y),
        "ours": forward(layer, y),
        "copy": floors.copy(2 * 4 * CHANNELS * y.num_sites),
    }
    ms = setting.measure(contenders, rounds=9)
    what = f"submanifold partial 3x3x3, {CHANNELS} channels"
    more = ms["ours"] - ms["plain"]
    yield setting.row("stream", f"{what}: its ratio alone", more, "copy", ms["copy"], BAR)
    yield setting.row("stream", what, ms["ours"], "the plain layer", ms["plain"])


def _pooling(x: sc.SparseTensor) -> Cases:
    y = with_channels(x, CHANNELS)
    small, mean = nn.MaxPool3d(2, stride=2), nn.AvgPool3d(2, stride=2)
    wide = nn.MaxPool3d(3, stride=2, padding=1)
    apart, overlapping = rulebook_of(small, y), rulebook_of(wide, y)
    size = ROW * (apart.n_in + apart.n_out) + 8 * apart.num_pairs
    windows = ROW * (overlapping.num_pairs + overlapping.n_out) + 8 * overlapping.num_pairs
    x, grad = y.features, torch.ones(apart.n_out, CHANNELS)
    return {
        f"max pooling, k=2, stride 2, {CHANNELS} channels": (forward(small, y), x, size),
        f"the same, backward, {CHANNELS} channels": (backward(small, y, grad), grad, size),
        f"average pooling, k=2, stride 2, {CHANNELS} channels": (forward(mean, y), x, size),
        f"max pooling, k=3, stride 2, {CHANNELS} channels": (forward(wide, y), x, windows),
    }


def _features(x: sc.SparseTensor) -> Cases:
    y = with_channels(x, CHANNELS)
    z, size = y.replace(y.features.clone()), ROW * x.num_sites
    own, grad = y.features, torch.ones(x.num_sites, CHANNELS)
    trained, fixed = nn.BatchNorm3d(CHANNELS), nn.BatchNorm3d(CHANNELS).eval()
    norm, back = forward(trained, y), backward(trained, y, grad)
    return {
        f"batch norm, eval, {CHANNELS} channels": (forward(fixed, y), own, 2 * size),
        f"batch norm, train (reads twice), {CHANNELS} channels": (norm, own, 3 * size),
        f"batch norm, train, backward, {CHANNELS} channels": (back, grad, 5 * size),
        f"ReLU, {CHANNELS} channels": (forward(nn.ReLU(), y), own, 2 * size),
        f"add, {CHANNELS} channels": (lambda: y + z, own, 3 * size),
        f"cat, {CHANNELS} channels": (lambda: torch.cat([y, z], dim=1), own, 4 * size),
    }


def _points(x: sc.SparseTensor) -> torch.Tensor:
    """Return two points a site, anywhere in its cell, in random order: ``[2 * N, 4]``."""
    generator = torch.Generator().manual_seed(0)
    corners = x.coords[:, 1:].float().repeat(2, 1)
    points = corners + torch.rand(corners.shape, generator=generator)
    values = torch.rand(corners.shape[0], 1, generator=generator)
    joined = torch.cat([points, values], dim=1)
    return joined[torch.randperm(joined.shape[0], generator=generator)]


def _voxel_bytes(points: torch.Tensor, x: sc.SparseTensor) -> float:
    """Return what voxelizing must move: points and features in, keys sorted once, sites out."""
    return points.shape[0] * (3 + 4 + 4 * 2) * 4 + x.num_sites * (4 * 4 + 4 * 8)


GROUPS = (streams, voxelize, partial_ratio)

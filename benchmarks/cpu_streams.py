"""Rows of the CPU table: layers without a matrix product, against a copy of the bytes they move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

import sparseconv as sc
from benchmarks import floors
from benchmarks.cpu_layers import backward, forward, rulebook_of, with_channels
from benchmarks.rows import Row
from benchmarks.timing import interleaved

CHANNELS = 64


def streams(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield pooling, normalisation, sums, joins and voxelization."""
    y, z = with_channels(x, CHANNELS), with_channels(x, CHANNELS)
    z = y.replace(z.features)
    row, wide = 4 * CHANNELS, 4 * CHANNELS * x.num_sites
    pool, mean = nn.MaxPool3d(2, stride=2), nn.AvgPool3d(2, stride=2)
    rulebook = rulebook_of(pool, y)
    pooled = row * (rulebook.n_in + rulebook.n_out) + 8 * rulebook.num_pairs
    dense = nn.MaxPool3d(3, stride=2, padding=1)
    windows = rulebook_of(dense, y)
    overlapping = row * (windows.num_pairs + windows.n_out) + 8 * windows.num_pairs
    trained, fixed = nn.BatchNorm3d(CHANNELS), nn.BatchNorm3d(CHANNELS).eval()
    partial = sc.nn.SubmPartialConv3d(CHANNELS, CHANNELS, 3, bias=False)
    rulebook_of(partial, y)
    points = _points(x)
    cases: dict[str, tuple[Callable[[], object], float]] = {
        "max pooling, k=2, stride 2": (forward(pool, y), pooled),
        "max pooling, k=2, stride 2, backward": (backward(pool, y), pooled),
        "average pooling, k=2, stride 2": (forward(mean, y), pooled),
        "max pooling, k=3, stride 2": (forward(dense, y), overlapping),
        "batch norm, eval": (forward(fixed, y), 2 * wide),
        "batch norm, train (two passes over the input)": (forward(trained, y), 3 * wide),
        "batch norm, train, backward": (backward(trained, y), 5 * wide),
        "ReLU": (forward(nn.ReLU(), y), 2 * wide),
        "add": (lambda: y + z, 3 * wide),
        "cat": (lambda: torch.cat([y, z], dim=1), 4 * wide),
        "voxelize, mean of 4 values a point": (
            lambda: sc.voxelize(points[:, :3], 1.0, points),
            _voxel_bytes(points, x),
        ),
    }
    for what, (run, size) in cases.items():
        ms = interleaved({"copy": floors.copy(size), "ours": run}, rounds=7)
        name = f"{what}, {CHANNELS} channels" if "voxelize" not in what else what
        yield Row("stream", name, scene, threads, ms["ours"], "copy", ms["copy"], 2.0)


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


GROUPS = (streams,)

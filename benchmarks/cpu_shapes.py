"""Rows of the CPU table: odd shapes and dtypes against the even layer beside them, per FLOP."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks import floors
from benchmarks.cpu_layers import forward, with_channels
from benchmarks.rows import Row
from benchmarks.setting import Setting
from benchmarks.works import work_of

NO_CLIFF = 2.0
SUBMANIFOLD = (sc.nn.SubmConv1d, sc.nn.SubmConv2d, sc.nn.SubmConv3d, sc.nn.SubmConv4d)
# channels in, channels out, kernel, groups; the even layer is 64 to 64, kernel 3, one group
SHAPES = (
    (63, 65, 3, 1),
    (37, 37, 3, 1),
    (96, 96, 3, 1),
    (64, 20, 3, 1),
    (64, 4, 3, 1),
    (64, 64, 1, 1),
    (64, 64, 5, 1),
    (64, 64, 7, 1),
    (64, 64, 3, 2),
    (64, 64, 3, 4),
)


def shapes(setting: Setting) -> Iterator[Row]:
    """Yield odd channel counts, other kernels and groups: no cliff beyond 2 times."""
    even, y, gflop = _even(setting)
    for c_in, c_out, kernel, groups in SHAPES[: 2 if setting.quick else None]:
        layer = sc.nn.SubmConv3d(c_in, c_out, kernel, groups=groups, bias=False)
        z = with_channels(setting.x, c_in)
        work = work_of(layer, z)
        contenders = {"even": forward(even, y), "ours": forward(layer, z)}
        ms = setting.measure(contenders, seconds=1)
        name = f"submanifold k={kernel}, {c_in} to {c_out}, {groups} groups, forward"
        against, reference = "k=3, 64 to 64, per FLOP", ms["even"] * work.gflop / gflop
        yield setting.row("shape", name, ms["ours"], against, reference, NO_CLIFF, work.gflop)


def dtypes(setting: Setting) -> Iterator[Row]:
    """Yield the other dtypes; float64 moves twice the bytes and has half the lanes."""
    even, y, gflop = _even(setting)
    bars = {torch.bfloat16: 1.0, torch.float16: NO_CLIFF, torch.float64: 2 * NO_CLIFF}
    for dtype, bar in bars.items():
        layer = sc.nn.SubmConv3d(64, 64, 3, bias=False).to(dtype)
        contenders = {"float32": forward(even, y), "ours": forward(layer, y.to(dtype))}
        ms = setting.measure(contenders, seconds=1)
        name = f"submanifold k=3, 64 to 64, {dtype}, forward".replace("torch.", "")
        yield setting.row("shape", name, ms["ours"], "float32", ms["float32"], bar, gflop)


def axes(setting: Setting) -> Iterator[Row]:
    """Yield 1 to 4 axes, on the scene's rows seen with fewer or more axes."""
    even, y, gflop = _even(setting)
    for dimensions, layers in enumerate(SUBMANIFOLD, start=1):
        if dimensions == 3 or (setting.quick and dimensions != 2):
            continue
        z = _seen_with(setting.x, dimensions)
        layer = layers(64, 64, 3, bias=False)
        work = work_of(layer, z)
        contenders = {"even": forward(even, y), "ours": forward(layer, z)}
        ms = setting.measure(contenders, seconds=1)
        name = f"submanifold k=3, 64 to 64, {dimensions}D, forward"
        against, reference = "3D, per FLOP", ms["even"] * work.gflop / gflop
        yield setting.row("shape", name, ms["ours"], against, reference, NO_CLIFF, work.gflop)


def few_channels(setting: Setting) -> Iterator[Row]:
    """Yield groups of few channels against a copy of the rows that their pairs read and write."""
    for groups, dtype in ((64, torch.float32), (64, torch.bfloat16), (16, torch.float32)):
        layer = sc.nn.SubmConv3d(64, 64, 3, groups=groups, bias=False).to(dtype)
        y = with_channels(setting.x, 64).to(dtype)
        work = work_of(layer, y)
        size = dtype.itemsize * 64 * (work.pairs + 2 * y.num_sites) + 8 * work.pairs
        contenders = {"copy": floors.copy(size), "ours": forward(layer, y)}
        ms = setting.measure(contenders)
        kind = "depthwise" if groups == 64 else f"{groups} groups"
        kind += "" if dtype == torch.float32 else f" in {dtype}".replace("torch.", "")
        name = f"submanifold k=3, {kind}, 64 channels, forward"
        yield setting.row("shape", name, ms["ours"], "copy", ms["copy"], NO_CLIFF)


def _even(setting: Setting) -> tuple[nn.Module, sc.SparseTensor, float]:
    """Return the layer that the others are compared with, its input and its GFLOP."""
    layer, y = sc.nn.SubmConv3d(64, 64, 3, bias=False), with_channels(setting.x, 64)
    return layer, y, work_of(layer, y).gflop


def _seen_with(x: sc.SparseTensor, dimensions: int) -> sc.SparseTensor:
    """Return the sites with fewer axes, the last two joined, or a fourth axis of length 4."""
    coords, shape = x.coords.long(), tuple(x.spatial_shape)
    if dimensions < 3:
        for _ in range(3 - dimensions):
            joined = coords[:, -2] * shape[-1] + coords[:, -1]
            coords = torch.cat([coords[:, :-2], joined[:, None]], dim=1)
            shape = (*shape[:-2], shape[-2] * shape[-1])
    else:
        time: Tensor = coords.sum(dim=1, keepdim=True) % 4
        coords, shape = torch.cat([coords, time], dim=1), (*shape, 4)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(x.num_sites, 64, generator=generator)
    return sc.SparseTensor(features, coords, shape, batch_size=x.batch_size)


GROUPS = (shapes, dtypes, axes, few_channels)

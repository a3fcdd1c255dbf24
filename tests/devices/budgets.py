"""What is counted on the bench, and what each may cost a card: the calls, their sizes, the budgets.

Each entry of :data:`CALLS` prepares its input and returns the call that is counted. A budget holds
at every size: no operator works row by row. ``tools/device_counts.py`` measures them all, writes
``counts.json`` beside this file, which tests hold as upper bounds, and ``docs/device_counts.md``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from devices import bench
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.nets import MinkUNet
from sparseconv import engines
from sparseconv.core.geometry import Kind, make_geometry

GOLDEN = Path(__file__).with_name("counts.json")
WORK = Path(__file__).with_name("work.json")
SIZES = (32, 64)  # edges of the scene: its square is the number of sites

Run = Callable[[], Any]


class Budget(NamedTuple):
    """The most launches and synchronisations that a call shall need one day."""

    launches: int
    syncs: int


@dataclass(frozen=True)
class Call:
    """One row of the table.

    Attributes:
        prepare: takes a size and returns what is counted.
        budget: None where there is none in numbers: then counts shall not grow with the rows.
        sizes: at which it is counted.
    """

    prepare: Callable[[int], Run]
    budget: Budget | None = None
    sizes: tuple[int, ...] = SIZES

    def count(self, size: int) -> bench.Counts:
        """Return the counts at a size, by the plain engine."""
        with sc.engine("torch"):
            return bench.counted(self.prepare(size))


def scene(size: int, channels: int, dtype: torch.dtype = torch.float32) -> sc.SparseTensor:
    """Return a wavy surface of ``size ** 2`` sites on the bench, with empty caches."""
    x, y = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij"))
    z = (6 + 5 * torch.sin(x / 5) * torch.cos(y / 7)).long()
    coords = torch.stack([torch.zeros_like(x), x, y, z], dim=1)
    features = torch.randn(size**2, channels, generator=torch.Generator().manual_seed(0))
    x = sc.SparseTensor(features.to(dtype), coords, (size, size, 16), 1)
    return x.to(bench.NAME)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return normal numbers on the bench that take part in differentiation."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return values.to(dtype).to(bench.NAME).requires_grad_()


def differentiate(y: Any) -> None:
    rows = y.features if isinstance(y, sc.SparseTensor) else y
    torch.autograd.backward(rows, torch.ones_like(rows))


Layer = Callable[[sc.SparseTensor], Any]
Make = Callable[[int], Layer]  # takes the number of sites


def of_layer(
    make: Make, forward: bool, backward: bool, dtype: torch.dtype = torch.float32
) -> Callable[[int], Run]:
    """Prepare the passes of a layer of 16 channels that has run, so that its map is known."""

    def prepare(size: int) -> Run:
        x, layer = scene(size, 16, dtype), make(size**2)
        x.requires_grad_()
        y = layer(x)
        if backward:
            differentiate(y)
        if forward:
            return lambda: differentiate(layer(x)) if backward else layer(x)
        y = layer(x)
        return lambda: differentiate(y)

    return prepare


def subm(dtype: torch.dtype) -> Make:
    return lambda _: functools.partial(
        sc.functional.subm_conv, weight=numbers(32, 16, 3, 3, 3, dtype=dtype)
    )


def partial(_: int) -> Layer:
    return functools.partial(sc.functional.subm_partial_conv, weight=numbers(32, 16, 3, 3, 3))


def deformable(count: int) -> Layer:
    offset, weight = numbers(count, 81), numbers(32, 16, 3, 3, 3)
    return lambda x: sc.functional.deform_conv(x, x.replace(offset), weight, submanifold=True)


def module(make: Callable[[], nn.Module]) -> Make:
    return lambda _: make().to(bench.NAME)


def new_map(size: int) -> Run:
    geometry = make_geometry((3, 3, 3), kind=Kind.SUBMANIFOLD)
    sites = scene(size, 1).sites
    return lambda: sites.convolve(geometry)


def new_strided(sites_alone: bool) -> Callable[[int], Run]:
    def prepare(size: int) -> Run:
        geometry = make_geometry((3, 3, 3), stride=2, padding=1)
        sites = scene(size, 1).sites
        if not sites_alone:
            return lambda: sites.convolve(geometry)
        packing = sites.convolve(geometry)[0].index.packing
        return lambda: engines.get("torch").reached_keys(sites.index, geometry, packing)

    return prepare


def points_of(size: int) -> Tensor:
    """Return ``4 * size ** 2`` points on the surface of the scene, in voxels of 1 metre."""
    flat = size * torch.rand(4 * size**2, 2, generator=torch.Generator().manual_seed(2))
    height = 6 + 5 * torch.sin(flat[:, :1] / 5) * torch.cos(flat[:, 1:] / 7)
    return torch.cat([flat, height], dim=1).to(bench.NAME)


def new_voxels(reduce: str, bounds: tuple[int, ...] | None = None) -> Callable[[int], Run]:
    def prepare(size: int) -> Run:
        xyz, values = points_of(size), numbers(4 * size**2, 8)
        batch = torch.zeros(len(xyz), dtype=torch.int64, device=xyz.device)
        return lambda: sc.voxelize(xyz, 1.0, values, batch, bounds, reduce)

    return prepare


def of_points(call: Callable[[Any, Any, Tensor], Any]) -> Callable[[int], Run]:
    """Prepare a call of voxels, their point map and features ``[N, 8]`` of the points."""

    def prepare(size: int) -> Run:
        x, to_points = sc.voxelize(points_of(size), 1.0)
        x = x.replace(numbers(x.num_sites, 8))
        values = numbers(4 * size**2, 8)
        return lambda: call(x, to_points, values)

    return prepare


def training_step(size: int) -> Run:
    torch.manual_seed(0)
    model = MinkUNet().to(bench.NAME)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = scene(size, 4)
    classes = torch.zeros(size**2, dtype=torch.int64).to(bench.NAME)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x).features, classes).backward()
        optimizer.step()

    return step


def evaluation(new: bool, dtype: torch.dtype = torch.float32) -> Callable[[int], Run]:
    def prepare(size: int) -> Run:
        model = MinkUNet().to(bench.NAME, dtype).eval()
        x = scene(size, 4, dtype)
        run = torch.no_grad()(lambda: model(x))
        if not new:
            run()
        return run

    return prepare


HALF = torch.bfloat16
BATCH, INSTANCE, GROUP = (
    module(make)
    for make in (
        lambda: nn.BatchNorm3d(16),
        lambda: nn.InstanceNorm3d(16),
        lambda: nn.GroupNorm(4, 16),
    )
)
POOLS: dict[str, Make] = {
    "max pooling 2x2x2": lambda _: nn.MaxPool3d(2),
    "average pooling 3x3x3, stride 2": lambda _: nn.AvgPool3d(3, 2, 1),
    "global average pooling": lambda _: sc.functional.global_avg_pool,
    "global max pooling": lambda _: sc.functional.global_max_pool,
}
CALLS: dict[str, Call] = {
    "map 3x3x3": Call(new_map, Budget(12, 1)),
    "convolution float32, forward": Call(of_layer(subm(torch.float32), True, False), Budget(32, 0)),
    "convolution float32, backward": Call(
        of_layer(subm(torch.float32), False, True), Budget(90, 0)
    ),
    "convolution bfloat16, forward": Call(of_layer(subm(HALF), True, False, HALF), Budget(6, 0)),
    "convolution bfloat16, backward": Call(of_layer(subm(HALF), False, True, HALF), Budget(10, 0)),
    "sites 3x3x3, stride 2": Call(new_strided(True), Budget(20, 1)),
    "sites and map 3x3x3, stride 2": Call(new_strided(False), Budget(32, 2)),
    "batch norm training, both passes": Call(of_layer(BATCH, True, True), Budget(90, 0)),
    "batch norm evaluation": Call(of_layer(module(lambda: nn.BatchNorm3d(16).eval()), True, False)),
    "instance norm, both passes": Call(of_layer(INSTANCE, True, True)),
    "group norm, both passes": Call(of_layer(GROUP, True, True)),
    **{f"{name}, both passes": Call(of_layer(make, True, True)) for name, make in POOLS.items()},
    "partial convolution, forward": Call(of_layer(partial, True, False), Budget(36, 0)),
    "deformable convolution, forward": Call(of_layer(deformable, True, False), Budget(40, 0)),
    "deformable convolution, backward": Call(of_layer(deformable, False, True), sizes=(4, 8)),
    "voxelize, mean": Call(new_voxels("mean"), Budget(60, 4)),
    "voxelize, max": Call(new_voxels("max"), Budget(60, 4)),
    "voxelize in bounds": Call(new_voxels("mean", (4, 4, 0, 28, 28, 12))),
    "labels by majority": Call(of_points(lambda x, to, _: to.majority(to.rows % 5, 5))),
    "splat, mean, both passes": Call(of_points(lambda x, to, v: differentiate(to.splat(v)))),
    "splat, linear, both passes": Call(
        of_points(lambda x, to, v: differentiate(to.splat(v, mode="linear")))
    ),
    "interpolation, linear, both passes": Call(
        of_points(lambda x, to, v: differentiate(to(x, mode="linear")))
    ),
    "MinkUNet training step": Call(training_step, Budget(6000, 20), sizes=(32,)),
    "MinkUNet evaluation, new maps": Call(evaluation(True), Budget(1200, 10), sizes=(32,)),
    "MinkUNet evaluation, known maps": Call(evaluation(False), sizes=(32,)),
}


# what the model of cards is made of, at two sizes that show how the work grows
MODEL_SIZES = (64, 128)
MODEL: dict[str, Call] = {
    name: Call(prepare, sizes=MODEL_SIZES)
    for name, prepare in {
        "map 3x3x3": new_map,
        "voxelize, mean": new_voxels("mean"),
        "convolution 16 to 32, float32, forward": of_layer(subm(torch.float32), True, False),
        "convolution 16 to 32, bfloat16, forward": of_layer(subm(HALF), True, False, HALF),
        "MinkUNet evaluation, bfloat16, new maps": evaluation(True, HALF),
        "MinkUNet evaluation, bfloat16, known maps": evaluation(False, HALF),
        "MinkUNet training step, float32": training_step,
    }.items()
}


def golden_work() -> dict[str, Any]:
    """Return bytes and FLOP of all calls by number of sites, and what the model is made of."""
    return json.loads(WORK.read_text(encoding="utf-8"))


def golden() -> dict[str, dict[str, list[int]]]:
    """Return the counts that hold as upper bounds: call, number of sites, launches and syncs."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))

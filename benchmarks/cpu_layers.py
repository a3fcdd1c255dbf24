"""Rows of the CPU table: single layers against the matrix products of the same FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import sparseconv as sc
from benchmarks import floors
from benchmarks.rows import Row
from benchmarks.timing import interleaved
from sparseconv.rulebook import Rulebook

CHANNELS = {16: 2.0, 32: 1.3, 64: 1.1, 128: 1.1, 256: 1.1}
Layer = Callable[[sc.SparseTensor], sc.SparseTensor]


def rulebook_of(layer: Layer, x: sc.SparseTensor) -> Rulebook:
    """Return the rulebook that ``layer`` builds on the sites of ``x``."""
    known = set(x.sites.rulebooks)
    with torch.no_grad():
        layer(x)
    (geometry,) = set(x.sites.rulebooks) - known
    return x.sites.rulebooks[geometry]


def forward(layer: Layer, x: sc.SparseTensor) -> Callable[[], object]:
    """Return a forward pass without a tape."""

    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def backward(layer: torch.nn.Module, x: sc.SparseTensor) -> Callable[[], object]:
    """Return the backward pass alone: the gradients of the input and the weight."""
    leaf = x.replace(x.features.clone().requires_grad_())
    y = layer(leaf).features
    cotangent = torch.ones_like(y)
    inputs = [leaf.features, *layer.parameters()]
    return lambda: torch.autograd.grad(y, inputs, cotangent, retain_graph=True)


def with_channels(x: sc.SparseTensor, channels: int) -> sc.SparseTensor:
    """Return random features on fresh sites, so that no rulebook is known yet."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(x.num_sites, channels, generator=generator)
    return sc.SparseTensor(features, x.coords, x.spatial_shape, batch_size=x.batch_size)


def submanifold(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield forward and backward of the submanifold 3x3x3 layer."""
    for c_in, channels, bar in [(4, 16, None), *((c, c, bar) for c, bar in CHANNELS.items())]:
        layer = sc.nn.SubmConv3d(c_in, channels, 3, bias=False)
        y = with_channels(x, c_in)
        rulebook = rulebook_of(layer, y)
        contenders = {
            "floor": floors.products(rulebook, c_in, channels),
            "forward": forward(layer, y),
            "backward": backward(layer, y),
        }
        ms = interleaved(contenders, rounds=5)
        what = f"submanifold 3x3x3, {c_in} to {channels} channels"
        place = ("layer", f"{what}, forward", scene, threads)
        yield Row(*place, ms["forward"], "mm", ms["floor"], bar)
        place = ("layer", f"{what}, backward", scene, threads)
        yield Row(*place, ms["backward"], "its forward", ms["forward"], 2.3)


def resolution(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield forward of the layers that change the resolution, at 64 channels."""
    down = torch.nn.Conv3d(64, 64, 2, stride=2, bias=False)
    wide = torch.nn.Conv3d(64, 64, 3, stride=2, padding=1, bias=False)
    back = sc.nn.InverseConv3d(64, 64, 2, stride=2, bias=False)
    transposed = torch.nn.ConvTranspose3d(64, 64, 2, stride=2, bias=False)
    fine = with_channels(x, 64)
    pairs = {"k=2": rulebook_of(down, fine), "k=3": rulebook_of(wide, fine)}
    with torch.no_grad():
        coarse = down(fine)
    spread = rulebook_of(transposed, coarse)
    for what, layer, y, rulebook in (
        ("stride 2, k=2", down, fine, pairs["k=2"]),
        ("stride 2, k=3", wide, fine, pairs["k=3"]),
        ("inverse of stride 2, k=2", back, coarse, pairs["k=2"]),
        ("transposed, stride 2, k=2", transposed, coarse, spread),
    ):
        contenders = {"floor": floors.products(rulebook, 64, 64), "ours": forward(layer, y)}
        ms = interleaved(contenders, rounds=5)
        name = f"{what}, 64 channels, forward"
        yield Row("layer", name, scene, threads, ms["ours"], "mm", ms["floor"], 1.3)


def shapes(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield odd shapes against the even layer beside them, per FLOP: no cliff beyond 2."""
    even = sc.nn.SubmConv3d(64, 64, 3, bias=False)
    y = with_channels(x, 64)
    flops = rulebook_of(even, y).num_pairs * 64 * 64
    for c_in, c_out, kernel, groups in (
        (63, 65, 3, 1),
        (64, 64, 1, 1),
        (64, 64, 5, 1),
        (64, 64, 3, 4),
    ):
        layer = sc.nn.SubmConv3d(c_in, c_out, kernel, groups=groups, bias=False)
        z = with_channels(x, c_in)
        work = rulebook_of(layer, z).num_pairs * c_in * c_out // groups
        ms = interleaved({"even": forward(even, y), "ours": forward(layer, z)}, rounds=5)
        name = f"submanifold k={kernel}, {c_in} to {c_out}, {groups} groups, forward"
        reference = ms["even"] * work / flops
        yield Row("shape", name, scene, threads, ms["ours"], "k=3, 64 a FLOP", reference, 2.0)
    for dtype in (torch.float16, torch.bfloat16):
        layer = sc.nn.SubmConv3d(64, 64, 3, bias=False).to(dtype)
        contenders = {"float32": forward(even, y), "ours": forward(layer, y.to(dtype))}
        ms = interleaved(contenders, rounds=5)
        name = f"submanifold k=3, 64 channels, {dtype}, forward".replace("torch.", "")
        yield Row("shape", name, scene, threads, ms["ours"], "float32", ms["float32"], 1.0)


def depthwise(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield the depthwise layer against a copy of the rows that its pairs read and it writes."""
    layer = sc.nn.SubmConv3d(64, 64, 3, groups=64, bias=False)
    y = with_channels(x, 64)
    rulebook = rulebook_of(layer, y)
    size = 4 * 64 * (rulebook.num_pairs + 2 * rulebook.n_out) + 8 * rulebook.num_pairs
    ms = interleaved({"copy": floors.copy(size), "ours": forward(layer, y)}, rounds=5)
    name = "submanifold 3x3x3 depthwise, 64 channels, forward"
    yield Row("shape", name, scene, threads, ms["ours"], "copy", ms["copy"], 2.0)


GROUPS = (submanifold, resolution, shapes, depthwise)

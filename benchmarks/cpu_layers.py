"""Rows of the CPU table: single layers against the matrix products of the same FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks import floors, peers
from benchmarks.rows import Row
from benchmarks.setting import Setting
from benchmarks.works import work_of

CHANNELS = {16: 2.0, 32: 1.3, 64: 1.1, 128: 1.1, 256: 1.1}
PEER_CHANNELS = 64


def forward(layer: nn.Module, x: sc.SparseTensor) -> Callable[[], object]:
    """Return a forward pass without a tape."""

    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def backward(
    layer: nn.Module, x: sc.SparseTensor, cotangent: Tensor | None = None
) -> Callable[[], object]:
    """Return the backward pass alone: the gradients of the input and the weight."""
    leaf = x.replace(x.features.clone().requires_grad_())
    y = layer(leaf).features
    given = torch.ones_like(y) if cotangent is None else cotangent
    inputs = [leaf.features, *layer.parameters()]
    return lambda: torch.autograd.grad(y, inputs, given, retain_graph=True)


def with_channels(x: sc.SparseTensor, channels: int) -> sc.SparseTensor:
    """Return random features on fresh sites, so that no rulebook is known yet."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(x.num_sites, channels, generator=generator)
    return sc.SparseTensor(features, x.coords, x.spatial_shape, batch_size=x.batch_size)


def submanifold(setting: Setting) -> Iterator[Row]:
    """Yield forward and backward of the submanifold 3x3x3 layer."""
    cases = [(4, 16, None), *((c, c, bar) for c, bar in CHANNELS.items())]
    for c_in, channels, bar in cases[: 2 if setting.quick else None]:
        layer = sc.nn.SubmConv3d(c_in, channels, 3, bias=False)
        y = with_channels(setting.x, c_in)
        work = work_of(layer, y)
        contenders = {
            "floor": floors.products([work]),
            "forward": forward(layer, y),
            "backward": backward(layer, y),
        }
        theirs = peers.layers(layer, y) if setting.peers and channels <= PEER_CHANNELS else {}
        ms = setting.measure(contenders | theirs)
        what = f"submanifold 3x3x3, {c_in} to {channels} channels"
        yield setting.row(
            "layer", f"{what}, forward", ms["forward"], "mm", ms["floor"], bar, work.gflop
        )
        yield setting.row(
            "layer",
            f"{what}, backward",
            ms["backward"],
            "its forward",
            ms["forward"],
            2.3,
            2 * work.gflop,
        )
        for peer in theirs:
            yield setting.row(
                "layer", f"{what}, forward", ms["forward"], peer, ms[peer], None, work.gflop
            )


def resolution(setting: Setting) -> Iterator[Row]:
    """Yield forward of the layers that change the resolution."""
    for channels in (64,) if setting.quick else (32, 64, 128):
        fine = with_channels(setting.x, channels)
        down = nn.Conv3d(channels, channels, 2, stride=2, bias=False)
        with torch.no_grad():
            coarse = down(fine)
        layers: dict[str, tuple[nn.Module, sc.SparseTensor]] = {
            "stride 2, k=2": (down, fine),
            "stride 2, k=3": (nn.Conv3d(channels, channels, 3, 2, 1, bias=False), fine),
            "inverse of stride 2, k=2": (
                sc.nn.InverseConv3d(channels, channels, 2, stride=2, bias=False),
                coarse,
            ),
            "transposed, stride 2, k=2": (
                nn.ConvTranspose3d(channels, channels, 2, stride=2, bias=False),
                coarse,
            ),
        }
        for what, (layer, y) in layers.items():
            work = work_of(layer, y)
            contenders = {"floor": floors.products([work]), "ours": forward(layer, y)}
            ms = setting.measure(contenders, seconds=1)
            name = f"{what}, {channels} channels, forward"
            bar = 1.3 if channels >= 64 else None
            yield setting.row("layer", name, ms["ours"], "mm", ms["floor"], bar, work.gflop)


GROUPS = (submanifold, resolution)

"""Rows of the CPU table: whole networks from raw coordinates, against the sum of their products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

import sparseconv as sc
from benchmarks import floors
from benchmarks.nets import NETS
from benchmarks.rows import Row
from benchmarks.scenes import shuffled
from benchmarks.setting import Setting
from benchmarks.works import works_of

CHANNELS = 4
BARS = {"forward": 1.25, "forward + backward": 1.35}
BFLOAT_BAR = 0.7
Run = Callable[[], object]
Input = Callable[[torch.dtype], sc.SparseTensor]


def raw(x: sc.SparseTensor) -> Input:
    """Return what makes an input of unsorted coordinates and random features anew, for a dtype."""
    coords = shuffled(x)
    features = torch.randn(x.num_sites, CHANNELS, generator=torch.Generator().manual_seed(0))
    given = {dtype: features.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return lambda dtype: sc.SparseTensor(
        given[dtype], coords, x.spatial_shape, batch_size=x.batch_size
    )


def forward(net: nn.Module, make: Run) -> Run:
    """Return an eval forward pass on what ``make`` returns."""

    def run() -> object:
        net.eval()
        with torch.no_grad():
            return net(make())

    return run


def training(net: nn.Module, make: Run) -> Run:
    """Return a forward and a backward pass to every parameter."""
    cotangents: list[torch.Tensor] = []

    def run() -> object:
        net.train()
        features = net(make()).features
        if not cotangents:
            cotangents.append(torch.ones_like(features))
        return torch.autograd.grad(features, list(net.parameters()), cotangents[0])

    return run


def nets(setting: Setting) -> Iterator[Row]:
    """Yield forward and training step of every network, in float32 and bfloat16."""
    make = raw(setting.x)
    for name, build in NETS.items():
        torch.manual_seed(0)
        net = build(CHANNELS)
        works = list(works_of(net, make(torch.float32)).values())
        passes = {"forward": floors.FORWARD, "forward + backward": floors.TRAINING}
        for what, kind in zip(passes, (forward, training), strict=True):
            contenders: dict[str, Run] = {
                "floor": floors.products(works, passes[what]),
                "ours": kind(net, lambda: make(torch.float32)),
            }
            if name == "minkunet":
                half = build(CHANNELS).to(torch.bfloat16)
                contenders["bfloat16"] = kind(half, lambda: make(torch.bfloat16))
            ms = setting.measure(contenders, rounds=3)
            gflop = sum(work.gflop_of(passes[what]) for work in works)
            title, floor = f"{name}, {what}", ("sum of mm", ms["floor"])
            bar = BARS[what] if name == "minkunet" else None
            yield setting.row("net", title, ms["ours"], *floor, bar, gflop)
            if "bfloat16" in ms:
                title, floor = f"{title}, bfloat16", ("sum of float32 mm", ms["floor"])
                yield setting.row("net", title, ms["bfloat16"], *floor, BFLOAT_BAR, gflop)


GROUPS = (nets,)

"""Rows of the CPU table: whole networks from raw coordinates, against the sum of their products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

import sparseconv as sc
from benchmarks import floors, peers
from benchmarks.nets import NETS
from benchmarks.rows import Row
from benchmarks.scenes import shuffled
from benchmarks.setting import Setting
from benchmarks.timing import interleaved
from benchmarks.works import works_of

CHANNELS = 4
BARS = {"forward": 1.25, "forward + backward": 1.35}
BFLOAT_BAR = 0.7
PEER_BARS = {("second", "forward"): 1 / 5}
Run = Callable[[], Any]
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


STEPS = {
    "forward": (forward, floors.FORWARD),
    "forward + backward": (training, floors.TRAINING),
}


def nets(setting: Setting) -> Iterator[Row]:
    """Yield forward and training step of every network, in float32 and bfloat16."""
    make = raw(setting.x)
    for name, build in NETS.items():
        torch.manual_seed(0)
        net = build(CHANNELS)
        works = list(works_of(net, make(torch.float32)).values())
        theirs = _fastest_peer(setting, net) if setting.peers else {}
        for what, (kind, passes) in STEPS.items():
            contenders = {"floor": floors.products(works, passes)}
            contenders |= {
                variant: kind(made, partial(make, dtype))
                for variant, (made, dtype) in _variants(net, what).items()
                if "bfloat16" not in variant or name == "minkunet"
            }
            contenders |= {peer: kind(*parts) for peer, parts in theirs.items()}
            ms = setting.measure(contenders, rounds=3)
            gflop = sum(work.gflop_of(passes) for work in works)
            for variant in [key for key in contenders if key != "floor" and key not in theirs]:
                half = "bfloat16" in variant
                bar = (BFLOAT_BAR if half else BARS[what]) if name == "minkunet" else None
                title = ", ".join(filter(None, (name, what, variant)))
                floor = "sum of float32 mm" if half else "sum of mm"
                yield setting.row("net", title, ms[variant], floor, ms["floor"], bar, gflop)
            for peer in theirs:
                bar = PEER_BARS.get((name, what))
                yield setting.row("net", f"{name}, {what}", ms[""], peer, ms[peer], bar, gflop)


def _variants(net: nn.Module, what: str) -> dict[str, tuple[nn.Module, torch.dtype]]:
    """Return the forms of a network that are measured, and the dtype of each's input."""
    half = copy.deepcopy(net).to(torch.bfloat16)
    forms = {"": (net, torch.float32), "bfloat16": (half, torch.bfloat16)}
    if what == "forward" and hasattr(sc, "optimize"):
        forms["optimized"] = (sc.optimize(net), torch.float32)
        forms["bfloat16, optimized"] = (sc.optimize(half), torch.bfloat16)
    return forms


def _fastest_peer(setting: Setting, net: nn.Module) -> dict[str, tuple[nn.Module, Run]]:
    """Return the peer whose forward pass is the fastest: its network and its input."""
    coords = shuffled(setting.x)
    features = raw(setting.x)(torch.float32).features
    found = {}
    for name, peer in peers.available().items():
        theirs = peers.converted(net, peer)
        found[name] = theirs, partial(peer.input, features, coords, setting.x, net)
    ms = interleaved({name: forward(*parts) for name, parts in found.items()}, 1, warm_up=0)
    best = min(ms, key=ms.__getitem__)
    return {best: found[best]}


GROUPS = (nets,)

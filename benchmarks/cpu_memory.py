"""Rows of the CPU table: the peak memory of a training step, against what must be there at once.

Counted: the input of every convolution and normalisation and the output of every activation, each
tensor once, for these are what the backward pass reads; the gradients of the parameters; the two
feature gradients of the layer where they are largest; keys and pairs of all sites and rulebooks.
Not counted are the parameters and the input, which are there before. The peak is that of the
resident memory of a fresh process during the step, less what was resident before.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.apart import apart, peak_during, settle
from benchmarks.cpu_nets import CHANNELS, raw, training
from benchmarks.nets import NETS
from benchmarks.rows import Row
from benchmarks.scenes import load
from benchmarks.setting import Setting
from benchmarks.works import CONVOLUTIONS, hooked, rulebook_of
from sparseconv.core.rulebook import Rulebook
from sparseconv.sites.sites import Sites

BAR = 1.5
SMALL = 200


def counted(net: nn.Module, x: sc.SparseTensor) -> int:
    """Return the bytes that a training step of ``net`` on ``x`` needs at once."""
    kept: dict[int, Tensor] = {}
    sites: dict[int, Sites] = {}
    rulebooks: dict[int, Rulebook] = {}
    gradients = [0]

    def note(_: str, layer: nn.Module, x: sc.SparseTensor, y: sc.SparseTensor) -> None:
        read = y if isinstance(layer, nn.ReLU) else x
        kept[read.features.data_ptr()] = read.features
        for tensor in (x, y):
            sites[id(tensor.sites)] = tensor.sites
        gradients.append(_bytes(x.features) + _bytes(y.features))
        if isinstance(layer, CONVOLUTIONS):
            rulebook = rulebook_of(layer, x, y)
            rulebooks[min(rulebook.in_rows.data_ptr(), rulebook.out_rows.data_ptr())] = rulebook

    with hooked(net.train(), lambda name, layer: None, note):
        alive = net(x)
    del alive
    tensors = [*kept.values(), *net.parameters(), *(own.index.keys for own in sites.values())]
    pairs = [side for own in rulebooks.values() for side in (own.in_rows, own.out_rows)]
    return max(gradients) + sum(map(_bytes, [*tensors, *pairs]))


def _bytes(t: Tensor) -> int:
    return t.numel() * t.element_size()


def step(scene: str, threads: int) -> tuple[int, int]:
    """Return peak and count of a training step of the U-Net; called in a process of its own."""
    net = NETS["minkunet"](CHANNELS)
    x = load(scene)
    small = sc.SparseTensor(
        x.features[:SMALL], x.coords[:SMALL], x.spatial_shape, batch_size=x.batch_size
    )
    settle(training(net, lambda: raw(small)(torch.float32)), threads)
    make = raw(x)
    peak = peak_during(training(net, lambda: make(torch.float32)))
    return peak, counted(net, make(torch.float32))


def memory(setting: Setting) -> Iterator[Row]:
    """Yield the peak of a training step."""
    peak, count = apart("benchmarks.cpu_memory", "step", setting.scene, setting.threads)
    row = ("memory", "minkunet, training step, peak", setting.scene, setting.threads)
    yield Row(*row, peak / 2**20, "counted", count / 2**20, BAR, "MiB")


GROUPS = (memory,)

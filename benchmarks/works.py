"""What a network's convolutions multiply, layer by layer as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

import sparseconv as sc
from benchmarks.floors import Work
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.core.rulebook import Rulebook

SUBMANIFOLD = (sc.nn.SubmConv1d, sc.nn.SubmConv2d, sc.nn.SubmConv3d, sc.nn.SubmConv4d)
INVERSE = (sc.nn.InverseConv1d, sc.nn.InverseConv2d, sc.nn.InverseConv3d, sc.nn.InverseConv4d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
REGULAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, sc.nn.Conv4d)
CONVOLUTIONS = (*SUBMANIFOLD, *INVERSE, *TRANSPOSED, *REGULAR)


def rulebook_of(layer: nn.Module, x: sc.SparseTensor, y: sc.SparseTensor) -> Rulebook:
    """Return the rulebook that a convolution went through from ``x`` to ``y``."""
    window = {"dilation": layer.dilation}
    if isinstance(layer, SUBMANIFOLD):
        geometry = make_geometry(layer.kernel_size, kind=Kind.SUBMANIFOLD, **window)
        return x.sites.convolve(geometry)[1]
    window |= {"stride": layer.stride, "padding": layer.padding}
    if isinstance(layer, INVERSE):
        return x.sites.inverse(make_geometry(layer.kernel_size, **window), y.sites)[1]
    if isinstance(layer, TRANSPOSED):
        window |= {"kind": Kind.TRANSPOSED, "output_padding": layer.output_padding}
    return x.sites.convolve(make_geometry(layer.kernel_size, **window))[1]


def work_of(layer: nn.Module, x: sc.SparseTensor) -> Work:
    """Return what a convolution multiplies on ``x``; its rulebook is in the cache then."""
    with torch.no_grad():
        rulebook = rulebook_of(layer, x, layer(x))
    return Work.of(rulebook, layer.in_channels, layer.out_channels, layer.groups)


@contextmanager
def hooked(
    net: nn.Module, before: Callable[[str, nn.Module], None], after: Callable[..., None]
) -> Iterator[None]:
    """Call ``before(name, module)`` and ``after(name, module, x, y)`` around every leaf module."""
    handles = []
    for name, module in net.named_modules():
        if any(True for _ in module.children()):
            continue

        def enter(module: nn.Module, _: object, name: str = name) -> None:
            before(name, module)

        def leave(
            module: nn.Module, x: tuple[sc.SparseTensor, ...], y: sc.SparseTensor, name: str = name
        ) -> None:
            after(name, module, x[0], y)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def works_of(net: nn.Module, x: sc.SparseTensor) -> dict[str, Work]:
    """Return what each convolution of a network multiplies on ``x``, by the module's name."""
    works: dict[str, Work] = {}

    def note(name: str, layer: nn.Module, x: sc.SparseTensor, y: sc.SparseTensor) -> None:
        if isinstance(layer, CONVOLUTIONS):
            channels = layer.in_channels, layer.out_channels
            works[name] = Work.of(rulebook_of(layer, x, y), *channels, layer.groups, not works)

    with torch.no_grad(), hooked(net, lambda name, layer: None, note):
        net(x)
    return works

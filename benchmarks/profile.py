"""Where a whole network's time goes: layer by layer as they run, against its products."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import sparseconv as sc
from benchmarks import floors
from benchmarks.cpu_nets import CHANNELS, raw
from benchmarks.floors import Work
from benchmarks.nets import NETS
from benchmarks.timing import interleaved
from benchmarks.works import hooked, works_of

ROUNDS = 5


@dataclass
class Layer:
    """One leaf module's passes: seconds of each, and what came out."""

    kind: str
    seconds: list[float] = field(default_factory=list)
    sites: int = 0
    channels: int = 0

    @property
    def ms(self) -> float:
        """Median milliseconds."""
        return 1e3 * statistics.median(self.seconds)


def watched(net: nn.Module, make: object) -> tuple[dict[str, Layer], list[tuple[float, float]]]:
    """Return what each layer took, and per pass the seconds in all and those of making the input.

    Every pass starts from raw coordinates; the first, which warms up, does not count.
    """
    layers: dict[str, Layer] = {}
    begun: list[float] = []

    def before(name: str, module: nn.Module) -> None:
        layers.setdefault(name, Layer(type(module).__name__))
        begun.append(time.perf_counter())

    def after(name: str, _: nn.Module, __: sc.SparseTensor, y: sc.SparseTensor) -> None:
        layers[name].seconds.append(time.perf_counter() - begun.pop())
        layers[name].sites, layers[name].channels = y.num_sites, y.channels

    totals = []
    with torch.no_grad(), hooked(net.eval(), before, after):
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            x = make()  # type: ignore[operator]
            made = time.perf_counter()
            net(x)
            totals.append((time.perf_counter() - start, made - start))
    for layer in layers.values():
        layer.seconds = layer.seconds[1:]
    return layers, totals[1:]


def profile(name: str, scene: str, x: sc.SparseTensor) -> None:
    """Print the forward pass of a network from raw coordinates, layer by layer.

    A layer that is the first to need a rulebook builds it; that shows beside the next layer of the
    same kind, which finds it in the cache.
    """
    torch.manual_seed(0)
    net = NETS[name](CHANNELS)
    make = raw(x)
    works = works_of(net, make(torch.float32))
    layers, totals = watched(net, lambda: make(torch.float32))
    run = interleaved({key: floors.products([work]) for key, work in works.items()}, rounds=3)
    title = f"{name}, {scene}, {torch.get_num_threads()} threads, forward, eval"
    table = Table(title=title)
    for column in ("layer", "kind", "sites", "channels", "pairs", "GFLOP", "ms", "mm ms", "ratio"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for key, layer in layers.items():
        table.add_row(key, layer.kind, f"{layer.sites:,}", *_cells(layer, works.get(key), run, key))
    table.add_section()
    for line in _totals(layers, totals, works, run):
        table.add_row(*line)
    Console(width=130).print(table)


def _cells(layer: Layer, work: Work | None, floor: dict[str, float], key: str) -> tuple[str, ...]:
    if work is None:
        return str(layer.channels), "", "", f"{layer.ms:.2f}", "", ""
    ratio = f"{layer.ms / floor[key]:.2f}"
    channels = f"{work.c_in * work.groups} to {work.c_out * work.groups}"
    products = f"{work.pairs:,}", f"{work.gflop:.2f}"
    return channels, *products, f"{layer.ms:.2f}", f"{floor[key]:.2f}", ratio


def _totals(
    layers: dict[str, Layer],
    totals: list[tuple[float, float]],
    works: dict[str, Work],
    floor: dict[str, float],
) -> list[tuple[str, ...]]:
    """Return a line per kind of layer, one for what lies outside of the layers, and the sum."""
    kinds: dict[str, float] = {}
    for layer in layers.values():
        kinds[layer.kind] = kinds.get(layer.kind, 0) + layer.ms
    whole, made = (1e3 * statistics.median(column) for column in zip(*totals, strict=True))
    outside = whole - made - sum(kinds.values())
    lines = [(f"all {kind}", "", "", "", "", "", f"{ms:.1f}", "", "") for kind, ms in kinds.items()]
    lines.append(("sites from coordinates", "", "", "", "", "", f"{made:.1f}", "", ""))
    lines.append(("outside layers: add, cat, Python", "", "", "", "", "", f"{outside:.1f}", "", ""))
    products = sum(floor.values())
    gflop = sum(work.gflop for work in works.values())
    ratio = f"{whole / products:.2f}"
    all_of_it = "", "", "", "", f"{gflop:.1f}", f"{whole:.1f}", f"{products:.1f}", ratio
    return [*lines, ("everything", *all_of_it)]

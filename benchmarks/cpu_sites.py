"""Rows of the CPU table: sites, index and rulebooks from coordinates."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import sparseconv as sc
from benchmarks import floors, peers
from benchmarks.cpu_layers import rulebook_of
from benchmarks.rows import Row
from benchmarks.scenes import shuffled
from benchmarks.timing import interleaved
from sparseconv.geometry import Kind, make_geometry

SUBMANIFOLD = make_geometry((3, 3, 3), padding=1, kind=Kind.SUBMANIFOLD)
STRIDED = {
    "stride 2, k=2": make_geometry((2, 2, 2), stride=2),
    "stride 2, k=3": make_geometry((3, 3, 3), stride=2, padding=1),
    "stride 1, k=3": make_geometry((3, 3, 3), padding=1),
}


def rulebooks(x: sc.SparseTensor, scene: str, threads: int) -> Iterator[Row]:
    """Yield sites and rulebooks from unsorted coordinates, and those of the strided layers."""
    coords, features = shuffled(x), torch.ones(x.num_sites, 1)

    def from_coordinates() -> sc.SparseTensor:
        made = sc.SparseTensor(features, coords, x.spatial_shape, batch_size=x.batch_size)
        made.sites.convolve(SUBMANIFOLD)
        return made

    made = from_coordinates()
    keys = made.sites.index.keys[torch.randperm(x.num_sites)]
    contenders = {
        "floor": floors.sort_and_write(keys, made.sites.rulebooks[SUBMANIFOLD]),
        "ours": from_coordinates,
    }
    contenders |= peers.rulebooks(coords, x)
    ms = interleaved(contenders, rounds=9)
    row = ("sites", "sites, index, submanifold rulebook, unsorted", scene, threads)
    yield Row(*row, ms["ours"], "sort + write", ms["floor"], 3.0)
    for name in ms.keys() - {"floor", "ours"}:
        yield Row(*row, ms["ours"], name, ms[name], 1 / 6)
    ordered = sc.SparseTensor(features, x.coords, x.spatial_shape, batch_size=x.batch_size)
    for name, geometry in STRIDED.items():

        def build(geometry: object = geometry) -> object:
            fresh = sc.SparseTensor(features, x.coords, x.spatial_shape, batch_size=x.batch_size)
            return fresh.sites.convolve(geometry)  # type: ignore[arg-type]  # bound as a default

        target, rulebook = ordered.sites.convolve(geometry)
        keys = target.index.keys[torch.randperm(target.num_sites)]
        floor = floors.sort_and_write(keys, rulebook)
        ms = interleaved({"floor": floor, "ours": build}, rounds=5)
        what = f"sites and rulebook of {name}"
        yield Row("sites", what, scene, threads, ms["ours"], "sort + write", ms["floor"])


def growth(threads: int) -> Iterator[Row]:
    """Yield time and memory a site from 100 thousand to 10 million sites of one local shape."""
    cost: dict[int, tuple[float, float]] = {}
    for side in (316, 1000, 3162):
        x = _surface(side)
        layer = sc.nn.SubmConv3d(16, 16, 3, bias=False)
        features = torch.randn(x.num_sites, 16)

        def run(
            x: sc.SparseTensor = x,
            layer: torch.nn.Module = layer,
            features: torch.Tensor = features,
        ) -> object:
            y = sc.SparseTensor(features, x.coords, x.spatial_shape)
            with torch.no_grad():
                return layer(y)

        ms = interleaved({"ours": run}, rounds=3)["ours"]
        rulebook = rulebook_of(layer, sc.SparseTensor(features, x.coords, x.spatial_shape))
        size = sum(t.nbytes for t in (rulebook.in_rows, rulebook.out_rows))
        cost[x.num_sites] = (1e6 * ms / x.num_sites, size / x.num_sites)
    least = min(cost)
    for count, (time, size) in cost.items():
        if count != least:
            scene, what = f"{count:,} sites", "sites, rulebook, one layer of 16 channels"
            against = f"at {least:,}"
            row = ("growth", what, scene, threads)
            yield Row(*row, time, against, cost[least][0], 1.3, "ns a site")
            yield Row(*row, size, against, cost[least][1], 1.3, "bytes a site")


def _surface(side: int) -> sc.SparseTensor:
    """Return ``side * side`` sites of a wavy surface: the same neighbourhoods at every size."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    height = (8 * torch.sin(rows / 17) + 8 * torch.cos(columns / 23) + 20).round().long()
    coords = torch.stack([torch.zeros_like(rows), rows, columns, height], dim=-1).reshape(-1, 4)
    return sc.SparseTensor(torch.ones(coords.shape[0], 1), coords, (side, side, 40))

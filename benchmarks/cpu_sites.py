"""Rows of the CPU table: sites, index and rulebooks from coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

import sparseconv as sc
from benchmarks import floors, peers
from benchmarks.rows import Row
from benchmarks.scenes import shuffled
from benchmarks.setting import Setting
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.sites.sites import Sites

SUBMANIFOLD = make_geometry((3, 3, 3), padding=1, kind=Kind.SUBMANIFOLD)
STRIDED = {
    "stride 2, k=2": make_geometry((2, 2, 2), stride=2),
    "stride 2, k=3": make_geometry((3, 3, 3), stride=2, padding=1),
    "stride 1, k=3": make_geometry((3, 3, 3), padding=1),
}


def rulebooks(setting: Setting) -> Iterator[Row]:
    """Yield sites, index and submanifold rulebook from unsorted coordinates."""
    x = setting.x
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
    layer = sc.nn.SubmConv3d(1, 1, 3, bias=False)
    theirs = peers.builders(layer, coords, x) if setting.peers else {}
    contenders |= theirs
    ms = setting.measure(contenders, rounds=9)
    what = "sites, index, submanifold rulebook, unsorted"
    yield setting.row("sites", what, ms["ours"], "sort + write", ms["floor"], 3.0)
    for name in theirs:
        yield setting.row("sites", what, ms["ours"], name, ms[name], 1 / 6)


def strided(setting: Setting) -> Iterator[Row]:
    """Yield sites and rulebooks of the layers that change the sites, from sorted coordinates."""
    x = setting.x
    features = torch.ones(x.num_sites, 1)

    def build(geometry: Geometry) -> tuple[Sites, Rulebook]:
        fresh = sc.SparseTensor(features, x.coords, x.spatial_shape, batch_size=x.batch_size)
        return fresh.sites.convolve(geometry)

    for name, geometry in STRIDED.items():
        target, rulebook = build(geometry)
        keys = target.index.keys[torch.randperm(target.num_sites)]
        contenders = {
            "floor": floors.sort_and_write(keys, rulebook),
            "ours": partial(build, geometry),
        }
        layer = nn.Conv3d(1, 1, geometry.kernel_size, geometry.stride, geometry.padding, bias=False)
        # a regular layer of stride 1 takes the slowest of them seconds
        theirs = peers.builders(layer, x.coords, x) if setting.peers and "stride 2" in name else {}
        ms = setting.measure(contenders | theirs)
        what = f"sites and rulebook of {name}"
        yield setting.row("sites", what, ms["ours"], "sort + write", ms["floor"])
        for peer in theirs:
            yield setting.row("sites", what, ms["ours"], peer, ms[peer])


GROUPS = (rulebooks, strided)

"""Profilers, counters of FLOPs and tracers see what the engines compute."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import sparseconv as sc
from sparseconv.core.geometry import Geometry, Kind, make_geometry

pytestmark = pytest.mark.usefixtures("engine")


def scan() -> sc.SparseTensor:
    coords = torch.nonzero(torch.rand(2, 6, 6, 6) < 0.2)
    return sc.SparseTensor(torch.randn(len(coords), 4), coords, (6, 6, 6), 2)


def net() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        sc.nn.SubmConv3d(4, 8, 3),
        torch.nn.BatchNorm3d(8),
        torch.nn.ReLU(),
        torch.nn.Conv3d(8, 16, 2, 2, groups=2),
        torch.nn.MaxPool3d(1),
        torch.nn.Linear(16, 2),
    ).eval()


def test_flop_counter_counts_what_summary_counts() -> None:
    model, x = net(), scan()
    pairs = [x.sites.convolve(layer)[1].num_pairs for layer in _geometries()]
    sites = model[:4](x).num_sites
    forward = 2 * (pairs[0] * 4 * 8 + pairs[1] * 8 * 16 // 2 + sites * 16 * 2)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == forward
    assert counter.get_flop_counts()["Sequential.0"][torch.ops.aten.bmm] == 2 * pairs[0] * 4 * 8
    with FlopCounterMode(display=False) as counter:
        model(x.requires_grad_()).features.sum().backward()
    assert counter.get_total_flops() == 3 * forward


def _geometries() -> list[Geometry]:
    return [
        make_geometry((3, 3, 3), kind=Kind.SUBMANIFOLD),
        make_geometry((2, 2, 2), stride=2),
    ]


def test_profiler_shows_public_names_and_flops() -> None:
    model, x = net(), scan()
    with torch.profiler.profile(record_shapes=True, with_flops=True) as profile:
        y = model(x)
    events = profile.key_averages()
    assert "sparseconv::convolution" in {event.key for event in events}
    assert sum(event.flops for event in events if event.key == "aten::bmm") > 0
    assert torch.equal(y.features, model(x).features)


@pytest.mark.parametrize("optimised", [False, True])
def test_a_tracer_notes_calls_and_no_constants(optimised: bool) -> None:
    model, x = net(), scan()
    model = sc.optimize(model) if optimised else model
    graph = make_fx(lambda rows: model(x.replace(rows)).features)(x.features)
    other = torch.randn_like(x.features)
    torch.testing.assert_close(graph(other), model(x.replace(other)).features)

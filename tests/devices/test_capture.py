"""Captured inference: replays of fixed memory give what the model gives, scan after scan."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cases import assert_close, random_input
from devices import bench, graph
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.engines.torch import block_products
from sparseconv.models import UNet
from sparseconv.tools import graphs

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")
SIZE = (12, 11, 10)


@pytest.fixture(autouse=True)
def graphs_of_the_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(graphs.RECORDERS, bench.NAME, graph.record)
    with sc.engine("torch"):
        yield


def scan(count: int, seed: int = 0, batch: int = 2) -> sc.SparseTensor:
    """Return a scan of 4 channels on the bench."""
    x = random_input(count, 4, SIZE, batch=batch, seed=seed, dtype=torch.float32)
    return x.to(bench.NAME)


class Heads(nn.Module):
    """Two results of a network: a tensor of rows, and sites of another level, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(sc.nn.SubmConv3d(4, 8, 3), nn.BatchNorm3d(8), nn.ReLU())
        self.down = nn.Conv3d(8, 16, 2, 2)
        self.up = sc.nn.InverseConv3d(16, 8, 2, 2)
        self.pools = nn.ModuleList([nn.MaxPool3d(3, 2, 1), nn.AvgPool3d(2)])

    def forward(self, x: sc.SparseTensor) -> dict[str, Any]:
        x = self.stem(x)
        y = self.down(x)
        back = torch.cat([self.up(y), x], dim=1) * 2
        return {"rows": back.features, "levels": [y, *(pool(x) for pool in self.pools)]}


def leaves(value: Any) -> list[Tensor]:
    """Return coordinates and features of all results, on the CPU."""
    if isinstance(value, sc.SparseTensor):
        return [value.coords.cpu(), value.features.detach().cpu()]
    if isinstance(value, Tensor):
        return [value.detach().cpu()]
    entries = value.values() if isinstance(value, dict) else value
    return [leaf for entry in entries for leaf in leaves(entry)]


def assert_same(mine: Any, theirs: Any) -> None:
    for one, other in zip(leaves(mine), leaves(theirs), strict=True):
        if one.is_floating_point():
            assert_close(one, other.double())
        else:
            assert torch.equal(one, other)


NETS: dict[str, Callable[[], nn.Module]] = {
    "heads": Heads,
    "unet": lambda: UNet(4, 3, (8, 16, 24)),
    "optimized": lambda: sc.optimize(UNet(4, 3, (8, 16, 24))),
}


def captured(net: nn.Module, x: sc.SparseTensor, **options: int) -> sc.tools.CapturedModel:
    """Return a captured network; a warning that it is not one is an error."""
    return sc.capture(net, x, **options)


@pytest.mark.parametrize("name", NETS)
def test_other_features_and_other_sites(name: str) -> None:
    """Nothing of one scan is left in the results of another, nor changes those handed out."""
    torch.manual_seed(0)
    net = NETS[name]().to(bench.NAME).eval()
    x = scan(150)
    fast = captured(net, x, capacity=200)
    assert fast.reason is None
    kept = fast(x)
    before = copy.deepcopy([leaf.clone() for leaf in leaves(kept)])
    for y in (x, x.replace(x.features * 2), scan(120, 1), scan(155, 2), scan(60, 3, 3), x):
        with torch.no_grad():
            assert_same(fast(y), net(y))
    assert all(map(torch.equal, before, leaves(kept)))


def test_known_sites_cost_copies_and_no_wait() -> None:
    net = Heads().to(bench.NAME).eval()
    x, other = scan(150), scan(140, 1)
    fast = captured(net, x, capacity=200)
    again = bench.counted(lambda: fast(x.replace(x.features + 1)))
    assert again.totals[0] <= 8 and again.totals[1] == 0  # in, out and the sum
    new = bench.counted(lambda: fast(other))
    eager = bench.counted(lambda: net(scan(140, 2)))
    assert new.totals[1] <= eager.totals[1]
    assert bench.counted(lambda: fast(other)).totals == (5, 0)


def test_the_memory_of_a_graph_stays() -> None:
    net = Heads().to(bench.NAME).eval()
    fast = captured(net, scan(150), capacity=200)
    layouts = [map_._kept for _, map_ in fast._rooms.maps.values()]
    tensors = [t for kept in layouts for layout, _ in kept.values() for t in flat(layout)]
    tensors += [fast._features, *(fast._output["levels"][n].features for n in range(3))]
    before = [t.on_cpu.data_ptr() for t in tensors]
    for seed in range(3):
        fast(scan(130 + seed, seed))
    assert before == [t.on_cpu.data_ptr() for t in tensors]


def flat(layout: Any) -> list[Any]:
    if isinstance(layout, Tensor):
        return [layout]
    entries = layout if isinstance(layout, tuple | list) else []
    return [t for entry in entries for t in flat(entry)]


@pytest.mark.parametrize("bound", [2**13, 2**16])
def test_maps_in_several_parts(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_products, "MAX_COPY", bound)
    net = UNet(4, 3, (8, 16, 24)).to(bench.NAME).eval()
    x = scan(150)
    fast = captured(net, x, capacity=260)
    with torch.no_grad():
        assert_same(fast(x.replace(x.features * 2)), net(x.replace(x.features * 2)))
    for y in (scan(90, 1), scan(165, 2), x):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # a part of few rows may have more pairs than any here
            assert_same(fast(y), net(y))


@pytest.mark.parametrize("count, capacity", [(1, 1), (1, 40), (30, 30), (0, 5)])
def test_small_scans_and_no_room_to_spare(count: int, capacity: int) -> None:
    net = UNet(4, 3, (8, 16, 24)).to(bench.NAME).eval()
    fast = captured(net, scan(count), capacity=capacity)
    for seed in range(2):
        x = scan(count, seed)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # coarse levels may have more sites than the example's
            assert_same(fast(x), net(x))


def said(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in caught]


def test_too_many_sites_run_uncaptured_with_one_line() -> None:
    net = Heads().to(bench.NAME).eval()
    fast = captured(net, scan(150))
    assert fast.capacity == 188
    for seed, lines in ((1, 1), (2, 0)):
        x = scan(400, seed)
        result, text = said(lambda x=x: fast(x))
        assert len(text) == lines and "\n" not in "".join(text)
        assert_same(result, net(x))
        assert all("has 400 sites, capacity=188" in line for line in text)
    assert said(lambda: fast(scan(150)))[1] == []


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda x: x.double(), "must be as the example"),
        (lambda x: x.replace(torch.cat([x.features] * 2, 1)), "must be as the example"),
    ],
)
def test_another_kind_of_input_is_the_models_own_business(
    change: Callable[[sc.SparseTensor], sc.SparseTensor], text: str
) -> None:
    fast = captured(nn.Sequential(nn.ReLU()).eval(), scan(50))
    x = change(scan(40, 1))
    result, lines = said(lambda: fast(x))
    assert len(lines) == 1 and text in lines[0]
    assert torch.equal(result.features.cpu(), x.features.relu().cpu())


class Across(nn.Module):
    def __init__(self, function: Callable[[sc.SparseTensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: sc.SparseTensor) -> Any:
        return self.function(x)


CANNOT: dict[str, tuple[Callable[[sc.SparseTensor], Any], str]] = {
    "sample by sample": (sc.functional.global_avg_pool, "sample by sample"),
    "all rows": (lambda x: x.replace(x.features - x.features.mean(0)), "rows behind the last"),
    "statistics": (nn.BatchNorm3d(4, track_running_stats=False).eval(), "across all sites"),
    "dense": (lambda x: x.dense(), "where sites lie"),
    "chosen sites": (lambda x: sc.prune(x, x.features[:, 0] > 0), ""),
    "waits": (lambda x: x * float(x.features[0, 0]), "capturing"),
    "text": (lambda x: "none", "returns"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_captured_runs_with_one_line(name: str) -> None:
    function, text = CANNOT[name]
    net = Across(function).to(bench.NAME).eval()
    fast, lines = said(lambda: sc.capture(net, scan(60)))
    assert len(lines) == 1 and text in lines[0] and "\n" not in lines[0]
    assert fast.reason in lines[0]
    x = scan(50, 1)
    if name != "text":
        assert_same(fast(x), net(x))
    assert said(lambda: fast(x))[1] == []


def test_autocast_is_part_of_what_was_captured() -> None:
    net = Heads().to(bench.NAME).eval()
    with torch.autocast(bench.NAME, torch.bfloat16):
        fast = captured(net, scan(150))
        x = scan(140, 1)
        assert_same(fast(x), net(x))
    result, lines = said(lambda: fast(x))
    assert "autocast" in lines[0] and result["rows"].dtype == torch.float32


def test_training_mode_is_refused() -> None:
    net = nn.Sequential(nn.Sequential(nn.BatchNorm3d(4))).to(bench.NAME)
    with pytest.raises(sc.SparseConvValueError, match=r"model: .*call model.eval\(\)"):
        sc.capture(net, scan(20))
    fast = captured(net.eval(), scan(20))
    net.train()
    with pytest.raises(sc.SparseConvValueError, match="training mode"):
        fast(scan(20))

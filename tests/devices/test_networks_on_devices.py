"""Whole networks on a device: no wait on known maps, normalisations folded, bounded copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, random_input
from devices import bench
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.engines.torch import block_products, maps
from sparseconv.models import UNet

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")
SIZE = (9, 10, 11)


@pytest.fixture(autouse=True)
def plain_engine() -> Any:
    with sc.engine("torch"):
        yield


def network(training: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return UNet(4, 3, (8, 16, 24)).to(bench.NAME).train(training)


def scan(count: int = 150) -> sc.SparseTensor:
    return random_input(count, 4, SIZE, batch=2, dtype=torch.float32).to(bench.NAME)


FORWARD: dict[str, Callable[[], nn.Module]] = {
    "evaluation": network,
    "optimized": lambda: sc.optimize(network()),
    "training": lambda: network(training=True),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_forward_on_known_maps_never_waits(name: str) -> None:
    net, x = FORWARD[name](), scan()
    net(x)
    assert bench.counted(lambda: net(x)).syncs == {}


def test_normalisations_are_folded_on_devices() -> None:
    net, x = network(), scan()
    fast = sc.optimize(net)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fast.modules())
    assert {p.device.type for p in fast.parameters()} == {bench.NAME}
    with torch.no_grad():
        assert_close(fast(x).features.cpu(), net(x).features.cpu().double())
        fewer, more = (bench.counted(lambda n=n: n(x)) for n in (fast, net))
    norms = sum(isinstance(module, nn.BatchNorm3d) for module in net.modules())
    assert fewer.totals[0] <= more.totals[0] - norms


class FromCoordinates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(sc.nn.SubmConv3d(2, 4, 3), nn.Conv3d(4, 4, 2, 2), nn.ReLU())

    def forward(self, features: Tensor, coords: Tensor) -> Tensor:
        y: Tensor = self.net(sc.SparseTensor(features, coords, SIZE, 1)).features
        return y


def test_a_program_makes_no_handle_on_the_device() -> None:
    """A handle there would be read by the host, with a wait, at every operator."""
    x = random_input(20, 2, SIZE, dtype=torch.float32)
    net = FromCoordinates()
    with torch.device("meta"):  # where all lands that names no device
        program = torch.export.export(net, (x.features, x.coords))
    values = [node.meta.get("val") for node in program.graph.nodes]
    tensors = [t for t in pytree_leaves(values) if isinstance(t, Tensor)]
    assert any(t.dtype == torch.int64 and t.ndim == 0 for t in tensors)  # the handles
    assert {t.device.type for t in tensors} == {"cpu"}


def pytree_leaves(value: Any) -> list[Any]:
    many = isinstance(value, list | tuple)
    return [leaf for entry in value for leaf in pytree_leaves(entry)] if many else [value]


@pytest.mark.parametrize("channels", [16, 192])
def test_no_copy_of_a_layer_exceeds_the_bound(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full cube, where each window has all its pairs; results themselves are no copies."""
    bound = 2**24
    for module in (block_products, maps):
        monkeypatch.setattr(module, "MAX_COPY", bound)
    side = 12 if channels > 16 else 24
    x = sc.SparseTensor.from_dense(torch.ones(1, 1, side, side, side))
    x = x.replace(torch.ones(x.num_sites, channels)).to(bench.NAME).requires_grad_()
    weight = torch.ones(channels, channels, 3, 3, 3).to(bench.NAME).requires_grad_()
    largest: list[int] = []

    def watch(operator: Any, args: Any, kwargs: Any, result: Any) -> None:
        made = [t for t in pytree_leaves(result) if isinstance(t, Tensor)]
        if not operator.is_view:
            largest.extend(t.numel() * t.element_size() for t in made)

    monkeypatch.setattr(bench, "watching", [watch])
    sc.functional.subm_conv(x, weight).features.sum().backward()
    pairs = 27 * x.num_sites
    assert pairs * channels * 4 > bound  # of which there would be copies without a bound
    assert max(largest) <= max(bound, weight.numel() * 4, 8 * pairs)

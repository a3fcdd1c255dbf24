"""A model written for spconv, and what `to_native` makes of it: the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import assert_close, random_mask
from spconv_cases import tensor_of
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.spconv_nets import SecondMiddle, SparseUNet, VoxelBackbone
from sparseconv.compat.spconv import flat
from sparseconv.compat.spconv import pytorch as spconv

SIZE = (9, 10)


def example(size: tuple[int, ...] = SIZE, channels: int = 3) -> spconv.SparseConvTensor:
    t = torch.randn(2, channels, *size, dtype=torch.float64)
    return tensor_of(t, random_mask(2, size, 0.3), 1)


class Block(spconv.SparseModule):
    """A residual block as clients write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = spconv.SubMConv2d(4, 4, 3, indice_key="same", bias=False)
        self.bn, self.relu = nn.BatchNorm1d(4), nn.ReLU()
        self.again = nn.BatchNorm1d(4)

    def forward(self, x: Any) -> Any:
        out = self.conv(x)
        out = out.replace_feature(self.relu(self.bn(out.features)))
        return out.replace_feature(self.again(out.features + x.features))


def layers() -> list[nn.Module]:
    return [
        spconv.SubMConv2d(3, 4, 3, indice_key="same"),
        spconv.SparseBatchNorm(4),
        Block(),
        spconv.SubMConv2d(4, 4, 1),
        nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
        spconv.SparseConv2d(4, 5, (3, 2), 2, 1, indice_key="down"),
        spconv.SparseReLU(),
        nn.Linear(5, 5),
        spconv.SparseInverseConv2d(5, 3, (3, 2), "down"),
        spconv.SparseMaxPool2d(2),
        spconv.SparseAvgPool2d(2, 1),
        spconv.SparseConvTranspose2d(3, 2, 3, 2, 1),
    ]


def randomized(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model.double()


@pytest.mark.parametrize("train", [False, True])
def test_layers_compute_the_same(train: bool) -> None:
    net = randomized(spconv.SparseSequential(*layers())).train(train)
    native = sc.compat.to_native(net)
    x = example()
    wanted, found = net(x), native(x.sparse)
    assert_close(found.dense(), wanted.dense())
    names = {type(module).__module__ for module in native.modules()}
    assert all(name.startswith(("torch", "sparseconv.nn")) for name in names)
    assert native.training is train
    assert net[0].weight.shape == (4, 3, 3, 3)  # the model itself stays


def test_the_native_model_trains_and_is_optimized() -> None:
    net = randomized(spconv.SparseSequential(*layers()[:7]))
    native = sc.compat.to_native(net).train()
    x = example()
    native(x.sparse).features.sum().backward()
    assert all(p.grad is not None for p in native.parameters())
    native.eval()
    fast = sc.optimize(native)
    assert_close(fast(x.sparse).features, native(x.sparse).features)
    assert sum(isinstance(module, sc.nn.FusedConvolution) for module in fast.modules()) == 4


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_the_native_model_makes_one_graph() -> None:
    native = sc.compat.to_native(randomized(spconv.SparseSequential(*layers()[:7]))).eval()
    x = example().sparse
    with torch.no_grad():
        compiled = torch.compile(native, backend="eager", fullgraph=True)
        assert_close(compiled(x).features, native(x).features)


class Own(nn.Module):
    """A network that makes its own tensor, and a dense one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = spconv.SparseSequential(*layers()[:7])

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        return self.net(spconv.SparseConvTensor(features, indices, list(SIZE), 2)).dense()


def test_a_forward_that_makes_tensors_is_rewritten() -> None:
    net = randomized(Own()).eval()
    x = example()
    native = sc.compat.to_native(net)
    assert_close(native(x.features, x.indices), net(x.features, x.indices))


@pytest.mark.parametrize("kind", [VoxelBackbone, SecondMiddle, SparseUNet])
def test_networks_of_clients_compute_the_same(kind: Any) -> None:
    widths = {SparseUNet: {"widths": (4, 4, 6, 6, 4), "depths": (1, 1, 1, 1)}}
    options = widths.get(kind, {"widths": (4, 4, 6, 6)[: 4 - (kind is SecondMiddle)]})
    net = randomized(kind(spconv, **options)).eval()
    size = (41, 16, 16)
    x = example(size, 4)
    scan = x.features, x.indices, list(size), 2
    assert_close(sc.compat.to_native(net)(*scan), net(*scan))


def test_models_of_version_1_compute_the_same() -> None:
    net = flat.SparseSequential(flat.SubMConv2d(3, 4, 3), flat.SparseConv2d(4, 2, 1)).double()
    x = example()
    assert_close(sc.compat.to_native(net)(x.sparse).features, net(x).features)


def test_max_pooling_from_0_stays_from_0() -> None:
    pool = spconv.SparseMaxPool2d(2)
    pool.from_zero = True
    x = example()
    assert_close(sc.compat.to_native(pool)(x.sparse).features, pool(x).features)


class Asking(spconv.SparseModule):
    def forward(self, x: Any) -> Any:
        return x if x.features.sum() > 0 else x.minus()


REFUSED = {
    "an inverse without its layer": (
        lambda: spconv.SparseInverseConv2d(3, 3, 2, "gone"), "leaves the key 'gone'"),
    "a forward that asks": (Asking, "torch.fx cannot follow the forward of Asking"),
    "four axes": (lambda: spconv.SparseConvTranspose4d(2, 2, 2), "no counterpart over 4 axes"),
    "submanifold pooling": (lambda: spconv.pool.SparseMaxPool(2, 3, subm=True), "input's sites"),
    "an even window": (lambda: spconv.SubMConv2d(2, 2, 2), "must be odd"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_named(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(sc.SparseConvError, match=message):
        sc.compat.to_native(make())

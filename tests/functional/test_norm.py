"""Group, instance, layer and RMS normalisation: over active sites, per sample, in any company."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import (
    DTYPES,
    assert_close,
    generator,
    permuted,
    random_input,
    random_mask,
    skip_unless_it_can,
    sparse,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

TOLERANT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

pytestmark = pytest.mark.usefixtures("engine")

INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "batch": lambda axes: BATCH[axes](6),
    "batch-stateless": lambda axes: BATCH[axes](6, affine=False, track_running_stats=False),
    "sync": lambda axes: nn.SyncBatchNorm(6),
    "instance": lambda axes: INSTANCE[axes](6),
    "instance-running": lambda axes: INSTANCE[axes](6, affine=True, track_running_stats=True),
    "group": lambda axes: nn.GroupNorm(2, 6),
    "group-of-one": lambda axes: nn.GroupNorm(6, 6, affine=False),
    "group-of-all": lambda axes: nn.GroupNorm(1, 6, eps=0.1),
}


def made(name: str, axes: int) -> nn.Module:
    layer = LAYERS[name](axes).double()
    for entry in layer.parameters():
        nn.init.normal_(entry)
    return layer


def results(layer: nn.Module, x: Any, leaf: Tensor, cotangent: Tensor | None) -> list[Tensor]:
    """Return output, gradients and running statistics."""
    y = layer(x)
    y = y.dense() if isinstance(y, sc.SparseTensor) else y
    cotangent = torch.ones_like(y) if cotangent is None else cotangent
    grads = torch.autograd.grad(y, [leaf, *layer.parameters()], cotangent)
    return [y, *grads, *(buffer.double() for buffer in layer.buffers())]


@pytest.mark.parametrize("name", LAYERS)
@given(axes=st.integers(1, 3), batch=st.integers(1, 3), seed=st.integers(0, 999))
def test_with_every_site_active_it_is_torchs(
    engine: str, name: str, axes: int, batch: int, seed: int
) -> None:
    size = (3, 4, 2)[:axes]
    t = torch.randn(batch, 6, *size, generator=generator(seed), dtype=torch.float64) + 3
    cotangent = torch.randn(t.shape, generator=generator(seed + 1), dtype=torch.float64)
    layer = made(name, axes)
    twin = copy.deepcopy(layer)
    for training in (True, True, False):
        layer.train(training), twin.train(training)
        dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
        x = sparse(rows, torch.ones(batch, *size, dtype=torch.bool), seed)
        for got, wanted in zip(
            results(layer, x, rows, cotangent), results(twin, dense, dense, cotangent), strict=True
        ):
            assert_close(got / 100, wanted / 100)


@pytest.mark.parametrize("name", ["instance", "group", "group-of-all"])
@given(density=st.sampled_from([0.1, 0.5, 0.9]), seed=st.integers(0, 999))
def test_a_sample_is_normalised_over_its_own_active_sites(
    engine: str, name: str, density: float, seed: int
) -> None:
    mask = random_mask(3, (4, 5), density, seed, empty_sample=True)
    t = torch.randn(3, 6, 4, 5, generator=generator(seed), dtype=torch.float64)
    layer = made(name, 2)
    y = layer(sparse(t, mask, seed)).dense()
    for number in range(3):
        rows = t[number][:, mask[number]]
        if rows.shape[1] < 2:
            continue
        line = LAYERS[name](1).double()
        line.load_state_dict(layer.state_dict())
        assert_close(y[number][:, mask[number]], line(rows[None])[0])


@pytest.mark.parametrize("name", [*LAYERS, "layer", "rms"])
def test_empty_and_single_site_samples_are_finite(name: str) -> None:
    layer = {"layer": nn.LayerNorm(6), "rms": nn.RMSNorm(6)}.get(name)
    layer = made(name, 2) if layer is None else layer.double()
    state = copy.deepcopy(layer.state_dict())
    for coords in ([], [[1, 0, 0]], [[0, 1, 1], [2, 0, 0], [2, 1, 1]]):
        rows = torch.tensor(coords, dtype=torch.int64).reshape(-1, 3)
        features = torch.randn(len(coords), 6, dtype=torch.float64, requires_grad=True)
        layer.load_state_dict(state)
        y = layer(sc.SparseTensor(features, rows, (3, 3), 3))
        y.features.pow(2).sum().backward()
        assert y.features.isfinite().all()
        assert features.grad.isfinite().all()
        assert all(buffer.isfinite().all() for buffer in layer.buffers())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_derivatives(name: str, training: bool) -> None:
    layer = made(name, 2).train(training)
    x = random_input(11, 6, (3, 4), batch=2)
    state = copy.deepcopy(layer.state_dict())
    names = [key for key, _ in layer.named_parameters()]

    def rows(features: Tensor, *parameters: Tensor) -> Tensor:
        layer.load_state_dict(state)
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, given, (x.replace(features),)).features

    inputs = [x.features, *layer.parameters()]
    inputs = [entry.detach().clone().requires_grad_() for entry in inputs]
    assert gradcheck(rows, inputs)
    assert gradgradcheck(rows, inputs)
    if len(inputs) > 1:
        frozen = [inputs[0].detach(), *inputs[1:]]
        assert gradgradcheck(rows, frozen)


@pytest.mark.parametrize("layer", [nn.LayerNorm(5), nn.RMSNorm(5), nn.LayerNorm(5, bias=False)])
def test_a_norm_over_channels_is_torchs_on_channels_last(layer: nn.Module) -> None:
    layer = layer.double()
    t = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    x = sparse(t, torch.ones(2, 3, 4, dtype=torch.bool))
    assert_close(layer(x).dense(), layer(t.movedim(1, -1)).movedim(-1, 1))
    parameters = [entry.detach().clone().requires_grad_() for entry in layer.parameters()]
    names = [key for key, _ in layer.named_parameters()]

    def rows(features: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x.replace(features),)).features

    inputs = (x.features.requires_grad_(), *parameters)
    assert gradcheck(rows, inputs)
    assert gradgradcheck(rows, inputs)


def bits(layer: nn.Module, x: sc.SparseTensor) -> list[Tensor]:
    """Return output, input gradient and gradients of the parameters, in float32."""
    layer = copy.deepcopy(layer)
    x = x.detach().requires_grad_()
    y = layer(x)
    cotangent = torch.sin(x.features.detach() * 3)
    grads = torch.autograd.grad(y.features, [x.features, *layer.parameters()], cotangent)
    sparse_grad = x.detach().replace(grads[0]).dense()
    return [y.detach().dense(), sparse_grad, *grads[1:], *layer.buffers()]


NAMES = [*LAYERS, "layer", "rms"]


def float32_layer(name: str) -> nn.Module:
    other = {"layer": nn.LayerNorm(6), "rms": nn.RMSNorm(6)}
    layer = other[name] if name in other else LAYERS[name](3)
    for entry in layer.parameters():
        nn.init.normal_(entry)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_threads_and_order_change_no_bit(name: str, training: bool, as_users_run: None) -> None:
    layer = float32_layer(name).train(training)
    x = random_input(5003, 6, (20, 20, 20), batch=2, dtype=torch.float32)
    expected = bits(layer, x)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for got, wanted in zip(bits(layer, x), expected, strict=True):
                assert torch.equal(got, wanted)
    finally:
        torch.set_num_threads(threads)
    for got, wanted in zip(bits(layer, permuted(x))[:2], expected, strict=False):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["instance", "group", "group-of-all", "layer", "rms"])
def test_the_company_of_samples_changes_no_bit(name: str, as_users_run: None) -> None:
    layer = float32_layer(name)
    sizes = (700, 3, 64, 65)
    parts = [random_input(count, 6, (9, 9, 9), seed=count, dtype=torch.float32) for count in sizes]
    y, grad, *_ = bits(layer, sc.collate(parts))
    for number, part in enumerate(parts):
        assert all(map(torch.equal, bits(layer, part)[:2], (y[[number]], grad[[number]])))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["batch", "instance", "group"])
def test_half_precision_keeps_its_statistics_in_float32(
    engine: str, name: str, dtype: torch.dtype
) -> None:
    skip_unless_it_can(engine, dtype)
    layer = made(name, 3).to(dtype)
    x = random_input(900, 6, dtype=dtype)
    x = x.replace(x.features + 20)
    judge = copy.deepcopy(layer).double()
    y = layer(x)
    assert y.dtype == dtype
    assert_close(y.features, judge(x.double()).features)


BAD: dict[str, Callable[[sc.SparseTensor], Any]] = {
    "num_groups": lambda x: F.group_norm(x, 4),
    "weight": lambda x: F.instance_norm(x, weight=torch.ones(5)),
    "bias": lambda x: F.group_norm(x, 2, bias=torch.ones(5)),
    "normalized_shape": lambda x: F.layer_norm(x, (5, 5)),
    "running_mean": lambda x: F.batch_norm(x, None, None),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
}


@pytest.mark.parametrize("named", BAD)
def test_a_wrong_call_names_its_argument(named: str) -> None:
    with pytest.raises(sc.SparseConvError, match=named):
        BAD[named](random_input(20, 6, (6, 6, 6), dtype=torch.float32))


def test_batch_norm_in_four_axes() -> None:
    layer = sc.nn.BatchNorm4d(3).double()
    t = torch.randn(2, 3, 2, 3, 2, 2, dtype=torch.float64)
    x = sparse(t, torch.ones(2, 2, 3, 2, 2, dtype=torch.bool))
    assert_close(copy.deepcopy(layer)(x).dense(), layer(t))
    with pytest.raises(sc.SparseConvError, match="input"):
        layer(t[0])


def test_sync_batch_norm_in_one_process_is_batch_norm() -> None:
    t = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x = sparse(t, torch.rand(2, 4, 4) < 0.5)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    synchronised = sc.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    assert isinstance(synchronised[0], sc.nn.SyncBatchNorm)
    assert_close(synchronised(x).features, plain(x).features)
    assert_close(synchronised(t), plain(t))
    assert synchronised.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(synchronised.state_dict()[name], value)
    assert_close(synchronised.eval()(x).features, plain.eval()(x).features)
    with pytest.raises(sc.SparseConvError, match="input"):
        synchronised(t[0, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eps", [1e-3, np.float64(1e-3), np.float32(1e-3), torch.tensor(1e-3)])
def test_what_is_added_to_a_variance_may_be_a_number_of_any_library(
    dtype: torch.dtype, eps: Any
) -> None:
    rows = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = sc.SparseTensor(rows, torch.arange(5)[:, None].expand(-1, 2) * torch.tensor([0, 1]))
    mean, variance = torch.linspace(-1, 1, 24), torch.linspace(0.1, 2, 24)
    with torch.no_grad():
        y = F.batch_norm(x, mean, variance, eps=eps)
    exact = (rows.double() - mean) / (variance.double() + 1e-3).sqrt()
    assert torch.allclose(y.features.double(), exact, rtol=TOLERANT[dtype], atol=TOLERANT[dtype])


def test_a_variance_without_an_inverse_gives_what_torch_gives() -> None:
    """Infinities and NaN, and no warning."""
    rows = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    x = sc.SparseTensor(rows, torch.tensor([[0, 0]]))
    statistics = torch.tensor([0.5, 1.0, 3.0, 0.0]), torch.tensor([0.0, -1.0, 0.0, 0.0])
    with torch.no_grad():
        y = F.batch_norm(x, *statistics, eps=0.0)
        dense = F.batch_norm(rows, *statistics, eps=0.0)
    assert not bool(dense.isfinite().any())
    assert torch.equal(y.features.isnan(), dense.isnan())
    assert torch.equal(y.features.nan_to_num(0), dense.nan_to_num(0))

"""Normalisation, activations, dropout, and the functions that have no sparse meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import GRID, assert_close, random_input
from torch import nn

import sparseconv as sc
from sparseconv.functional.values.pointwise import ACTIVATIONS as FUNCTIONS

pytestmark = pytest.mark.usefixtures("engine")

BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
OPTIONS = {
    "default": {},
    "cumulative": {"momentum": None},
    "plain": {"affine": False},
    "stateless": {"track_running_stats": False},
    "eps": {"eps": 0.1, "momentum": 0.7},
}


def pair_of_norms(axes: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Return a layer for grids and one for rows, with the same random state."""
    layer = BATCH_NORM[axes](3, **options).double()
    rows = nn.BatchNorm1d(3, **options).double()
    for entry in layer.parameters():
        nn.init.normal_(entry)
    rows.load_state_dict(layer.state_dict())
    return layer, rows


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("axes", BATCH_NORM)
def test_batch_norm_runs_over_active_sites(axes: int, options: dict[str, Any]) -> None:
    layer, rows = pair_of_norms(axes, **options)
    for step in range(4):
        layer.train(step < 3)
        rows.train(step < 3)
        x = random_input(8 + step, 3, GRID[axes], batch=2, seed=step).requires_grad_()
        judge = x.features.detach().clone().requires_grad_()
        y, expected = layer(x), rows(judge)
        assert y.sites is x.sites
        assert_close(y.features, expected)
        cotangent = torch.randn_like(expected)
        for got, wanted in zip(
            torch.autograd.grad(y.features, [x.features, *layer.parameters()], cotangent),
            torch.autograd.grad(expected, [judge, *rows.parameters()], cotangent),
            strict=True,
        ):
            assert_close(got, wanted)
    for mine, theirs in zip(layer.buffers(), rows.buffers(), strict=True):
        assert_close(mine.double(), theirs.double(), torch.float64)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("count", [0, 1])
def test_batch_norm_without_enough_sites_to_learn_from(count: int, affine: bool) -> None:
    """In training the output is the bias and the running statistics stay; no step diverges."""
    layer, _ = pair_of_norms(3, affine=affine)
    before = layer.running_mean.clone(), layer.running_var.clone()
    x = random_input(count, 3, GRID[3]).requires_grad_()
    y = layer(x)
    assert y.num_sites == count
    expected = (layer.bias if affine else torch.zeros(3, dtype=torch.float64)).expand(count, 3)
    assert_close(y.features, expected)
    y.features.sum().backward()
    assert_close(x.features.grad, torch.zeros(count, 3, dtype=torch.float64))
    assert torch.equal(layer.running_mean, before[0])
    assert torch.equal(layer.running_var, before[1])
    layer.eval()
    assert_close(layer(x).features, F.batch_norm(x.features, *before, layer.weight, layer.bias))


def test_batch_norm_checks_its_channels() -> None:
    with pytest.raises(sc.SparseConvValueError, match="4 channels, the input has 3"):
        nn.BatchNorm3d(4).double()(random_input(5, 3))


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.LeakyReLU(0.3),
    nn.ELU(0.7),
    nn.SELU(),
    nn.CELU(0.8),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardtanh(-0.5, 0.2),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Hardshrink(0.3),
    nn.Softshrink(0.3),
    nn.Softplus(2, 0.5),
    nn.Softsign(),
    nn.Tanhshrink(),
    nn.LogSigmoid(),
    nn.Threshold(0.1, 20),
    nn.RReLU(),
    nn.RReLU().eval(),
    nn.PReLU(3, 0.1),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Identity(),
    nn.Dropout(0.4),
    nn.AlphaDropout(0.4),
]


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_an_activation_acts_on_the_active_values(module: nn.Module) -> None:
    """Also where f(0) is not 0: inactive sites stay inactive."""
    module = module.double()
    x = random_input(12, 3).requires_grad_()
    judge = x.features.detach().clone().requires_grad_()
    torch.manual_seed(1)
    y = module(sc.SparseTensor.on_sites(x.features * 1, x.sites))
    torch.manual_seed(1)
    expected = module(judge * 1)
    assert y.sites is x.sites
    assert torch.equal(y.features, expected)
    (got,) = torch.autograd.grad(y.features.sum(), x.features)
    (wanted,) = torch.autograd.grad(expected.sum(), judge)
    assert torch.equal(got, wanted)


ARGUMENTS = {
    torch.threshold: (0.1, 0.2),
    F.threshold: (0.1, 0.2),
    F.threshold_: (0.1, 0.2),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_activation_function(function: Callable[..., Any]) -> None:
    x = random_input(12, 3)
    arguments = ARGUMENTS.get(function, ())
    torch.manual_seed(1)
    expected = function(x.features.clone(), *arguments)
    torch.manual_seed(1)
    y = function(x.replace(x.features.clone()), *arguments)
    assert isinstance(y, sc.SparseTensor)
    assert torch.equal(y.features, expected)


def test_in_place_means_in_place() -> None:
    x = random_input(12, 3)
    features = x.features
    nn.ReLU(inplace=True)(x)
    assert x.features is features
    assert float(features.min()) == 0


def test_dropout_scales_in_training_and_is_silent_otherwise() -> None:
    x = random_input(1000, 3).replace(torch.ones(1000, 3))
    y = nn.Dropout(0.25)(x).features
    assert set(y.flatten().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert 0.2 < float((y == 0).double().mean()) < 0.3
    assert torch.equal(nn.Dropout(0.0)(x).features, x.features)
    assert torch.equal(nn.Dropout(0.25).eval()(x).features, x.features)


def test_sequential_and_modules_inside_modules() -> None:
    inner = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Dropout(0.5))
    net = nn.Sequential(inner, nn.BatchNorm3d(3), nn.Sequential()).double().eval()
    x = random_input(10, 3)
    judge = nn.BatchNorm1d(3).double().eval()
    assert_close(net(x).features, judge(torch.relu(x.features)))


MEANINGLESS = {
    "torch.fft.fft": torch.fft.fft,
    "torch.linalg.norm": torch.linalg.norm,
    "torch.linalg.det": torch.linalg.det,
    "stft": lambda x: torch.stft(x, 4),
    "torch.nn.functional.unfold": lambda x: F.unfold(x, 3),
    "torch.nn.functional.bilinear": lambda x: nn.Bilinear(1, 1, 1)(x, x),
    "pad": lambda x: F.pad(x, (1, 1), value=1.0),
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_function_without_sparse_meaning_names_itself(name: str) -> None:
    with pytest.raises(sc.SparseConvNotImplementedError) as caught:
        MEANINGLESS[name](random_input(5, 3, (6, 7)))
    message = str(caught.value)
    assert name in message
    assert "dense()" in message  # what to use instead
    assert "\n" not in message
    assert isinstance(caught.value, NotImplementedError)

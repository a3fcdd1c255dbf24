"""PyTorch's transforms of functions: the same gradients, and nothing of them left in the caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close
from torch import Tensor, nn
from torch.func import functional_call, grad

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

CHANNELS = 4
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "submanifold": lambda: sc.nn.SubmConv3d(CHANNELS, 3, 3),
    "submanifold without bias": lambda: sc.nn.SubmConv3d(CHANNELS, 3, 3, bias=False),
    "partial": lambda: sc.nn.SubmPartialConv3d(CHANNELS, 3, 3),
    "strided": lambda: nn.Conv3d(CHANNELS, 3, 2, stride=2),
    "transposed": lambda: nn.ConvTranspose3d(CHANNELS, 3, 3, stride=2),
    "deformable": lambda: sc.nn.DeformConv3d(CHANNELS, 3, 3, padding=1),
    "evaluated batch norm": lambda: nn.BatchNorm3d(CHANNELS).eval(),
    "batch norm": lambda: nn.BatchNorm3d(CHANNELS, track_running_stats=False),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "layer norm": lambda: nn.LayerNorm(CHANNELS),
    "max pooling": lambda: nn.MaxPool3d(2),
    "average pooling": lambda: nn.AvgPool3d(2),
    "average of a sample": lambda: nn.AdaptiveAvgPool3d(1),
    "largest of a sample": lambda: nn.AdaptiveMaxPool3d(1),
    "network": lambda: nn.Sequential(
        sc.nn.SubmConv3d(CHANNELS, 3, 3), nn.ReLU(), nn.Conv3d(3, 2, 2, stride=2), nn.SiLU()
    ),
}  # fmt: skip


def _input() -> sc.SparseTensor:
    generator = torch.Generator().manual_seed(1)
    grid = torch.randn(2, CHANNELS, 4, 4, 4, generator=generator, dtype=torch.float64)
    return sc.SparseTensor.from_dense(grid, torch.rand(2, 4, 4, 4, generator=generator) < 0.5)


def _loss(layer: nn.Module, x: sc.SparseTensor) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    def loss(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        out: Any = functional_call(layer, parameters, (x.replace(features),))
        return out.features.pow(3).sum()

    return loss


def _leaves(layer: nn.Module, x: sc.SparseTensor) -> tuple[dict[str, Tensor], Tensor]:
    parameters = {name: p.detach().requires_grad_() for name, p in layer.named_parameters()}
    return parameters, x.features.clone().requires_grad_()


@pytest.mark.parametrize("name", LAYERS)
def test_grad_is_that_of_autograd(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name]().double(), _input()
    plain = {name: p.detach() for name, p in layer.named_parameters()}
    by_weights, by_input = grad(_loss(layer, x), argnums=(0, 1))(plain, x.features)
    fresh = _input()
    parameters, features = _leaves(layer, fresh)
    wanted = torch.autograd.grad(
        _loss(layer, fresh)(parameters, features), [*parameters.values(), features]
    )
    for found, right in zip([*by_weights.values(), by_input], wanted, strict=True):
        assert_close(found, right)
    # what was cached under the transform serves the next layer outside of it
    assert_close(layer(x).features, layer(fresh).features)


@pytest.mark.parametrize("name", LAYERS)
def test_grad_of_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name]().double(), _input()
    plain = {name: p.detach() for name, p in layer.named_parameters()}
    loss = _loss(layer, x)

    def steepness(features: Tensor) -> Tensor:
        return grad(loss, argnums=1)(plain, features).square().sum()

    found = grad(steepness)(x.features)
    parameters, features = _leaves(layer, x)
    (first,) = torch.autograd.grad(loss(parameters, features), features, create_graph=True)
    (wanted,) = torch.autograd.grad(first.square().sum(), features)
    assert_close(found, wanted)

"""Functions that work in place follow every layer, as they do on dense tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import GRID, LAYERS, Layer, random_input
from torch import nn

import sparseconv as sc

POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
    "deformable": lambda: sc.nn.DeformConv2d(16, 16, 3, padding=1, bias=False),
    "partial": lambda: sc.nn.PartialConv2d(16, 16, 3, padding=1, bias=False),
}


def same_gradient(run: Callable[[sc.SparseTensor], sc.SparseTensor], x: sc.SparseTensor) -> None:
    grads = []
    for in_place in (False, True):
        leaf = x.features.clone().requires_grad_()
        y = nn.functional.relu(run(x.replace(leaf)), inplace=in_place)
        y.features.square().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_without_bias_takes_a_relu_in_place(
    name: str, count: int, channels: int, engine: str
) -> None:
    options = vars(LAYERS[name]) | {"bias": False, "c_out": channels}
    layer = Layer(**options)
    size = tuple(extent + 2 for extent in GRID[layer.axes])
    x = random_input(count, layer.in_channels, size)
    if layer.kind == "inverse":
        down = Layer(**options | {"kind": "conv", "groups": 1, "c_in": 1, "c_out": x.channels})
        x = down(x.replace(x.features[:, :1]), *down.parameters())
    weight, _ = layer.parameters()
    same_gradient(lambda x: layer(x, weight, None), x)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("name", POOLS)
def test_another_layer_takes_a_relu_in_place(name: str, count: int, engine: str) -> None:
    same_gradient(POOLS[name]().double(), random_input(count, 16, (6, 6)))

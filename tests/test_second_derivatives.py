"""First and second derivatives of every convolution, by finite differences in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import LAYERS, Problem
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

GRID = {1: (7,), 2: (4, 4), 3: (3, 3, 3), 4: (3, 2, 2, 3)}


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives(name: str) -> None:
    layer = replace(LAYERS[name], c_out=1)
    problem = Problem(layer, GRID[layer.axes], density=0.5)
    t, weight, bias = problem.leaves()
    x = problem.input(t.detach())
    assert x.num_sites > 0

    def rows(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return layer(x.replace(features), weight, bias).features

    features = x.features.clone().requires_grad_()
    assert gradcheck(rows, (features, weight, bias))
    assert gradgradcheck(rows, (features, weight, bias))


def test_a_gradient_penalty_reaches_the_weights_of_a_network() -> None:
    """Two layers deep, so that the second derivative runs through a rulebook and its swap."""
    x = Problem(LAYERS["subm3d"], GRID[3], density=0.6).input(
        torch.randn(2, 2, *GRID[3], dtype=torch.float64)
    )
    first = torch.randn(2, 2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def penalty(first: Tensor, second: Tensor) -> Tensor:
        seen = x.detach().requires_grad_()
        y = torch.tanh(sc.functional.subm_conv(seen, first))
        y = torch.nn.functional.conv3d(y, second, stride=2, padding=1, groups=2)
        y = sc.functional.inverse_conv(y, second, stride=2, padding=1, groups=2)
        (grad,) = torch.autograd.grad(y.features.sum(), seen.features, create_graph=True)
        return (grad**2).sum()

    assert gradcheck(penalty, (first, second))

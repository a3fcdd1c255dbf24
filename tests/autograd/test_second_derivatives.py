"""First and second derivatives of every convolution, by finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from cases import LAYERS, Problem, random_input
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


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(16, 16, 1), (16, 32, 16), (32, 32, 32)])
def test_a_gradient_on_the_tape_may_be_changed_in_place(c_in: int, c_out: int, groups: int) -> None:
    x = random_input(20, c_in, (6, 6, 6), dtype=torch.float32)
    layer = sc.nn.SubmConv3d(c_in, c_out, 3, groups=groups)
    squares = layer(x).features.square().sum()
    (grad,) = torch.autograd.grad(squares, layer.weight, create_graph=True)
    doubled = 2 * grad.detach()
    assert torch.equal(grad.mul_(2), doubled)


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


POINTS = torch.tensor([[0, 0.3, 1.2, 0.5, 0.4], [1, 0.1, 0.6, 0.9, 0.2]], dtype=torch.float64)

# what runs over four axes and has no window of its own to learn
PIECES: dict[str, Callable[[sc.SparseTensor, sc.SparseTensor], sc.SparseTensor | Tensor]] = {
    "union": lambda x, other: x + other,
    "product": lambda x, other: x * other,
    "quotient": lambda x, _: x / (2 + x.square()),
    "cat": lambda x, other: torch.cat([x, other], dim=1),
    "fill": lambda x, other: sc.cat([other, x], fill=2.0),
    "prune": lambda x, _: sc.prune(x, torch.arange(x.num_sites) % 2 == 0),
    "crop": lambda x, _: sc.crop(x, 0, 2),
    "softmax": lambda x, _: torch.softmax(x, 1),
    "normalize": lambda x, _: torch.nn.functional.normalize(x),
    "group_norm": lambda x, _: torch.nn.functional.group_norm(x, 1),
    "layer_norm": lambda x, _: torch.nn.functional.layer_norm(x, (2,)),
    "max_pool": lambda x, _: sc.functional.max_pool4d(x, 2, 1, 1),
    "avg_pool": lambda x, _: sc.functional.avg_pool4d(x, 2, 1, 1, count_include_pad=False),
    "norm": lambda x, _: torch.norm(x, 3, dim=(2, 3, 4, 5)),
    "var": lambda x, _: x.var((2, 3, 4, 5)),
    "samples": lambda x, _: sc.collate([x[1], x[0]]),
    "points": lambda x, _: sc.interpolate(x, POINTS),
    "dense": lambda x, _: x.dense(),
}


@pytest.mark.parametrize("name", PIECES)
def test_derivatives_over_four_axes(name: str) -> None:
    x = random_input(9, 2, (3, 2, 2, 3), batch=2)
    other = random_input(7, 2, (3, 2, 2, 3), batch=2, seed=5)

    def run(features: Tensor, others: Tensor) -> Tensor:
        y = PIECES[name](x.replace(features), other.replace(others))
        return (y.features if isinstance(y, sc.SparseTensor) else y) ** 2

    leaves = [t.features.clone().requires_grad_() for t in (x, other)]
    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)


@pytest.mark.parametrize("kind", ["partial_conv", "subm_partial_conv"])
def test_partial_convolution_over_four_axes(kind: str) -> None:
    x = random_input(6, 2, (3, 2, 2, 3))
    weight = torch.randn(1, 2, 3, 1, 1, 3, dtype=torch.float64, requires_grad=True)

    def run(features: Tensor, weight: Tensor) -> Tensor:
        return getattr(sc.functional, kind)(x.replace(features), weight).features

    if kind == "partial_conv":
        x = sc.union(x, random_input(6, 2, (3, 2, 2, 3), seed=3))
    leaves = (x.features.clone().requires_grad_(), weight)
    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)

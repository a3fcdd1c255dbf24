"""PyTorch's transforms of functions: the same gradients, and nothing of them left in the caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, linearize, vjp, vmap

import sparseconv as sc

pytestmark = [
    pytest.mark.usefixtures("engine"),
    # PyTorch scripts its own rules of forward derivatives, and warns of that and of linearize
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),
]

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


def _outputs(layer: nn.Module, x: sc.SparseTensor) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    def run(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        out: Any = functional_call(layer, parameters, (x.replace(features),))
        rows: Tensor = out.features
        return rows

    return run


@pytest.mark.parametrize("name", LAYERS)
def test_forward_derivatives_agree_with_backward_ones(name: str) -> None:
    """``<u, J v> = <J^T u, v>``, by a transform and by dual numbers."""
    torch.manual_seed(0)
    layer, x = LAYERS[name]().double(), _input()
    plain = {name: p.detach() for name, p in layer.named_parameters()}
    run = _outputs(layer, x)
    direction = torch.randn_like(x.features)
    by_weights = {name: torch.randn_like(p) for name, p in plain.items()}
    out, along = jvp(run, (plain, x.features), (by_weights, direction))
    assert_close(out, run(plain, x.features))
    cotangent = torch.randn_like(out)
    to_weights, to_input = vjp(run, plain, x.features)[1](cotangent)
    backward = (to_input * direction).sum()
    backward = backward + sum((to_weights[key] * by_weights[key]).sum() for key in plain)
    assert_close((cotangent * along).sum(), backward)
    with forward_ad.dual_level():
        duals = {key: forward_ad.make_dual(plain[key], by_weights[key]) for key in plain}
        rows = run(duals, forward_ad.make_dual(x.features, direction))
        assert_close(forward_ad.unpack_dual(rows).tangent, along)


@pytest.mark.parametrize("name", LAYERS)
def test_vmap_over_features_and_over_weights_is_a_loop(name: str) -> None:
    torch.manual_seed(0)
    layers, x = [LAYERS[name]().double() for _ in range(2)], _input()
    features = torch.stack([x.features, torch.randn_like(x.features)])
    run, alone = _outputs(layers[0], x), dict(layers[0].named_parameters())
    if name == "deformable":
        with pytest.raises(sc.SparseConvNotImplementedError, match="vmap"):
            vmap(run, in_dims=(None, 0))(alone, features)
        return
    mapped = vmap(run, in_dims=(None, 0), randomness="error")(alone, features)
    assert_close(mapped, torch.stack([run(alone, rows) for rows in features]))
    moved = vmap(run, in_dims=(None, 2), out_dims=1)(alone, features.movedim(0, 2))
    assert_close(moved, mapped.movedim(0, 1))
    stacked = {key: torch.stack([dict(e.named_parameters())[key] for e in layers]) for key in alone}
    if stacked:
        ensemble = vmap(run, in_dims=(0, None))(stacked, x.features)
        expected = [run(dict(entry.named_parameters()), x.features) for entry in layers]
        assert_close(ensemble, torch.stack(expected))
    each = vmap(grad(_loss(layers[0], x), argnums=1), in_dims=(None, 0))(alone, features)
    single = [grad(_loss(layers[0], x), argnums=1)(alone, rows) for rows in features]
    assert_close(each, torch.stack(single))


def test_transforms_take_and_return_sparse_tensors() -> None:
    layer, x = LAYERS["network"]().double(), _input()
    direction = x.replace(torch.randn_like(x.features))
    _, along = jvp(layer, (x,), (direction,))
    _, linear = linearize(lambda rows: layer(x.replace(rows)).features, x.features)
    assert_close(linear(direction.features), along.features)
    found = grad(lambda x: layer(x).features.sum())(x)
    assert isinstance(found, sc.SparseTensor) and found.sites is x.sites

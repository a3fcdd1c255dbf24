"""Convolutions against the dense run: padding law, dense law, site law, and the modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import (
    GRID,
    LAYERS,
    Layer,
    Problem,
    assert_close,
    dense_inverse,
    generator,
    gradients,
    problems,
    random_input,
    random_mask,
    sparse,
)
from hypothesis import given, settings
from torch import Tensor, nn

import sparseconv as sc
from sparseconv import reference

pytestmark = pytest.mark.usefixtures("engine")


def check(problem: Problem) -> None:
    """Compare sites, values and gradients with the dense run."""
    leaves, judges = problem.leaves(), problem.leaves()
    x = problem.input(leaves[0])
    y = problem.layer(x, *leaves[1:])
    expected = problem.run_dense(judges)
    assert y.shape == expected.shape
    assert torch.equal(y.mask()[:, 0], problem.out_mask)
    assert_close(y.dense(), expected)
    if problem.layer.kind == "inverse":
        assert y.sites is x.fine.sites
    elif problem.layer.kind == "subm" or problem.layer.is_pointwise:
        assert y.sites is x.sites
    else:
        assert torch.equal(y.coords, problem.out_mask.nonzero())  # sorted
    cotangent = problem.cotangent()
    for got, wanted in zip(
        gradients(y.dense(), leaves, cotangent),
        gradients(expected, judges, cotangent),
        strict=True,
    ):
        assert_close(got, wanted)


@given(problem=problems(["conv"]))
def test_conv_is_the_dense_one_at_active_sites(problem: Problem) -> None:
    check(problem)


@given(problem=problems(["transposed"]))
def test_conv_transpose_is_the_dense_one_at_active_sites(problem: Problem) -> None:
    check(problem)


@given(problem=problems(["subm"]))
def test_subm_conv_is_the_dense_one_at_its_own_sites(problem: Problem) -> None:
    check(problem)


@given(problem=problems(["inverse"]))
def test_inverse_conv_is_the_adjoint_at_the_sites_that_were_read(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("kind", ["conv", "subm", "inverse"])
def test_four_axes_are_the_reference(kind: str) -> None:
    @given(problem=problems([kind], axes=[4]))
    @settings(max_examples=max(2, settings.default.max_examples // 5))
    def property_of(problem: Problem) -> None:
        check(problem)

    property_of()


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("name", LAYERS)
def test_no_site_and_every_site(name: str, density: float) -> None:
    check(Problem(LAYERS[name], GRID[LAYERS[name].axes], density=density))


@pytest.mark.parametrize(
    "name", [n for n, layer in LAYERS.items() if layer.axes < 4 and layer.kind != "inverse"]
)
def test_from_dense_with_every_site_is_the_dense_tensor(name: str) -> None:
    """The dense law as it is written: from_dense, layer, dense."""
    problem = Problem(LAYERS[name], GRID[LAYERS[name].axes], density=1.0)
    t, weight, bias = problem.leaves()
    y = problem.layer(sc.SparseTensor.from_dense(t), weight, bias).dense()
    expected = problem.run_dense([t, weight, bias])
    reached = problem.out_mask.unsqueeze(1)
    assert_close(y, expected * reached)
    cotangent = problem.cotangent()
    leaves = [t, weight, bias]
    for got, wanted in zip(
        gradients(y, leaves, cotangent), gradients(expected, leaves, cotangent), strict=True
    ):
        assert_close(got, wanted)


@pytest.mark.parametrize(
    "name",
    [n for n, layer in LAYERS.items() if layer.kind in ("subm", "inverse") or n == "conv4d"],
)
def test_our_functions_take_dense_tensors(name: str) -> None:
    layer = LAYERS[name]
    problem = Problem(layer, GRID[layer.axes], density=1.0)
    leaves, judges = problem.leaves(), problem.leaves()
    options = {"like": torch.zeros(1, 1, *problem.size)} if layer.kind == "inverse" else {}
    function = {
        "conv": sc.functional.conv4d,
        "subm": sc.functional.subm_conv,
        "inverse": sc.functional.inverse_conv,
    }[layer.kind]
    y = function(*leaves, groups=layer.groups, **layer.window, **options)
    expected = layer.dense(*judges, problem.size)
    assert_close(y, expected)
    cotangent = torch.randn(expected.shape, generator=generator(3), dtype=torch.float64)
    for got, wanted in zip(
        gradients(y, leaves, cotangent), gradients(expected, judges, cotangent), strict=True
    ):
        assert_close(got, wanted)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_dense_inverse_returns_to_the_extent_of_like(axes: int, extra: int) -> None:
    """Two input extents lead to one output extent; `like` says which one to go back to."""
    fine = tuple(n + extra for n in (4, 4, 4, 4)[:axes])
    t = torch.randn(1, 2, *(2,) * axes, dtype=torch.float64)
    weight = torch.randn(2, 1, *(2,) * axes, dtype=torch.float64)
    y = sc.functional.inverse_conv(t, weight, stride=2, like=torch.zeros(1, 1, *fine))
    assert_close(y, dense_inverse(t, weight, None, fine, stride=2))
    if not extra:
        shortest = sc.functional.inverse_conv(t, weight, stride=2)
        assert torch.equal(shortest, y)


def test_conv4d_on_dense_input_takes_the_named_paddings() -> None:
    t = torch.randn(1, 1, 3, 2, 3, 2, dtype=torch.float64)
    weight = torch.randn(1, 1, 2, 1, 3, 2, dtype=torch.float64)
    for padding in ("same", "valid"):
        y = sc.functional.conv4d(t, weight, padding=padding)
        assert_close(y, reference.conv(t, weight, padding=padding))


def same_state(layer: nn.Module, judge: nn.Module) -> None:
    """Give both modules the same parameters, through their state dicts."""
    judge.load_state_dict(layer.state_dict())


SUBM = {1: sc.nn.SubmConv1d, 2: sc.nn.SubmConv2d, 3: sc.nn.SubmConv3d, 4: sc.nn.SubmConv4d}

# a layer, the dense module that judges it, and the arguments of both
MODULES: dict[str, tuple[Any, Any, tuple[Any, ...], dict[str, Any]]] = {
    "Conv1d": (nn.Conv1d, nn.Conv1d, (4, 6, 3, 2, 1), {"groups": 2}),
    "Conv2d": (nn.Conv2d, nn.Conv2d, (4, 4, (3, 2)), {"dilation": 2}),
    "Conv2d-same": (nn.Conv2d, nn.Conv2d, (4, 2, 3), {"padding": "same"}),
    "Conv3d": (nn.Conv3d, nn.Conv3d, (4, 4, 3, 2, 1), {"groups": 4}),
    "ConvTranspose1d": (nn.ConvTranspose1d, nn.ConvTranspose1d, (4, 2, 3, 2, 1, 1), {}),
    "ConvTranspose2d": (nn.ConvTranspose2d, nn.ConvTranspose2d, (4, 6, 2, 2), {"groups": 2}),
    "ConvTranspose3d": (nn.ConvTranspose3d, nn.ConvTranspose3d, (4, 2, 3), {"bias": False}),
    "SubmConv1d": (SUBM[1], nn.Conv1d, (4, 6, 5), {}),
    "SubmConv2d": (SUBM[2], nn.Conv2d, (4, 6, (3, 1)), {"dilation": 2, "groups": 2}),
    "SubmConv3d": (SUBM[3], nn.Conv3d, (4, 3, 3), {"bias": False}),
}


def layer_and_judge(name: str) -> tuple[nn.Module, nn.Module]:
    """Return both modules with the same parameters, shared through the state dict."""
    ours, theirs, args, options = MODULES[name]
    layer = ours(*args, **options).double()
    judge = theirs(*args, **options, **({"padding": "same"} if "Subm" in name else {})).double()
    judge.load_state_dict(layer.state_dict())
    return layer, judge


@pytest.mark.parametrize("name", MODULES)
def test_modules_share_weights_and_numbers_with_torch(name: str) -> None:
    layer, judge = layer_and_judge(name)
    axes = layer.weight.ndim - 2
    t = torch.randn(2, 4, *GRID[axes], generator=generator(1), dtype=torch.float64)
    mask = random_mask(2, GRID[axes], 0.5).unsqueeze(1)
    y = layer(sc.SparseTensor.from_dense(t, mask))
    assert_close(y.dense(), judge(t * mask) * y.mask())
    full = layer(sc.SparseTensor.from_dense(t, torch.ones_like(mask)))
    assert_close(full.dense(), judge(t))
    assert_close(layer(t), judge(t))
    (full.features**2).sum().backward()
    (judge(t) ** 2).sum().backward()
    for (key, parameter), other in zip(layer.named_parameters(), judge.parameters(), strict=True):
        assert parameter.grad is not None, key
        assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_a_convolution_and_its_inverse_share_one_weight(axes: int) -> None:
    """The inverse module takes the convolution's own weight tensor and arguments."""
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d, 4: sc.nn.Conv4d}[axes]
    down = make(2, 4, 3, bias=False, **options).double()
    inverse = getattr(sc.nn, f"InverseConv{axes}d")(4, 2, 3, bias=False, **options).double()
    inverse.load_state_dict(down.state_dict())
    mask = random_mask(2, GRID[axes], 0.5)
    t = torch.randn(2, 2, *GRID[axes], dtype=torch.float64)
    x = sparse(t, mask, seed=3)
    coarse = down(x)
    up = inverse(coarse)
    assert up.sites is x.sites
    expected = dense_inverse(coarse.dense(), down.weight, None, GRID[axes], **options)
    assert_close(up.dense(), expected * mask.unsqueeze(1))
    if axes < 4:
        dense_up = inverse(coarse.dense(), like=t)
        assert_close(dense_up, expected)


def test_conv4d_module_is_the_reference() -> None:
    layer = sc.nn.Conv4d(2, 4, (2, 1, 3, 2), 2, 1, groups=2).double()
    t = torch.randn(2, 2, *GRID[4], dtype=torch.float64)
    expected = reference.conv(t, layer.weight, layer.bias, 2, 1, 1, 2)
    assert_close(layer(t), expected)
    y = layer(sc.SparseTensor.from_dense(t))
    assert_close(y.dense(), expected * y.mask())


def test_conv_transpose_takes_an_output_size() -> None:
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2).double()
    t = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    y = layer(sc.SparseTensor.from_dense(t), output_size=[8, 7])
    assert y.shape == (1, 1, 8, 7)
    assert_close(y.dense(), layer(t, output_size=[8, 7]) * y.mask())


def test_initial_weights_are_torchs() -> None:
    torch.manual_seed(3)
    ours = sc.nn.SubmConv3d(3, 5, 3)
    torch.manual_seed(3)
    theirs = nn.Conv3d(3, 5, 3)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    torch.manual_seed(3)
    inverse = sc.nn.InverseConv2d(3, 5, 2, stride=2)
    torch.manual_seed(3)
    transposed = nn.ConvTranspose2d(3, 5, 2, stride=2)
    assert torch.equal(inverse.weight, transposed.weight)
    assert list(inverse.state_dict()) == list(transposed.state_dict())


def network(axes: int) -> nn.Sequential:
    """A network of PyTorch's own layers."""
    conv, norm, transposed = (
        getattr(nn, f"{name}{axes}d") for name in ("Conv", "BatchNorm", "ConvTranspose")
    )
    return nn.Sequential(
        conv(2, 4, 3, padding=1, bias=False),
        norm(4),
        nn.ReLU(),
        conv(4, 6, 2, stride=2),
        norm(6),
        nn.LeakyReLU(0.1, inplace=True),
        conv(6, 6, 3, padding=2, dilation=2, groups=3),
        nn.ReLU(),
        transposed(6, 2, 2, stride=2),
    ).double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_network_of_torchs_layers_is_the_same_on_a_full_sparse_tensor(
    axes: int, training: bool
) -> None:
    net, judge = network(axes), network(axes)
    judge.load_state_dict(net.state_dict())
    runs: list[tuple[Tensor, Tensor, nn.Module]] = []
    for module, full in ((net, True), (judge, False)):
        module.train()
        source = generator(1)
        for _ in range(2):
            shape = (2, 2, *(4, 6, 4)[:axes])
            t = torch.randn(shape, generator=source, dtype=torch.float64, requires_grad=True)
            module.train(training)
            x = sc.SparseTensor.from_dense(t, torch.ones_like(t[:, :1]).bool()) if full else t
            y = module(x)
            y = y.dense() if full else y
            y.backward(torch.randn(y.shape, generator=source, dtype=torch.float64))
        runs.append((y, t.grad, module))
    (y, x_grad, _), (expected, expected_grad, _) = runs
    assert_close(y, expected)
    assert_close(x_grad, expected_grad)
    for (name, mine), theirs in zip(net.named_parameters(), judge.parameters(), strict=True):
        # a bias in front of a normalisation has a gradient of rounding errors alone
        if training and name == "3.bias":
            assert float(mine.grad.abs().max()) < 1e-12
        else:
            assert_close(mine.grad, theirs.grad)
    for mine, theirs in zip(net.buffers(), judge.buffers(), strict=True):
        assert_close(mine.double(), theirs.double(), torch.float64)


@pytest.mark.parametrize("name", ["conv3d", "transposed2d", "subm3d", "inverse3d"])
def test_autocast_gives_the_dtype_that_the_dense_layer_gets(name: str) -> None:
    problem = Problem(LAYERS[name], GRID[LAYERS[name].axes])
    leaves = problem.leaves(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = problem.run(leaves)
        x = problem.input(leaves[0])
    assert y.dtype == torch.bfloat16
    assert x.dtype == torch.float32
    judges = problem.leaves()
    expected = problem.run_dense(judges)
    assert_close(y.dense(), expected)
    cotangent = problem.cotangent()
    for got, wanted in zip(
        gradients(y.dense(), leaves, cotangent), gradients(expected, judges, cotangent), strict=True
    ):
        assert got.dtype == torch.float32
        assert_close(got, wanted, torch.bfloat16)


@pytest.mark.parametrize("name", ["conv2d", "transposed2d", "subm2d", "inverse2d"])
def test_inputs_that_are_not_contiguous(name: str) -> None:
    problem = Problem(LAYERS[name], GRID[2])
    t, weight, bias = problem.leaves()
    spread_out = weight.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    x = problem.input(t)
    odd = x.replace(x.features.detach().repeat(1, 2)[:, : x.channels])
    assert not odd.features.is_contiguous()
    y = problem.layer(odd, spread_out, bias)
    cotangent = torch.ones(1, 1, dtype=torch.float64).expand(y.features.shape)
    (got,) = torch.autograd.grad(y.features, spread_out, cotangent)
    again = problem.layer(x.detach(), weight, bias)
    (expected,) = torch.autograd.grad(again.features.sum(), weight)
    assert torch.equal(y.features, again.features)
    assert_close(got, expected)


def test_numpy_integers_are_integers() -> None:
    """PyTorch takes them for stride and the like, so its layers pass them on."""
    x = random_input(12, 1, (6, 7))
    two = np.int64(2)
    layer = nn.Conv2d(1, 1, 3, stride=two, padding=(two, 1), bias=False).double()
    y = layer(x)
    assert y.spatial_shape == (4, 4)
    assert_close(y.dense(), layer(x.dense()) * y.mask())
    dilated = sc.functional.subm_conv(x, layer.weight, dilation=two)
    assert torch.equal(
        dilated.features, sc.functional.subm_conv(x, layer.weight, dilation=2).features
    )


def test_a_nan_stays_where_its_window_reaches() -> None:
    """Whatever is computed in one block with it."""
    for layer in (Layer("conv", (3, 3), padding=1), Layer("subm", (3, 3)), LAYERS["transposed2d"]):
        problem = Problem(layer, (9, 9), density=0.5)
        t, weight, bias = problem.leaves()
        x = problem.input(t.detach())
        clean = problem.layer(x, weight, bias)
        x.features[3] = torch.nan
        y = problem.layer(x, weight, bias)
        touched = y.features.isnan().any(dim=1)
        alone = torch.zeros_like(problem.in_mask)
        alone[tuple(x.coords[3].tolist())] = True
        reached = layer.sites(alone) if layer.kind != "subm" else dilate(alone)
        assert torch.equal(touched, reached[tuple(y.coords.unbind(1))])
        assert torch.equal(y.features[~touched], clean.features[~touched])


def dilate(mask: Tensor) -> Tensor:
    """Return the 3 by 3 neighbourhood of a mask."""
    return reference.conv_sites(mask, 3, padding=1)


def test_a_layer_that_needs_no_gradient_of_its_input(engine: str) -> None:
    layer: Any = Layer("conv", (3, 3), c_in=2)
    problem = Problem(layer, (5, 5))
    t, weight, bias = problem.leaves()
    frozen = problem.layer(problem.input(t.detach()), weight, bias)
    frozen.features.sum().backward()
    assert weight.grad is not None
    assert bias.grad is not None
    (x_grad,) = torch.autograd.grad(
        problem.layer(problem.input(t), weight.detach(), None).features.sum(), t
    )
    assert x_grad.shape == t.shape

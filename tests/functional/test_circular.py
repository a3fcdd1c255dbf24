"""Axes that wrap around, and other borders: PyTorch's padding modes, circular axes of a grid."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import assert_close, permuted, random_mask, sparse
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import sparseconv as sc

SIZE = (6, 8)
AROUND = sc.Grid((0.0, 0.0), (1.0, 1.0), circular=(False, True))
WINDOWS: dict[str, dict[str, Any]] = {
    "3": {"kernel_size": 3, "padding": 1},
    "3, stride 2": {"kernel_size": 3, "padding": 1, "stride": 2},
    "5": {"kernel_size": (3, 5), "padding": (1, 2)},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "even, stride 2": {"kernel_size": 2, "padding": 0, "stride": 2},
    "same": {"kernel_size": 4, "padding": "same"},
}


def case(density: float = 0.4, seed: int = 0, size: tuple[int, ...] = SIZE) -> sc.SparseTensor:
    mask = random_mask(3, size, density, seed, empty_sample=True)
    return sparse(torch.randn(3, 4, *size, dtype=torch.float64), mask, seed)


def around(t: Tensor, window: dict[str, Any]) -> Tensor:
    """Return a dense tensor with zeros around axis 2, and wrapped around along axis 3."""
    pad = window["padding"]
    if pad == "same":
        low = (window["kernel_size"] - 1) // 2
        high = window["kernel_size"] - 1 - low
        return F.pad(F.pad(t, (low, high, 0, 0), mode="circular"), (0, 0, low, high))
    pad = (pad, pad) if isinstance(pad, int) else pad
    t = F.pad(t, (pad[1], pad[1], 0, 0), mode="circular") if pad[1] else t
    return F.pad(t, (0, 0, pad[0], pad[0]))


@pytest.mark.parametrize("mode", ("circular", "reflect", "replicate"))
@pytest.mark.parametrize("pad", ((1, 1), (2, 0, 1, 3), (0, 0), (5, 5, 4, 4)))
def test_pad_is_that_of_the_dense_tensor(engine: str, mode: str, pad: tuple[int, ...]) -> None:
    for density, seed in ((0.0, 0), (0.3, 1), (1.0, 2)):
        x = case(density, seed)
        pads = [*pad, 0, 0][:4] if len(pad) == 2 else pad
        y = F.pad(x, pad, mode=mode)
        assert_close(y.dense(), F.pad(x.dense(), pads, mode=mode))
        assert torch.equal(F.pad(permuted(x, 3), pad, mode=mode).features, y.features)
        assert F.pad(2 * x, pad, mode=mode).sites is y.sites


@pytest.mark.parametrize("mode", ("circular", "reflect", "replicate"))
@pytest.mark.parametrize("name", WINDOWS)
def test_convolutions_take_every_padding_mode(engine: str, name: str, mode: str) -> None:
    layer = nn.Conv2d(4, 3, **WINDOWS[name], bias=False, padding_mode=mode).double()
    x = case()
    y = layer(x)
    assert_close(y.dense(), layer(x.dense()))
    y.features.sum().backward()
    assert layer.weight.grad is not None
    mine = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x.dense()).sum().backward()
    assert_close(mine, layer.weight.grad)


@pytest.mark.parametrize("mode", ("circular", "reflect", "replicate"))
@pytest.mark.parametrize("axes", (1, 2, 3))
def test_submanifold_convolutions_take_every_padding_mode(
    engine: str, axes: int, mode: str
) -> None:
    size = (4, 3, 5)[:axes]
    options = {"dilation": 1, "bias": True, "padding_mode": mode}
    layer = getattr(sc.nn, f"SubmConv{axes}d")(4, 3, 3, **options).double()
    x = case(0.5, 1, size)
    y = layer(x)
    assert y.sites is x.sites
    assert_close(y.dense(), layer(x.dense()) * x.mask())
    dense = getattr(nn, f"Conv{axes}d")(4, 3, 3, padding=1, padding_mode=mode).double()
    dense.load_state_dict(layer.state_dict())
    assert_close(layer(x.dense()), dense(x.dense()))

    def run(rows: Tensor, weight: Tensor) -> Tensor:
        y = sc.functional.subm_conv(x.replace(rows), weight, padding_mode=mode)
        return y.features

    few = case(0.2, 1, size)
    x = few
    leaves = [t.detach().clone().requires_grad_() for t in (few.features, layer.weight)]
    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)


@pytest.mark.parametrize("name", WINDOWS)
def test_every_layer_wraps_where_the_grid_does(engine: str, name: str) -> None:
    window = WINDOWS[name]
    layer = nn.Conv2d(4, 3, **window, bias=False).double()
    x = case().with_grid(AROUND)
    y = layer(x)
    free = {key: value for key, value in window.items() if key != "padding"}
    dense = nn.Conv2d(4, 3, **free, bias=False).double()
    dense.load_state_dict(layer.state_dict())
    assert_close(y.dense(), dense(around(x.dense(), window)))
    assert y.grid.circular == (False, True)
    ones = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    mask = around(x.mask().double(), window)
    reached = F.conv2d(mask, ones, stride=layer.stride, dilation=layer.dilation) > 0
    assert torch.equal(y.mask(), reached)
    assert torch.equal(layer(permuted(x, 2).with_grid(AROUND)).features, y.features)
    if name != "same":
        inverse = sc.nn.InverseConv2d(3, 4, **window, bias=False).double()
        inverse.weight = layer.weight
        back = inverse(y)
        assert back.sites is x.sites
        assert_close((back.features * x.features).sum(), (y.features**2).sum())
        assert_close(inverse(y, like=x).features, back.features)


def test_pooling_and_partial_layers_wrap(engine: str) -> None:
    x = case().with_grid(AROUND)
    window = {"padding": 1}
    t, mask = x.dense(), x.mask()
    y = nn.MaxPool2d(3, 2, 1)(x)
    hidden = F.pad(F.pad(torch.where(mask, t, -torch.inf), (1, 1, 0, 0), mode="circular"),
                   (0, 0, 1, 1), value=-torch.inf)  # fmt: skip
    assert_close(y.dense(), torch.where(y.mask(), F.max_pool2d(hidden, 3, 2), 0.0))
    y = nn.AvgPool2d(3, 2, 1)(x)
    assert_close(y.dense(), F.avg_pool2d(around(t, window), 3, 2))
    layer = sc.nn.PartialConv2d(4, 3, 3, padding=1).double()
    wide = F.pad(mask.double(), (1, 1, 0, 0), mode="circular") > 0
    expected, _ = sc.functional.partial_conv(
        F.pad(t, (1, 1, 0, 0), mode="circular"), layer.weight, layer.bias, padding=(1, 0), mask=wide
    )
    y = layer(x)
    assert_close(y.dense(), expected * y.mask())
    rolled = x.roll(3, 3).with_grid(AROUND)
    deformable = sc.nn.DeformConv2d(4, 3, 3, padding=1).double()
    assert_close(deformable(rolled).dense(), deformable(x).roll(3, 3).dense())


def test_a_network_around_does_not_depend_on_where_the_turn_begins(engine: str) -> None:
    net = nn.Sequential(
        sc.nn.SubmConv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 2, stride=2), nn.ReLU(),
        sc.nn.SubmConv2d(8, 8, 3), sc.nn.InverseConv2d(8, 4, 2, stride=2),
    ).double()  # fmt: skip
    x = case()
    for shift in (2, 4, 6):
        turned = net(x.roll(shift, 3).with_grid(AROUND))
        assert_close(turned.dense(), net(x.with_grid(AROUND)).roll(shift, 3).dense())


def test_points_beside_the_seam_are_neighbours() -> None:
    points = torch.tensor([[5.0, 0.01 - math.pi], [5.0, math.pi - 0.01]])
    bounds = ((0, -math.pi), (10, math.pi))
    x, _ = sc.voxelize(points, (1.0, 2 * math.pi / 360), bounds=bounds)
    layer = sc.nn.SubmConv2d(1, 1, 3, bias=False, padding_mode="circular")
    nn.init.ones_(layer.weight)
    assert layer(x).features.flatten().tolist() == [2.0, 2.0]


def test_a_coarse_axis_wraps_where_strides_make_a_whole_turn() -> None:
    x = case().with_grid(AROUND)
    assert F.max_pool2d(x, 2).grid.circular == (False, True)
    assert F.max_pool2d(x, 3).grid.circular == (False, False)
    for cut in (x.narrow(3, 0, 5), sc.crop(x, 0, (6, 5)), F.pad(x, (0, 1))):
        assert cut.grid.circular == (False, False)
    assert F.interpolate(x, scale_factor=2).grid.circular == (False, True)


WRONG = {
    "pad: must be at most": lambda x: F.pad(x, (9, 0), mode="circular"),
    "pad: must be at most 7": lambda x: F.pad(x, (8, 0), mode="reflect"),
    "pad: axis 3": lambda x: F.pad(
        sc.SparseTensor(x.features, x.coords, (None, None), 3), (1, 1), mode="circular"
    ),
    "padding: must be at most": lambda x: F.conv2d(
        x.with_grid(AROUND), torch.ones(1, 4, 1, 1).double(), padding=4
    ),
    "padding_mode": lambda x: sc.nn.SubmConv2d(4, 4, 3, padding_mode="round"),
    "InverseConv": lambda x: F.conv_transpose2d(
        x.with_grid(AROUND), torch.ones(4, 1, 3, 3).double(), stride=2, padding=1, output_padding=1
    ),
    "wrap around the same axes": lambda x: sc.nn.SubmConv2d(4, 4, 3).double()(
        x.with_grid((AROUND, AROUND.cut((1,)), AROUND))
    ),
}


@pytest.mark.parametrize("named", WRONG)
def test_a_wrong_call_raises_in_one_line(named: str) -> None:
    with pytest.raises(sc.SparseConvError, match=named) as caught:
        WRONG[named](case())
    assert "\n" not in str(caught.value)

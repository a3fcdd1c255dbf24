"""Reach, judged by the gradient of one output: it reads exactly so far, and no further."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import UNet

LENGTH = 720  # a multiple of the strides drawn


class Both(nn.Module):
    """Branches that meet."""

    def __init__(self, *branches: nn.Module, how: str = "add") -> None:
        super().__init__()
        self.branches, self.how = nn.ModuleList(branches), how

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        if self.how == "add":
            return parts[0] + parts[1]
        return torch.cat(parts, dim=1).sum(1, keepdim=True)


@st.composite
def keeping(draw: st.DrawFn, depth: int = 2) -> nn.Module:
    """Draw a module whose outputs lie on its inputs' grid."""
    kind = draw(
        st.sampled_from(["conv", "shifted", "subm", "partial", "pool", "both", "u", "norm"])
    )
    kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1)]))
    if kind in ("both", "u") and depth == 0:
        kind = "conv"
    if kind == "both":
        branches = [draw(keeping(depth - 1)) for _ in range(2)]
        return Both(*branches, how=draw(st.sampled_from(["add", "cat"])))
    if kind == "u":
        return draw(u_shaped(depth - 1))
    pads = draw(st.sampled_from([(2, 0), (0, 2), (3, -1)]))  # "shifted" reads to one side
    same = nn.Conv1d(1, 1, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation)
    modules = {
        "subm": sc.nn.SubmConv1d(1, 1, kernel, dilation),
        "partial": sc.nn.SubmPartialConv1d(1, 1, kernel, dilation),
        "pool": nn.AvgPool1d(3, 1, 1),
        "norm": nn.Sequential(nn.BatchNorm1d(1), nn.ReLU()),
        "shifted": nn.Sequential(nn.ConstantPad1d(pads, 0.0), nn.Conv1d(1, 1, 3)),
    }
    return modules.get(kind, same)


@st.composite
def u_shaped(draw: st.DrawFn, depth: int) -> nn.Module:
    """Draw a way down, something there, and a way back up, beside a skip."""
    stride = draw(st.sampled_from([2, 3]))
    down = nn.Conv1d(1, 1, stride, stride)
    if draw(st.booleans()):
        down = nn.Conv1d(1, 1, stride + 2, stride, 1)
    up: nn.Module = sc.nn.InverseConv1d(1, 1, stride, stride)
    how = draw(st.sampled_from(["inverse", "nearest", "linear", "transposed"]))
    if how in ("nearest", "linear"):
        up = nn.Upsample(scale_factor=stride, mode=how)
    if how == "transposed":
        up = nn.ConvTranspose1d(1, 1, stride + 2, stride, 1)
    way = nn.Sequential(down, draw(keeping(depth)), up)
    return Both(nn.Identity(), way) if draw(st.booleans()) else way


def read_by(model: nn.Module, places: range, length: int) -> list[tuple[int, int]]:
    """Return the first and last input that each of some outputs reads."""
    for parameter in model.parameters():  # nothing cancels
        nn.init.ones_(parameter)
    x = torch.ones(1, 1, length, dtype=torch.float64, requires_grad=True)
    y = model.double().eval()(x)
    found = []
    for place in places:
        (grad,) = torch.autograd.grad(y[0, 0, place], x, retain_graph=True)
        hit = grad[0, 0].nonzero()[:, 0].tolist()
        if hit:
            found.append((hit[0] - place, hit[-1] - place))
    return found


@given(keeping())
def test_some_output_reads_exactly_so_far_and_none_further(model: nn.Module) -> None:
    reach = sc.reach(model.eval(), 1)
    stride = reach.stride[0]
    first = LENGTH // 2 // stride * stride
    assume(max(abs(reach.left[0]), abs(reach.right[0])) + stride < LENGTH // 3)
    found = read_by(model, range(first, first + stride), LENGTH)
    assert reach.left == (max(-low for low, _ in found),)
    assert reach.right == (max(high for _, high in found),)
    # the total stride is one: the same layers read the same, a stride further on
    assert read_by(model, range(first + stride, first + 2 * stride), LENGTH) == found


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_unet_in_any_dimension(dimensions: int) -> None:
    net = UNet(2, 5, (2, 3, 4, 4), dimensions=dimensions, convolutions=1).eval()
    assert sc.reach(net) == ((29,) * dimensions, (29,) * dimensions, (8,) * dimensions)
    partial = UNet(2, 5, (2, 3, 4, 4), dimensions=dimensions, convolutions=1, partial=True)
    assert sc.reach(partial.eval()) == sc.reach(net)


def test_an_optimized_network_reads_what_it_read() -> None:
    net = Both(UNet(1, 1, (2, 3, 3)), nn.Sequential(nn.Conv3d(1, 1, 5, padding=2), nn.ReLU()))
    assert sc.reach(sc.optimize(net.eval())) == sc.reach(net)


def test_axes_are_told_apart() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, (3, 1), (2, 1), (1, 0)), nn.Upsample(scale_factor=(2, 1)))
    assert sc.reach(net) == ((2, 0), (1, 0), (2, 1))  # the upper of two copies reads 2 down


def test_norm_and_linear_maps_of_channels_read_their_own_site() -> None:
    net = nn.Sequential(sc.nn.SubmConv3d(2, 4, 3), nn.LayerNorm(4), nn.Linear(4, 5), nn.ReLU())
    assert sc.reach(net) == ((1, 1, 1), (1, 1, 1), (1, 1, 1))


class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.squeeze(x)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((2, 3), keepdim=True)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return self.heads(rows, rows, rows)[0].transpose(1, 2).reshape(x.shape)


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=2)
        return torch.cat([first + second, first], dim=2)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Excited(), r"1\.squeeze\.0 \(AdaptiveAvgPool2d\)"),
        (Mean(), r"1 \(Mean\) has no reach: mean"),
        (Attention(), r"1\.heads \(MultiheadAttention\)"),
        (sc.nn.GlobalMaxPool(), r"1 \(GlobalMaxPool\)"),
        (nn.InstanceNorm2d(2), r"1 \(InstanceNorm2d\)"),
        (nn.GroupNorm(1, 2), r"1 \(GroupNorm\)"),
        (nn.BatchNorm2d(2, track_running_stats=False), r"1 \(BatchNorm2d\)"),
        (sc.nn.DeformConv2d(2, 2, 3), r"1 \(DeformConv2d\)"),
        (nn.Upsample(size=(8, 8)), r"1 \(Upsample\)"),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), r"1 \(Upsample\)"),
        (Halves(), "depends on the extent"),
    ],
)
def test_layers_without_a_reach_are_refused_by_name(layer: nn.Module, name: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), layer).eval()
    with pytest.raises(sc.SparseConvNotImplementedError, match=name):
        sc.reach(net)


def test_norms_in_training_are_refused_by_name_and_running_ones_are_not() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(sc.SparseConvNotImplementedError, match=r"1 \(BatchNorm2d\) is in training"):
        sc.reach(net)
    running = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, track_running_stats=True))
    assert sc.reach(running.eval()) == sc.reach(net.eval()) == ((0, 0), (2, 2), (1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sc.reach(3), "model: must be a torch.nn.Module"),
        (lambda: sc.reach(nn.ReLU(), 0), "dimensions"),
        (lambda: sc.reach(nn.ReLU(), 2, 0), "channels"),
        (lambda: sc.reach(nn.Conv2d(3, 1, 3), 2, 4), "cannot be followed"),
        (lambda: sc.reach(nn.Conv2d(3, 1, 3), 3), "cannot be followed"),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    with pytest.raises(sc.SparseConvError, match=message):
        call()

"""Networks that nobody wrote for sparse input: torch.nn alone, run on a SparseTensor unchanged.

With every site active, outputs, gradients and running statistics are those of the dense run; at
partial occupancy, after ``sparseconv.submanifold``, those of a dense run under a mask.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from cases import assert_close, random_input, random_mask, sparse
from masked import Masked
from torch import Tensor, nn

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")


class BasicBlock(nn.Module):
    """He et al. 2016 (arXiv 1512.03385), figure 2."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv3d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm3d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet18(nn.Module):
    """The 18-layer network over three axes, with narrow layers."""

    def __init__(self, in_channels: int = 2, classes: int = 5, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        stages = []
        for number, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
            stride = 1 if number == 0 else 2
            stages.append(
                nn.Sequential(BasicBlock(c_in, c_out, stride), BasicBlock(c_out, c_out, 1))
            )
        self.stages = nn.ModuleList(stages)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def double_conv(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, padding=1),
        nn.GroupNorm(2, c_out),
        nn.LeakyReLU(0.1),
        nn.Conv2d(c_out, c_out, 3, padding=1),
        nn.InstanceNorm2d(c_out, affine=True),
        nn.SiLU(),
    )


class UNet(nn.Module):
    """Ronneberger et al. 2015 (arXiv 1505.04597): one way up by transposed convolution, one not."""

    def __init__(self, in_channels: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = (
            double_conv(in_channels, 4),
            double_conv(4, 6),
            double_conv(6, 8),
        )
        self.down = nn.MaxPool2d(2)
        self.up1 = nn.ConvTranspose2d(8, 6, 2, 2)
        self.decode1 = double_conv(12, 6)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear")
        self.decode2 = double_conv(10, 4)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        middle = self.middle(self.down(fine))
        coarse = self.coarse(self.down(middle))
        y = self.decode1(torch.cat([middle, self.up1(coarse)], dim=1))
        y = self.decode2(torch.cat([fine, self.up2(y)], dim=1))
        return torch.log_softmax(self.head(y), dim=1)


class Squeeze(nn.Module):
    """Hu et al. 2018 (arXiv 1709.01507): channels weighted by what the whole sample shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.wide(torch.relu(self.narrow(pooled))))


class InvertedResidual(nn.Module):
    """Sandler et al. 2018 (arXiv 1801.04381): wide depthwise layers between narrow ones."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        wide = 3 * c_in
        self.body = nn.Sequential(
            nn.Conv2d(c_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            Squeeze(wide),
            nn.Conv2d(wide, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobile_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        InvertedResidual(4, 4, 1),
        InvertedResidual(4, 6, 2),
        InvertedResidual(6, 6, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18-3d": (ResNet18, (3, 2, 18, 16, 17)),
    "unet": (UNet, (2, 2, 12, 8)),
    "mobilenet": (mobile_net, (3, 2, 17, 16)),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_every_site_active_a_network_is_its_dense_self(name: str, training: bool) -> None:
    make, shape = NETWORKS[name]
    net = make().double()
    t = torch.randn(shape, dtype=torch.float64)
    net(t)  # running statistics that are not those of the start
    net.train(training)
    twin = copy.deepcopy(net)
    dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
    expected = twin(dense)
    y = net(sparse(rows, torch.ones(shape[0], *shape[2:], dtype=torch.bool)))
    y = y.dense() if isinstance(y, sc.SparseTensor) else y
    assert_equal_runs((net, y, rows), (twin, expected, dense))


def assert_equal_runs(
    ours: tuple[nn.Module, Tensor, Tensor], theirs: tuple[nn.Module, Tensor, Tensor]
) -> None:
    """Compare two runs ``(network, output, input)``: outputs, all gradients, all buffers."""
    (net, y, rows), (twin, expected, dense) = ours, theirs
    assert_close(y / 100, expected / 100)
    cotangent = torch.randn_like(expected)
    got = torch.autograd.grad(y, [rows, *net.parameters()], cotangent)
    wanted = torch.autograd.grad(expected, [dense, *twin.parameters()], cotangent)
    scale = max(float(entry.abs().max()) for entry in wanted) * 100
    for mine, reference in zip(got, wanted, strict=True):
        assert_close(mine / scale + 1, reference / scale + 1)
    for mine, reference in zip(net.buffers(), twin.buffers(), strict=True):
        # a mean of 0 has no digits to compare
        assert_close(mine.double() + 1, reference.double() + 1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("density", "empty_sample"), [(0.05, False), (0.2, True), (0.6, False)], ids=str
)
@pytest.mark.parametrize("name", NETWORKS)
def test_on_some_sites_a_network_is_its_dense_self_under_a_mask(
    name: str, density: float, empty_sample: bool, training: bool
) -> None:
    make, shape = NETWORKS[name]
    net = make().double()
    mask = random_mask(shape[0], shape[2:], density, empty_sample=empty_sample)
    t = torch.randn(shape, dtype=torch.float64)
    net(t)
    net.train(training)
    twin = copy.deepcopy(net)
    dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
    expected = twin(Masked(dense, mask.unsqueeze(1)))
    y = sc.submanifold(net)(sparse(rows, mask, seed=1))
    if isinstance(y, sc.SparseTensor):
        assert torch.equal(y.mask(), expected.mask)
        y, expected = y.dense(), expected.t
    assert y.any()
    assert_equal_runs((net, y, rows), (twin, expected, dense))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_from_a_few_sites(name: str) -> None:
    """Random sites, one sample without any: outputs and gradients are finite and not all zero."""
    make, shape = NETWORKS[name]
    net = make().double()
    x = random_input(40, 2, shape[2:], batch=1)
    empty = sc.SparseTensor(x.features[:0], x.coords[:0], x.spatial_shape, 1)
    y = net(sc.collate([x, empty]))
    loss = (y.features if isinstance(y, sc.SparseTensor) else y).pow(2).mean()
    loss.backward()
    for entry in net.parameters():
        assert entry.grad is not None
        assert entry.grad.isfinite().all()
    assert any(bool(entry.grad.any()) for entry in net.parameters())

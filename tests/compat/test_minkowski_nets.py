"""Networks in the manner of the code bases that use MinkowskiEngine and TorchSparse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import generator
from minkowski_cases import cloud, drawn
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.compat import minkowski as ME
from sparseconv.compat import torchsparse
from sparseconv.compat.minkowski.modules import resnet_block, senet_block
from sparseconv.compat.torchsparse import nn as spnn
from sparseconv.compat.torchsparse import version1

MEF = ME.MinkowskiFunctional
DIM = {"dimension": 3}


class UNet(ME.MinkowskiNetwork):
    """In the manner of MinkUNet: residual blocks, strides of 2 down and up, skips."""

    def __init__(self) -> None:
        super().__init__(3)
        block = resnet_block.BasicBlock
        self.stem = nn.Sequential(
            ME.MinkowskiConvolution(3, 4, kernel_size=3, **DIM),
            ME.MinkowskiBatchNorm(4),
            ME.MinkowskiReLU(inplace=True),
        )
        self.down = nn.Sequential(
            ME.MinkowskiConvolution(4, 4, kernel_size=2, stride=2, **DIM),
            ME.MinkowskiBatchNorm(4),
            ME.MinkowskiReLU(inplace=True),
        )
        way = nn.Sequential(
            ME.MinkowskiConvolution(4, 6, kernel_size=1, **DIM), ME.MinkowskiBatchNorm(6)
        )
        self.block1 = block(4, 6, downsample=way, **DIM)
        self.up = ME.MinkowskiConvolutionTranspose(6, 5, kernel_size=2, stride=2, **DIM)
        self.norm = ME.MinkowskiBatchNorm(5)
        way = nn.Sequential(
            ME.MinkowskiConvolution(9, 4, kernel_size=1, **DIM), ME.MinkowskiBatchNorm(4)
        )
        self.block2 = block(9, 4, downsample=way, **DIM)
        self.final = ME.MinkowskiConvolution(4, 2, kernel_size=1, bias=True, **DIM)

    def forward(self, x: Any) -> Any:
        skip = self.stem(x)
        out = self.block1(self.down(skip))
        out = MEF.relu(self.norm(self.up(out)))
        return self.final(self.block2(ME.cat(out, skip)))


class DenseBlock(nn.Module):
    """The same block in plain PyTorch."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(c_in, c_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(c_out)
        self.conv2 = nn.Conv3d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(c_out)
        way = nn.Conv3d(c_in, c_out, 1, bias=False), nn.BatchNorm3d(c_out)
        self.downsample = nn.Sequential(*way)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (out + self.downsample(x)).relu()


class DenseUNet(nn.Module):
    """The same network in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4), nn.ReLU()
        )
        self.down = nn.Sequential(
            nn.Conv3d(4, 4, 2, stride=2, bias=False), nn.BatchNorm3d(4), nn.ReLU()
        )
        self.block1 = DenseBlock(4, 6)
        self.up = nn.ConvTranspose3d(6, 5, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm3d(5)
        self.block2 = DenseBlock(9, 4)
        self.final = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x)
        out = self.norm(self.up(self.block1(self.down(skip)))).relu()
        return self.final(self.block2(torch.cat([out, skip], 1)))


class SparseBlock(nn.Module):
    """The same block under TorchSparse's names."""

    def __init__(self, spnn: Any, c_in: int, c_out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            spnn.Conv3d(c_in, c_out, 3),
            spnn.BatchNorm(c_out),
            spnn.ReLU(True),
            spnn.Conv3d(c_out, c_out, 3),
            spnn.BatchNorm(c_out),
        )
        self.downsample = nn.Sequential(spnn.Conv3d(c_in, c_out, 1), spnn.BatchNorm(c_out))
        self.relu = spnn.ReLU(True)

    def forward(self, x: Any) -> Any:
        return self.relu(self.main(x) + self.downsample(x))


class SparseUNet(nn.Module):
    """The same network under TorchSparse's names, in the manner of SPVNAS' MinkUNet."""

    def __init__(self, spnn: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(spnn.Conv3d(3, 4, 3), spnn.BatchNorm(4), spnn.ReLU(True))
        self.down = nn.Sequential(
            spnn.Conv3d(4, 4, 2, stride=2), spnn.BatchNorm(4), spnn.ReLU(True)
        )
        self.block1 = SparseBlock(spnn, 4, 6)
        self.up = nn.Sequential(
            spnn.Conv3d(6, 5, 2, stride=2, transposed=True), spnn.BatchNorm(5), spnn.ReLU(True)
        )
        self.block2 = SparseBlock(spnn, 9, 4)
        self.final = spnn.Conv3d(4, 2, 1, bias=True)

    def forward(self, x: Any) -> Any:
        skip = self.stem(x)
        out = self.up(self.block1(self.down(skip)))
        return self.final(self.block2(torchsparse.cat([out, skip])))


def test_a_full_grid_is_dense_pytorch_through_training() -> None:
    dense = drawn(DenseUNet())
    net = UNet().double()
    sc.load_checkpoint(net, dense.state_dict(), "torch")
    t = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64, generator=generator(0))
    for train in (True, False):
        dense.train(train), net.train(train)
        features = t.movedim(1, -1).reshape(-1, 3).clone().requires_grad_()
        x = ME.SparseTensor(features, ME.dense_coordinates(t.shape))
        given = t.clone().requires_grad_()
        y, expected = net(x), dense(given)
        assert torch.equal(y.C, x.C)
        rows = expected.movedim(1, -1).reshape(-1, 2)
        torch.testing.assert_close(y.F, rows, rtol=1e-10, atol=1e-10)
        y.F.square().sum().backward()
        expected.square().sum().backward()
        grads = given.grad.movedim(1, -1).reshape(-1, 3)
        torch.testing.assert_close(features.grad, grads, rtol=1e-8, atol=1e-8)
    step(net), step(dense)
    moved = sc.convert_weights(net.state_dict(), dense, "minkowski")
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(moved[name], value, rtol=1e-8, atol=1e-8)


def step(net: nn.Module) -> None:
    torch.optim.SGD(net.parameters(), lr=1e-6).step()


def test_three_libraries_names_compute_the_same() -> None:
    dense = drawn(DenseUNet())
    nets = [UNet(), SparseUNet(spnn), SparseUNet(version1.nn)]
    for net in nets:
        sc.load_checkpoint(net.double(), dense.state_dict(), "torch")
    sites, feats = cloud()
    last = sites[:, [1, 2, 3, 0]]
    inputs = [
        ME.SparseTensor(feats, sites),
        torchsparse.SparseTensor(feats, sites),
        version1.SparseTensor(feats, last),
    ]
    for train in (True, False):
        outputs = [net.train(train)(x) for net, x in zip(nets, inputs, strict=True)]
        for y, x in zip(outputs, inputs, strict=True):
            assert torch.equal(y.C, x.C)
            torch.testing.assert_close(y.F, outputs[0].F, rtol=1e-11, atol=1e-11)
    there = sc.convert_weights(nets[1].state_dict(), nets[0], "torchsparse")
    for name, value in nets[0].state_dict().items():
        assert torch.equal(there[name], value)


def resnet_features() -> nn.Module:
    """Return a network in the manner of FCGF: wide kernels, batch or instance norm, unit rows."""

    class Features(ME.MinkowskiNetwork):
        def __init__(self) -> None:
            super().__init__(3)
            self.conv1 = ME.MinkowskiConvolution(3, 4, kernel_size=5, bias=False, **DIM)
            self.norm1 = ME.MinkowskiInstanceNorm(4)
            self.conv2 = ME.MinkowskiConvolution(4, 6, kernel_size=3, stride=2, dilation=1, **DIM)
            self.norm2 = ME.MinkowskiBatchNorm(6, momentum=0.05)
            self.block = resnet_block.BasicBlock(6, 6, bn_momentum=0.05, **DIM)
            self.up = ME.MinkowskiConvolutionTranspose(6, 4, kernel_size=3, stride=2, **DIM)
            self.final = ME.MinkowskiConvolution(8, 5, kernel_size=1, bias=True, **DIM)

        def forward(self, x: Any) -> Any:
            s1 = self.norm1(self.conv1(x))
            out = MEF.relu(s1)
            out = self.block(self.norm2(self.conv2(out)))
            out = self.final(ME.cat(MEF.relu(self.up(out)), s1))
            unit = out.F / (torch.norm(out.F, p=2, dim=1, keepdim=True) + 1e-8)
            return ME.SparseTensor(
                unit,
                coordinate_map_key=out.coordinate_map_key,
                coordinate_manager=out.coordinate_manager,
            )

    return Features()


def gated() -> nn.Module:
    """Return a network of squeeze-and-excitation blocks."""
    return nn.Sequential(
        ME.MinkowskiConvolution(3, 16, kernel_size=3, stride=2, **DIM),
        senet_block.SEBasicBlock(16, 16, reduction=4, D=3),
        resnet_block.Bottleneck(16, 4, **DIM),
        ME.MinkowskiAvgPooling(3, 1, **DIM),
        ME.MinkowskiPoolingTranspose(2, 2, **DIM),
    )


def generating() -> nn.Module:
    """Return a network in the manner of the engine's completion: generate, classify, prune."""

    class Completion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = ME.MinkowskiConvolution(3, 4, kernel_size=2, stride=2, **DIM)
            self.decode = ME.MinkowskiGenerativeConvolutionTranspose(
                4, 4, kernel_size=2, stride=2, **DIM
            )
            self.classify = ME.MinkowskiConvolution(4, 1, kernel_size=1, bias=True, **DIM)
            self.prune = ME.MinkowskiPruning()
            self.after = ME.MinkowskiConvolution(4, 2, kernel_size=3, **DIM)

        def forward(self, x: Any) -> Any:
            up = self.decode(self.encode(x))
            keep = (self.classify(up).F > 0).squeeze()
            return self.after(self.prune(up, keep))

    return Completion()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("make", [UNet, resnet_features, gated, generating])
def test_networks_train_and_ignore_the_order_of_rows(make: Any) -> None:
    net = drawn(make())
    sites, feats = cloud()
    order = torch.randperm(len(sites), generator=generator(3))
    for train in (True, False):
        net.train(train)
        y = net(ME.SparseTensor(feats, sites))
        z = net(ME.SparseTensor(feats[order], sites[order]))
        found = {tuple(site): row for site, row in zip(z.C.tolist(), z.F, strict=True)}
        assert len(y.F) == len(found) > 0
        for site, row in zip(y.C.tolist(), y.F, strict=True):
            torch.testing.assert_close(row, found[tuple(site)], rtol=1e-9, atol=1e-9)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.train()(ME.SparseTensor(feats, sites)).F.square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=1e-3).step()
    moved = [not torch.equal(p, before[name]) for name, p in net.named_parameters()]
    assert sum(moved) >= len(moved) - 2  # what only chooses rows learns nothing


def test_levels_of_masks_and_a_field() -> None:
    """In the manner of Mask3D: rows of several levels, coordinates pooled along, a field."""
    points = torch.rand(200, 3, generator=generator(0)) * 8
    batched = torch.cat([torch.zeros(200, 1), points], 1)
    field = ME.TensorField(torch.randn(200, 3), batched)
    net = UNet()
    pool = ME.MinkowskiAvgPooling(kernel_size=2, stride=2, dilation=1, dimension=3)
    x = field.sparse()
    with torch.no_grad():
        raw = ME.SparseTensor(
            x.C[:, 1:].float(),
            coordinate_manager=x.coordinate_manager,
            coordinate_map_key=x.coordinate_map_key,
        )
        coarse = pool(raw)
    assert coarse.coordinate_map_key.get_tensor_stride() == [2, 2, 2]
    inside = coarse.F - coarse.C[:, 1:]
    assert bool(((inside >= 0) & (inside <= 1)).all())
    out = net(x)
    assert out.slice(field).F.shape == (200, 2)
    assert [len(rows) for rows in out.decomposed_features] == [len(out)]


@pytest.mark.slow
@torch.no_grad()
def test_compiled_and_autocast_as_they_are() -> None:
    net = UNet().eval()
    sites, feats = cloud()
    x = ME.SparseTensor(feats.float(), sites)
    expected = net(x).F
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x).F
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x).F, expected)
    assert torch.equal(net(x).F, expected)
    sparse = SparseUNet(spnn).eval()
    y = torchsparse.SparseTensor(feats.float(), sites)
    torch.testing.assert_close(torch.compile(sparse, backend="eager")(y).F, sparse(y).F)


@pytest.mark.parametrize("layer", [ME.MinkowskiReLU(), spnn.Conv3d(1, 1)])
def test_to_native_says_what_it_takes(layer: nn.Module) -> None:
    with pytest.raises(sc.SparseConvTypeError, match="written for spconv"):
        sc.compat.to_native(nn.Sequential(layer))

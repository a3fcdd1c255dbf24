"""Networks in the manner of SPVNAS, and those that come with TorchSparse."""

from __future__ import annotations

from typing import Any

import torch
from cases import generator
from minkowski_cases import cloud, drawn
from torch import Tensor, nn

from sparseconv.compat import torchsparse
from sparseconv.compat.torchsparse import nn as spnn
from sparseconv.compat.torchsparse import version1


def test_the_networks_that_come_along() -> None:
    sites, feats = cloud()
    x = torchsparse.SparseTensor(torch.cat([feats, feats[:, :1]], 1).float(), sites)
    backbones = torchsparse.backbones
    outputs = backbones.SparseResUNet42(width_multiplier=0.125)(x)
    assert [y.s[0] for y in outputs] == [1, 2, 4, 8, 16, 8, 4, 2, 1]
    assert torch.equal(outputs[-1].C, x.C)
    wide = torchsparse.SparseTensor(x.F, sites * torch.tensor([1, 6, 6, 6], dtype=torch.int32))
    outputs = backbones.SparseResNet21D(width_multiplier=0.25).eval()(wide)
    assert [y.s for y in outputs][-2:] == [(8, 8, 8), (8, 16, 8)]
    blocks = backbones.modules
    net = nn.Sequential(
        blocks.SparseConvBlock(4, 4, 2, 2),
        blocks.SparseResBlock(4, 6, 3),
        blocks.SparseConvTransposeBlock(6, 3, 2, 2),
    )
    assert torch.equal(net(x).C, x.C)


class PointVoxel(nn.Module):
    """In the manner of SPVCNN: voxels and points side by side."""

    def __init__(self, spnn: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(spnn.Conv3d(3, 4, 3), spnn.BatchNorm(4), spnn.ReLU(True))
        self.down = nn.Sequential(spnn.Conv3d(4, 4, 2, stride=2), spnn.BatchNorm(4))
        self.up = spnn.Conv3d(4, 4, 2, stride=2, transposed=True)
        self.points = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(True))
        self.head = nn.Linear(4, 2)


def old_forward(net: PointVoxel, z: Any) -> Tensor:
    """Run it with the functions of version 1.4: coordinates have the sample last."""
    spf, tensor = version1.nn.functional, version1.SparseTensor
    whole = torch.floor(z.C).int()
    hashed = spf.sphash(whole)
    voxels = torch.unique(hashed)
    rows = spf.sphashquery(hashed, voxels)
    counts = spf.spcount(rows.int(), len(voxels))
    coords = torch.round(spf.spvoxelize(torch.floor(z.C), rows, counts)).int()
    x0 = tensor(spf.spvoxelize(z.F, rows, counts), coords, 1)
    x0.cmaps.setdefault(x0.stride, x0.coords)
    x0 = net.stem(x0)

    def to_points(x: Any) -> Tensor:
        steps = version1.nn.utils.get_kernel_offsets(2, x.s, 1)
        base = torch.cat([torch.floor(z.C[:, :3] / x.s[0]).int() * x.s[0], z.C[:, 3:].int()], 1)
        near = spf.sphashquery(spf.sphash(base, steps), spf.sphash(x.C))
        weights = spf.calc_ti_weights(z.C, near, scale=x.s[0]).transpose(0, 1).contiguous()
        return spf.spdevoxelize(x.F, near.transpose(0, 1).contiguous(), weights)

    def to_voxels(x: Any, feats: Tensor) -> Any:
        base = torch.cat([torch.floor(z.C[:, :3] / x.s[0]).int() * x.s[0], z.C[:, 3:].int()], 1)
        rows = spf.sphashquery(spf.sphash(base), spf.sphash(x.C))
        new = tensor(spf.spvoxelize(feats, rows, spf.spcount(rows.int(), len(x.C))), x.C, x.s)
        new.cmaps, new.kmaps = x.cmaps, x.kmaps
        return new

    z0 = to_points(x0)
    x1 = net.down(to_voxels(x0, z0))
    z1 = to_points(x1) + net.points(z0)
    return net.head(to_points(net.up(to_voxels(x1, z1))))


def new_forward(net: PointVoxel, feats: Tensor, points: Tensor) -> Tensor:
    """Run it in the manner of version 2.1: the sample first, a hash table, caches."""
    backend, spf = torchsparse.backend, torchsparse.nn.functional
    tensor = torchsparse.SparseTensor

    def places(queries: Tensor, coords: Tensor, size: int = 1) -> Tensor:
        table = backend.GPUHashTable(torch.zeros(len(coords) * 2), torch.zeros(len(coords) * 2))
        table.insert_coords(coords[:, [1, 2, 3, 0]])
        ones = torchsparse.utils.make_tensor((1, 1, 1), dtype=torch.int32, device=coords.device)
        cells = torchsparse.utils.make_tensor((size,) * 3, dtype=torch.int32, device=coords.device)
        found = table.lookup_coords(queries[:, [1, 2, 3, 0]], cells, ones, size**3)
        return (found - 1)[: len(queries)].long()

    def scaled(x: Any) -> Tensor:
        return torch.cat([points[:, :1], points[:, 1:] / x.s[0]], 1)

    def to_points(x: Any) -> Tensor:
        near = places(torch.floor(scaled(x)).int(), x.C, 2)
        weights = spf.calc_ti_weights(scaled(x)[:, 1:], near, scale=1)
        return spf.spdevoxelize(x.F, near, weights)

    def to_voxels(x: Any, rows: Tensor) -> Any:
        at = places(torch.floor(scaled(x)).int(), x.C).reshape(-1)
        counts = spf.spcount(at.int(), len(x.C))
        new = tensor(spf.spvoxelize(rows, at, counts), x.C, x.s)
        new._caches = x._caches
        return new

    whole = torch.floor(points).int()
    coords, rows = torch.unique(whole, dim=0, return_inverse=True)
    counts = spf.spcount(rows.int(), len(coords))
    x0 = net.stem(tensor(spf.spvoxelize(feats, rows, counts), coords, 1))
    z0 = to_points(x0)
    x1 = net.down(to_voxels(x0, z0))
    z1 = to_points(x1) + net.points(z0)
    return net.head(to_points(net.up(to_voxels(x1, z1))))


def test_points_and_voxels_side_by_side_in_both_versions() -> None:
    net = drawn(PointVoxel(spnn))
    old = PointVoxel(version1.nn).double()
    old.load_state_dict(net.state_dict())
    source = generator(5)
    points = torch.rand(80, 3, dtype=torch.float64, generator=source) * 5
    batch = torch.randint(0, 2, (80, 1), generator=source).double()
    feats = torch.randn(80, 3, dtype=torch.float64, generator=source)
    y = new_forward(net, feats, torch.cat([batch, points], 1))
    z = old_forward(old, version1.PointTensor(feats, torch.cat([points, batch], 1)))
    torch.testing.assert_close(y, z, rtol=1e-7, atol=1e-7)
    y.square().sum().backward()
    z.square().sum().backward()
    for (name, p), q in zip(net.named_parameters(), old.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-5, msg=name)

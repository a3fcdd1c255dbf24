"""Functions of points, whole samples, dense tensors and choices under TorchSparse's names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import generator, random_sites
from sparseconv.compat.torchsparse.nn import functional as spf

import sparseconv as sc
from sparseconv.compat import torchsparse
from sparseconv.compat.torchsparse import nn as spnn
from sparseconv.compat.torchsparse import version1

pytestmark = pytest.mark.usefixtures("engine")
ONES = (1, 1, 1)


def test_hashes_queries_and_counts() -> None:
    coords = torch.tensor([[1, -2, 3, 0], [1, -2, 4, 0], [0, 0, 0, 1]], dtype=torch.int32)
    hashed = spf.sphash(coords)

    def fnv(row: list[int]) -> int:
        value = 14695981039346656037
        for entry in row:
            value = ((value ^ (entry & 0xFFFFFFFF)) * 1099511628211) & (2**64 - 1)
        return (value >> 60) ^ (value & (2**60 - 1))

    assert hashed.tolist() == [fnv(row) for row in coords.tolist()]
    steps = torch.tensor([[0, 0, 0], [0, 0, 1]], dtype=torch.int32)
    around = spf.sphash(coords, steps)
    assert around.shape == (2, 3)
    found = spf.sphashquery(around, hashed)
    assert found.tolist() == [[0, 1, 2], [1, -1, -1]]
    assert spf.sphashquery(torch.tensor([3, 5]), torch.tensor([5, 5, 3])).tolist() == [2, 0]
    assert spf.spcount(torch.tensor([0, 2, 2, -1]), 4).tolist() == [1, 0, 2, 0]
    table = torchsparse.backend.GPUHashTable(torch.zeros(6), torch.zeros(6))
    table.insert_coords(coords)
    size = torch.tensor([1, 1, 2])
    assert (table.lookup_coords(coords, size, torch.tensor(ONES), 2) - 1).tolist() == [
        [0, 1],
        [1, -1],
        [2, -1],
    ]


def test_from_points_to_voxels_and_back() -> None:
    points = torch.rand(20, 3, generator=generator(0), dtype=torch.float64) * 3
    feats = torch.randn(20, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    coords = torch.cat([points.floor(), torch.zeros(20, 1)], dim=1).int()
    voxels, rows = torch.unique(coords, dim=0, return_inverse=True)
    counts = spf.spcount(rows.int(), len(voxels))
    mean = spf.spvoxelize(feats, rows, counts)
    expected = torch.stack([feats[rows == v].mean(0) for v in range(len(voxels))])
    torch.testing.assert_close(mean, expected)
    offsets = spnn.utils.get_kernel_offsets(2)
    near = spf.sphashquery(spf.sphash(coords, offsets), spf.sphash(voxels))
    weights = spf.calc_ti_weights(points, near.T, 1)
    old = version1.nn.functional.calc_ti_weights(torch.cat([points, points[:, :1]], 1), near)
    assert torch.equal(weights, old.T)
    back = spf.spdevoxelize(mean, near.T.contiguous(), weights)
    grid = sc.SparseTensor(mean.detach(), voxels[:, [3, 0, 1, 2]], (None,) * 3, 1)
    batched = torch.nn.functional.pad(points, (1, 0))
    judged = sc.interpolate(grid, batched)
    share = sc.interpolate(grid.replace(torch.ones_like(mean[:, :1])), batched)
    torch.testing.assert_close(back, judged / (share + 1e-8), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda f: spf.spdevoxelize(spf.spvoxelize(f, rows, counts), near.T.contiguous(), weights),
        feats,
    )


def test_values_and_whole_samples() -> None:
    x = torchsparse.SparseTensor(torch.randn(30, 4), random_sites(30, (5, 5, 5), 3, 1).int())
    sample = x.C[:, 0]
    mean = torch.stack([x.F[sample == b].mean(0) for b in range(3)])
    torch.testing.assert_close(spnn.GlobalAvgPool()(x), mean)
    largest = torch.stack([x.F[sample == b].amax(0) for b in range(3)])
    torch.testing.assert_close(spnn.GlobalMaxPool()(x), largest)
    norm = spnn.InstanceNorm(4)(x)
    for b in range(3):
        rows = x.F[sample == b]
        expected = torch.nn.functional.instance_norm(rows.T[None])[0].T
        torch.testing.assert_close(norm.F[sample == b], expected, rtol=1e-4, atol=1e-5)
        expected = torch.nn.functional.group_norm(rows.T[None], 2)[0].T
        found = spnn.GroupNorm(2, 4)(x).F[sample == b]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(spnn.BatchNorm(4)(x).F, torch.nn.BatchNorm1d(4)(x.F))
    for module, function in ((spnn.ReLU, spf.relu), (spnn.SiLU, spf.silu)):
        assert torch.equal(module()(x).F, function(x, inplace=False).F)
    slope = spnn.LeakyReLU(0.2)(x).F
    assert torch.equal(slope, spf.leaky_relu(x, 0.2, inplace=False).F)
    assert torch.equal(spf.global_avg_pool(x), spnn.GlobalAvgPool()(x))
    assert torch.equal(spf.global_max_pool(x), spnn.GlobalMaxPool()(x))
    assert spf.spcrop(x, (0, 0, 0)).F.shape == x.F.shape
    few = spnn.SparseCrop((1, 0, 0), (3, 5, 5))(x)
    assert few.C[:, 1].unique().tolist() == [1, 2]
    assert spnn.Identity()(x) is x


def test_sets_dense_tensors_and_movement() -> None:
    sites = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]).int()
    x = torchsparse.SparseTensor(torch.ones(2, 1), sites, 1, (1, 2, 2, 3))
    dense = x.dense()
    assert dense.shape == (1, 2, 2, 3, 1)
    assert dense[0, 1, 1, 2, 0] == 1
    assert dense.sum() == 2
    other = torchsparse.SparseTensor(torch.ones(1, 1), sites[1:])
    total = torchsparse.generative_add(x, other)
    assert total.C.tolist() == sites.tolist()
    assert total.F.flatten().tolist() == [1, 2]
    with pytest.raises(ValueError, match="same coordinates"):
        _ = x + total.with_feats(torch.ones(2, 1)).moved(torch.ones(2, 1), sites.flip(0), x.s, None)
    assert x.to("cpu").cpu().detach().F.shape == (2, 1)
    assert spf.spdownsample(sites).tolist() == [[0, 0, 0, 1]]
    assert spf.spupsample_generative(sites[:1], spatial_range=(1, 2, 4, 6)).shape == (8, 4)
    old = version1.nn.functional.spdownsample(torch.tensor([[4, 2, -2, 0]]).int(), 2, 2, 2)
    assert old.tolist() == [[4, 0, -4, 0]]


def test_samples_and_points_made_a_batch() -> None:
    points = np.array([[0.1, 0.2, 0.3], [0.15, 0.25, 0.35], [1.1, 0.2, 0.3]])
    voxels, index, inverse = torchsparse.utils.quantize.sparse_quantize(
        points, 0.2, return_index=True, return_inverse=True
    )
    assert voxels.tolist() == [[0, 1, 1], [5, 1, 1]]
    assert index.tolist() == [0, 2]
    assert inverse.tolist() == [0, 0, 1]
    sample = {
        "input": torchsparse.SparseTensor(points[index], voxels),
        "name": "a",
        "label": torch.ones(2),
        "more": {"array": np.ones(2)},
    }
    batch = torchsparse.utils.collate.sparse_collate_fn([sample, sample])
    assert batch["input"].C[:, 0].tolist() == [0, 0, 1, 1]
    assert batch["name"] == ["a", "a"]
    assert batch["label"].shape == batch["more"]["array"].shape == (2, 2)
    old = version1.SparseTensor(points[index], voxels)
    collated = version1.utils.collate.sparse_collate([old, old])
    assert type(collated) is version1.SparseTensor
    assert collated.C[:, 3].tolist() == [0, 0, 1, 1]
    z = torchsparse.PointTensor(torch.ones(2, 1), torch.ones(2, 4))
    assert (z + z).F.flatten().tolist() == [2, 2]


def test_choices_and_caches() -> None:
    assert spf.get_default_conv_config().downsample_mode == "spconv"
    config = spf.get_default_conv_config(spf.ConvMode.mode2)
    config.dataflow = spf.Dataflow.GatherScatter
    config.downsample_mode = "minkowski"
    sites = torch.tensor([[0, 1, 1, 1], [0, 4, 3, 2]]).int()
    layer = spnn.Conv3d(1, 1, 3, 2)
    x = torchsparse.SparseTensor(torch.ones(2, 1), sites)
    few = layer(x).C.tolist()
    try:
        spf.set_global_conv_config(config)
        assert spf.get_global_conv_config() is config
        x = torchsparse.SparseTensor(torch.ones(2, 1), sites)
        assert layer(x).C.tolist() == [[0, 0, 0, 0], [0, 2, 1, 1]] != few
    finally:
        spf.clear_global_conv_config()
    try:
        spf.set_downsample_mode("minkowski")
        assert spf.get_downsample_mode() == "minkowski"
        x = torchsparse.SparseTensor(torch.ones(2, 1), sites)
        assert len(layer(x).C) == 2
    finally:
        spf.set_downsample_mode("spconv")
    spf.set_conv_mode(spf.get_conv_mode())
    spf.set_kmap_mode(spf.get_kmap_mode())
    caches = torchsparse.utils.tensor_cache
    try:
        caches.set_tensor_cache_mode(caches.TensorCacheMode.GLOBAL_TENSOR_CACHE)
        assert caches.get_tensor_cache_mode().value == 1
        x, y = (torchsparse.SparseTensor(x.F, x.C, 2) for _ in range(2))
        assert x._caches is y._caches is caches.get_global_tensor_cache()
        assert isinstance(x._caches, caches.TensorCache)
        caches.set_global_tensor_cache(None)
    finally:
        caches.clear_global_tensor_cache()
        caches.set_tensor_cache_mode(caches.TensorCacheMode.SEPARATE_TENSOR_CACHE)
    torchsparse.tune(None)
    assert torchsparse.backends.benchmark is False
    utils = torchsparse.utils
    assert utils.make_ntuple(2, ndim=3) == (2, 2, 2)
    assert utils.make_divisible(5, 4) == 8
    assert utils.make_tensor((1, 2), dtype=torch.int32, device="cpu").tolist() == [1, 2]
    assert utils.to_dense(torch.ones(1, 2), sites[:1], (1, 2, 2, 2)).sum() == 2
    doubled = spnn.utils.fapply(x, lambda rows: rows * 2)
    assert torch.equal(doubled.F, x.F * 2)


def test_sites_below_0_are_kept_on_request() -> None:
    sites = torch.tensor([[0, -4, 0, 0], [0, 4, 4, 4]]).int()
    x = torchsparse.SparseTensor(torch.ones(2, 1), sites)
    layer = spnn.Conv3d(1, 1, 3, 2, padding=1)
    assert layer(x).C[:, 1].min() == 2
    try:
        torchsparse.tensor.set_allow_negative_coordinates(True)
        assert torchsparse.tensor.get_allow_negative_coordinates()
        x = torchsparse.SparseTensor(torch.ones(2, 1), sites)
        assert layer(x).C[:, 1].min() == -2
    finally:
        torchsparse.tensor.set_allow_negative_coordinates(False)

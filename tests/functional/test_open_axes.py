"""Axes without an end: no layer depends on where a cloud lies or on which other sites it has."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, generator, random_sites
from torch import nn
from torch.nn import functional as F

import sparseconv as sc

FAR = 24  # a whole number of every layer's strides

# on tensors of 4 channels and 2 axes; the stride of the layer
LAYERS: dict[str, tuple[Callable[[], Callable[[Any], Any]], int]] = {
    "convolution": (lambda: nn.Conv2d(4, 3, 3, padding=1).double(), 1),
    "strided": (lambda: nn.Conv2d(4, 3, 2, stride=2).double(), 2),
    "strided, padded": (lambda: nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=False).double(), 2),
    "stride larger than the kernel": (lambda: nn.Conv2d(4, 3, 2, stride=3).double(), 3),
    "dilated": (lambda: nn.Conv2d(4, 3, 3, dilation=3, groups=1).double(), 1),
    "even and same": (lambda: nn.Conv2d(4, 3, 2, padding="same").double(), 1),
    "submanifold": (lambda: sc.nn.SubmConv2d(4, 3, 3).double(), 1),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 3, 2, stride=2), nn.ConvTranspose2d(3, 2, 3, 2, 1, 1)
        ).double(),
        1,
    ),
    "there and back": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 3, 2, stride=2), sc.nn.InverseConv2d(3, 2, 2, stride=2)
        ).double(),
        1,
    ),
    "max pooling": (lambda: nn.MaxPool2d(2), 2),
    "max pooling, padded": (lambda: nn.MaxPool2d(3, stride=2, padding=1), 2),
    "max pooling, ceil": (lambda: nn.MaxPool2d(2, stride=3, ceil_mode=True), 3),
    "average pooling": (lambda: nn.AvgPool2d(2), 2),
    "average pooling, ceil": (lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), 2),
    "average of what is there": (lambda: nn.AvgPool2d(3, count_include_pad=False), 3),
    "power pooling": (lambda: nn.LPPool2d(2, 2), 2),
    "partial convolution": (lambda: sc.nn.PartialConv2d(4, 3, 3, padding=1).double(), 1),
    "partial max pooling": (lambda: sc.nn.PartialMaxPool(2, 2), 2),
    "partial average pooling": (lambda: sc.nn.PartialAvgPool(2, 2), 2),
    "deformable": (lambda: sc.nn.DeformConv2d(4, 3, 3, padding=1).double(), 1),
    "nearest": (lambda: nn.Upsample(scale_factor=2), 1),
    "nearest, smaller": (lambda: nn.Upsample(scale_factor=0.5), 2),
    "nearest, exact": (lambda: nn.Upsample(scale_factor=3, mode="nearest-exact"), 1),
    "linear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 1),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), 1),
    "height": (lambda: lambda x: x.sum(2), 1),
}


def cloud(shift: int = 0, others: bool = False) -> sc.SparseTensor:
    """Return a cloud on axes without an end, moved, or with more sites far away."""
    coords = random_sites(25, (7, 8), 1, 3)
    features = torch.randn(25, 4, generator=generator(1), dtype=torch.float64)
    if others:
        more = random_sites(9, (5, 4), 1, 4) + torch.tensor([0, 10 * FAR, -10 * FAR])
        coords = torch.cat([coords, more])
        features = torch.cat([features, torch.ones(9, 4, dtype=torch.float64)])
    return sc.SparseTensor(features, coords + torch.tensor([0, shift, shift]), (None, None), 1)


def rows(y: sc.SparseTensor, shift: int, like: sc.SparseTensor) -> torch.Tensor:
    """Return the features of ``y`` at the sites of ``like``, moved."""
    coords = like.coords.clone()
    coords[:, 1:] += shift
    found, present = y.at(coords)
    assert bool(present.all())
    return y.features[found]


def step(name: str, y: sc.SparseTensor, moved: sc.SparseTensor) -> int:
    """Return by how much a layer moved its output where its input was moved by FAR."""
    return int(moved.coords[:, 1].min() - y.coords[:, 1].min())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_does_not_depend_on_where_the_cloud_lies(engine: str, name: str) -> None:
    layer = LAYERS[name][0]()
    x = cloud()
    y = layer(x)
    for shift in (FAR, -FAR, -5 * FAR):
        moved = layer(cloud(shift))
        assert moved.num_sites == y.num_sites
        assert_close(rows(moved, step(name, y, moved), y), y.features)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_does_not_depend_on_other_sites(engine: str, name: str) -> None:
    layer = LAYERS[name][0]()
    y, more = layer(cloud()), layer(cloud(others=True))
    assert_close(rows(more, 0, y), y.features)


@pytest.mark.parametrize("name", LAYERS)
def test_negative_coordinates_are_a_shifted_cloud(engine: str, name: str) -> None:
    layer = LAYERS[name][0]()
    x = cloud(-FAR)
    inferred = sc.SparseTensor(x.features, x.coords)
    y, same = layer(x), layer(inferred)
    assert torch.equal(same.coords, y.coords)
    assert torch.equal(same.features, y.features)


def test_pooling_at_negative_coordinates_has_the_sites_of_a_convolution(engine: str) -> None:
    x = sc.SparseTensor(torch.ones(3, 1), torch.tensor([[0, -2], [0, -1], [0, 0]]))
    expected = nn.Conv1d(1, 1, 2, stride=2)(x).coords
    for pool in (nn.MaxPool1d(2), nn.AvgPool1d(2), nn.LPPool1d(2, 2), sc.nn.PartialMaxPool(2, 2)):
        assert torch.equal(pool(x).coords, expected)
    assert nn.AvgPool1d(2)(x).features.flatten().tolist() == [1.0, 0.5]


def test_axes_without_an_end_are_asked_for() -> None:
    x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 3, 1], [0, 5, 2]]), (None, 4))
    assert x.shape == (1, 1, 3, 4)
    assert x.sites.ends == (1, None, 4)
    with pytest.raises(sc.SparseConvValueError, match="dense: give spatial_shape"):
        x.dense()
    for y in (x[0:1], sc.prune(x, torch.tensor([True, False])), sc.collate([x]), x.cpu(),
              pickle.loads(pickle.dumps(x)), x.unsqueeze(2), torch.cat([x, x])):  # fmt: skip
        assert None in y.sites.ends
    assert sc.crop(x, (2, 0), (6, 4)).dense().sum() == 2
    there = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, -9, 0]]), (None, 4))
    assert (x + there).num_sites == 3
    with pytest.raises(sc.SparseConvValueError, match="outside"):
        sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 3, -1]]), (None, 4))


@pytest.mark.parametrize("stride", (2, 3, 5))
def test_no_site_is_lost_where_nobody_gave_the_extent(engine: str, stride: int) -> None:
    for length in range(1, 12):
        coords = torch.tensor([[0, i] for i in range(length)])
        x = sc.SparseTensor(torch.ones(length, 1).double(), coords)
        for layer in (
            nn.Conv1d(1, 1, stride, stride=stride, bias=False).double(),
            nn.MaxPool1d(stride),
            nn.AvgPool1d(stride),
            sc.nn.PartialMaxPool(stride, stride),
        ):
            y = layer(x)
            assert y.coords[:, 1].tolist() == sorted({i // stride for i in range(length)})
            assert y.spatial_shape == (-(-length // stride),)
    # what is known stays known: samples, parts and unions of such a tensor
    for y in (x[0], sc.prune(x, x.coords[:, 1] > 0), sc.collate([x, x]), x + x, x[:, :1],
              pickle.loads(pickle.dumps(x)), x.unsqueeze(-1).squeeze(-1)):  # fmt: skip
        assert y.sites.inferred
        assert F.max_pool1d(y, 5).spatial_shape == (3,)
    given = sc.SparseTensor(x.features, x.coords, x.spatial_shape)
    assert F.max_pool1d(given, 5).spatial_shape == (2,)


@pytest.mark.parametrize("scale", (2, 3, 0.5))
@pytest.mark.parametrize("mode", ("nearest", "nearest-exact", "bilinear"))
def test_interpolation_away_from_the_border_is_the_dense_one(
    engine: str, scale: float, mode: str
) -> None:
    x = cloud(12)
    closed = sc.SparseTensor(x.features, x.coords, (40, 40))
    y = F.interpolate(x, scale_factor=scale, mode=mode)
    expected = F.interpolate(closed, scale_factor=scale, mode=mode)
    assert torch.equal(y.coords, expected.coords)
    assert_close(y.features, expected.features)

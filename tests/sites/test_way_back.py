"""The way back to parent sites survives whatever keeps the grid."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from cases import generator, random_sites
from torch.nn import functional as F

import sparseconv as sc
from sparseconv.core.handles import LIVING

pytestmark = pytest.mark.usefixtures("engine")

SHAPE = (8, 9)
DOWN = torch.randn(3, 2, 2, 2, generator=generator(1), dtype=torch.float64)


def fine(seed: int = 0, batch: int = 3) -> sc.SparseTensor:
    coords = random_sites(50, SHAPE, batch=batch, seed=seed)
    features = torch.randn(len(coords), 2, generator=generator(seed), dtype=torch.float64)
    return sc.SparseTensor(features, coords, SHAPE, batch)


def down(x: sc.SparseTensor) -> sc.SparseTensor:
    return F.conv2d(x, DOWN, stride=2)


def up(y: sc.SparseTensor, like: sc.SparseTensor | None = None) -> sc.SparseTensor:
    return sc.functional.inverse_conv(y, DOWN, stride=2, like=like)


def same(z: sc.SparseTensor, expected: sc.SparseTensor) -> bool:
    return torch.equal(z.coords, expected.coords) and torch.equal(z.features, expected.features)


def test_collated_samples() -> None:
    """One scan encoded, three variants of the coarse tensor decoded."""
    x = fine()
    y = down(x)
    variants = [y, y * 2, y * 3]
    z = up(sc.collate(variants))
    assert same(z, up(sc.collate(variants), like=sc.collate([x] * 3)))
    assert same(z, sc.collate([up(entry) for entry in variants]))
    assert same(up(torch.cat(variants)), z)


@pytest.mark.parametrize("part", [0, -1, slice(1, 3), slice(None, None, -1)])
def test_some_samples(part: int | slice) -> None:
    x = fine()
    y = down(x)
    assert same(up(y[part]), up(y[part], like=x[part]))
    assert same(up(y[part]), up(y)[part])
    again = sc.collate(y.split())
    assert same(up(again), sc.collate(up(y).split()))


def test_pruned_sites() -> None:
    x = fine()
    y = down(x)
    few = sc.prune(y, torch.arange(y.num_sites) % 3 > 0)
    z = up(few)
    assert z.sites is x.sites
    assert same(z, up(few, like=x))
    fewer = sc.prune(few, torch.arange(few.num_sites) % 2 > 0)
    assert same(up(fewer), up(fewer, like=x))
    assert up(sc.intersect(y, few)).sites is x.sites


def test_unions() -> None:
    x, other = fine(0), fine(1)
    y, others = down(x), down(other)
    z = up(y + others)
    assert same(z, up(y + others, like=sc.union(x, other)))
    few = sc.prune(y, torch.arange(y.num_sites) % 2 > 0)
    assert up(few + y).sites is x.sites
    alone = sc.SparseTensor(others.features, others.coords, others.spatial_shape, 3)
    for both in (y + alone, alone + y):
        assert same(up(both), up(both, like=x))
    total = y
    for seed in range(2, 6):
        total = total + down(fine(seed))
    assert same(up(total), up(total, like=sc.union(x, *[fine(seed) for seed in range(2, 6)])))


@pytest.mark.parametrize(
    "layer",
    [
        lambda y: F.conv2d(y, torch.ones(3, 3, 3, 3).double(), padding=1),
        lambda y: F.conv2d(y, torch.ones(3, 3, 3, 3).double(), padding="same", dilation=2),
        lambda y: F.max_pool2d(y, 3, stride=1, padding=1),
        lambda y: F.conv2d(F.max_pool2d(y, 3, 1, 1), torch.ones(3, 3, 5, 5).double(), padding=2),
        lambda y: sc.functional.subm_conv(y, torch.ones(3, 3, 3, 3).double()),
    ],
)
def test_layers_that_keep_the_grid(
    layer: Callable[[sc.SparseTensor], sc.SparseTensor],
) -> None:
    x = fine()
    y = layer(down(x))
    z = up(y)
    assert z.sites is x.sites
    assert same(z, up(y, like=x))
    assert same(up(y), z)


def test_residual_blocks_on_a_coarse_level() -> None:
    """Branches by layers of other windows, and by layers that spread sites."""
    x = fine()
    wide, narrow = torch.randn(3, 2, 3, 3).double(), torch.randn(3, 2, 1, 1).double()
    y = F.conv2d(x, wide, stride=2, padding=1) + F.conv2d(x, narrow, stride=2)
    spread = torch.ones(3, 3, 3, 3).double()
    for z in (y, y + F.conv2d(y, spread, padding=1), F.conv2d(y, spread, padding=1) + y):
        for weight, padding in ((wide, 1), (narrow, 0)):
            options = {"stride": 2, "padding": padding}
            back = sc.functional.inverse_conv(z, weight, **options)
            assert back.sites is x.sites
            assert same(back, sc.functional.inverse_conv(z, weight, **options, like=x))
            batch = sc.collate([pickle.loads(pickle.dumps(z))[1], F.conv2d(z, spread, padding=1)])
            back = sc.functional.inverse_conv(batch, weight, **options)
            assert torch.equal(back.coords, sc.collate([x[1], x]).coords)


def test_a_layer_that_moves_the_grid_ends_the_way() -> None:
    y = F.conv2d(down(fine()), torch.ones(3, 3, 3, 3).double())
    with pytest.raises(sc.SparseConvValueError, match=r"nothing to invert|name the sites"):
        up(y)


@pytest.mark.parametrize("way", ["pickle", "save", "deepcopy"])
def test_stored_tensors(way: str) -> None:
    x = fine()
    y = F.conv2d(down(x), torch.ones(3, 3, 2, 2).double(), stride=2)
    if way == "pickle":
        there = pickle.loads(pickle.dumps((x, y)))
    elif way == "deepcopy":
        there = copy.deepcopy((x, y))
    else:
        file = io.BytesIO()
        torch.save((x, y), file)
        file.seek(0)
        there = torch.load(file)
    weight = torch.ones(3, 3, 2, 2).double()
    z = up(sc.functional.inverse_conv(there[1], weight, stride=2))
    assert z.sites is there[0].sites
    assert same(z, up(sc.functional.inverse_conv(y, weight, stride=2)))
    alone = pickle.loads(pickle.dumps(y))
    assert same(up(sc.functional.inverse_conv(alone, weight, stride=2)), z)


def test_all_at_once() -> None:
    x = fine()
    y = down(x)
    few = sc.prune(y, torch.arange(y.num_sites) % 4 > 0)
    batch = sc.collate([pickle.loads(pickle.dumps(few))[1], y[0], (few + y)[2]])
    layered = F.conv2d(batch, torch.ones(3, 3, 3, 3).double(), padding=1)
    like = sc.collate([x[1], x[0], x[2]])
    assert same(up(layered), up(layered, like=like))


def test_gradients_pass_the_way_back() -> None:
    x = fine(batch=2)
    y = down(x)

    def decode(features: torch.Tensor) -> torch.Tensor:
        few = sc.prune(y.replace(features), torch.arange(y.num_sites) % 2 > 0)
        result: torch.Tensor = up(sc.collate([few[1], few[0]])).features
        return result

    features = y.features.detach().requires_grad_()
    assert torch.autograd.gradcheck(decode, features)


def test_sites_of_ways_back_are_freed() -> None:
    gc.collect()
    before = len(LIVING)
    for seed in range(3):
        y = down(fine(seed))
        z = up(sc.collate([sc.prune(y, torch.arange(y.num_sites) % 2 > 0)[0], (y + y)[1]]))
        del y, z
    gc.disable()
    try:
        assert len(LIVING) <= before
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
def test_another_device() -> None:
    x = fine()
    y = down(x)
    there = x.cuda()
    z = sc.functional.inverse_conv(y.cuda(), DOWN.cuda(), stride=2)
    assert z.sites is there.sites
    assert torch.equal(z.coords.cpu(), x.coords)

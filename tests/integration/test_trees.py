"""What PyTorch's walks find in a SparseTensor, and what they make of it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import sparseconv as sc


def scan(batch: int = 2) -> sc.SparseTensor:
    coords = torch.nonzero(torch.rand(batch, 5, 4, 6) < 0.3)
    return sc.SparseTensor(torch.randn(len(coords), 3), coords, (5, 4, 6), batch)


def net() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        sc.nn.SubmConv3d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Conv3d(4, 5, 2, 2),
        torch.nn.Linear(5, 2),
    )


def test_a_tree_holds_the_features_and_keeps_the_sites() -> None:
    x = scan()
    leaves, spec = tree_flatten({"x": [x], "n": 3})
    assert leaves[0] is x.features and leaves[1:] == [3]
    doubled = tree_map(lambda t: t * 2, [x])[0]
    assert doubled.sites is x.sites
    assert torch.equal(doubled.features, 2 * x.features)
    assert tree_unflatten([None, 4], spec)["x"][0].features is None
    with pytest.raises(sc.SparseConvValueError, match="one row per site"):
        tree_map(lambda t: t[:1], x)


def test_a_dataclass_of_features_and_sites_can_be_replaced() -> None:
    x = scan()
    assert dataclasses.is_dataclass(x)
    y = dataclasses.replace(x, features=x.features.double())
    assert y.sites is x.sites and y.dtype == torch.float64
    assert {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}["features"] is x.features
    y = copy.deepcopy(x, memo={id(x.sites): x.sites})
    y.sites = x.sites
    with pytest.raises(sc.SparseConvValueError, match="one row per site"):
        y.sites = scan(1).sites
    with pytest.raises(sc.SparseConvTypeError, match="sites: stand in place of coords"):
        sc.SparseTensor(x.features, x.coords, sites=x.sites)
    with pytest.raises(sc.SparseConvTypeError, match="sites: must be"):
        sc.SparseTensor(x.features, sites=x.coords)  # type: ignore[arg-type]


def test_iteration_over_a_batch_of_one_ends() -> None:
    one = scan(1)
    assert len(list(one)) == 1
    depth, entry = 0, one
    while hasattr(type(entry), "__iter__"):
        entry, depth = next(iter(entry)), depth + 1
        assert depth < 5
    assert [tuple(counts.shape) for counts in scan(2).sites] == [(2,)]


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: checkpoint(net, x, use_reentrant=True),
        lambda net, x: checkpoint(lambda xs: net(xs[0]), [x], use_reentrant=True),
        lambda net, x: checkpoint_sequential(net, 2, x, use_reentrant=True),
        lambda net, x: checkpoint(
            lambda rows: net(x.replace(rows)), x.features.requires_grad_(), use_reentrant=True
        ),
    ],
)
def test_the_old_checkpoint_refuses_what_it_would_cut_off(run: Any) -> None:
    with pytest.raises(sc.SparseConvNotImplementedError, match="use_reentrant=False"):
        run(net(), scan())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_over_features_has_the_same_gradients(reentrant: bool) -> None:
    model, x = net(), scan()
    rows = x.features.requires_grad_()

    def run(rows: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = model(x.replace(rows)).features
        return y

    run(rows).sin().sum().backward()
    expected = [rows.grad, *(p.grad for p in model.parameters())]
    rows.grad = None
    model.zero_grad()
    checkpoint(run, rows, use_reentrant=reentrant).sin().sum().backward()
    found = [rows.grad, *(p.grad for p in model.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:For backward hooks to be called")
def test_full_backward_hooks_fire_with_gradients_of_rows() -> None:
    model, x = net(), scan()
    seen: dict[str, Any] = {}
    for name, layer in model.named_children():
        layer.register_full_backward_hook(
            lambda _, into, out, name=name: seen.update({name: (into, out)})
        )
    model[3].register_full_backward_pre_hook(lambda _, out: (2 * out[0],))
    with torch.no_grad():
        rows = model[2](model[1](model[0](x))).features
    x.requires_grad_()
    y = model(x)
    y.features.sum().backward()
    assert sorted(seen) == ["0", "1", "2", "3"]
    assert torch.equal(seen["3"][1][0], torch.full_like(y.features, 2))
    assert seen["3"][0][0].shape == seen["2"][1][0].shape == rows.shape
    assert torch.equal(seen["3"][0][0], seen["2"][1][0])
    assert torch.equal(seen["0"][0][0], x.features.grad)

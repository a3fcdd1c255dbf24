"""What is easily said: rows by number, the best of each sample, one mask for a batch, pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, permuted, random_input, random_mask, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sparseconv as sc


def case(seed: int = 0) -> sc.SparseTensor:
    mask = random_mask(3, (5, 6), 0.4, seed, empty_sample=True)
    return sparse(torch.randn(3, 2, 5, 6, dtype=torch.float64), mask, seed)


@given(seed=st.integers(0, 20), k=st.integers(0, 9))
def test_the_best_of_each_sample_are_those_of_a_loop(engine: str, seed: int, k: int) -> None:
    x = case(seed)
    scores = x.features[:, :1].round()  # many of them equal
    y = sc.prune(x, scores, k=k)
    kept = []
    for sample in range(3):
        rows = [row for row in range(x.num_sites) if int(x.coords[row, 0]) == sample]
        rows.sort(key=lambda row: (-float(scores[row]), x.coords[row].tolist()))
        kept += rows[:k]
    assert torch.equal(y.coords, x.coords[sorted(kept)])
    assert torch.equal(y.features, x.features[sorted(kept)])
    other = permuted(x, seed)
    same = sc.prune(other, other.features[:, 0].round(), k=k)
    assert torch.equal(same.dense(), y.dense())


def test_rows_are_kept_by_their_numbers(engine: str) -> None:
    x = case()
    rows = torch.tensor([4, 0, 7])
    y = sc.prune(x, rows)
    assert torch.equal(y.coords, x.coords[rows])
    assert torch.equal(y.features, x.features[rows])
    assert sc.prune(x, rows[:0].int()).num_sites == 0
    keep = x.features[:, :1] > 0
    assert torch.equal(sc.prune(x, keep).coords, x.coords[keep[:, 0]])
    x = x.replace(x.features.clone().requires_grad_())
    sc.prune(x, x.features[:, 0].sigmoid(), k=1).features.sum().backward()
    assert x.features.grad is not None
    assert int(x.features.grad.any(1).sum()) == 2  # one sample is empty


def test_dense_tensors_join_sparse_ones(engine: str) -> None:
    x, t = case(), torch.randn(3, 4, 5, 6, dtype=torch.float64)
    y = torch.cat([x, t], dim=1)
    assert y.sites is x.sites
    assert_close(y.dense(), torch.cat([x.dense(), t], 1) * x.mask())
    assert_close(torch.cat([t, x], dim=1).dense(), torch.cat([t, x.dense()], 1) * x.mask())
    other = case(5)
    both = torch.cat([x, other, t], dim=1)
    united = x.mask() | other.mask()
    assert_close(both.dense(), torch.cat([x.dense(), other.dense(), t], 1) * united)
    for dim in (0, 2):
        joined = torch.cat([x, t[:, :2]], dim=dim)
        assert_close(joined.dense(), torch.cat([x.dense(), t[:, :2]], dim))
    leaf = t.clone().requires_grad_()
    torch.cat([x, leaf], dim=1).features.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, x.mask().double().expand_as(leaf))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "partial": lambda: sc.nn.PartialConv2d(2, 3, 3, padding=1),
    "submanifold": lambda: sc.nn.SubmPartialConv2d(2, 3, 3),
    "transposed": lambda: sc.nn.PartialConvTranspose2d(2, 3, 2, stride=2),
    "max": lambda: sc.nn.PartialMaxPool(2),
    "average": lambda: sc.nn.PartialAvgPool(2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_mask_serves_a_batch(name: str) -> None:
    layer = LAYERS[name]().double()
    t = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    mask = torch.rand(1, 1, 6, 6) < 0.5
    expected, reached = layer(t, mask.expand(4, 1, 6, 6))
    for given_mask in (mask, mask[:, 0], mask.long(), mask.double(), mask.to(torch.uint8)):
        y, out = layer(t, given_mask)
        assert torch.equal(y, expected)
        assert torch.equal(out, reached)
    per_channel = torch.rand(1, 2, 6, 6) < 0.5
    y, _ = layer(t, per_channel)
    assert torch.equal(y, layer(t, per_channel.expand(4, 2, 6, 6))[0])
    for wrong in (0.5 * mask, mask * 255, -1 * mask):
        with pytest.raises(sc.SparseConvTypeError, match="mask: must be a bool"):
            layer(t, wrong)
    with pytest.raises(sc.SparseConvValueError, match="mask: must have shape"):
        layer(t, mask.expand(2, 1, 6, 6))


def test_dense_tensors_take_one_mask_for_their_samples() -> None:
    t = torch.randn(3, 2, 4, 5)
    mask = torch.rand(1, 1, 4, 5) < 0.5
    expected = sc.SparseTensor.from_dense(t, mask.expand(3, 1, 4, 5))
    for given_mask in (mask, mask[0], mask.int(), mask.float()):
        assert torch.equal(sc.SparseTensor.from_dense(t, given_mask).coords, expected.coords)


def chain() -> nn.Sequential:
    return nn.Sequential(
        sc.nn.PartialConv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        sc.nn.PartialMaxPool(2), nn.Dropout2d(0.0), nn.Upsample(scale_factor=2),
        sc.nn.PartialConv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.1),
        sc.nn.SubmPartialConv2d(4, 3, 3), nn.Sigmoid(),
    ).double()  # fmt: skip


def test_a_chain_hands_masks_on(engine: str) -> None:
    net = chain()
    t, mask = torch.randn(2, 2, 6, 6, dtype=torch.float64), torch.rand(1, 1, 6, 6) < 0.3
    y, reached = net((t, mask))
    x, valid = t, mask
    for layer in net:
        if type(layer).__module__.startswith("sparseconv"):
            x, valid = layer(x, valid)
        else:
            x = layer(x)
            if isinstance(layer, nn.Upsample):
                valid = layer(valid.double()) > 0
    assert_close(y, x)
    assert torch.equal(reached, valid)
    y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    s = case()
    few = torch.rand(s.num_sites, 2) < 0.6
    sites = nn.Sequential(
        sc.nn.SubmPartialConv2d(2, 3, 3), nn.ReLU(), sc.nn.SubmPartialConv2d(3, 2, 3)
    )
    z, valid = sites.double()((s, few))
    a, m = sites[0](s, few)
    b, m = sites[2](torch.relu(a), m)
    assert torch.equal(z.features, b.features)
    assert torch.equal(valid, m)


X = random_input(9, 2, (4, 5))
CONV = sc.nn.PartialConv2d(2, 2, 3, padding=1).double()
PAIR = CONV((X.dense(), X.mask()))
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "rows twice": (lambda: sc.prune(X, torch.tensor([1, 1])), "keep: names a row twice"),
    "no row": (lambda: sc.prune(X, torch.tensor([9])), "keep: numbers of rows must lie in 0 to 8"),
    "shape of rows": (lambda: sc.prune(X, torch.tensor([[1]])), r"must have shape \(M,\)"),
    "scores without k": (lambda: sc.prune(X, X.features[:, 0]), "scores take k="),
    "bool and k": (lambda: sc.prune(X, X.features[:, 0] > 0, k=2), "keep: must be a floating"),
    "k": (lambda: sc.prune(X, X.features[:, 0], k=-1), "k: must be at least 0"),
    "a grid of the mask": (lambda: torch.max_pool2d(PAIR, 2), "unpack the pair"),
    "two pairs": (lambda: torch.add(PAIR, PAIR), "unpack the pairs"),
    "a triple": (lambda: CONV((X, X, X)), "a pair"),
    "like": (
        lambda: sc.functional.conv(X, torch.ones(1, 2, 3, 3).double(), padding=1,
                                   like=random_input(2, 1, (9, 9))),
        r"^like: must fit the layer: kernel_size=\(3, 3\).* spatial shape \(4, 5\).* \(9, 9\)",
    ),
    "nothing to invert": (
        lambda: sc.nn.InverseConv2d(2, 2, 2, stride=2).double()(X),
        r"^inverse: name the sites to return to by like=; nothing to invert",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_message_is_one_line_of_words(name: str) -> None:
    call, words = WRONG[name]
    with pytest.raises(sc.SparseConvError, match=words) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for dump in ("Sites(", "Geometry(", "Kind.", "tensor("):
        assert dump not in text

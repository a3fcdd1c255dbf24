"""Moves of axes and reductions over some of them: what dense PyTorch gives on x.dense()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, permuted, random_input, random_mask, sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

SIZES = {1: (6,), 2: (4, 5), 3: (3, 4, 2), 4: (2, 3, 2, 3)}
Call = Callable[[Any], Any]

# the number of spatial axes, and a call that dense PyTorch answers too
MOVES: dict[str, tuple[int, Call]] = {
    "permute spatial axes": (3, lambda x: x.permute(0, 1, 4, 2, 3)),
    "permute of a tuple": (2, lambda x: torch.permute(x, (0, 1, 3, 2))),
    "channels last": (3, lambda x: x.permute(0, 2, 3, 4, 1)),
    "channels last and back": (2, lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
    "channels in the middle": (3, lambda x: x.permute(0, 4, 2, 1, 3)),
    "transpose": (3, lambda x: x.transpose(2, -1)),
    "transpose with channels": (1, lambda x: x.transpose(1, 2)),
    "movedim": (3, lambda x: x.movedim((2, 3), (-1, -2))),
    "movedim of channels": (2, lambda x: torch.movedim(x, 1, -1)),
    "swapaxes": (2, lambda x: x.swapaxes(2, 3)),
    "unsqueeze": (2, lambda x: x.unsqueeze(2)),
    "unsqueeze at the end": (3, lambda x: x.unsqueeze(-1)),
    "unsqueeze before the channels": (2, lambda x: x.unsqueeze(1)),
    "squeeze": (3, lambda x: x.unsqueeze(3).squeeze(3) if x.ndim == 5 else x),
    "squeeze of a longer axis": (2, lambda x: x.squeeze(2)),
    "squeeze of the last axis": (1, lambda x: x.sum(2, keepdim=True)),
    "squeeze of channels": (2, lambda x: x.sum(1, keepdim=True).squeeze(1)),
    "flatten channels and height": (3, lambda x: x.flatten(1, 2)),
    "flatten height": (2, lambda x: x.flatten(1, 2)),
    "flatten two axes": (3, lambda x: x.flatten(2, 3)),
    "flatten to tokens": (3, lambda x: x.flatten(2).transpose(1, 2)),
    "flatten channels last": (2, lambda x: x.permute(0, 2, 3, 1).flatten(1, 2)),
    "flatten axes and channels": (3, lambda x: x.permute(0, 2, 3, 1, 4).flatten(2, 3)),
    "unflatten": (3, lambda x: x.unflatten(3, (2, -1))),
    "unflatten channels": (2, lambda x: x.unflatten(1, (2, 2))),
    "unflatten channels last": (2, lambda x: x.permute(0, 2, 3, 1).unflatten(-1, (2, 2))),
    "reshape": (3, lambda x: x.reshape(x.shape[0], 2, 2, -1, 2)),
    "view": (2, lambda x: x.view(x.shape[0], 4, 20)),
    "reshape of extents of 1": (1, lambda x: x.reshape(x.shape[0], 1, 4, 6, 1)),
    "flip": (3, lambda x: x.flip(2, 4)),
    "flip of channels and samples": (2, lambda x: torch.flip(x, (0, 1))),
    "flip channels last": (2, lambda x: x.permute(0, 2, 3, 1).flip(1, 3)),
    "roll": (3, lambda x: x.roll((1, -2, 7), (2, 3, 1))),
    "roll of one": (1, lambda x: torch.roll(x, -1, 2)),
    "rot90": (2, lambda x: torch.rot90(x, 1, (2, 3))),
    "rot90 twice": (3, lambda x: x.rot90(2, (4, 2))),
    "rot90 back": (3, lambda x: x.rot90(-1, (2, 4))),
    "narrow": (3, lambda x: x.narrow(3, 1, 2)),
    "select": (3, lambda x: x.select(2, -1)),
    "unbind": (2, lambda x: torch.cat(x.unbind(3), 1)),
    "split": (2, lambda x: torch.cat(x.split([1, 3], dim=2)[::-1], dim=2)),
    "chunk": (3, lambda x: torch.cat(x.chunk(2, dim=-2), dim=4)),
    "cat along space": (2, lambda x: torch.cat([x, x.flip(3)], dim=3)),
    "cat channels last": (2, lambda x: torch.cat([x.permute(0, 2, 3, 1)] * 2, dim=-1)),
    "stack": (2, lambda x: torch.stack([x, 2 * x], dim=1)),
    "stack of axes": (2, lambda x: torch.stack([x, x.flip(2)], dim=3)),
    "sum over height": (3, lambda x: x.sum(2)),
    "sum over two axes": (3, lambda x: x.sum(dim=(2, 4))),
    "sum that keeps axes": (3, lambda x: x.sum((-1, 2), keepdim=True)),
    "sum over channels": (2, lambda x: x.sum(1)),
    "sum over channels and an axis": (3, lambda x: x.sum((1, 3))),
    "sum channels last": (2, lambda x: x.permute(0, 2, 3, 1).sum(1)),
    "sum channels last, all axes": (2, lambda x: x.permute(0, 2, 3, 1).sum((1, 2), keepdim=True)),
    "norm": (3, lambda x: torch.norm(x, 3, dim=2)),
    "norm channels last": (2, lambda x: x.permute(0, 2, 3, 1).norm(p=2, dim=(1, 2), keepdim=True)),
}


def densely(y: Any) -> Tensor:
    return y if isinstance(y, Tensor) else y.dense()


def case(dimensions: int, density: float, seed: int, batch: int = 2) -> sc.SparseTensor:
    size = SIZES[dimensions]
    mask = random_mask(batch, size, density, seed, empty_sample=seed % 3 == 2)
    t = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(seed))
    return sparse(t.double(), mask, seed)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_that_of_the_dense_tensor(engine: str, name: str) -> None:
    dimensions, call = MOVES[name]
    for density, seed in ((0.0, 0), (0.05, 1), (0.4, 2), (1.0, 3)):
        x = case(dimensions, density, seed)
        y, expected = call(x), call(x.dense())
        assert y.shape == expected.shape
        assert_close(densely(y), expected)
        assert torch.equal(densely(call(permuted(x, seed))), densely(y))


@pytest.mark.parametrize("name", [name for name in MOVES if "last" in name or "middle" in name])
def test_permuted_values_are_channels_first_where_a_layer_asks(engine: str, name: str) -> None:
    dimensions, call = MOVES[name]
    x = case(dimensions, 0.4, 1)
    y, expected = call(x), call(x.dense())
    if y.ndim < 3 or isinstance(y, Tensor):
        return
    layer = getattr(torch.nn, f"Conv{y.ndim - 2}d")(y.shape[1], 2, 1, bias=False).double()
    assert_close(layer(y).dense(), layer(expected))


@pytest.mark.parametrize("name", MOVES)
def test_gradients_follow(engine: str, name: str) -> None:
    dimensions, call = MOVES[name]
    x = case(dimensions, 0.4, 3)
    rows = x.features.clone().requires_grad_()
    y = densely(call(x.replace(rows)))
    weights = torch.randn(y.shape, dtype=y.dtype)
    (y * weights).sum().backward()
    t = x.dense().requires_grad_()
    (call(t) * weights).sum().backward()
    assert t.grad is not None and rows.grad is not None
    assert_close(rows.grad, t.grad.movedim(1, -1)[tuple(x.coords.unbind(1))])


STATISTICS: dict[str, tuple[Call, Callable[[Tensor, Tensor, int], Tensor]]] = {
    "amax": (lambda x: x.amax(3), lambda t, m, d: _hidden(t, m, -torch.inf).amax(d)),
    "amin": (lambda x: x.amin(3), lambda t, m, d: _hidden(t, m, torch.inf).amin(d)),
    "mean": (lambda x: x.mean(3), lambda t, m, d: t.sum(d) / m.sum(d)),
    "var": (
        lambda x: x.var(3, correction=0),
        lambda t, m, d: (t**2).sum(d) / m.sum(d) - (t.sum(d) / m.sum(d)) ** 2,
    ),
}


def _hidden(t: Tensor, mask: Tensor, fill: float) -> Tensor:
    return torch.where(mask, t, fill)


@pytest.mark.parametrize("name", STATISTICS)
@given(density=st.sampled_from((0.05, 0.4, 1.0)), seed=st.integers(0, 99))
@settings(max_examples=4)
def test_statistics_over_an_axis_run_over_active_sites(
    engine: str, name: str, density: float, seed: int
) -> None:
    call, judge = STATISTICS[name]
    x = case(3, density, seed)
    y = call(x)
    mask = x.mask()
    assert torch.equal(y.mask(), mask.any(3))
    expected = torch.where(y.mask(), judge(x.dense(), mask, 3), 0.0)
    assert_close(y.dense(), expected)
    kept = call(x.permute(0, 1, 2, 4, 3).permute(0, 1, 2, 4, 3))
    assert torch.equal(kept.features, y.features)
    assert torch.equal(call(permuted(x, seed)).features, y.features)
    for number, sample in enumerate(x.split()):
        assert torch.equal(call(sample).features, y[number].features)


def test_gradients_of_statistics(engine: str) -> None:
    x = random_input(9, 2, (2, 3, 2), 2)

    def run(rows: Tensor) -> tuple[Tensor, ...]:
        y = x.replace(rows)
        return tuple(call(y).features for call, _ in STATISTICS.values())

    leaf = x.features.clone().requires_grad_()
    assert gradcheck(run, (leaf,))
    assert gradgradcheck(run, (leaf,))


def test_moved_tensors_share_their_sites() -> None:
    x = random_input(20, 2, (4, 5, 3))
    for call in (lambda x: x.permute(0, 1, 3, 4, 2), lambda x: x.sum(2), lambda x: x.flip(3)):
        assert call(x).sites is call(2 * x).sites
    there = x.permute(0, 2, 3, 4, 1)
    assert there.permute(0, 4, 1, 2, 3).sites is x.sites


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_padded_samples_go_there_and_back(engine: str, counts: list[int], seed: int) -> None:
    coords = torch.tensor([[b, i] for b, n in enumerate(counts) for i in range(n)])
    coords = coords.reshape(-1, 2).long()[torch.randperm(sum(counts))]
    features = torch.randn(len(coords), 3, dtype=torch.float64)
    x = sc.SparseTensor(features, coords, (9,), len(counts))
    padded, mask = x.to_padded()
    assert padded.shape == (len(counts), max(counts), 3)
    assert mask.sum(1).tolist() == counts
    for sample, rows, present in zip(x.split(), padded, mask, strict=True):
        order = sample.coords[:, 1].argsort()
        assert torch.equal(rows[present], sample.features[order])
        assert not rows[~present].any()
    assert torch.equal(x.from_padded(padded).features, x.features)
    assert torch.equal(x.from_nested(x.to_nested()).features, x.features)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_attention_within_samples_needs_no_loop(engine: str) -> None:
    x = random_input(30, 8, (5, 6), 3)
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    padded, mask = x.to_padded()
    y = x.from_padded(attention(padded, padded, padded, key_padding_mask=~mask)[0])
    y.features.sum().backward()
    for sample, result in zip(x.split(), y.split(), strict=True):
        rows = sample.features[None]
        assert_close(result.features, attention(rows, rows, rows)[0][0])
    nested = x.to_nested()
    heads = nested.unflatten(-1, (2, 4)).transpose(1, 2)
    out = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
    z = x.from_nested(out.transpose(1, 2).flatten(-2))
    for sample, result in zip(x.split(), z.split(), strict=True):
        rows = sample.features.unflatten(-1, (2, 4)).transpose(0, 1)
        alone = torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)
        assert_close(result.features, alone.transpose(0, 1).flatten(-2))


X = random_input(9, 4, (4, 5))
WRONG: dict[str, Call] = {
    "samples": lambda x: x.permute(1, 0, 2, 3),
    "dims": lambda x: x.permute(0, 1, 2),
    "dim0": lambda x: x.transpose(7, 1),
    "twice": lambda x: x.flip(2, 2),
    "destination": lambda x: x.movedim((2, 3), 1),
    "batch stays": lambda x: x.sum((0, 2)),
    "new samples": lambda x: x.unsqueeze(0),
    "squeeze all": lambda x: x.squeeze(),
    "squeeze samples": lambda x: x.squeeze(0),
    "whole": lambda x: x.flatten(1),
    "flatten samples": lambda x: x.flatten(0, 1),
    "sizes": lambda x: x.unflatten(2, (3, 2)),
    "reshape": lambda x: x.reshape(4, 20),
    "roll without axes": lambda x: x.roll(1),
    "shifts": lambda x: x.roll((1, 2), 2),
    "rot90": lambda x: x.rot90(1, (2,)),
    "narrow": lambda x: x.narrow(2, 3, 2),
    "stack": lambda x: torch.stack([x, x]),
    "cat of extents": lambda x: torch.cat([x, x.narrow(3, 0, 2)], dim=2),
    "five axes": lambda x: x.unsqueeze(2).unsqueeze(2).unsqueeze(2),
    "padded": lambda x: x.from_padded(torch.ones(2, 2, 2)),
    "nested": lambda x: x.from_nested(torch.ones(2, 2)),
    "expand": lambda x: x.expand(-1, -1, 4, 6),
    "last axis": lambda x: torch.nn.LayerNorm(4)(x.permute(0, 2, 1, 3)),
    "open axis": lambda x: sc.SparseTensor(x.features, x.coords - 2).flip(2),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_raises_in_one_line(name: str) -> None:
    with pytest.raises(sc.SparseConvError) as caught:
        WRONG[name](X)
    assert "\n" not in str(caught.value)


def test_a_move_carries_the_grid_or_forgets_it() -> None:
    grid = sc.Grid((1.0, 2.0, 3.0), (0.5, 0.25, 0.125))
    x = random_input(20, 2, (4, 5, 3)).with_grid(grid)
    assert x.permute(0, 1, 4, 2, 3).grid == grid.axes((2, 0, 1))
    assert x.permute(0, 2, 3, 4, 1).permute(0, 4, 1, 2, 3).grid == grid
    assert x.sum(2).grid == x.flatten(1, 2).grid == x.narrow(2, 0, 1).squeeze(2).grid
    assert x.amax(3).grid == sc.Grid((1.0, 3.0), (0.5, 0.125))
    assert x.mean(4, keepdim=True).grid == sc.Grid((1.0, 2.0, 3.0), (0.5, 0.25, 0.375))
    assert x.narrow(3, 2, 2).grid == sc.Grid((1.0, 2.5, 3.0), (0.5, 0.25, 0.125))
    for call in (lambda x: x.flip(2), lambda x: x.roll(1, 3), lambda x: x.flatten(2, 3),
                 lambda x: x.unsqueeze(2), lambda x: x.unflatten(2, (2, 2)),
                 lambda x: torch.cat([x, x], dim=2)):  # fmt: skip
        assert call(x).grid is None
    gated = x * x.mean((2, 3), keepdim=True)
    assert gated.sites is x.sites
    two = sc.collate([x, x.with_grid(sc.Grid((9.0, 2.0, 3.0), (0.5, 0.25, 0.125)))])
    assert two.flip(0).grid == two.grid[::-1]
    # one place in the world: sites on an extent of 1 are no gate
    flat = x.narrow(2, 0, 1)
    assert (x + flat).num_sites == x.num_sites
    assert torch.equal((x + flat).dense()[:, :, 1:], x.dense()[:, :, 1:])

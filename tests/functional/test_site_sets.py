"""Sets of sites, given output sites, the ends of a sparse block, unshared weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, dense_conv, generator, permuted, random_input, random_mask, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

SIZES = {1: (9,), 2: (4, 5), 3: (3, 4, 3), 4: (2, 3, 2, 3)}


def pair(axes: int = 2, seed: int = 0, batch: int = 2) -> tuple[sc.SparseTensor, sc.SparseTensor]:
    """Return two tensors on sites of one grid that partly agree."""
    size = SIZES[axes]
    masks = [random_mask(batch, size, 0.5, seed + n) for n in range(2)]
    t = torch.randn(2, batch, 3, *size, generator=generator(seed), dtype=torch.float64)
    return sparse(t[0], masks[0], seed), sparse(t[1], masks[1], seed + 1)


def places(x: sc.SparseTensor) -> set[tuple[int, ...]]:
    return {tuple(c) for c in x.coords.tolist()}


def features_at(x: sc.SparseTensor) -> dict[tuple[int, ...], tuple[float, ...]]:
    rows = x.features.tolist()
    return {tuple(c): tuple(f) for c, f in zip(x.coords.tolist(), rows, strict=True)}


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**16))
def test_sets_of_sites_are_sets(axes: int, seed: int) -> None:
    x, y = pair(axes, seed)
    both, either, only = sc.intersect(x, y), sc.union(x, y, fill=7.0), sc.difference(x, y)
    assert places(both) == places(x) & places(y)
    assert places(either) == places(x) | places(y)
    assert places(only) == places(x) - places(y)
    own = features_at(x)
    for part in (both, only):
        assert features_at(part).items() <= own.items()
        assert part.spatial_shape == x.spatial_shape
    for site, row in features_at(either).items():
        assert row == own.get(site, (7.0, 7.0, 7.0))
    assert either.coords.tolist() == sorted(either.coords.tolist()) or either.sites is x.sites


def test_sets_of_many_and_of_one() -> None:
    x, y = pair()
    z, _ = pair(seed=5)
    assert places(sc.union(x, y, z)) == places(x) | places(y) | places(z)
    assert places(sc.intersect(x, y, z)) == places(x) & places(y) & places(z)
    assert places(sc.difference(x, y, z)) == places(x) - places(y) - places(z)
    for function in (sc.union, sc.intersect, sc.difference):
        assert function(x) is x
    assert sc.union(x, x).sites is x.sites
    assert sc.union(x, sc.intersect(x, y)).sites is x.sites
    assert sc.intersect(x, sc.union(x, y)).sites is x.sites


def test_subsets_keep_the_row_order() -> None:
    x, y = pair()
    keep = torch.rand(x.num_sites, generator=generator(1)) < 0.5
    part = sc.prune(x, keep)
    assert torch.equal(part.coords, x.coords[keep])
    assert torch.equal(part.features, x.features[keep])
    rows, found = y.at(x.coords)
    assert torch.equal(sc.intersect(x, y).coords, x.coords[found])
    assert torch.equal(sc.difference(x, y).coords, x.coords[rows < 0])


@pytest.mark.parametrize("fill", [0.0, 2.5])
def test_derivatives_of_sets(fill: float) -> None:
    x, y = pair()
    keep = torch.rand(x.num_sites, generator=generator(1)) < 0.5
    calls: list[Callable[[sc.SparseTensor], sc.SparseTensor]] = [
        lambda x: sc.union(x, y, fill=fill),
        lambda x: sc.intersect(x, y),
        lambda x: sc.difference(x, y),
        lambda x: sc.prune(x, keep),
        lambda x: sc.crop(x, (1, 0), (3, 9)),
        lambda x: sc.cat([x, y], fill=fill),
    ]
    features = x.features.clone().requires_grad_()
    for call in calls:
        run = lambda f, call=call: call(x.replace(f)).features  # noqa: E731
        assert gradcheck(run, features)
        assert gradgradcheck(lambda f, run=run: run(f) ** 2, features)


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**16), st.data())
def test_crop_is_a_slice_of_the_dense_tensor(axes: int, seed: int, data: st.DataObject) -> None:
    x, _ = pair(axes, seed)
    box = []
    for size in x.spatial_shape:
        low = data.draw(st.integers(-2, size))
        box.append((low, data.draw(st.integers(low + 1, size + 3))))
    part = sc.crop(x, [low for low, _ in box], [high for _, high in box])
    padded = torch.nn.functional.pad(x.dense(), (3, 3) * axes)
    index = tuple(slice(low + 3, high + 3) for low, high in box)
    assert torch.equal(part.dense(), padded[(slice(None), slice(None), *index)])
    assert part.batch_size == x.batch_size


def test_crop_of_negative_coordinates() -> None:
    x = sc.SparseTensor(torch.ones(3, 1), torch.tensor([[0, -5], [0, -2], [0, 3]]))
    assert sc.crop(x, -5, 0).coords.tolist() == [[0, 0], [0, 3]]
    assert sc.crop(x, -5, 0).dense().flatten().tolist() == [1, 0, 0, 1, 0]


def test_cat_joins_channels_on_the_union(engine: str) -> None:
    x, y = pair()
    z = sc.cat([x, y], fill=-1.0)
    united = x.mask() | y.mask()
    expected = torch.cat([x.dense(-1), y.dense(-1)], dim=1)
    assert torch.equal(z.dense(), torch.where(united, expected, 0.0))
    assert torch.equal(z.mask(), united)
    same = sc.cat([x, permuted(x)], fill=0)
    assert same.sites is x.sites
    assert torch.equal(same.features, torch.cat([x.features] * 2, dim=1))
    for function in (torch.cat, torch.concat, torch.concatenate):
        assert torch.equal(function([x, x], dim=1).features, same.features)
        assert torch.equal(function([x, x], axis=1).features, same.features)
        # PyTorch's default is the batch
        assert torch.equal(function([x, y]).dense(), function([x.dense(), y.dense()]))
        with pytest.raises(sc.SparseConvTypeError, match=r"^out"):
            function([x, x], 1, out=torch.zeros(1))
    with pytest.raises(sc.SparseConvValueError, match="same sites"):
        sc.cat([x, y])
    joined = torch.cat([x, y], dim=1)
    assert torch.equal(joined.dense(), torch.cat([x.dense(), y.dense()], dim=1))
    assert torch.equal(joined.mask(), united)


def test_cat_on_sites_that_hold_the_others_stays_on_them(engine: str) -> None:
    """So an inverse layer still finds its way from a skip connection's sites."""
    x, _ = pair()
    part = sc.prune(x, torch.arange(x.num_sites) % 3 > 0)
    joined = torch.cat([x, part, permuted(x)], dim=1)
    assert joined.sites is x.sites
    assert torch.equal(joined.dense(), torch.cat([x.dense(), part.dense(), x.dense()], dim=1))


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_convolution_at_given_sites(engine: str, axes: int) -> None:
    """The dense run at any sites: reached or not, more or fewer than the site law's."""
    x, _ = pair(axes)
    stride, padding, dilation = (2, 1, 1) if axes < 4 else (1, 1, 1)
    kernel = (3, 2, 3, 1)[:axes]
    weight = torch.randn(4, 3, *kernel, generator=generator(3), dtype=torch.float64)
    bias = torch.randn(4, generator=generator(4), dtype=torch.float64)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    dense = dense_conv(x.dense(), weight, bias, **options)
    assert_close(sc.functional.conv(x.dense(), weight, bias, **options), dense)
    mask = random_mask(2, dense.shape[2:], 0.5, 9)
    like = sparse(dense[:, :1], mask, 3)
    y = sc.functional.conv(x, weight, bias, **options, like=like)
    assert y.sites is like.sites
    assert_close(y.dense(), torch.where(mask[:, None], dense, 0.0))
    regular = sc.functional.conv(x, weight, bias, **options)
    if axes < 4:
        assert regular.sites is getattr(torch, f"conv{axes}d")(x, weight, bias, **options).sites
    leaves = [t.clone().requires_grad_() for t in (x.features, weight, bias)]

    def run(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = x.replace(features)
        return sc.functional.conv(given, weight, bias, **options, like=like).features

    if axes < 3:
        assert gradcheck(run, leaves)
        assert gradgradcheck(run, leaves)


def test_given_sites_must_fit() -> None:
    x, y = pair()
    weight = torch.ones(1, 3, 3, 3, dtype=torch.float64)
    for given_to in (x, x.dense()):
        with pytest.raises(sc.SparseConvValueError, match=r"^like"):
            sc.functional.conv(given_to, weight, like=y)
    with pytest.raises(sc.SparseConvTypeError, match=r"^like"):
        sc.functional.conv(x, weight, padding=1, like=y.dense())
    assert sc.functional.conv(x.dense(), weight, padding=1, like=y).shape == (2, 1, 4, 5)


LIKE: dict[str, tuple[Any, dict[str, Any]]] = {
    "subm_conv": (sc.functional.subm_conv, {"dilation": 2}),
    "conv4d": (sc.functional.conv4d, {"stride": 2, "padding": 1}),
    "conv_transpose": (
        sc.functional.conv_transpose,
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    "partial_conv": (sc.functional.partial_conv, {"stride": 2, "padding": 1}),
    "subm_partial_conv": (sc.functional.subm_partial_conv, {"dilation": 2}),
    "partial_conv_transpose": (sc.functional.partial_conv_transpose, {"stride": 2, "padding": 1}),
}


@pytest.mark.parametrize("name", LIKE)
def test_every_convolution_computes_at_the_sites_of_like(engine: str, name: str) -> None:
    """Also where no input reaches: there a plain convolution has its bias, a partial one 0."""
    function, options = LIKE[name]
    axes = 4 if name == "conv4d" else 2
    x, _ = pair(axes)
    weight = torch.randn(3, 3, *(3, 1, 3, 3)[:axes], generator=generator(3), dtype=torch.float64)
    bias = torch.randn(3, generator=generator(4), dtype=torch.float64)
    partial = "partial" in name
    mask = {"mask": x.mask()} if partial else {}
    dense = function(x.dense(), weight, bias, **options, **mask)
    dense = dense[0] if partial else dense
    active = random_mask(2, dense.shape[2:], 0.6, 9)
    if name == "subm_partial_conv":  # on a dense tensor it adds no site to the mask
        active &= x.mask()[:, 0]
    like = sparse(dense[:, :1], active, 3)
    y = function(x, weight, bias, **options, like=like)
    assert y.sites is like.sites
    assert_close(y.dense(), torch.where(active[:, None], dense, 0.0))
    given = function(x.dense(), weight, bias, **options, **mask, like=like)
    assert torch.equal(given[0] if partial else given, dense)
    with pytest.raises(sc.SparseConvTypeError, match=r"^like"):
        function(x, weight, bias, **options, like=like.dense())


@pytest.mark.parametrize(
    "layer",
    [
        sc.nn.SubmConv2d(3, 3, 3),
        sc.nn.PartialConv2d(3, 3, 3, padding=1),
        sc.nn.SubmPartialConv2d(3, 3, 3),
        sc.nn.PartialConvTranspose2d(3, 3, 3, padding=1),
        sc.nn.FusedConvolution(sc.nn.SubmConv2d(3, 3, 3)),
        sc.nn.FusedConvolution(torch.nn.Conv2d(3, 3, 3, padding=1)),
        sc.nn.FusedConvolution(torch.nn.ConvTranspose2d(3, 3, 3, padding=1)),
    ],
    ids=repr,
)
def test_the_modules_take_like(layer: torch.nn.Module) -> None:
    x, like = pair()
    y = layer.double()(x, like=like)
    assert y.sites is like.sites


def test_the_ends_of_a_sparse_block() -> None:
    x, _ = pair()
    t = x.dense()
    block = torch.nn.Sequential(sc.nn.ToSites(), torch.nn.ReLU(), sc.nn.ToDense(fill=-1.0))
    assert torch.equal(block(t), torch.where(x.mask(), t.relu(), -1.0))
    assert torch.equal(block(x), block(t))
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    assert sc.nn.ToSites()(t, mask).num_sites == mask.sum()
    assert sc.nn.ToSites()(x) is x
    assert sc.nn.ToDense()(t) is t
    t.requires_grad_()
    block(t).sum().backward()
    assert torch.equal(t.grad, (t > 0).double())


def locally_connected_by_loop(x: Tensor, layer: Any) -> Tensor:
    """Write out one convolution per output position."""
    axes = len(layer.kernel_size)
    shared = [dense_conv(x, layer.weight[position], None, layer.stride, layer.padding,
                         layer.dilation)[(..., *position)]
              for position in positions(layer)]  # fmt: skip
    stacked = torch.stack(shared, dim=-1).unflatten(-1, layer.weight.shape[:axes])
    return stacked if layer.bias is None else stacked + layer.bias


def positions(layer: Any) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, layer.weight.shape[: len(layer.kernel_size)])))


LOCAL = {
    "1d": lambda: sc.nn.LocallyConnected1d(3, 2, 3, 9, stride=2, padding=1),
    "1d same": lambda: sc.nn.LocallyConnected1d(3, 2, 2, 9, padding="same", dilation=3),
    "2d": lambda: sc.nn.LocallyConnected2d(3, 2, (3, 2), (4, 5), padding=(1, 0), bias=False),
    "2d strided": lambda: sc.nn.LocallyConnected2d(3, 1, 2, (4, 5), stride=(1, 2), dilation=2),
}


@pytest.mark.parametrize("name", LOCAL)
def test_locally_connected(engine: str, name: str) -> None:
    layer = LOCAL[name]().double()
    x, _ = pair(len(layer.kernel_size))
    dense = locally_connected_by_loop(x.dense(), layer)
    assert_close(layer(x.dense()), dense)
    y = layer(x)
    assert_close(y.dense(), torch.where(y.mask(), dense, 0.0))
    window = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    reached = sc.reference.conv_sites(x.mask()[:, 0], layer.kernel_size, **window)
    assert torch.equal(y.mask()[:, 0], reached)
    for number, sample in enumerate(x.split()):
        assert torch.equal(layer(sample).features, y[number].features)
    leaves = [t.detach().clone().requires_grad_() for t in (x.features, *layer.parameters())]

    def run(features: Tensor, *parameters: Tensor) -> Tensor:
        return sc.functional.locally_connected(x.replace(features), *parameters_of(parameters),
                                               **window).features  # fmt: skip

    def parameters_of(parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        return parameters if len(parameters) == 2 else (parameters[0], None)

    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)


def test_locally_connected_starts_as_torch_does_and_meets_nothing() -> None:
    layer = sc.nn.LocallyConnected2d(4, 5, 3, 6)
    bound = 1 / (4 * 9) ** 0.5
    assert float(layer.weight.detach().abs().max()) <= bound
    assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    empty = sc.SparseTensor(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.long), (6, 6), 2)
    empty.requires_grad_()
    y = layer(empty)
    assert (y.num_sites, y.shape) == (0, (2, 5, 4, 4))
    y.features.sum().backward()
    assert layer.weight.grad.abs().sum() == 0


X, Y = pair()
OTHER = random_input(4, 3, (9, 9))
LAYER = sc.nn.LocallyConnected2d(3, 2, 3, (4, 5)).double()
WRONG = {
    "union: grid": lambda: sc.union(X, OTHER),
    "union: dense": lambda: sc.union(X, X.dense()),
    "union: fill": lambda: sc.union(X, Y, fill="no"),
    "intersect: grid": lambda: sc.intersect(X, OTHER),
    "difference: number": lambda: sc.difference(X, 3),
    "prune: rows": lambda: sc.prune(X, torch.ones(3, dtype=torch.bool)),
    "prune: dtype": lambda: sc.prune(X, torch.ones(X.num_sites)),
    "prune: list": lambda: sc.prune(X, [True]),
    "prune: dense": lambda: sc.prune(X.dense(), torch.ones(2, dtype=torch.bool)),
    "crop: empty box": lambda: sc.crop(X, 2, 2),
    "crop: float": lambda: sc.crop(X, 0.5, 2),
    "crop: axes": lambda: sc.crop(X, (0, 0, 0), 2),
    "crop: far": lambda: sc.crop(X, 0, 2**40),
    "cat: nothing": lambda: sc.cat([]),
    "cat: tensor": lambda: sc.cat(X),
    "cat: dense": lambda: sc.cat([X.dense(), X.dense()]),
    "cat: dim": lambda: sc.cat([X, X], dim=X.ndim),
    "cat: fill of samples": lambda: sc.cat([X, X], dim=0, fill=0.0),
    "cat: grid": lambda: sc.cat([X, OTHER], fill=0.0),
    "local: extent": lambda: LAYER(OTHER),
    "local: axes": lambda: LAYER(random_input(3, 3)),
    "local: dtype": lambda: LAYER(X.float()),
    "local: bias": lambda: sc.functional.locally_connected(X, LAYER.weight, LAYER.bias[:1]),
    "local: no window": lambda: sc.nn.LocallyConnected1d(1, 1, 5, 3),
    "local: channels": lambda: sc.nn.LocallyConnected1d(0, 1, 3, 3),
    "local: size": lambda: sc.nn.LocallyConnected2d(1, 1, 3, (4, 4, 4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_raises_in_one_line(name: str) -> None:
    with pytest.raises(sc.SparseConvError) as caught:
        WRONG[name]()
    assert "\n" not in str(caught.value)

"""The strided site law: the cells of the stride that hold an input, whatever the window."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import Ints, assert_close, generator, permuted, random_input, random_mask, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

LONGEST = {1: 11, 2: 6, 3: 4, 4: 3}


@dataclass(frozen=True)
class Window:
    """A window layer with the strided law, on a random tensor."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    x: Tensor
    mask: Tensor

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def out_mask(self) -> Tensor:
        """Return bool ``[B, *output]``, by the definition."""
        size = [-(-n // s) for n, s in zip(self.mask.shape[1:], self.stride, strict=True)]
        active = torch.zeros(self.mask.shape[0], *size, dtype=torch.bool)
        for b, *site in self.mask.nonzero().tolist():
            active[(b, *(i // s for i, s in zip(site, self.stride, strict=True)))] = True
        return active

    def dense(self, t: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution with zeros as far as windows read, cell by cell."""
        size = self.out_mask().shape[1:]
        y = torch.zeros(t.shape[0], weight.shape[0], *size, dtype=t.dtype)
        cells = list(itertools.product(*(range(k) for k in self.kernel)))
        for site in itertools.product(*(range(n) for n in size)):
            for cell in cells:
                place = [
                    o * s - p + k * d
                    for o, s, p, k, d in zip(
                        site, self.stride, self.padding, cell, self.dilation, strict=True
                    )
                ]
                if all(0 <= i < n for i, n in zip(place, t.shape[2:], strict=True)):
                    row = t[(slice(None), slice(None), *place)]
                    y[(slice(None), slice(None), *site)] += row @ weight[(..., *cell)].T
        return y


@st.composite
def windows(draw: st.DrawFn) -> Window:
    axes = draw(st.integers(1, 4))

    def some(low: int, high: int) -> Ints:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation = some(1, 3), some(1, 3), some(1, 2)
    padding = tuple(
        draw(st.integers(0, d * (k - 1))) for d, k in zip(dilation, kernel, strict=True)
    )
    size = some(1, LONGEST[axes])
    batch, seed = draw(st.integers(1, 2)), draw(st.integers(0, 99))
    mask = random_mask(batch, size, draw(st.sampled_from([0.0, 0.2, 0.6])), seed)
    x = torch.randn(batch, 2, *size, dtype=torch.float64, generator=generator(seed))
    return Window(kernel, stride, padding, dilation, x, mask)


def weight_of(window: Window, seed: int = 5) -> Tensor:
    shape = (3, 2, *window.kernel)
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


@given(window=windows())
def test_convolution_is_the_dense_one_at_the_cells_of_the_stride(window: Window) -> None:
    weight, t = weight_of(window), window.x * window.mask[:, None]
    y = sc.functional.conv(
        sparse(window.x, window.mask, 3), weight, **window.options, sites="strided"
    )
    active = window.out_mask()
    assert y.spatial_shape == tuple(active.shape[1:])
    assert torch.equal(y.mask()[:, 0], active)
    expected = window.dense(t, weight)
    assert_close(y.dense(), expected * active[:, None])
    assert_close(sc.functional.conv(t, weight, **window.options, sites="strided"), expected)


@given(window=windows())
def test_inverse_is_the_adjoint(window: Window) -> None:
    x = sparse(window.x, window.mask, 3)
    weight = weight_of(window)
    y = sc.functional.conv(x, weight, **window.options, sites="strided")
    other = y.replace(torch.randn(y.features.shape, generator=generator(2), dtype=torch.float64))
    back = sc.functional.inverse_conv(other, weight, **window.options, sites="strided")
    assert back.sites.same_as(x.sites)
    assert_close((y.features * other.features).sum(), (x.features * back.features).sum())
    named = sc.functional.inverse_conv(other, weight, **window.options, like=x, sites="strided")
    assert torch.equal(named.features, back.features)
    dense = sc.functional.inverse_conv(
        other.dense(), weight, **window.options, like=window.x, sites="strided"
    )
    assert_close(back.dense(), dense * window.mask[:, None])


@given(window=windows())
def test_poolings_take_what_is_in_the_window(window: Window) -> None:
    x = sparse(window.x, window.mask, 3)
    volume = torch.Size(window.kernel).numel()
    half = tuple(min(p, k // 2) for p, k in zip(window.padding, window.kernel, strict=True))
    options = {"stride": window.stride, "padding": half}
    place = Window(window.kernel, window.stride, half, (1,) * len(half), window.x, window.mask)
    ones = torch.eye(2, dtype=torch.float64).reshape(2, 2, *(1,) * len(half))
    ones = ones.expand(2, 2, *window.kernel)
    filled = window.mask[:, None] & torch.ones(1, 2, *(1,) * len(half), dtype=torch.bool)
    sums, counts = place.dense(window.x * filled, ones), place.dense(filled.double(), ones)
    active = window.out_mask()[:, None]
    for name, settings, expected in (
        ("sum", {"divisor_override": 1}, sums),
        ("all", {}, sums / volume),
        ("present", {"count_include_pad": False}, sums / counts.clamp(min=1)),
    ):
        y = sc.functional.avg_pool(x, window.kernel, **options, **settings, sites="strided")
        assert_close(y.dense(), expected * active)
        if name != "present":
            t = window.x * filled
            dense = sc.functional.avg_pool(t, window.kernel, **options, **settings, sites="strided")
            assert_close(dense, expected)
    lowest = torch.where(filled, window.x, -1e9)
    window_options = {"stride": window.stride, "padding": half, "dilation": window.dilation}
    largest = sc.functional.max_pool(lowest, window.kernel, **window_options, sites="strided")
    largest = torch.where(largest > -1e8, largest, 0)
    y = sc.functional.max_pool(x, window.kernel, **window_options, sites="strided")
    assert_close(y.dense(), largest * active)


def test_without_a_law_pooling_is_torchs_own() -> None:
    t = torch.randn(2, 3, 6, 5, generator=generator(0))
    for x in (t, sc.SparseTensor.from_dense(t)):
        y, own = sc.functional.max_pool(x, 3, 2, 1), F.max_pool2d(x, 3, 2, 1)
        assert torch.equal(*(z if isinstance(z, Tensor) else z.dense() for z in (y, own)))
        for settings in ({}, {"count_include_pad": False}, {"divisor_override": 3}):
            y = sc.functional.avg_pool(x, 3, 2, 1, **settings)
            own = F.avg_pool2d(x, 3, 2, 1, **settings)
            assert_close(*(z if isinstance(z, Tensor) else z.dense() for z in (y, own)))


def test_pooling_on_given_sites() -> None:
    x = random_input(9, 2, (6, 6), seed=4)
    here = random_input(5, 1, (3, 3), seed=6)
    for pool, options in ((sc.functional.max_pool, {}), (sc.functional.avg_pool, {})):
        everywhere = pool(x, 2, 2, **options)
        y = pool(x, 2, 2, **options, like=here)
        assert y.sites is here.sites
        rows, found = everywhere.at(here.coords)
        assert torch.equal(y.features[found], everywhere.features[rows[found]])
        assert not bool(y.features[~found].any())


def test_with_stride_1_the_sites_are_the_inputs() -> None:
    x = random_input(20, 2, (5, 5))
    weight = torch.randn(3, 2, 2, 2, generator=generator(1), dtype=torch.float64)
    y = sc.functional.conv(x, weight, sites="strided")
    assert y.sites is x.sites
    same = sc.functional.conv(x, weight, padding=1, sites="strided")
    expected = sc.functional.conv(x, weight, padding=1)
    rows, found = expected.at(x.coords)
    assert bool(found.all())
    assert_close(same.features, expected.features[rows])


def test_gradients_and_the_order_of_rows() -> None:
    x = random_input(12, 2, (7, 5))
    weight = torch.randn(3, 2, 3, 3, generator=generator(1), dtype=torch.float64)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "sites": "strided"}

    def run(features: Tensor, kernel: Tensor) -> Tensor:
        y = sc.functional.conv(x.replace(features), kernel, **options)
        return sc.functional.max_pool(y, 3, 2, 1, sites="strided").features

    inputs = x.features.requires_grad_(), weight.requires_grad_()
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)
    moved = permuted(x)
    assert torch.equal(
        sc.functional.conv(moved, weight, **options).features,
        sc.functional.conv(x, weight, **options).features,
    )


def test_on_axes_without_an_end_nothing_depends_on_the_place() -> None:
    coords = torch.tensor([[0, -3, 0], [0, -2, 5], [0, 4, 4], [0, 4, 5]])
    features = torch.randn(4, 2, generator=generator(0), dtype=torch.float64)
    weight = torch.randn(3, 2, 3, 3, generator=generator(1), dtype=torch.float64)
    x = sc.SparseTensor(features, coords, (None, None), 1)
    y = sc.functional.conv(x, weight, stride=2, padding=1, sites="strided")
    assert y.coords.tolist() == [[0, -2, 0], [0, -1, 2], [0, 2, 2]]
    moved = sc.SparseTensor(features, coords + torch.tensor([0, 8, -8]), (None, None), 1)
    z = sc.functional.conv(moved, weight, stride=2, padding=1, sites="strided")
    assert torch.equal(z.coords, y.coords + torch.tensor([0, 4, -4]))
    assert torch.equal(z.features, y.features)
    up = sc.functional.inverse_conv(y, weight, stride=2, padding=1, sites="strided")
    assert up.sites is x.sites
    again = pickle.loads(pickle.dumps(y))
    up = sc.functional.inverse_conv(again, weight, stride=2, padding=1, sites="strided")
    assert torch.equal(up.coords, x.coords)


def test_an_axis_that_wraps_around_is_read_over_its_seam() -> None:
    x = random_input(10, 2, (6, 5), seed=2)
    grid = sc.Grid((0.0, 0.0), (1.0, 1.0), circular=(True, False))
    weight = torch.randn(3, 2, 3, 3, generator=generator(1), dtype=torch.float64)
    for stride in (1, 2):
        options: dict[str, Any] = {"stride": stride, "padding": 1, "sites": "strided"}
        y = sc.functional.conv(x.with_grid(grid), weight, **options)
        wide = F.pad(F.pad(x.dense(), (0, 0, 1, 1), "circular"), (1, 1))
        expected = F.conv2d(wide, weight, stride=stride)
        assert y.spatial_shape == tuple(expected.shape[2:])
        assert_close(y.dense(), expected * y.mask())


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_graph_has_the_same_sites() -> None:
    x = random_input(12, 2, (7, 5), dtype=torch.float32)
    weight = torch.randn(3, 2, 3, 3, generator=generator(1))

    def run(x: Any) -> Any:
        y = sc.functional.conv(x, weight, stride=2, padding=1, sites="strided")
        y = sc.functional.max_pool(y, 3, 1, 1, sites="strided")
        return sc.functional.inverse_conv(y, weight, stride=2, padding=1, sites="strided")

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    y, expected = compiled(x), run(x)
    assert torch.equal(y.features, expected.features)
    assert torch.equal(y.coords, expected.coords)


@pytest.mark.parametrize("sites", ["submanifold", 3, None])
def test_another_law_is_refused(sites: Any) -> None:
    with pytest.raises(ValueError, match="sites: must be 'reached' or 'strided', got"):
        sc.functional.conv(random_input(3, 2, (5, 5)), torch.ones(1, 2, 1, 1).double(), sites=sites)
    with pytest.raises(ValueError, match="sites: must be"):
        sc.functional.max_pool(random_input(3, 2, (5, 5)), 2, sites=sites)

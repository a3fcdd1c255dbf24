"""Interpolation, padding, pixel shuffling: against dense torch and the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import assert_close, generator, permuted, random_input, random_mask, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc
from sparseconv import reference

pytestmark = pytest.mark.usefixtures("engine")

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
LONGEST = {1: 9, 2: 6, 3: 4}

Case = tuple[Tensor, Tensor, dict[str, Any]]


@st.composite
def resamplings(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(1, LONGEST[axes]), min_size=axes, max_size=axes))
    batch, seed = draw(st.integers(1, 2)), draw(st.integers(0, 2**16))
    options: dict[str, Any] = {}
    kind = draw(st.sampled_from(["nearest", "nearest-exact", "linear"]))
    options["mode"] = LINEAR[axes] if kind == "linear" else kind
    if kind == "linear":
        options["align_corners"] = draw(st.sampled_from([True, False, None]))
    if draw(st.booleans()):
        options["size"] = [draw(st.integers(1, 2 * length + 1)) for length in size]
    else:
        scales = st.sampled_from([1.0, 1.25, 1.5, 2.0, 3.0, 0.75])
        drawn = [max(draw(scales), 1 / length) for length in size]
        # PyTorch contradicts itself where a scale other than 1 keeps an extent: over one axis it
        # moves the values, over two it leaves them
        options["scale_factor"] = [
            1.0 if int(length * scale) == length else scale
            for length, scale in zip(size, drawn, strict=True)
        ]
        options["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
    x = torch.randn(batch, 2, *size, generator=generator(seed), dtype=torch.float64)
    density = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    return x, random_mask(batch, size, density, seed), options


@given(case=resamplings())
def test_interpolation_is_torchs_on_the_dense_tensor(engine: str, case: Case) -> None:
    """An inactive site counts 0, and an output has a site where an active input has a weight."""
    t, mask, options = case
    dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
    y = F.interpolate(sparse(rows, mask, seed=1), **options)
    expected = F.interpolate(torch.where(mask[:, None], dense, 0.0), **options)
    assert y.shape == expected.shape
    assert_close(y.dense(), expected)
    touched = F.interpolate(mask[:, None].double(), **options)[:, 0]
    assert (y.mask()[:, 0] | (touched < 1e-6)).all()
    assert (~y.mask()[:, 0] | (touched > 0)).all()
    grad = torch.randn(expected.shape, generator=generator(3), dtype=torch.float64)
    (wanted,) = torch.autograd.grad(expected, dense, grad)
    (got,) = torch.autograd.grad(y.dense(), rows, grad)
    assert_close(got, wanted)


@pytest.mark.parametrize("options", [{"mode": "nearest"}, {"mode": "trilinear"}], ids=str)
def test_derivatives(options: dict[str, Any]) -> None:
    x = random_input(7, 2, (3, 2, 3), batch=2)

    def up(features: Tensor) -> Tensor:
        return F.interpolate(x.replace(features), scale_factor=2, **options).features ** 2

    features = x.features.clone().requires_grad_()
    assert gradcheck(up, (features,))
    assert gradgradcheck(up, (features,))


def test_four_axes_are_the_references() -> None:
    t = torch.randn(2, 1, 2, 3, 2, 2, dtype=torch.float64)
    mask = random_mask(2, t.shape[2:], 0.4)
    y = F.interpolate(sparse(t, mask), scale_factor=2)
    assert_close(y.dense(), reference.interpolate(t * mask[:, None], (4, 6, 4, 4)))


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_order_company_and_threads_change_no_bit(mode: str, as_users_run: None) -> None:
    def run(x: sc.SparseTensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = F.interpolate(x, scale_factor=1.5, mode=mode)
        (grad,) = torch.autograd.grad((y.features**2).sum(), x.features)
        return y.detach().dense(), x.detach().replace(grad).dense()

    x = random_input(1500, 3, (12, 13, 11), batch=3, dtype=torch.float32)
    expected = run(x)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, run(permuted(x)), expected))
    finally:
        torch.set_num_threads(threads)
    for number, sample in enumerate(x.split()):
        assert all(map(torch.equal, run(sample), (part[[number]] for part in expected)))


def test_upsampling_modules_and_empty_input() -> None:
    t = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    x = sparse(t, torch.ones(1, 3, 4, dtype=torch.bool))
    for layer in (
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=(5, 7), mode="bilinear", align_corners=True),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.UpsamplingBilinear2d(scale_factor=2),
    ):
        assert_close(layer(x).dense(), layer(t))
        empty = sc.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int64), (3, 4), 2)
        assert layer(empty).num_sites == 0
        unknown = sc.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int64))
        assert layer(unknown).num_sites == 0


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_and_back(factor: int) -> None:
    t = torch.randn(2, 2 * factor**2, 3, 4, dtype=torch.float64)
    mask = random_mask(2, (3, 4), 0.5)
    x = sparse(t, mask, seed=2)
    y = nn.PixelShuffle(factor)(x)
    assert_close(y.dense(), F.pixel_shuffle(t * mask[:, None], factor))
    assert y.num_sites == factor**2 * x.num_sites
    back = nn.PixelUnshuffle(factor)(y)
    assert_close(back.dense(), t * mask[:, None])
    assert back.num_sites == x.num_sites

    def both(features: Tensor) -> Tensor:
        up = F.pixel_shuffle(x.replace(features), factor)
        return F.pixel_unshuffle(up.replace(up.features**2), factor).features

    features = x.features.clone().requires_grad_()
    assert gradcheck(both, (features,))


def test_pixel_unshuffle_of_some_sites() -> None:
    t = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    mask = random_mask(2, (4, 6), 0.3)
    y = F.pixel_unshuffle(sparse(t, mask, seed=1), 2)
    assert_close(y.dense(), F.pixel_unshuffle(t * mask[:, None], 2))
    assert torch.equal(y.mask()[:, 0], reference.conv_sites(mask, 2, 2))


@pytest.mark.parametrize("pad", [(1, 2), (0, 1, 2, 3), (1, 1, 0, 2, 3, 0)], ids=str)
def test_padding_by_zeros_widens_the_extent(pad: tuple[int, ...]) -> None:
    t = torch.randn(2, 3, 3, 4, 2, dtype=torch.float64)
    mask = random_mask(2, (3, 4, 2), 0.5)
    y = F.pad(sparse(t, mask, seed=1), pad)
    assert_close(y.dense(), F.pad(t * mask[:, None], pad))
    assert y.num_sites == int(mask.sum())


BAD: dict[str, Callable[[sc.SparseTensor], Any]] = {
    "mode: 'bicubic'": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "mode: 'area'": lambda x: F.interpolate(x, scale_factor=2, mode="area"),
    "mode: 'linear'": lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    "align_corners": lambda x: F.interpolate(x, scale_factor=2, align_corners=True),
    "antialias": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", antialias=True),
    "size: give": F.interpolate,
    "size: must": lambda x: F.interpolate(x, size=(1, 2, 3)),
    "size: the output": lambda x: F.interpolate(x, scale_factor=0.1),
    "size: coordinates": lambda x: F.interpolate(x, size=(2**40, 3), mode="bilinear"),
    "int32 range": lambda x: F.interpolate(x, scale_factor=1e12),
    "scale_factor": lambda x: F.interpolate(x, scale_factor="2"),
    "recompute": lambda x: F.interpolate(x, size=3, recompute_scale_factor=True),
    "pad: mode": lambda x: F.pad(x, (1, 1), "mirror"),
    "pad: must not": lambda x: F.pad(x, (-1, 1)),
    "pad: must hold": lambda x: F.pad(x, (1,) * 6),
    "upscale_factor": lambda x: F.pixel_shuffle(x, 3),
    "downscale_factor": lambda x: F.pixel_unshuffle(x, 4),
    "flatten": lambda x: torch.flatten(x, 1),
    "start_dim": torch.flatten,
}


@pytest.mark.parametrize("named", BAD)
def test_a_wrong_call_names_its_argument(named: str) -> None:
    with pytest.raises(sc.SparseConvError, match=named) as raised:
        BAD[named](random_input(20, 4, (6, 6)))
    assert "\n" not in str(raised.value)

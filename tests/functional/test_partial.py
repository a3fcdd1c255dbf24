"""Partial convolution and pooling against their definitions, dense and sparse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import (
    TOLERANCE,
    Layer,
    assert_close,
    generator,
    gradients,
    layers,
    leaves_of,
    random_mask,
    skip_unless_it_can,
    smallest_grid,
    sparse,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import sparseconv as sc
from sparseconv import functional, nn, reference

FAST: dict[str, Callable[..., Any]] = {
    "conv": functional.partial_conv,
    "subm": functional.subm_partial_conv,
    "transposed": functional.partial_conv_transpose,
}
SLOW: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "conv": reference.partial_conv,
    "subm": reference.subm_partial_conv,
    "transposed": reference.partial_conv_transpose,
}
PLAIN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
PLAIN_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
RUBBISH = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300])


@dataclass(frozen=True)
class Case:
    """A layer, a grid, and a mask that all channels share or that each has for itself."""

    layer: Layer
    size: tuple[int, ...]
    normalize: str
    shared: bool
    density: float
    seed: int
    batch: int = 2

    @property
    def options(self) -> dict[str, Any]:
        return {**self.layer.window, "groups": self.layer.groups, "normalize": self.normalize}

    @property
    def mask(self) -> Tensor:
        channels = 1 if self.shared else self.layer.in_channels
        shape = (channels, *self.size)
        return random_mask(self.batch, shape, self.density, self.seed)

    def leaves(self) -> list[Tensor | None]:
        shape = (self.batch, self.layer.in_channels, *self.size)
        t = torch.randn(shape, generator=generator(self.seed + 1), dtype=torch.float64)
        return leaves_of([t, *self.layer.parameters(self.seed + 2)])

    def slow(self, leaves: list[Tensor | None], mask: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, bias = leaves
        y, reached = SLOW[self.layer.kind](x, mask, weight, bias, **self.options)
        return y + 0 * sum(leaf.sum() for leaf in leaves if leaf is not None), reached

    def cotangent(self, y: Tensor) -> Tensor:
        return torch.randn(y.shape, generator=generator(self.seed + 3), dtype=torch.float64)


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = ("conv", "subm", "transposed")) -> Case:
    layer = draw(layers(kinds, draw(st.integers(1, 3))))
    longest = {1: 12, 2: 6, 3: 4}[layer.axes]
    return Case(
        layer,
        tuple(draw(st.integers(n, max(n, longest))) for n in smallest_grid(layer)),
        draw(st.sampled_from(["ratio", "mean"])),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0])),
        draw(st.integers(0, 2**16)),
    )


def soiled(x: Tensor, mask: Tensor) -> Tensor:
    """Put NaN, infinities and huge numbers under mask 0."""
    rubbish = RUBBISH.to(x.dtype)[torch.arange(x.numel()) % len(RUBBISH)].reshape(x.shape)
    return torch.where(mask, x.detach(), rubbish).requires_grad_()


@given(case=cases())
def test_dense_is_the_definition_whatever_lies_under_mask_0(case: Case) -> None:
    leaves, judges, mask = case.leaves(), case.leaves(), case.mask
    leaves[0] = soiled(leaves[0], mask)
    y, reached = FAST[case.layer.kind](*leaves, mask=mask, **case.options)
    expected, expected_mask = case.slow(judges, mask)
    assert reached.dtype == torch.bool
    assert reached.shape[1] == (1 if mask.shape[1] == 1 else y.shape[1])
    assert torch.equal(reached.expand(y.shape), expected_mask)
    assert_close(y, expected)
    cotangent = case.cotangent(y)
    y = y + 0 * sum(leaf.sum() for leaf in leaves[1:] if leaf is not None)
    for got, wanted in zip(
        gradients(y, leaves, cotangent), gradients(expected, judges, cotangent), strict=True
    ):
        assert_close(got, wanted)


@given(case=cases())
def test_sparse_is_dense_with_the_sites_as_mask(engine: str, case: Case) -> None:
    leaves, judges = case.leaves(), case.leaves()
    sites = random_mask(case.batch, case.size, case.density, case.seed)
    x = sparse(leaves[0], sites, case.seed)
    y = FAST[case.layer.kind](x, *leaves[1:], **case.options)
    expected, reached = FAST[case.layer.kind](*judges, mask=sites.unsqueeze(1), **case.options)
    assert torch.equal(y.mask(), reached)
    assert_close(y.dense(), expected)
    cotangent = case.cotangent(expected)
    for got, wanted in zip(
        gradients(y.dense(), leaves, cotangent),
        gradients(expected, judges, cotangent),
        strict=True,
    ):
        assert_close(got, wanted)


@given(case=cases())
def test_sparse_takes_a_mask_per_channel(engine: str, case: Case) -> None:
    """Sites as a mask that all channels share, and missing channels at some of the sites."""
    x, weight, bias = case.leaves()
    sites = random_mask(case.batch, case.size, case.density, case.seed)
    mask = random_mask(case.batch, x.shape[1:], 0.6, case.seed + 1) & sites.unsqueeze(1)
    mask[:, :1] |= sites.unsqueeze(1)  # a site without any valid channel is none
    rows = sparse(mask.double(), sites, case.seed)
    soil = sparse(soiled(x, mask), sites, case.seed)
    options = case.options
    y, reached = FAST[case.layer.kind](soil, weight, bias, mask=rows.features > 0, **options)
    expected, wanted = FAST[case.layer.kind](x, weight, bias, mask=mask, **options)
    got = y.replace(reached.expand(y.features.shape).double()).dense() > 0
    assert torch.equal(got, wanted.expand(expected.shape))
    assert_close(y.dense(), expected)


POOLS: dict[str, tuple[Callable[..., Any], Callable[..., tuple[Tensor, Tensor]]]] = {
    "max": (functional.partial_max_pool, reference.partial_max_pool),
    "avg": (functional.partial_avg_pool, reference.partial_avg_pool),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_is_the_definition(engine: str, name: str) -> None:
    @given(case=cases(("conv",)))
    def property_of(case: Case) -> None:
        window = {key: value for key, value in case.layer.window.items() if key != "dilation"}
        if isinstance(window["padding"], str):
            window["padding"] = 0
        if any(k > n for k, n in zip(case.layer.kernel, case.size, strict=True)):
            return
        fast, slow = POOLS[name]
        x, mask = case.leaves()[0], case.mask
        expected, reached = slow(x, mask, case.layer.kernel, **window)
        y, got = fast(soiled(x, mask), case.layer.kernel, mask=mask, **window)
        assert_close(y, expected)
        assert torch.equal(got.expand(y.shape), reached)
        sites = mask.any(dim=1)
        shared = slow(x, sites, case.layer.kernel, **window)
        on_sites = fast(sparse(x, sites, case.seed), case.layer.kernel, **window)
        assert_close(on_sites.dense(), shared[0])
        assert torch.equal(on_sites.mask().expand(y.shape), shared[1])
        rows = sparse(mask.expand(x.shape).double(), sites, case.seed).features > 0
        dirty = sparse(soiled(x, mask), sites, case.seed)
        y, got = fast(dirty, case.layer.kernel, mask=rows, **window)
        assert_close(y.dense(), expected)
        assert torch.equal(y.replace(got.double()).dense() > 0, reached)

    property_of()


@pytest.mark.parametrize("name", POOLS)
def test_pooling_gives_no_gradient_to_what_is_missing(name: str) -> None:
    mask = random_mask(1, (2, 6, 6), 0.5)
    x = soiled(torch.randn(1, 2, 6, 6), mask)
    y, _ = POOLS[name][0](x, 3, 2, 1, mask=mask)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert bool(grad.isfinite().all()) and bool((grad[~mask] == 0).all())
    assert bool((grad[mask] != 0).any())


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_full_mask_reweights_the_border_alone(axes: int) -> None:
    """Partial convolution as padding, in the place of the zero-padded layer."""
    x = torch.randn(1, 2, *(6,) * axes, dtype=torch.float64)
    weight = torch.randn(3, 2, *(3,) * axes, dtype=torch.float64)
    padded = functional.partial_conv(x, weight, padding=1)
    zeros = PLAIN[axes](x, weight, padding=1)
    inside = (..., *(slice(1, -1),) * axes)
    assert_close(padded[inside], zeros[inside])
    corner = (..., *(0,) * axes)
    assert_close(padded[corner], zeros[corner] * 1.5**axes)
    with_mask, mask = functional.partial_conv(
        x, weight, padding=1, mask=torch.ones(x.shape, dtype=torch.bool)
    )
    assert bool(mask.all()) and torch.equal(with_mask, padded)
    everywhere = torch.ones(1, *x.shape[2:], dtype=torch.bool)
    on_sites = functional.partial_conv(sc.SparseTensor.from_dense(x, everywhere), weight, padding=1)
    assert_close(on_sites.dense(), padded)
    # of a transposed one too, whatever the place between two strides
    weight = torch.randn(2, 3, *(3,) * axes, dtype=torch.float64)
    y = functional.partial_conv_transpose(x, weight, stride=2, padding=1, output_padding=1)
    plain = PLAIN_TRANSPOSED[axes](x, weight, stride=2, padding=1, output_padding=1)
    assert_close(y[inside], plain[inside])


def test_four_axes_on_sites_and_dense(engine: str) -> None:
    x = torch.randn(1, 2, 3, 2, 3, 2, dtype=torch.float64)
    weight = torch.randn(2, 1, 3, 1, 3, 1, dtype=torch.float64)
    mask = random_mask(1, (3, 2, 3, 2), 0.5)
    expected, _ = reference.partial_conv(x, mask, weight, None, 1, (1, 0, 1, 0), groups=2)
    y, _ = functional.partial_conv(x, weight, None, 1, (1, 0, 1, 0), groups=2, mask=mask)
    assert_close(y, expected)
    y = functional.partial_conv(sparse(x, mask), weight, None, 1, (1, 0, 1, 0), groups=2)
    assert_close(y.dense(), expected)
    expected, _ = reference.partial_conv_transpose(x, mask, weight, None, 2, groups=2)
    y, _ = functional.partial_conv_transpose(x, weight, None, 2, groups=2, mask=mask)
    assert_close(y, expected)
    y = functional.partial_conv_transpose(sparse(x, mask), weight, None, 2, groups=2)
    assert_close(y.dense(), expected)


def test_a_shared_mask_is_the_same_one_in_every_channel() -> None:
    x, mask = torch.randn(2, 4, 7, 7, dtype=torch.float64), random_mask(2, (1, 7, 7), 0.3)
    weight, bias = torch.randn(6, 2, 3, 3, dtype=torch.float64), torch.randn(6).double()
    for normalize in ("ratio", "mean"):
        shared, reached = functional.partial_conv(
            x, weight, bias, groups=2, mask=mask, normalize=normalize
        )
        each, of_each = functional.partial_conv(
            x, weight, bias, groups=2, mask=mask.expand(x.shape), normalize=normalize
        )
        assert_close(each, shared)
        assert torch.equal(of_each, reached.expand(of_each.shape))
        flat, _ = functional.partial_conv(
            x, weight, bias, groups=2, mask=mask[:, 0], normalize=normalize
        )
        assert torch.equal(flat, shared)


def test_groups_count_their_own_channels() -> None:
    """NVIDIA's layer counted all channels for every group."""
    x = torch.ones(1, 2, 3)
    mask = torch.tensor([[[True, False, False], [True, True, True]]])
    y, reached = functional.partial_conv(x, torch.ones(2, 1, 3), groups=2, mask=mask)
    assert y.flatten().tolist() == [3.0, 3.0]
    mask[0, 0, 0] = False
    y, reached = functional.partial_conv(x, torch.ones(2, 1, 3), groups=2, mask=mask)
    assert y.flatten().tolist() == [0.0, 3.0]
    assert reached.flatten().tolist() == [False, True]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["conv", "subm", "transposed"])
def test_derivatives_dense(kind: str, shared: bool) -> None:
    layer = Layer(kind, (3, 3), 2 if kind != "subm" else 1, 1, groups=2, c_out=1)
    case = Case(layer, (4, 4), "ratio", shared, 0.5, 3, batch=1)
    x, weight, bias = case.leaves()
    mask = case.mask
    x = soiled(x, mask)

    def run(seen: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # finite differences cannot step from NaN: the rubbish goes in behind the leaf
        y, _ = FAST[kind](
            torch.where(mask, seen, x.detach()), weight, bias, mask=mask, **case.options
        )
        return y

    seen = torch.where(mask, x.detach(), 0.0).requires_grad_()
    assert gradcheck(run, (seen, weight, bias))
    assert gradgradcheck(run, (seen, weight, bias))


def test_a_second_derivative_through_rubbish_is_finite() -> None:
    mask = random_mask(1, (2, 5, 5), 0.5)
    x = soiled(torch.randn(1, 2, 5, 5, dtype=torch.float64), mask)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    y, _ = functional.partial_conv(x, weight, padding=1, mask=mask)
    (grad,) = torch.autograd.grad(torch.tanh(y).sum(), x, create_graph=True)
    second = torch.autograd.grad(grad.square().sum(), (x, weight))
    assert all(bool(part.isfinite().all()) for part in second)
    assert bool((second[0][~mask] == 0).all())


@pytest.mark.parametrize("kind", ["conv", "subm", "transposed"])
def test_derivatives_sparse(engine: str, kind: str) -> None:
    layer = Layer(kind, (3, 3), 2 if kind != "subm" else 1, 1, groups=2, c_out=1)
    case = Case(layer, (4, 4), "ratio", True, 0.5, 3, batch=1)
    t, weight, bias = case.leaves()
    x = sparse(t.detach(), case.mask[:, 0], 1)

    def rows(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return FAST[kind](x.replace(features), weight, bias, **case.options).features

    features = x.features.clone().requires_grad_()
    assert gradcheck(rows, (features, weight, bias))
    assert gradgradcheck(rows, (features, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_half_precision_counts_in_float32(engine: str, dtype: torch.dtype) -> None:
    """NVIDIA's layer gave NaN in empty windows; 4096 + 1 is no number in either half."""
    skip_unless_it_can(engine, dtype)
    x = torch.randn(1, 96, 9, 9, generator=generator(1)).to(dtype)
    weight = (torch.randn(4, 96, 7, 7, generator=generator(2)) / 40).to(dtype)
    bias = torch.randn(4, generator=generator(3)).to(dtype)
    mask = random_mask(1, (96, 9, 9), 0.97, 4)
    mask[..., :5, :5] = False
    given = (x.double(), mask, weight.double(), bias.double(), 1, 3)
    expected, reached = reference.partial_conv(*given)
    y, got = functional.partial_conv(soiled(x, mask), weight, bias, 1, 3, mask=mask)
    assert y.dtype == dtype and torch.equal(got, reached)
    assert bool((~reached).any())
    assert_close(y, expected)
    sites = mask.any(dim=1)
    rows = sparse(mask.double(), sites).features > 0
    y, _ = functional.partial_conv(sparse(x, sites), weight, bias, 1, 3, mask=rows)
    assert y.dtype == dtype
    assert_close(y.dense(), expected)


def test_under_autocast_counts_stay_exact() -> None:
    x, mask = torch.ones(1, 8, 33, 33), torch.ones(1, 8, 33, 33, dtype=torch.bool)
    mask[0, 0, 0, 0] = False
    layer = nn.PartialConv2d(8, 2, 33, bias=False)
    torch.nn.init.constant_(layer.weight, 2.0**-13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(x, mask)
        on_sites = layer(sc.SparseTensor.from_dense(x))
    assert y.dtype == on_sites.dtype == torch.bfloat16
    # 8712 terms of 2^-13, one of which is missing and made up for
    assert_close(y.double(), torch.full((1, 2, 1, 1), 8712 / 2**13).double(), torch.bfloat16)


def test_layers_remember_nothing() -> None:
    """NVIDIA's layer used the mask of the last call for a call without one."""
    x, mask = torch.randn(1, 3, 6, 6), random_mask(1, (1, 6, 6), 0.3)
    layer = nn.PartialConv2d(3, 4, 3, padding=1)
    first = layer(x)
    state = dict(layer.__dict__)
    layer(x, mask)
    assert torch.equal(layer(x), first)
    assert layer.__dict__ == state
    assert list(layer.state_dict()) == ["weight", "bias"]
    plain = torch.nn.Conv2d(3, 4, 3, padding=1)
    layer.load_state_dict(plain.state_dict())


MODULES = {
    "PartialConv1d": (nn.PartialConv1d(2, 4, 3, 2, 1), 1),
    "PartialConv2d": (nn.PartialConv2d(2, 4, 3, padding="same", groups=2), 2),
    "PartialConv3d": (nn.PartialConv3d(2, 4, 3, dilation=2, normalize="mean"), 3),
    "SubmPartialConv1d": (nn.SubmPartialConv1d(2, 4, 3), 1),
    "SubmPartialConv2d": (nn.SubmPartialConv2d(2, 4, (3, 1), 2), 2),
    "SubmPartialConv3d": (nn.SubmPartialConv3d(2, 4, 3, bias=False), 3),
    "PartialConvTranspose1d": (nn.PartialConvTranspose1d(2, 4, 3, 2, 1, 1), 1),
    "PartialConvTranspose2d": (nn.PartialConvTranspose2d(2, 4, 2, 2, groups=2), 2),
    "PartialConvTranspose3d": (nn.PartialConvTranspose3d(2, 4, 3, dilation=2), 3),
    "PartialMaxPool": (nn.PartialMaxPool(3, 2, 1), 2),
    "PartialAvgPool": (nn.PartialAvgPool(2), 3),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_take_a_mask_or_sites(engine: str, name: str) -> None:
    layer, axes = MODULES[name]
    assert type(layer).__name__ == name
    x, sites = torch.randn(2, 2, *(6,) * axes), random_mask(2, (6,) * axes, 0.4)
    y, mask = layer(x, sites.unsqueeze(1))
    on_sites = layer(sparse(x, sites))
    assert torch.equal(on_sites.mask(), mask)
    assert_close(on_sites.dense(), y)
    everywhere = layer(sc.SparseTensor.from_dense(x, torch.ones_like(sites)))
    assert_close(everywhere.dense(), layer(x))


def test_the_factor_belongs_to_the_rulebook(engine: str) -> None:
    """Two geometries on one tensor, two dtypes, both normalisations: none takes another's."""
    x = sparse(torch.ones(1, 1, 8, 8, dtype=torch.float64), random_mask(1, (8, 8), 0.5))
    runs = [(size, how) for size in (3, 5) for how in ("ratio", "mean")]
    for dtype in (torch.float64, torch.float32):
        for _ in range(2):
            for size, how in runs:
                weight = torch.ones(1, 1, size, size, dtype=dtype)
                y = functional.subm_partial_conv(x.to(dtype), weight, normalize=how)
                # ones everywhere: the sum over the valid values is their count
                value = size**2 if how == "ratio" else 1
                assert_close(y.features, torch.full_like(y.features, value))
    assert TOLERANCE[torch.float64] < 1e-9


@pytest.mark.parametrize("count", [0, 1])
def test_no_site_and_one_site(engine: str, count: int) -> None:
    x = sc.SparseTensor(torch.ones(count, 2), torch.zeros(count, 3).long(), (4, 4), 1)
    for layer in (nn.PartialConv2d(2, 3, 3, 2, 1), nn.SubmPartialConv2d(2, 3, 3)):
        y = layer(x)
        assert y.num_sites == count
        assert bool(y.features.isfinite().all())
    assert nn.PartialMaxPool(2)(x).num_sites == count
    assert nn.PartialAvgPool(2)(x).num_sites == count


X = torch.zeros(1, 2, 5, 5)
W = torch.zeros(3, 2, 3, 3)
MASK = torch.ones(1, 1, 5, 5, dtype=torch.bool)
SPARSE = sc.SparseTensor(torch.ones(2, 2), torch.tensor([[0, 0, 0], [0, 4, 4]]))
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "float mask": (
        lambda: functional.partial_conv(X, W, mask=0.5 * MASK),
        sc.SparseConvTypeError,
        "mask: must be a bool torch.Tensor, got float32",
    ),
    "a mask that is no tensor": (
        lambda: functional.subm_partial_conv(X, W, mask=True),
        sc.SparseConvTypeError,
        "mask: must be a bool torch.Tensor, got bool",
    ),
    "a mask with other channels": (
        lambda: functional.partial_conv(X, W, mask=MASK.expand(1, 3, 5, 5)),
        sc.SparseConvValueError,
        r"mask: must have shape \(1, 1, 5, 5\) or \(1, 2, 5, 5\) or \(1, 5, 5\), got \(1, 3",
    ),
    "a mask of another extent": (
        lambda: functional.partial_max_pool(X, 2, mask=MASK[..., :4]),
        sc.SparseConvValueError,
        "mask: must have shape",
    ),
    "a dense mask for sites": (
        lambda: functional.partial_conv(SPARSE, W, mask=MASK),
        sc.SparseConvValueError,
        r"mask: must have shape \(2, 1\) or \(2, 2\)",
    ),
    "an unknown normalisation": (
        lambda: functional.partial_conv(X, W, normalize="sum"),
        sc.SparseConvValueError,
        "normalize: must be one of",
    ),
    "the same of a module": (
        lambda: nn.SubmPartialConv2d(2, 3, 3, normalize=1),
        sc.SparseConvValueError,
        "normalize: must be one of",
    ),
    "the same on sites": (
        lambda: functional.subm_partial_conv(SPARSE, W, normalize="sum"),
        sc.SparseConvValueError,
        "normalize: must be one of",
    ),
    "channels": (
        lambda: functional.partial_conv(X[:, :1], W),
        sc.SparseConvValueError,
        "input: has 1 channels",
    ),
    "an even submanifold kernel": (
        lambda: functional.subm_partial_conv(X, W[..., :2]),
        sc.SparseConvValueError,
        "kernel_size: a submanifold kernel must be odd",
    ),
    "no output": (
        lambda: functional.partial_conv(X[..., :2], W),
        sc.SparseConvValueError,
        "an output size of 0",
    ),
    "pooling over four axes": (
        lambda: functional.partial_avg_pool(X[..., None, None], 2),
        sc.SparseConvValueError,
        "input: pooling takes 1 to 3 spatial axes, got 4",
    ),
    "a pooling kernel of other axes": (
        lambda: functional.partial_max_pool(X, (2, 2, 2)),
        sc.SparseConvValueError,
        "kernel_size: must be one number or 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_names_the_argument(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, sc.SparseConvError)
    assert "\n" not in str(caught.value)

"""Max, average, power-average, adaptive and global pooling: the laws against dense torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import (
    DTYPES,
    Ints,
    assert_close,
    generator,
    permuted,
    random_input,
    random_mask,
    skip_unless_it_can,
    sparse,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc
from sparseconv import reference

pytestmark = pytest.mark.usefixtures("engine")

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d, 4: sc.functional.max_pool4d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d, 4: sc.functional.avg_pool4d}
POWER = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
# before PyTorch 2.13, lp_pool of dense tensors returns 1 for an infinite power
INFINITE = [math.inf, -math.inf] if torch.__version__ >= (2, 13) else []
POWERS = [1.0, 2.0, 3.0, *INFINITE]
LONGEST = {1: 12, 2: 6, 3: 4, 4: 3}


@dataclass(frozen=True)
class Case:
    """A pooling with its options on a random tensor of which some sites are active."""

    kind: str
    options: dict[str, Any]
    x: Tensor
    mask: Tensor

    @property
    def axes(self) -> int:
        return self.x.dim() - 2

    def __call__(self, x: Any) -> Any:
        """Run it on a sparse or a dense tensor."""
        if self.kind == "lp":
            return POWER[self.axes](x, self.options["p"], **self.window)
        table = MAX if self.kind == "max" else AVERAGE
        return table[self.axes](x, **self.window)

    @property
    def window(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name != "p"}

    def reference(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run the reference, in which inactive sites count as padding does."""
        named = {name: value for name, value in self.window.items() if name != "kernel_size"}
        kernel = self.options["kernel_size"]
        if self.kind == "lp":
            return reference.lp_pool(x, self.options["p"], kernel, mask=mask, **named)
        function = reference.max_pool if self.kind == "max" else reference.avg_pool
        return function(x, kernel, mask=mask, **named)

    def sites(self, mask: Tensor) -> Tensor:
        """Return the outputs whose window holds an active site."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        kernel, *rest = (self.options.get(name) for name in names)
        stride, padding, dilation, ceil_mode = rest
        active = torch.where(mask[:, None], 1.0, -math.inf)
        largest = reference.max_pool(
            active, kernel, stride, padding or 0, dilation or 1, bool(ceil_mode), mask
        )
        return largest[:, 0] > 0


@st.composite
def poolings(
    draw: st.DrawFn, kinds: tuple[str, ...] = ("max", "avg", "lp"), axes: Ints = (1, 2, 3)
) -> Case:
    dimensions = draw(st.sampled_from(axes))
    kind = draw(st.sampled_from(kinds))

    def per_axis(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=dimensions, max_size=dimensions))

    kernel = per_axis(1, 3 if dimensions < 4 else 2)
    options: dict[str, Any] = {"kernel_size": kernel, "ceil_mode": draw(st.booleans())}
    options["stride"] = draw(st.one_of(st.none(), st.just(per_axis(1, 3))))
    dilation = [1] * dimensions
    if kind == "max":
        dilation = options["dilation"] = per_axis(1, 2)
    if kind != "lp":
        options["padding"] = [draw(st.integers(0, k // 2)) for k in kernel]
    if kind == "avg":
        options["count_include_pad"] = draw(st.booleans())
        if dimensions > 1:
            options["divisor_override"] = draw(st.sampled_from([None, 3, -2]))
    if kind == "lp":
        options["p"] = draw(st.sampled_from(POWERS))
        if dimensions == 1:
            options["kernel_size"] = kernel[0]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [draw(st.integers(r, max(r, LONGEST[dimensions]))) for r in reach]
    seed, batch = draw(st.integers(0, 2**16)), draw(st.integers(1, 3))
    x = torch.randn(batch, 2, *size, generator=generator(seed), dtype=torch.float64)
    # all negative but for the powers, whose roots want positive numbers
    x = x.abs() + 0.1 if kind == "lp" else x - 4
    density = draw(st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0]))
    mask = random_mask(batch, size, density, seed + 1, draw(st.booleans()) and batch > 1)
    return Case(kind, options, x, mask)


@given(case=poolings())
def test_with_every_site_active_pooling_is_torchs(engine: str, case: Case) -> None:
    dense, rows = case.x.clone().requires_grad_(), case.x.clone().requires_grad_()
    expected = case(dense)
    full = torch.ones_like(case.mask)
    y = case(sparse(rows, full))
    fill = -math.inf if case.kind == "max" else 0
    assert y.shape == expected.shape
    assert_close(y.dense(fill), expected)
    # a window of max pooling that misses the input has minus infinity and no site
    reached = case.sites(full)[:, None]
    grad = torch.randn(expected.shape, generator=generator(3), dtype=torch.float64) * reached
    (wanted,) = torch.autograd.grad(expected, dense, grad)
    (got,) = torch.autograd.grad(y.dense(), rows, grad)
    assert_close(got, wanted)


@given(case=poolings())
def test_inactive_sites_count_as_padding(engine: str, case: Case) -> None:
    if case.kind == "lp" and math.isinf(case.options["p"]):
        return
    x = case.x.clone().requires_grad_()
    y = case(sparse(torch.where(case.mask[:, None], x, math.nan), case.mask, seed=1))
    reached = case.sites(case.mask)
    assert torch.equal(y.mask()[:, 0], reached)
    judge = case.x.clone().requires_grad_()
    wanted = torch.where(reached[:, None], case.reference(judge, case.mask) + 0 * judge.sum(), 0.0)
    assert_close(y.dense(), wanted)
    grad = torch.randn(wanted.shape, generator=generator(3), dtype=torch.float64)
    expected = torch.autograd.grad(wanted, judge, grad)[0]
    (got,) = torch.autograd.grad(y.dense(), x, grad)
    assert_close(got, torch.where(case.mask[:, None], expected, 0.0))


@given(case=poolings(("max", "avg"), axes=(4,)))
def test_four_axes_are_the_references(engine: str, case: Case) -> None:
    y = case(sparse(case.x, case.mask))
    reached = case.sites(case.mask)[:, None]
    assert torch.equal(y.mask(), reached)
    expected = case.reference(case.x, case.mask)
    assert_close(y.dense(), torch.where(reached, expected, 0.0))
    assert_close(case(case.x), case.reference(case.x, None))


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["max", "avg", "avg-active", "lp"])
def test_derivatives(kind: str, axes: int) -> None:
    x = random_input(9, 2, (5, 3, 2, 2)[:axes], batch=2, dtype=torch.float64)
    x = x.replace(x.features.abs() + 0.1 if kind == "lp" else x.features)
    kernel, stride, padding = ((3, 2, 2, 1)[:axes], (2, 1, 1, 2)[:axes], (1, 1, 0, 0)[:axes])

    def pool(features: Tensor) -> Tensor:
        t = x.replace(features)
        if kind == "lp":
            if axes == 4:
                return t.features
            return POWER[axes](t, 3.0, kernel if axes > 1 else 3, stride).features
        if kind == "max":
            return MAX[axes](t, kernel, stride, padding, ceil_mode=True).features
        return AVERAGE[axes](t, kernel, stride, padding, True, kind == "avg").features

    features = x.features.clone().requires_grad_()
    assert gradcheck(pool, (features,))
    assert gradgradcheck(lambda f: pool(f) ** 2, (features,))


def test_an_all_negative_window_has_its_true_maximum() -> None:
    x = sc.SparseTensor(torch.tensor([[-3.0], [-2.0]]), torch.tensor([[0, 0], [0, 3]]), (4,))
    assert F.max_pool1d(x, 2).features.tolist() == [[-3.0], [-2.0]]


def test_of_equal_values_the_first_gets_the_gradient_as_in_torch() -> None:
    t = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
    F.max_pool2d(dense, 3, 1, 1).sum().backward()
    F.max_pool2d(
        sparse(rows, torch.ones(1, 4, 4, dtype=torch.bool)), 3, 1, 1
    ).features.sum().backward()
    assert torch.equal(rows.grad, dense.grad)


def test_nan_and_infinity_go_through_as_in_torch() -> None:
    t = torch.tensor([[[math.nan, 1.0, 2.0, math.nan, -math.inf, -math.inf, math.inf, 0.0]]])
    x = sparse(t, torch.ones(1, 8, dtype=torch.bool))
    for kernel in (2, 3):
        for pool in (F.max_pool1d, F.avg_pool1d):
            assert_close(pool(x, kernel, 1).dense(), pool(t, kernel, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 63, 1000])
def test_every_dtype_at_awkward_sizes(engine: str, count: int, dtype: torch.dtype) -> None:
    skip_unless_it_can(engine, dtype)
    x = random_input(count, 5, dtype=dtype)
    options = {"kernel_size": 3, "stride": 2, "padding": 1}
    mask = x.mask()[:, 0]
    judge = x.double().dense()
    for pool, law in ((F.max_pool3d, reference.max_pool), (F.avg_pool3d, reference.avg_pool)):
        y = pool(x, **options)
        assert y.dtype == dtype
        expected = law(judge, 3, 2, 1, mask=mask)
        assert_close(y.dense(), torch.where(expected.isfinite(), expected, 0.0))


def test_an_average_in_float16_does_not_overflow(engine: str) -> None:
    skip_unless_it_can(engine, torch.float16)
    x = sparse(torch.full((1, 1, 27), 6e4, dtype=torch.float16), torch.ones(1, 27).bool())
    assert F.avg_pool1d(x, 27).features.item() == torch.tensor(6e4, dtype=torch.float16)


@pytest.mark.parametrize("pool", [F.max_pool3d, F.avg_pool3d])
def test_order_company_and_threads_change_no_bit(
    pool: Callable[..., Any], as_users_run: None
) -> None:
    def run(x: sc.SparseTensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = pool(x, 3, 2, 1)
        (grad,) = torch.autograd.grad((y.features**2).sum(), x.features)
        return y.detach().dense(), x.detach().replace(grad).dense()

    x = random_input(3000, 7, (16, 15, 17), batch=3, dtype=torch.float32)
    y, grad = run(x)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, run(permuted(x)), (y, grad)))
    finally:
        torch.set_num_threads(threads)
    for number, sample in enumerate(x.split()):
        assert all(map(torch.equal, run(sample), (y[[number]], grad[[number]])))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_pooling_to_one_is_torchs_where_every_site_is_active(axes: int) -> None:
    t = torch.randn(2, 3, *(4, 3, 5)[:axes], dtype=torch.float64) - 5
    x = sparse(t, torch.ones(2, *t.shape[2:], dtype=torch.bool))
    for kind in ("Avg", "Max"):
        layer = getattr(torch.nn, f"Adaptive{kind}Pool{axes}d")(1)
        y = layer(x)
        assert_close(y.dense(), layer(t))
        assert_close(torch.flatten(y, 1), layer(t).flatten(1))


def test_pooling_a_whole_sample_runs_over_its_active_sites() -> None:
    coords = torch.tensor([[0, 0, 1], [0, 4, 1], [2, 3, 3]])
    x = sc.SparseTensor(torch.tensor([[-1.0], [-3.0], [7.0]]), coords, (5, 5), 4)
    average, largest = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, (1, 1))
    assert average.coords.tolist() == [[0, 0, 0], [2, 0, 0]]
    assert average.features.tolist() == [[-2.0], [7.0]]
    assert largest.features.tolist() == [[-1.0], [7.0]]
    assert torch.nn.Flatten()(average).tolist() == [[-2.0], [0.0], [7.0], [0.0]]
    assert sc.nn.GlobalAvgPool()(x).tolist() == [[-2.0], [0.0], [7.0], [0.0]]
    assert sc.nn.GlobalMaxPool()(x).tolist() == [[-1.0], [0.0], [7.0], [0.0]]


def test_global_pooling_of_a_dense_tensor() -> None:
    t = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    x = sparse(t, torch.ones(2, 4, 5, dtype=torch.bool))
    assert_close(sc.nn.GlobalAvgPool()(x), sc.nn.GlobalAvgPool()(t))
    assert_close(sc.nn.GlobalMaxPool()(x), sc.nn.GlobalMaxPool()(t))


def test_the_way_back_from_a_pooling_is_an_inverse_layer() -> None:
    x = random_input(40, 3, (6, 6), batch=2)
    down = F.max_pool2d(x, 2)
    assert (
        sc.functional.inverse_conv(down, torch.ones(3, 3, 2, 2).double(), stride=2).sites is x.sites
    )


def test_a_convolution_and_a_pooling_of_one_geometry_share_a_rulebook() -> None:
    x = random_input(30, 3, (6, 6))
    F.conv2d(x, torch.ones(1, 3, 2, 2, dtype=torch.float64), stride=2)
    F.max_pool2d(x, 2, ceil_mode=True)
    F.avg_pool2d(x, 2)
    assert len(x.sites.rulebooks) == 1


BAD: dict[str, tuple[type[Exception], Callable[[sc.SparseTensor], Any]]] = {
    "axes": (ValueError, lambda x: F.max_pool2d(x, 2)),
    "padding": (ValueError, lambda x: F.max_pool3d(x, 2, padding=2)),
    "kernel_size": (ValueError, lambda x: F.avg_pool3d(x, (2, 2))),
    "spatial_shape": (ValueError, lambda x: F.avg_pool3d(x, 20)),
    "stride": (ValueError, lambda x: F.avg_pool3d(x, 2, 0)),
    "divisor_override": (ValueError, lambda x: F.avg_pool3d(x, 2, divisor_override=0)),
    "return_indices": (NotImplementedError, lambda x: F.max_pool3d(x, 2, return_indices=True)),
    "output_size": (NotImplementedError, lambda x: F.adaptive_avg_pool3d(x, 2)),
    "norm_type": (ValueError, lambda x: F.lp_pool3d(x, 0, 2)),
}


@pytest.mark.parametrize("named", BAD)
def test_a_wrong_call_names_its_argument(named: str) -> None:
    kind, call = BAD[named]
    with pytest.raises(sc.SparseConvError, match=named) as raised:
        call(random_input(20, 2, (6, 6, 6)))
    assert isinstance(raised.value, kind)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [None, (None, 1, 2), (1, 1), [], "one", 1.5, {}])
def test_adaptive_pooling_takes_no_other_size(size: Any) -> None:
    x = random_input(20, 2, (6, 6, 6))
    for pool in (F.adaptive_avg_pool3d, F.adaptive_max_pool3d):
        with pytest.raises(sc.SparseConvNotImplementedError, match="output_size: adaptive"):
            pool(x, size)


@pytest.mark.slow
def test_a_window_of_more_cells_than_an_int16_can_number() -> None:
    size, length = 33_000, 33_010
    places = torch.tensor([3, 4, 700, 32_999, 33_009])
    values = torch.rand(5, 2, generator=generator(0)).add_(1).requires_grad_()
    x = sc.SparseTensor(
        values, torch.stack([torch.zeros(5, dtype=torch.int64), places], 1), (length,)
    )
    y = F.max_pool1d(x, size, 1)
    dense = torch.zeros(2, length).index_copy(1, places, values.t())[None]
    assert torch.equal(y.dense(), F.max_pool1d(dense, size, 1))
    (got,) = torch.autograd.grad(y.features.sum(), values, retain_graph=True)
    (expected,) = torch.autograd.grad(F.max_pool1d(dense, size, 1).sum(), values)
    assert_close(got, expected)


@pytest.mark.parametrize("channels", [16, 80])
def test_results_too_large_for_the_cache(channels: int) -> None:
    """Such rows are written another way; sums and choices stay those of the steps in torch."""
    count = 2**21 // channels + 1001
    places = torch.randperm(2 * count, generator=generator(channels))[:count]
    coords = torch.stack([torch.zeros_like(places), places], dim=1)
    values = torch.randn(count, channels, generator=generator(1)).requires_grad_()
    x = sc.SparseTensor(values, coords, (2 * count,))
    results = []
    for name in ("torch", sc.engines.chosen(values)):
        with sc.engines.engine(name):
            y = F.max_pool1d(x, 3, 1, 1)
            cotangent = torch.linspace(-1, 1, y.features.numel()).view_as(y.features)
            cotangent.requires_grad_()
            (back,) = torch.autograd.grad(y.features, values, cotangent, create_graph=True)
            (again,) = torch.autograd.grad(back, cotangent, values.detach())
            mean = F.avg_pool1d(x, 2, 1)
            results.append([y.features, back, again, mean.features])
    for got, expected in zip(*results, strict=True):
        assert_close(got, expected)

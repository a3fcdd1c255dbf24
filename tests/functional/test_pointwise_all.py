"""Elementwise functions, functions over channels, whole-channel dropout, reductions, methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import assert_close, permuted, random_input, random_mask, sparse
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc
from sparseconv.functional.values.pointwise import COMPARISONS, PAIRWISE, TESTS, UNARY
from sparseconv.tensor.methods import Methods

pytestmark = pytest.mark.usefixtures("engine")

SIZE = (4, 3, 5)


def full(t: Tensor, seed: int | None = 1) -> sc.SparseTensor:
    """Return a dense tensor with every site active."""
    return sparse(t, torch.ones(t.shape[0], *t.shape[2:], dtype=torch.bool), seed)


def dense_input(channels: int = 4, axes: int = 3) -> Tensor:
    return torch.randn(2, channels, *SIZE[:axes], dtype=torch.float64)


def same_gradients(function: Callable[[Any], Any], t: Tensor) -> None:
    """Compare result and gradient with every site active with the dense run."""
    dense, rows = t.clone().requires_grad_(), t.clone().requires_grad_()
    expected, y = function(dense), function(full(rows))
    y = y.dense() if isinstance(y, sc.SparseTensor) else y
    assert_close(y, expected)
    (wanted,) = torch.autograd.grad((expected**2).sum(), dense)
    (got,) = torch.autograd.grad((y**2).sum(), rows)
    assert_close(got, wanted)


@pytest.mark.parametrize("function", UNARY, ids=lambda function: function.__name__)
def test_a_function_of_one_value(function: Callable[..., Any]) -> None:
    t = torch.rand(2, 3, *SIZE, dtype=torch.float64) * 0.8 + 0.1
    if function is torch.acosh:
        t = t + 1
    same_gradients(function, t)


@pytest.mark.parametrize("function", TESTS, ids=lambda function: function.__name__)
def test_a_question_about_values_gives_a_row_per_site(function: Callable[..., Any]) -> None:
    features = torch.tensor([[1.0, math.nan], [-math.inf, math.inf]])
    x = sc.SparseTensor(features, torch.tensor([[0, 1], [0, 3]]))
    assert torch.equal(function(x), function(features))


@pytest.mark.parametrize("functions", COMPARISONS, ids=lambda names: names[0].__name__)
def test_comparisons_run_row_by_row(functions: tuple[Callable[..., Any], ...]) -> None:
    x = random_input(20, 3)
    x = x.replace(x.features.round())
    other = permuted(x)
    other = other.replace(-other.features)
    compare = functions[0]
    assert torch.equal(compare(x, other), compare(x.features, -x.features))
    if compare is not torch.isclose:
        assert torch.equal(compare(x, 0.0), compare(x.features, 0.0))


def test_operators_compare_too_and_tensors_stay_hashable() -> None:
    x = random_input(20, 3)
    for got, wanted in (
        (x > 0, x.features > 0),
        (x >= 0, x.features >= 0),
        (x < 0, x.features < 0),
        (x <= 0, x.features <= 0),
        (x == x, torch.ones(20, 3, dtype=torch.bool)),  # noqa: PLR0124
        (x != 0, x.features != 0),
    ):
        assert torch.equal(got, wanted)
    assert len({x, x}) == 1
    kept = sc.prune(x, (x > 0).any(dim=1))
    assert kept.num_sites == int((x.features > 0).any(dim=1).sum())


@pytest.mark.parametrize("function", PAIRWISE, ids=lambda function: function.__name__)
def test_a_function_of_two_values(function: Callable[..., Any]) -> None:
    x = random_input(20, 3)
    x = x.replace(x.features.abs() + 0.1)
    other = permuted(x, 3)
    other = other.replace(other.features.flip(1))
    more = (0.3,) if function is torch.lerp else ()
    y = function(x, other, *more)
    assert y.sites is x.sites
    assert_close(y.features, function(x.features, x.features.flip(1), *more))
    if function in (torch.pow, torch.clamp, torch.clamp_min, torch.clamp_max):
        assert_close(function(x, 0.7).features, function(x.features, 0.7))
    clamped = torch.clamp(x, max=other)
    assert_close(clamped.features, torch.clamp(x.features, max=x.features.flip(1)))


def test_different_sites_do_not_meet_silently() -> None:
    x, y = random_input(20, 3), random_input(20, 3, seed=5)
    for function in (torch.maximum, torch.gt, lambda a, b: torch.where(a > 0, a, b)):
        with pytest.raises(sc.SparseConvValueError, match="same sites"):
            function(x, y)
    with pytest.raises(sc.SparseConvValueError, match="channels"):
        torch.maximum(x, x.replace(x.features[:, :2]))


def test_where_chooses_value_by_value() -> None:
    t = dense_input()
    same_gradients(lambda x: torch.where(x > 0, x * 2, 0.5), t)
    same_gradients(lambda x: torch.where(x > 0, x * 2, x * 3), t)
    assert_close(torch.where(t > 0, full(t), 0.0).dense(), torch.where(t > 0, t, 0.0))


CHANNELWISE: dict[str, Callable[[Any], Any]] = {
    "softmax": lambda x: F.softmax(x, dim=1),
    "softmax-method": lambda x: x.softmax(dim=1),
    "log_softmax": lambda x: torch.log_softmax(x, 1),
    "softmin": lambda x: F.softmin(x, dim=-4),
    "glu": lambda x: F.glu(x, 1),
    "normalize": F.normalize,
    "channel_shuffle": nn.ChannelShuffle(2),
    "mean": lambda x: x.mean(dim=1, keepdim=True),
    "sum": lambda x: torch.sum(x, 1, keepdim=True),
    "amax": lambda x: torch.amax(x, 1, keepdim=True),
    "max": lambda x: torch.max(x, dim=1, keepdim=True)[0],
    "min": lambda x: torch.min(x, dim=1, keepdim=True).values,
    "var": lambda x: x.var(dim=1, keepdim=True),
    "std": lambda x: x.std(1, keepdim=True),
    "norm": lambda x: torch.norm(x, dim=1, keepdim=True),
}


@pytest.mark.parametrize("name", CHANNELWISE)
def test_functions_over_channels(name: str) -> None:
    same_gradients(CHANNELWISE[name], dense_input())


def test_softmax2d_is_over_channels() -> None:
    same_gradients(nn.Softmax2d(), dense_input(axes=2))


def test_linear_is_a_map_of_channels() -> None:
    layer = nn.Linear(4, 3).double()
    t = dense_input()
    y = layer(full(t)).dense()
    assert_close(y, layer(t.movedim(1, -1)).movedim(-1, 1))
    x = random_input(30, 4)
    inputs = [
        entry.detach().clone().requires_grad_() for entry in (x.features, *layer.parameters())
    ]
    assert gradcheck(lambda f, w, b: F.linear(x.replace(f), w, b).features, inputs)
    assert gradgradcheck(lambda f, w, b: F.linear(x.replace(f), w, b).features, inputs)


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "amax": torch.amax,
    "amin": torch.amin,
    "var": torch.var,
    "std": torch.std,
    "norm": lambda x, **options: torch.norm(x, 2, **options),
    "norm1": lambda x, **options: torch.norm(x, 1, **options),
    "norm3": lambda x, **options: torch.norm(x, 3.0, **options),
    "norm-inf": lambda x, **options: torch.norm(x, math.inf, **options),
    "var0": lambda x, **options: torch.var(x, correction=0, **options),
}
DIMS = [(2, 3, 4), (-1, -3, -2), (0, 2, 3, 4), (1, 2, 3, 4), (0, 1, 2, 3, 4)]


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_are_torchs_where_every_site_is_active(
    name: str, dim: tuple[int, ...], keepdim: bool
) -> None:
    same_gradients(lambda x: REDUCTIONS[name](x, dim=dim, keepdim=keepdim), dense_input(3))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std", "norm"])
def test_reductions_of_everything(name: str) -> None:
    same_gradients(lambda x: getattr(x, name)(), dense_input())


def test_reductions_run_over_active_sites() -> None:
    mask = random_mask(3, (5, 6), 0.4, empty_sample=True)
    t = torch.randn(3, 2, 5, 6, dtype=torch.float64) - 9
    x = sparse(t, mask)
    for name in ("sum", "mean", "amax", "amin", "var", "std", "norm"):
        got = getattr(x, name)(dim=(2, 3))
        assert torch.equal(got[1], torch.zeros(2, dtype=torch.float64))
        for number in (0, 2):
            rows = t[number][:, mask[number]]
            assert_close(got[number], getattr(rows, name)(dim=1))
        assert_close(getattr(x, name)(dim=(0, 2, 3)), getattr(x.features, name)(dim=0))
    assert_close(x.mean(), x.features.mean())
    scaled = x * x.mean(dim=(2, 3), keepdim=True).sigmoid()
    assert scaled.sites is x.sites


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_empty_and_single_site_samples_are_finite(name: str) -> None:
    for coords in ([], [[1, 0]], [[0, 0], [2, 1], [2, 0]]):
        rows = torch.tensor(coords, dtype=torch.int64).reshape(-1, 2)
        features = torch.zeros(len(coords), 2, dtype=torch.float64, requires_grad=True)
        x = sc.SparseTensor(features, rows, (2,), 3)
        for dim in ((2,), None):
            y = REDUCTIONS[name](x, dim=dim)
            assert y.isfinite().all()
            (grad,) = torch.autograd.grad(y.sum(), features)
            assert grad.isfinite().all()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_derivatives_of_reductions(name: str) -> None:
    x = random_input(9, 2, (3, 4), batch=2)

    def reduced(features: Tensor) -> Tensor:
        return REDUCTIONS[name](x.replace(features), dim=(2, 3)) ** 2

    features = x.features.clone().requires_grad_()
    assert gradcheck(reduced, (features,))
    assert gradgradcheck(reduced, (features,))


def test_long_sums_and_maxima_on_any_number_of_threads(as_users_run: None) -> None:
    x = random_input(30000, 3, (40, 40, 40), batch=2, dtype=torch.float32)
    features = x.features.clone()
    features[17, 1] = 50.0
    x = x.replace(features)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs += [[entry(y) for entry in (torch.sum, torch.var)] for y in (x, permuted(x))]
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))
    assert x.amax(dim=(2, 3, 4)).max() == 50
    assert_close(x.amax(dim=(0, 2, 3, 4)), x.features.amax(dim=0))


def test_nan_is_largest() -> None:
    x = random_input(300, 2)
    features = x.features.clone()
    features[40, 1] = math.nan
    got = x.replace(features).amax(dim=(2, 3, 4))
    assert got[0, 0] == features[:, 0].max()
    assert got[0, 1].isnan()


def test_half_precision_sums_do_not_overflow() -> None:
    x = random_input(1000, 2, dtype=torch.float16)
    x = x.replace(torch.full_like(x.features, 3e3))
    assert x.mean(dim=(2, 3, 4)).tolist() == [[3e3, 3e3]]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_dropout_of_whole_channels_is_torchs(axes: int) -> None:
    t = dense_input(axes=axes)
    layer = getattr(nn, f"Dropout{axes}d")(0.5)
    torch.manual_seed(3)
    expected = layer(t)
    torch.manual_seed(3)
    assert_close(layer(full(t)).dense(), expected)
    x = full(t)
    assert layer.eval()(x) is x
    x = full(t.clone())
    getattr(nn, f"Dropout{axes}d")(1.0, inplace=True)(x)
    assert not x.features.any()


def test_alpha_dropout_of_whole_channels_is_torchs() -> None:
    t = dense_input()
    for p in (0.4, 1.0):
        torch.manual_seed(3)
        expected = nn.FeatureAlphaDropout(p)(t)
        torch.manual_seed(3)
        assert_close(nn.FeatureAlphaDropout(p)(full(t)).dense(), expected)


def test_prelu_has_a_slope_per_channel() -> None:
    layer = nn.PReLU(4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.1, 0.2, -0.3, 0.4]))
    t = dense_input()
    grads = []
    for x in (t, full(t)):
        y = layer(x)
        y = y.dense() if isinstance(y, sc.SparseTensor) else y
        grads.append(torch.autograd.grad((y**2).sum(), layer.weight)[0])
        assert_close(y, layer(t))
    assert_close(grads[1], grads[0])


def test_methods_are_the_functions() -> None:
    x = random_input(20, 4)
    for name in ("abs", "exp", "relu", "sigmoid", "tanh", "clone", "square"):
        assert_close(getattr(x, name)().features, getattr(x.features, name)())
    assert_close(F.sigmoid(x).features, torch.sigmoid(x.features))
    assert_close((abs(x) ** 2).features, x.features**2)
    for name, method in vars(Methods).items():
        if not name.startswith("_"):
            assert method.__doc__, name


BAD: dict[str, Callable[[sc.SparseTensor], Any]] = {
    "dim: on": lambda x: F.softmax(x, dim=2),
    "dim: must be 1": lambda x: F.softmax(x, dim=None),
    "dim: must lie": lambda x: x.mean(dim=7),
    "dim: reduce over the spatial axes too": lambda x: x.mean(dim=(0, 2)),
    "dim: max": lambda x: x.max((2, 3, 4)),
    "weight": lambda x: F.prelu(x, torch.ones(3)),
    "p:": lambda x: torch.norm(x, 0),
    "groups": lambda x: F.channel_shuffle(x, 3),
    "prod": lambda x: x.prod(),
}


@pytest.mark.parametrize("named", BAD)
def test_a_wrong_call_names_its_argument(named: str) -> None:
    with pytest.raises(sc.SparseConvError, match=named) as raised:
        BAD[named](random_input(20, 4, (6, 6, 6)))
    assert "\n" not in str(raised.value)

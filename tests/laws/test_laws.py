"""The adjoint, order, repeat and engine laws (the padding, dense and site laws: test_conv)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from cases import (
    DTYPES,
    GRID,
    LAYERS,
    PROBLEMS,
    SITE_COUNTS,
    Layer,
    Problem,
    assert_close,
    generator,
    gradients,
    leaves_of,
    permuted,
    problems,
    random_input,
    skip_unless_it_can,
)
from hypothesis import given
from torch import Tensor

import sparseconv as sc
from sparseconv import engines

SIZE = (14, 11, 13)

# Layers in three axes whose kernels, strides and channel counts take every path through an engine.
THREE_AXES = {
    "conv": Layer("conv", (3, 3, 3), 2, 1, bias=False),
    "conv-stride1": Layer("conv", (3, 1, 2), 1, (1, 0, 1)),
    "transposed": Layer("transposed", (2, 3, 2), 2),
    "subm": Layer("subm", (3, 3, 3)),
    "inverse": Layer("inverse", (3, 3, 3), 2, 1),
}
CHANNELS = [(1, 1, 1), (3, 5, 1), (5, 16, 1), (16, 33, 1), (64, 3, 1), (4, 8, 2), (1, 1, 16)]

Run = Callable[[sc.SparseTensor], tuple[Tensor, Tensor]]


def runner(layer: Layer, dtype: torch.dtype) -> Run:
    """Return a function from a tensor to the dense output and the dense input gradient.

    The cotangent depends on the output's coordinates alone; an inverse layer first goes down.
    """
    weight, bias = layer.parameters(dtype=dtype)

    def run(x: sc.SparseTensor) -> tuple[Tensor, Tensor]:
        x = x.detach()
        if layer.kind == "inverse":
            kernel = torch.ones(x.channels, 1, *layer.kernel, dtype=dtype)
            options = {**layer.window, "groups": x.channels}
            x = torch.nn.functional.conv3d(x, kernel, **options).detach()
        x.requires_grad_()
        y = layer(x, weight, bias)
        phase = (y.coords[:, 1:].double() @ torch.tensor([1.0, 0.1, 0.01]).double()).to(dtype)
        cotangent = torch.sin(phase)[:, None] + torch.arange(y.channels, dtype=dtype)
        (grad,) = torch.autograd.grad(y.features, x.features, cotangent)
        return y.detach().dense(), x.detach().replace(grad).dense()

    return run


@functools.cache
def active_sites(kind: str, count: int) -> Tensor:
    """Return the sites that a layer makes of ``random_input(count, ...)``: slow loops, run once."""
    mask = random_input(count, 1, SIZE).mask()[:, 0]
    return mask if kind == "inverse" else THREE_AXES[kind].sites(mask)


def assert_same_bits(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.equal(mine, theirs)


@given(problem=problems(["conv"]))
def test_the_inverse_is_the_adjoint(engine: str, problem: Problem) -> None:
    layer = replace(problem.layer, bias=False)
    t, weight, _ = problem.leaves()
    x = problem.input(t.detach())
    y = layer(x, weight.detach(), None)
    other = y.replace(torch.randn(y.features.shape, generator=generator(9), dtype=y.dtype))
    options = {**layer.window, "groups": layer.groups}
    back = sc.functional.inverse_conv(other, weight.detach(), **options)
    assert back.sites is x.sites
    left = (y.features * other.features).sum()
    right = (x.features * back.features).sum()
    scale = y.features.norm() * other.features.norm() + 1
    assert_close((left - right) / scale + 1, torch.ones_like(left))


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", THREE_AXES)
def test_the_order_of_rows_and_the_company_of_samples_change_no_bit(
    engine: str, kind: str, dtype: torch.dtype, channels: tuple[int, int, int], as_users_run: None
) -> None:
    """Each sample alone, in a batch, and in a batch with shuffled rows: the same bits per site."""
    c_in, c_out, groups = channels
    layer = replace(THREE_AXES[kind], c_in=c_in, c_out=c_out, groups=groups)
    run = runner(layer, dtype)
    x = random_input(700, layer.in_channels, SIZE, batch=3, dtype=dtype)
    y, grad = run(x)
    assert_same_bits(run(permuted(x, 1)), (y, grad))
    for number, sample in enumerate(x.split()):
        assert_same_bits(run(permuted(sample, 2)), (y[[number]], grad[[number]]))


@pytest.mark.parametrize("name", LAYERS)
def test_the_order_law_in_every_number_of_axes(engine: str, name: str) -> None:
    problem = Problem(LAYERS[name], GRID[LAYERS[name].axes], batch=3, empty_sample=True)
    if problem.layer.kind == "inverse":
        problem = replace(problem, layer=replace(problem.layer, kind="conv"))
    t, weight, bias = problem.leaves()
    x = problem.input(t.detach())
    y = problem.layer(x, weight, bias).dense()
    assert torch.equal(problem.layer(permuted(x), weight, bias).dense(), y)
    for number, sample in enumerate(x.split()):
        assert torch.equal(problem.layer(sample, weight, bias).dense(), y[[number]])


@pytest.mark.parametrize("kind", THREE_AXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_same_call_gives_the_same_bits_on_any_number_of_threads(
    engine: str, kind: str, dtype: torch.dtype, as_users_run: None
) -> None:
    layer = replace(THREE_AXES[kind], c_in=9, c_out=120, bias=False)
    size = (30, 20, 30)

    def run() -> tuple[Tensor, ...]:
        x = random_input(9000, layer.in_channels, size, dtype=dtype)
        if layer.kind == "inverse":
            kernel = torch.ones(9, 1, 3, 3, 3, dtype=dtype)
            x = torch.nn.functional.conv3d(x, kernel, stride=2, padding=1, groups=9)
        (weight, _) = leaves_of(parameters)
        x.requires_grad_()
        y = layer(x, weight, None)
        leaves = [x.features, weight]
        return y.coords, y.features.detach(), *gradients(y.features, leaves, y.features.detach())

    parameters = layer.parameters(dtype=dtype)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2, 3, 16):
            torch.set_num_threads(count)
            runs.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert_same_bits(other, runs[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_engine_is_the_float64_reference(engine: str, name: str, dtype: torch.dtype) -> None:
    """The reference sees the numbers that the engine sees: rounded to the dtype, then widened."""
    skip_unless_it_can(engine, dtype)
    problem = PROBLEMS[name]
    leaves = problem.leaves(dtype)
    judges = leaves_of(leaves, torch.float64)
    y = problem.run(leaves)
    expected = problem.run_dense(judges)
    assert y.dtype == dtype
    assert_close(y.dense(), expected)
    cotangent = problem.cotangent().to(dtype)
    for got, wanted, leaf in zip(
        gradients(y.dense(), leaves, cotangent),
        gradients(expected, judges, cotangent),
        [leaf for leaf in leaves if leaf is not None],
        strict=True,
    ):
        assert got.dtype == leaf.dtype
        assert_close(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", SITE_COUNTS)
@pytest.mark.parametrize("kind", THREE_AXES)
def test_every_engine_at_awkward_sizes(
    engine: str, kind: str, count: int, dtype: torch.dtype
) -> None:
    """Wide layers: the sums are long enough that a half precision must not accumulate in itself."""
    skip_unless_it_can(engine, dtype)
    layer = replace(THREE_AXES[kind], c_in=48, c_out=33)
    x = random_input(count, 48, SIZE, dtype=dtype)
    active = active_sites(kind, count)
    if kind == "inverse":
        coarse = torch.nn.functional.conv3d(x, torch.ones(1, 48, 3, 3, 3, dtype=dtype), None, 2, 1)
        x = coarse.replace(torch.randn(coarse.num_sites, 48, generator=generator(3)).to(dtype))
    weight, bias = leaves_of(layer.parameters(dtype=dtype))
    judges = leaves_of([weight, bias], torch.float64)
    y = layer(x, weight, bias)
    expected = layer.dense(x.double().dense(), *judges, SIZE)
    expected = torch.where(active[:, None], expected, 0.0)
    assert y.num_sites == int(active.sum())
    assert_close(y.dense(), expected)
    cotangent = torch.randn(expected.shape, generator=generator(4)) * active[:, None]
    for got, wanted in zip(
        gradients(y.dense(), [weight, bias], cotangent.to(dtype)),
        gradients(expected, judges, cotangent.to(dtype)),
        strict=True,
    ):
        assert_close(got, wanted)


# (channels in, channels out, groups, sites): around the widths of vectors and blocks of rows
WIDTHS = [
    (1, 7, 1, 1), (2, 8, 1, 2), (7, 9, 1, 3), (8, 15, 1, 5), (9, 16, 1, 7), (15, 17, 1, 9),
    (16, 31, 1, 15), (17, 32, 1, 16), (31, 33, 1, 17), (3, 64, 1, 31), (65, 5, 1, 33),
    (130, 1, 1, 64), (1, 129, 1, 65), (24, 48, 1, 255), (16, 20, 1, 257), (2, 3, 5, 40),
    (8, 8, 2, 41), (17, 9, 3, 42), (1, 1, 33, 43),
]  # fmt: skip


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_engine_at_every_width(
    engine: str, widths: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """The rows lie in the middle of a wider matrix, so that neither ends nor alignment help."""
    skip_unless_it_can(engine, dtype)
    c_in, c_out, groups, count = widths
    layer = Layer("subm", (3, 3), groups=groups, c_in=c_in, c_out=c_out)
    x = random_input(count, layer.in_channels + 3, (17, 18), dtype=dtype)
    x = x.replace(x.features[:, 1:-2]).requires_grad_()
    weight, bias = leaves_of(layer.parameters(dtype=dtype))
    judges = leaves_of([x.features, weight, bias], torch.float64)
    y = layer(x, weight, bias)
    mask = x.mask()
    expected = layer.dense(x.replace(judges[0]).dense(), *judges[1:], (17, 18)) * mask
    assert_close(y.dense(), expected)
    cotangent = torch.randn(expected.shape, generator=generator(4)).to(dtype) * mask
    for got, wanted in zip(
        gradients(y.dense(), [x.features, weight, bias], cotangent),
        gradients(expected, judges, cotangent),
        strict=True,
    ):
        assert_close(got, wanted)


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_engines_make_the_same_sites_and_the_same_numbers(name: str) -> None:
    """Sites equal exactly, values to float64's tolerance, for every engine that can run here."""
    problem = PROBLEMS[name]
    results = []
    for engine in engines.ENGINES:
        if engines.get(engine).why_not(torch.device("cpu"), torch.float64) is None:
            with sc.engine(engine):
                results.append(problem.run(problem.leaves()))
    for other in results[1:]:
        assert torch.equal(other.coords, results[0].coords)
        assert_close(other.features, results[0].features)

"""Layers under MinkowskiEngine's names against their definition, and against dense PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from minkowski_cases import (
    Problem,
    assert_rows,
    convolved,
    drawn,
    moved,
    offsets,
    pooled,
    problems,
    rows_of,
    strided,
    transposed,
)
from torch.autograd import gradcheck

import sparseconv as sc
from sparseconv.compat import minkowski as ME

pytestmark = pytest.mark.usefixtures("engine")


def kernel_of(layer: Any) -> torch.Tensor:
    """Return a kernel as ``[K, C_in, C_out]``."""
    kernel: torch.Tensor = layer.kernel.detach()
    return kernel if kernel.ndim == 3 else kernel[None]


@given(problem=problems())
def test_convolution(problem: Problem) -> None:
    layer = drawn(ME.MinkowskiConvolution(2, 3, **problem.options, bias=True))
    x = problem.tensor()
    y = layer(x)
    steps = offsets(problem.kernel, problem.dilation)
    out = strided(rows_of(x), problem.next_stride)
    expected = convolved(rows_of(x), out, kernel_of(layer), steps, problem.tensor_stride)
    assert_rows(y, {site: row + layer.bias.detach()[0] for site, row in expected.items()})
    assert y.tensor_stride == list(problem.next_stride)
    again = drawn(ME.MinkowskiConvolution(3, 2, **problem.options))(y)
    assert again.tensor_stride == [
        a * b for a, b in zip(problem.next_stride, problem.stride, strict=True)
    ]


@given(problem=problems())
def test_transposed_convolution_returns_to_the_coordinates(problem: Problem) -> None:
    x = problem.tensor()
    down = drawn(ME.MinkowskiConvolution(2, 3, **problem.options))(x)
    layer = drawn(ME.MinkowskiConvolutionTranspose(3, 2, **problem.options))
    up = layer(down)
    steps = offsets(problem.kernel, problem.dilation)
    if set(problem.stride) == {1} or set(problem.kernel) != {1}:
        assert up.coordinate_map_key == x.coordinate_map_key
        scale = problem.tensor_stride
        assert_rows(up, transposed(rows_of(down), rows_of(x), kernel_of(layer), steps, scale))


@given(problem=problems())
def test_generative_convolution_makes_every_site_that_is_reached(problem: Problem) -> None:
    x = problem.tensor()
    coarse = drawn(ME.MinkowskiConvolution(2, 3, **problem.options))(x)
    layer = drawn(ME.MinkowskiGenerativeConvolutionTranspose(3, 2, **problem.options))
    up = layer(coarse)
    steps, scale = offsets(problem.kernel, problem.dilation), problem.tensor_stride
    reached = {moved(site, step, scale) for site in rows_of(coarse) for step in steps}
    if not layer.use_mm:
        assert up.tensor_stride == list(scale)
        assert_rows(up, transposed(rows_of(coarse), reached, kernel_of(layer), steps, scale))
        assert up.coordinate_map_key != x.coordinate_map_key
    # where nobody has made the finer coordinates, a plain transposed layer makes them, too
    alone = ME.SparseTensor(coarse.F, coarse.C, tensor_stride=coarse.tensor_stride)
    plain = drawn(ME.MinkowskiConvolutionTranspose(3, 2, **problem.options))
    if set(problem.stride) != {1}:
        made = plain(alone)
        assert_rows(made, transposed(rows_of(coarse), reached, kernel_of(plain), steps, scale))
        assert plain(alone).coordinate_map_key == made.coordinate_map_key


@given(problem=problems())
def test_expanded_convolution_has_the_sites_of_a_regular_one(problem: Problem) -> None:
    x = problem.tensor()
    layer = drawn(ME.MinkowskiConvolution(2, 3, **problem.options, expand_coordinates=True))
    if layer.use_mm:
        return
    y, steps = layer(x), offsets(problem.kernel, problem.dilation)
    reached = set()
    for site in rows_of(x):
        for step in steps:
            place = moved(site, tuple(-k for k in step), problem.tensor_stride)
            if all(i % s == 0 for i, s in zip(place[1:], problem.next_stride, strict=True)):
                reached.add(place)
    expected = convolved(rows_of(x), reached, kernel_of(layer), steps, problem.tensor_stride)
    assert_rows(y, expected)


@given(problem=problems())
def test_channelwise_convolution(problem: Problem) -> None:
    layer = drawn(ME.MinkowskiChannelwiseConvolution(2, **problem.options, bias=True))
    x = problem.tensor()
    out = strided(rows_of(x), problem.next_stride)
    kernel = torch.diag_embed(layer.kernel.detach())
    steps = offsets(problem.kernel, problem.dilation)
    expected = convolved(rows_of(x), out, kernel, steps, problem.tensor_stride)
    bias = layer.bias.detach()[0]
    assert_rows(layer(x), {site: row + bias for site, row in expected.items()})


@given(problem=problems())
def test_poolings_and_the_way_back(problem: Problem) -> None:
    x = problem.tensor()
    whole = problem.kernel == problem.stride
    steps = offsets(problem.kernel, (1,) * problem.axes if whole else problem.dilation, whole)
    out = strided(rows_of(x), problem.next_stride)
    for name in ("max", "avg", "sum"):
        layer = getattr(ME, f"Minkowski{name.title()}Pooling")(**problem.options)
        y = layer(x)
        assert_rows(y, pooled(rows_of(x), out, steps, problem.tensor_stride, name))
    back = ME.MinkowskiPoolingTranspose(**problem.options)(y)
    ones = torch.eye(2, dtype=torch.float64).expand(len(steps), 2, 2)
    assert_rows(back, transposed(rows_of(y), rows_of(x), ones, steps, problem.tensor_stride))


def test_on_given_coordinates() -> None:
    coords = torch.tensor([[0, 0, 0], [0, 2, 1], [0, 5, 5]], dtype=torch.int32)
    x = ME.SparseTensor(torch.randn(3, 2).double(), coords)
    here = torch.tensor([[0, 2, 2], [0, 4, 0], [0, 8, 8]], dtype=torch.int32)
    layer = drawn(ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, dimension=2))
    steps = offsets((3, 3), (1, 1))
    expected = convolved(rows_of(x), map(tuple, here.tolist()), kernel_of(layer), steps, (1, 1))
    y = layer(x, here)
    assert_rows(y, expected)
    assert torch.equal(y.C, here)
    assert torch.equal(layer(x, y).F, y.F)
    assert torch.equal(layer(x, y.coordinate_map_key).F, y.F)
    for pool in (ME.MinkowskiMaxPooling, ME.MinkowskiSumPooling):
        assert pool(3, 2, dimension=2)(x, y).coordinate_map_key == y.coordinate_map_key
    up = drawn(ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=2, stride=2, dimension=2))
    there = up(y, x)
    assert there.coordinate_map_key == x.coordinate_map_key
    with pytest.raises(ValueError, match="another coordinate manager"):
        layer(x, ME.SparseTensor(torch.ones(3, 1), here, tensor_stride=2))


def test_gradients() -> None:
    coords = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 4, -3], [1, 0, 0]], dtype=torch.int32)
    net = drawn(
        torch.nn.Sequential(
            ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, bias=True, dimension=2),
            ME.MinkowskiInstanceNorm(3),
            ME.MinkowskiELU(),
            ME.MinkowskiMaxPooling(2, 2, dimension=2),
            ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=4, stride=4, dimension=2),
        )
    )
    features = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda f: net(ME.SparseTensor(f, coords)).F, features)
    net(ME.SparseTensor(features, coords)).F.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_kernels_lie_and_begin_as_in_the_engine() -> None:
    """The first axis is fastest; the numbers from a seed are those of its own initialisation."""
    x = ME.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 5, 5, 5]], dtype=torch.int32))
    around = torch.cartesian_prod(*[torch.arange(4, 7)] * 3).int()
    around = torch.nn.functional.pad(around, (1, 0))
    layer = ME.MinkowskiConvolution(1, 1, kernel_size=3, dimension=3)
    layer.kernel.data = torch.arange(27.0).reshape(27, 1, 1)
    y = layer(
        x, ME.SparseTensor(torch.ones(27, 1), around, coordinate_manager=x.coordinate_manager)
    )
    for (_, i, j, k), value in zip(around.tolist(), y.F.flatten().tolist(), strict=True):
        assert value == (5 - i + 1) + 3 * (5 - j + 1) + 9 * (5 - k + 1)
    torch.manual_seed(0)
    kernel, bias = torch.empty(27, 4, 8), torch.empty(1, 8)
    bound = (4 * 27) ** -0.5
    expected = kernel.uniform_(-bound, bound), bias.uniform_(-bound, bound)
    torch.manual_seed(0)
    drawn_layer = ME.MinkowskiConvolution(4, 8, kernel_size=3, bias=True, dimension=3)
    assert torch.equal(drawn_layer.kernel, expected[0])
    assert torch.equal(drawn_layer.bias, expected[1])
    names = {name: tuple(p.shape) for name, p in drawn_layer.state_dict().items()}
    assert names == {"kernel": (27, 4, 8), "bias": (1, 8)}
    assert ME.MinkowskiConvolution(4, 8, kernel_size=1, dimension=3).kernel.shape == (4, 8)
    assert ME.MinkowskiConvolution(4, 8, 1, 2, dimension=3).kernel.shape == (1, 4, 8)


def test_layers_of_one_input_share_their_coordinates_and_maps() -> None:
    coords = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 4, 3]], dtype=torch.int32)
    x = ME.SparseTensor(torch.ones(3, 2), coords)
    options = {"stride": 2, "dimension": 2}
    y = ME.MinkowskiConvolution(2, 3, kernel_size=3, **options)(x)
    z = ME.MinkowskiConvolution(2, 3, kernel_size=2, **options)(x)
    assert y.coordinate_map_key == z.coordinate_map_key
    assert y.sites is z.sites
    books = x.sites.rulebooks
    ME.MinkowskiConvolution(3, 3, kernel_size=2, **options)(x.with_features(torch.ones(3, 3)))
    assert x.sites.rulebooks.keys() == books.keys()
    up = ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=2, **options)(z)
    assert up.sites is x.sites


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_full_grid_is_dense_pytorch(axes: int) -> None:
    size = (1, 2, *(4,) * axes)
    t = torch.randn(size, dtype=torch.float64)
    x = ME.to_sparse_all(t)
    for kernel, stride, padding in ((3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 1, 0)):
        layer = drawn(ME.MinkowskiConvolution(2, 3, kernel, stride, dimension=axes))
        weight = sc.convert_weights(
            {"kernel": layer.kernel.detach()}, dense_twin(layer), "minkowski"
        )
        conv = getattr(torch.nn.functional, f"conv{axes}d")
        expected = conv(t, weight["weight"], None, stride, padding)
        torch.testing.assert_close(layer(x).dense()[0], expected, rtol=1e-12, atol=1e-12)


def dense_twin(layer: Any) -> Any:
    """Return PyTorch's layer of the same sizes."""
    kind = getattr(torch.nn, f"Conv{layer.dimension}d")
    size = tuple(layer.kernel_size)
    return kind(layer.in_channels, layer.out_channels, size, bias=False).double()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ME.MinkowskiConvolution(2, 3, 3), "dimension: must be"),
        (lambda x: ME.MinkowskiConvolution(2, 3, dimension=2), "kernel_size: must be at least 1"),
        (ME.MinkowskiConvolution(3, 3, 3, dimension=2), "must have 3 channels, got 2"),
        (ME.MinkowskiConvolution(2, 3, 3, dimension=3), "has 2 spatial axes"),
        (lambda x: ME.MinkowskiConvolution(2, 3, [3, 3, 3], dimension=2), "must have 2 entries"),
        (ME.MinkowskiConvolutionTranspose(2, 3, 2, 2, dimension=2), "must divide"),
        (
            lambda x: ME.KernelGenerator(3, region_type=ME.RegionType.HYPER_CROSS, dimension=2),
            "region_type: use RegionType.HYPER_CUBE",
        ),
        (lambda x: ME.MinkowskiLinear(2, 2)(x.F), "input: must be a SparseTensor"),
        (lambda x: ME.MinkowskiConvolution(2, 3, 3, dimension=2)(x.double()), "weight"),
    ],
)
def test_wrong_calls_say_what_is_allowed(call: Any, message: str) -> None:
    coords = torch.tensor([[0, 0, 1], [0, 1, 1]], dtype=torch.int32)
    with pytest.raises(sc.SparseConvError, match=message) as caught:
        call(ME.SparseTensor(torch.ones(2, 2), coords))
    assert "\n" not in str(caught.value)


def test_an_empty_tensor_goes_through() -> None:
    x = ME.SparseTensor(torch.ones(0, 2), torch.zeros(0, 3, dtype=torch.int32))
    net = torch.nn.Sequential(
        ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, dimension=2),
        ME.MinkowskiMaxPooling(2, 2, dimension=2),
        ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=2, stride=2, dimension=2),
    )
    assert net(x).F.shape == (0, 2)

"""Caches outlive the mode that filled them, and nobody can write into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from cases import LAYERS, PROBLEMS, assert_close, random_input
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.core.geometry import Kind, make_geometry

pytestmark = pytest.mark.usefixtures("engine")

SIZE = (6, 7)
CHANNELS = 4


def other(x: sc.SparseTensor) -> sc.SparseTensor:
    """Return a tensor on some of the sites of ``x`` and on others."""
    coords = torch.cat([x.coords[::2], torch.tensor([[0, 5, 6]])])
    features = torch.ones(len(coords), CHANNELS, dtype=x.dtype)
    return sc.SparseTensor(features, coords.unique(dim=0), SIZE, x.batch_size, reduce="first")


def by_weights(layer: nn.Module) -> Callable[[sc.SparseTensor], Any]:
    return layer.double()


class DenseFactor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(1, CHANNELS, *SIZE, dtype=torch.float64))

    def forward(self, x: sc.SparseTensor) -> sc.SparseTensor:
        return x * self.factor


TABLE: dict[str, Callable[[], Callable[[sc.SparseTensor], Any]]] = {
    "partial": lambda: by_weights(sc.nn.PartialConv2d(CHANNELS, 3, 3, padding=1)),
    "partial transposed": lambda: by_weights(sc.nn.PartialConvTranspose2d(CHANNELS, 3, 3, 2)),
    "submanifold partial": lambda: by_weights(sc.nn.SubmPartialConv2d(CHANNELS, 3, 3)),
    "deformable": lambda: by_weights(sc.nn.DeformConv2d(CHANNELS, 3, 3, padding=1)),
    "max pooling": lambda: nn.MaxPool2d(2),
    "average pooling": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pooling with padding": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "partial pooling": lambda: sc.nn.PartialAvgPool(2),
    "global pooling": sc.nn.GlobalAvgPool,
    "global max pooling": sc.nn.GlobalMaxPool,
    "adaptive pooling": lambda: nn.AdaptiveMaxPool2d(1),
    "batch norm": lambda: by_weights(nn.BatchNorm2d(CHANNELS)),
    "evaluated batch norm": lambda: by_weights(nn.BatchNorm2d(CHANNELS)).eval(),
    "group norm": lambda: by_weights(nn.GroupNorm(2, CHANNELS)),
    "instance norm": lambda: by_weights(nn.InstanceNorm2d(CHANNELS, track_running_stats=True)),
    "layer norm": lambda: by_weights(nn.LayerNorm(CHANNELS)),
    "slopes": lambda: by_weights(nn.PReLU(CHANNELS)),
    "upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "sum on other sites": lambda: lambda x: x + other(x),
    "concatenation on other sites": lambda: lambda x: torch.cat([x, other(x)], dim=1),
    "dense factor": DenseFactor,
    "statistics": lambda: lambda x: x.var(dim=(2, 3)),
    "to dense": lambda: lambda x: x.dense(),
    "half of the batch": lambda: lambda x: x[:1],
    "union": lambda: lambda x: sc.union(x, other(x)),
}  # fmt: skip


def under_a_transform(function: Callable[[sc.SparseTensor], Any], x: sc.SparseTensor) -> None:
    torch.func.grad(lambda features: rows(function(x.replace(features))).sum())(x.features)


MODES = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "transform": nullcontext,
}


def rows(y: Any) -> Tensor:
    return y.features if isinstance(y, sc.SparseTensor) else y


def trained(function: Callable[[sc.SparseTensor], Any], x: sc.SparseTensor) -> list[Tensor]:
    """Return the result and the gradients by the features and the parameters."""
    features = x.features.detach().requires_grad_()
    y = rows(function(x.replace(features)))
    leaves = [features]
    if isinstance(function, nn.Module):
        leaves += list(function.parameters())
    return [y, *torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)]


def same_after_mode(
    name: str, function: Callable[[sc.SparseTensor], Any], make: Callable[[], sc.SparseTensor]
) -> None:
    x = make()
    with MODES[name]():
        if name == "transform":
            under_a_transform(function, x)
        else:
            function(x)
    for found, wanted in zip(trained(function, x), trained(function, make()), strict=True):
        assert (found is None) == (wanted is None)
        assert found is None or torch.equal(found, wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TABLE)
def test_training_follows_any_mode(name: str, mode: str) -> None:
    torch.manual_seed(0)
    function = TABLE[name]()
    if mode == "transform" and name in ("instance norm", "batch norm"):
        pytest.skip("running statistics do not move under a transform")
    same_after_mode(mode, function, lambda: random_input(20, CHANNELS, SIZE, batch=2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_training_a_convolution_follows_any_mode(name: str, mode: str) -> None:
    problem = PROBLEMS[name]
    t, *parameters = problem.leaves()
    weight, bias = (entry if entry is None else entry.detach() for entry in parameters)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)
            self.bias = None if bias is None else nn.Parameter(bias)

        def forward(self, x: sc.SparseTensor) -> sc.SparseTensor:
            return problem.layer(x, self.weight, self.bias)

    fine = []

    def make() -> sc.SparseTensor:
        x = problem.input(t.detach())
        fine.append(x)  # an inverse layer's parents live on
        return x

    same_after_mode(mode, Layer(), make)


@pytest.mark.parametrize("name", TABLE)
def test_sites_that_were_made_in_inference_mode_can_be_trained_on(name: str) -> None:
    torch.manual_seed(0)
    function = TABLE[name]()
    with torch.inference_mode():
        x = random_input(20, CHANNELS, SIZE, batch=2)
        function(x)
    twin = random_input(20, CHANNELS, SIZE, batch=2)
    x = x.replace(twin.features)
    for found, wanted in zip(trained(function, x), trained(function, twin), strict=True):
        assert found is None or torch.equal(found, wanted)


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """Return what so many threads get that call at the same moment."""
    start = threading.Barrier(count)
    results: list[Any] = []

    def run() -> None:
        start.wait()
        results.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(CHANNELS, 3, 3, stride=2, padding=1),
        sc.nn.SubmConv2d(CHANNELS, 3, 3),
        sc.nn.PartialConv2d(CHANNELS, 3, 3),
        nn.BatchNorm2d(CHANNELS).eval(),
        nn.MaxPool2d(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_threads_that_build_at_once_get_the_same(layer: nn.Module) -> None:
    layer = layer.double()
    wanted = layer(random_input(200, CHANNELS, (31, 33)))
    for _ in range(5):
        x = random_input(200, CHANNELS, (31, 33))
        results = at_once(4, lambda x=x: layer(x))
        assert len({id(y.sites) for y in results}) == 1
        for y in results:
            assert_close(y.features, wanted.features)


def test_two_threads_get_one_rulebook() -> None:
    geometries = [
        make_geometry((3, 3), stride=2),
        make_geometry((3, 3), kind=Kind.SUBMANIFOLD),
        make_geometry((3, 3), stride=2, kind=Kind.TRANSPOSED),
    ]
    for geometry in geometries:
        sites = random_input(200, 1, (31, 33)).sites
        results = at_once(2, lambda sites=sites, geometry=geometry: sites.convolve(geometry))
        assert results[0][1] is results[1][1]
        assert results[0][0] is results[1][0]


ARRAYS: dict[str, Callable[[sc.SparseTensor], Tensor]] = {
    "coords": lambda x: x.coords,
    "coords of the sites": lambda x: x.sites.coords,
    "coords of a sum": lambda x: (x + other(x)).coords,
    "coords of a strided layer": lambda x: nn.functional.max_pool2d(x, 2).coords,
    "rows": lambda x: x.at(x.coords)[0],
    "mask": lambda x: x.mask(),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_writing_into_what_was_handed_out_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    layer = by_weights(sc.nn.PartialConv2d(CHANNELS, 3, 3, padding=1))
    x, twin = (random_input(20, CHANNELS, SIZE, batch=2) for _ in range(2))
    layer(x)
    ARRAYS[name](x).zero_()
    assert torch.equal(x.coords, twin.coords)
    assert torch.equal(x.dense(), twin.dense())
    assert torch.equal(x.at(twin.coords)[0], torch.arange(x.num_sites))
    assert torch.equal((x + other(x)).dense(), (twin + other(twin)).dense())
    pooled, expected = (nn.functional.max_pool2d(t, 2) for t in (x, twin))
    assert torch.equal(pooled.coords, expected.coords)
    assert torch.equal(layer(x).dense(), layer(twin).dense())

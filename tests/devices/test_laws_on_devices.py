"""The plain engine on every device: what a GPU computes is what the CPU's own engine computes.

The pretended device of ``bench`` stands for a card on every machine; what it cannot show, the bits
of a card's own kernels, the same tests show where CUDA is, marked ``gpu``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import (
    DEVICES,
    DTYPES,
    GRID,
    LAYERS,
    SITE_COUNTS,
    Layer,
    assert_close,
    generator,
    permuted,
    problems,
    random_input,
)
from devices import bench
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import UNet

SIZE = (10, 9, 11)
Results = list[Tensor]
Run = Callable[[sc.SparseTensor, torch.device], Results]


def on(device: str, run: Run, x: sc.SparseTensor) -> Results:
    """Return the results of ``run`` on a device by the plain engine, brought back."""
    with sc.engine("torch"):
        results = run(x.to(device), torch.device(device))
    assert {result.device.type for result in results} == {device}
    return [result.detach().cpu() for result in results]


def compare(device: str, run: Run, x: sc.SparseTensor) -> None:
    """Compare with the same run on the CPU by the engine that is chosen there."""
    expected = run(x, torch.device("cpu"))
    for mine, theirs in zip(on(device, run, x), expected, strict=True):
        if theirs.is_floating_point():
            assert_close(mine, theirs.detach())
        else:
            assert torch.equal(mine, theirs)


def sites_on(device: str, count: int) -> int:
    """Return how many sites a long test runs on: fewer on the bench, whose operators are slow."""
    return count // 3 if device == bench.NAME else count


def derivatives(y: Tensor, *leaves: Tensor) -> Results:
    """Return ``y`` and the gradients of a sum of it with weights that differ from each other."""
    phase = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape)
    cotangent = torch.sin(phase).to(y)
    return [y, *torch.autograd.grad(y, leaves, cotangent, retain_graph=True)]


def layer_run(layer: Layer, dtype: torch.dtype) -> Run:
    """Return what runs a layer and its gradients; an inverse layer first goes down."""

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        x = x.detach()
        if layer.kind == "inverse":
            kernel = torch.ones(x.channels, 1, *layer.kernel, dtype=dtype, device=device)
            down = replace(layer, kind="conv", groups=x.channels)
            fine, x = x, down(x, kernel, None).detach()
            assert fine.num_sites >= 0  # alive, so that the inverse finds the sites
        parameters = [p if p is None else p.to(device) for p in layer.parameters(dtype=dtype)]
        weight, bias = (p if p is None else p.requires_grad_() for p in parameters)
        y = layer(x.requires_grad_(), weight, bias)
        leaves = [leaf for leaf in (x.features, weight, bias) if leaf is not None]
        return [y.coords, *derivatives(y.features, *leaves)]

    return run


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("device", DEVICES)
def test_layers(device: str, name: str, dtype: torch.dtype) -> None:
    layer = LAYERS[name]
    x = random_input(30, layer.in_channels, GRID[layer.axes], batch=4, dtype=dtype)
    compare(device, layer_run(layer, dtype), x)


@pytest.mark.parametrize("device", DEVICES)
@given(problem=problems(["conv", "transposed", "subm"]))
def test_layers_at_random(device: str, problem: Any) -> None:
    t, _, _ = problem.leaves()
    compare(device, layer_run(problem.layer, torch.float64), problem.input(t.detach()))


def without_parameters(x: sc.SparseTensor) -> list[Any]:
    """Return the results of what has no parameter, each on its own."""
    some = sc.prune(x, x.coords[:, 1] > 4)
    return [
        F.max_pool3d(x, 2),
        F.max_pool3d(x, 3, 2, 1),
        F.avg_pool3d(x, 3, 2, 1),
        F.lp_pool3d(x, 2, 2),
        F.adaptive_avg_pool3d(x, 1),
        F.adaptive_max_pool3d(x, 1),
        F.relu(x) + x,
        torch.cat([x, F.gelu(x)], dim=1),
        F.group_norm(x, 2),
        F.instance_norm(x),
        F.layer_norm(x, (4,)),
        F.interpolate(x, scale_factor=2),
        sc.functional.global_avg_pool(x),
        sc.functional.global_max_pool(x),
        sc.prune(x, x.features[:, 0] > 0),
        sc.crop(x, 1, 8),
        sc.union(x, some),
        sc.intersect(x, some),
        sc.difference(x, some),
        sc.collate(x.split()),
    ]


@pytest.mark.parametrize("count", [63, 700])
@pytest.mark.parametrize("device", DEVICES)
def test_what_has_no_parameter(device: str, count: int) -> None:

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        x = x.detach().requires_grad_()
        found = []
        for y in without_parameters(x):
            dense = not isinstance(y, sc.SparseTensor)
            found += [] if dense else [y.coords]
            found += derivatives(y if dense else y.features, x.features)
        return found

    compare(device, run, random_input(count, 4, SIZE, batch=2))


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min", "first", "last"])
@pytest.mark.parametrize("count", SITE_COUNTS)
@pytest.mark.parametrize("device", DEVICES)
def test_points(device: str, count: int, reduce: str) -> None:
    source = generator(0)
    xyz = 5 * torch.randn(count, 3, generator=source, dtype=torch.float64)
    features = torch.randn(count, 5, generator=source, dtype=torch.float64)

    def run(_: sc.SparseTensor, device: torch.device) -> Results:
        values = features.to(device).requires_grad_()
        x, to_points = sc.voxelize(xyz.to(device), 0.7, values, reduce=reduce)
        near = to_points(x, mode="linear")
        back = to_points.splat(near, "sum")
        found = [x.coords, to_points.rows, *derivatives(x.features, values)]
        return found + [y for z in (near, back.features) for y in derivatives(z, values)]

    compare(device, run, random_input(1, 1, (1,)))


@pytest.mark.parametrize("kind", ["deformable", "modulated", "partial", "subm partial"])
@pytest.mark.parametrize("device", DEVICES)
def test_deformable_and_partial(device: str, kind: str) -> None:
    source, count = generator(3), sites_on(device, 200)
    weight = torch.randn(6, 4, 3, 3, 3, generator=source, dtype=torch.float64)
    offset = torch.randn(count, 3 * 27, generator=source, dtype=torch.float64)
    mask = torch.rand(count, 27, generator=source, dtype=torch.float64)

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        x = x.detach().requires_grad_()
        w, shifts, shares = (p.to(device).requires_grad_() for p in (weight, offset, mask))
        leaves = [x.features, w]
        if kind == "partial":
            y = sc.functional.partial_conv(x, w, None, 2, 1)
        elif kind == "subm partial":
            y = sc.functional.subm_partial_conv(x, w)
        else:
            shared = x.replace(shares) if kind == "modulated" else None
            y = sc.functional.deform_conv(x, x.replace(shifts), w, mask=shared, submanifold=True)
            leaves += [shifts, shares] if kind == "modulated" else [shifts]
        return [y.coords, *derivatives(y.features, *leaves)]

    compare(device, run, random_input(count, 4, SIZE))


def trained(dtype: torch.dtype) -> Run:
    """Return what trains a U-Net for two steps and hands back its output and parameters."""

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        torch.manual_seed(1)
        net = UNet(4, 3, (8, 16, 24)).to(dtype).to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            y = net(x.detach())
            optimizer.zero_grad()
            y.features.square().mean().backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            finished = sc.optimize(net)(x.detach())
        return [y.features, finished.features, *net.parameters()]

    return run


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_in_training(device: str) -> None:
    compare(device, trained(torch.float64), random_input(sites_on(device, 400), 4, (8, 8, 8), 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_twice(device: str, dtype: torch.dtype, as_users_run: None) -> None:
    """Without PyTorch's deterministic algorithms, of which the plain engine needs none."""
    x = random_input(sites_on(device, 400), 4, (8, 8, 8), batch=3, dtype=dtype)
    first, second = (on(device, trained(dtype), x) for _ in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", ["conv", "transposed", "subm"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_order_of_rows_changes_no_bit(device: str, kind: str, as_users_run: None) -> None:
    layer = Layer(kind, (3, 2, 3) if kind != "subm" else (3, 3, 3), c_in=5, c_out=17)
    x = random_input(700, 5, SIZE, batch=2, dtype=torch.float32)

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        weight, bias = (p.to(device) for p in layer.parameters(dtype=torch.float32))
        return [layer(x, weight, bias).dense()]

    (mine,), (theirs,) = on(device, run, x), on(device, run, permuted(x, 1))
    assert torch.equal(mine, theirs)


SAMPLE_BY_SAMPLE: dict[str, Callable[[sc.SparseTensor], Any]] = {
    "conv": lambda x: F.conv3d(x, *parameters(x, 5, 17), stride=2, padding=1),
    "grouped conv": lambda x: F.conv3d(x, *parameters(x, 1, 5), padding=1, groups=5),
    "transposed conv": lambda x: F.conv_transpose3d(x, *parameters(x, 17, 5)[:1], stride=2),
    "subm conv": lambda x: sc.functional.subm_conv(x, *parameters(x, 5, 17)),
    "partial conv": lambda x: sc.functional.partial_conv(x, *parameters(x, 5, 17), 2, 1),
    "group norm": lambda x: F.group_norm(x, 5),
    "instance norm": F.instance_norm,
    "average pool": lambda x: F.avg_pool3d(x, 3, 2, 1),
    "max pool": lambda x: F.max_pool3d(x, 2),
    "global average pool": lambda x: F.adaptive_avg_pool3d(x, 1),
}


def parameters(x: sc.SparseTensor, c_in: int, c_out: int) -> tuple[Tensor, Tensor]:
    """Return a weight ``[c_out, c_in, 3, 3, 3]`` and a bias, the same in every call."""
    source = generator(c_in)
    shapes = (c_out, c_in, 3, 3, 3), (c_out,)
    weight, bias = (torch.randn(shape, generator=source).to(x.features) for shape in shapes)
    return weight, bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SAMPLE_BY_SAMPLE)
@pytest.mark.parametrize("device", DEVICES)
def test_the_company_of_a_sample_changes_no_bit(
    device: str, name: str, dtype: torch.dtype, as_users_run: None
) -> None:
    """A sample alone, and the same one among others of other sizes: values and gradients."""

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        x = x.detach().requires_grad_()
        y = SAMPLE_BY_SAMPLE[name](x)
        dense = y.dense() if isinstance(y, sc.SparseTensor) else y
        (grad,) = torch.autograd.grad(dense.float().square().sum(), x.features)
        return [dense, x.detach().replace(grad).dense()]

    samples = [random_input(n, 5, SIZE, seed=n, dtype=dtype) for n in (65, 3, 200)]
    together = on(device, run, sc.collate(samples))
    for number, sample in enumerate(samples):
        for mine, theirs in zip(on(device, run, sample), together, strict=True):
            assert torch.equal(mine, theirs[[number]])


@pytest.mark.parametrize("device", [d for d in DEVICES if d != "cpu"])
def test_mixed_devices_are_refused(device: str) -> None:
    x = random_input(9, 2, (4, 4)).float()
    net = nn.Conv2d(2, 3, 3)
    with pytest.raises(sc.SparseConvTypeError, match=r"weight.*cpu"):
        net(x.to(device))
    with pytest.raises(sc.SparseConvTypeError, match=rf"features.*{device}"):
        sc.SparseTensor(x.features.to(device), x.coords, x.spatial_shape)
    with pytest.raises(sc.SparseConvTypeError):
        x.to(device) + x
    assert sc.engines.chosen(x.to(device).features) == "torch"


@pytest.mark.parametrize("device", DEVICES)
def test_labels_of_points(device: str) -> None:
    source = generator(0)
    xyz = 3 * torch.randn(300, 3, generator=source, dtype=torch.float64)
    labels = torch.randint(0, 4, (300,), generator=source)
    batch = torch.arange(300) // 100

    def run(_: sc.SparseTensor, device: torch.device) -> Results:
        bounds = (-4.0,) * 3, (4.0,) * 3
        x, to_points = sc.voxelize(xyz.to(device), 0.9, batch=batch.to(device), bounds=bounds)
        values = torch.sin(x.coords.double())
        near = sc.interpolate(x.replace(values), to_points.points, "linear")
        both = (
            to_points.majority(labels.to(device), 4, disagree=r) for r in ("majority", "ignore")
        )
        return [x.coords, *both, near]

    compare(device, run, random_input(1, 1, (1,)))


@given(count=st.sampled_from(SITE_COUNTS), seed=st.integers(0, 99), ordered=st.booleans())
@pytest.mark.parametrize("device", DEVICES)
def test_lookups(device: str, count: int, seed: int, ordered: bool) -> None:
    x = random_input(count, 1, SIZE, batch=2, seed=seed)
    if ordered:
        x = sc.SparseTensor.from_dense(x.dense(), x.mask()[:, 0])
    asked = torch.randint(-2, 12, (60, 4), generator=generator(seed))

    def run(x: sc.SparseTensor, device: torch.device) -> Results:
        return list(x.at(asked.to(device)))

    compare(device, run, x)

"""torch.compile and torch.export: one graph, no recompilation for another scan, equal numbers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing

import sparseconv as sc
from sparseconv.core.geometry import Kind, encoded, make_geometry
from sparseconv.models import UNet
from sparseconv.sites.sites import Sites
from sparseconv.tracing import operators as traced_ops
from sparseconv.tracing import sampling as traced_taps
from sparseconv.tracing.handles import handle_of

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own affairs


def _scan(count: int, extent: int) -> sc.SparseTensor:
    cells = torch.unique(torch.randint(0, extent, (count, 3)), dim=0)
    coords = torch.cat([torch.zeros(len(cells), 1, dtype=torch.int64), cells], dim=1)
    return sc.SparseTensor(torch.randn(len(cells), 2), coords, (extent,) * 3, 1)


class _Shortcut(torch.nn.Module):
    """Two strided layers whose sites differ meet in a sum: their union."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Conv3d(2, 4, 3, stride=2, padding=1)
        self.narrow = torch.nn.Conv3d(2, 4, 1, stride=2)

    def forward(self, x: sc.SparseTensor) -> sc.SparseTensor:
        return torch.relu(self.wide(x) + self.narrow(x))


def _pooling() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, padding=1, bias=False),
        torch.nn.BatchNorm3d(4),
        torch.nn.LeakyReLU(),
        torch.nn.MaxPool3d(2),
        torch.nn.ConvTranspose3d(4, 4, 2, stride=2),
        torch.nn.AvgPool3d(3, stride=2, padding=1),
    )


class _ThreeWays(torch.nn.Module):
    """Three layers with sites of their own, whose union is taken in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = torch.nn.ModuleList(
            torch.nn.Conv3d(2, 4, size, stride=2, padding=size // 2) for size in (1, 3, 5)
        )

    def forward(self, x: sc.SparseTensor) -> sc.SparseTensor:
        first, second, third = (way(x) for way in self.ways)
        return torch.cat([first, second, third, first + second + third], dim=1)


def _partial() -> torch.nn.Module:
    return torch.nn.Sequential(
        sc.nn.PartialConv3d(2, 4, 3, stride=2, padding=1),
        sc.nn.SubmPartialConv3d(4, 4, 3, normalize="mean", bias=False),
        torch.nn.ReLU(),
        sc.nn.PartialMaxPool(2),
        sc.nn.PartialConvTranspose3d(4, 4, 3, stride=2, padding=1),
        sc.nn.PartialAvgPool(2, padding=1),
    )


def _deformable() -> torch.nn.Module:
    network = torch.nn.Sequential(
        sc.nn.DeformConv3d(2, 4, 3, stride=2, padding=1, modulated=True),
        torch.nn.ReLU(),
        sc.nn.DeformConv3d(4, 4, 3, submanifold=True, offset_groups=2, groups=2),
        sc.nn.DeformConv3d(4, 2, 2, bias=False),
    )
    for name, entry in network.named_parameters():
        if name.split(".")[1] in ("offset", "modulation"):
            torch.nn.init.normal_(entry, std=0.1)
    return network


def _normalised() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, stride=2, padding=1),
        torch.nn.GroupNorm(2, 4),
        torch.nn.PReLU(4),
        sc.nn.SubmConv3d(4, 4, 3, bias=False),
        torch.nn.InstanceNorm3d(4, affine=True),
        torch.nn.SiLU(),
        torch.nn.Linear(4, 6),
        torch.nn.LayerNorm(6),
        torch.nn.Softmax(1),
    )


NETWORKS = {
    "normalised": _normalised,
    "unet": lambda: UNet(2, 3, widths=(4, 8)),
    "partial unet": lambda: UNet(2, 3, widths=(4, 8), partial=True),
    "shortcut": _Shortcut,
    "three ways": _ThreeWays,
    "pooling": _pooling,
    "partial": _partial,
    "deformable": _deformable,
}


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_graph_serves_every_scan(name: str, training: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = NETWORKS[name]().train(training)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for count, extent in ((200, 16), (400, 20), (600, 31)):
        x, twin = _scan(count, extent), copy.deepcopy(network)
        expected = twin(x)
        expected.features.square().sum().backward()
        network.zero_grad()
        y = compiled(x)
        y.features.square().sum().backward()
        assert torch.equal(y.coords, expected.coords)
        torch.testing.assert_close(y.features, expected.features, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            scale = float(theirs.grad.abs().max()) + 1e-6
            torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, rtol=0, atol=1e-3)
        for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1], "a later scan compiled again"


@pytest.mark.parametrize("training", [True, False])
def test_plain_compile_makes_one_graph(training: bool) -> None:
    """Without an argument: one graph for the first scan, one more for all of other sizes."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        sc.nn.SubmConv3d(2, 4, 3),
        torch.nn.BatchNorm3d(4),
        torch.nn.ReLU(),
        torch.nn.Conv3d(4, 4, 2, stride=2),
        torch.nn.MaxPool3d(2),
        sc.nn.GlobalAvgPool(),
    ).train(training)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(network, backend=counter)
    graphs = []
    for count, extent in ((200, 16), (400, 20), (600, 31), (300, 18)):
        x, twin = _scan(count, extent), copy.deepcopy(network)
        torch.testing.assert_close(compiled(x), twin(x), rtol=1e-4, atol=1e-5)
        graphs.append(counter.frame_count)
    assert graphs == [1, 2, 2, 2]


def test_samples_of_a_batch_are_pooled_in_a_graph() -> None:
    torch._dynamo.reset()
    network = torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 2, stride=2), torch.nn.GroupNorm(1, 4), sc.nn.GlobalAvgPool()
    )
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    for count, extent, batch in ((60, 8, 2), (90, 12, 3), (80, 10, 5)):
        x = sc.collate([_scan(count + sample, extent) for sample in range(batch)])
        expected, y = network(x), compiled(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        weight = network[0].weight
        grads = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (y, expected)]
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)
    assert counter.frame_count == 1


def test_a_result_keeps_its_sites_alive() -> None:
    torch._dynamo.reset()
    network = torch.nn.Conv3d(2, 4, 2, stride=2)
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="eager")
    y = compiled(_scan(100, 8))
    assert y.coords.shape == (y.num_sites, 4)


class _OnSites(torch.nn.Module):
    def __init__(self, network: torch.nn.Module, sites: Sites) -> None:
        super().__init__()
        self.network, self.sites = network, sites

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.network(sc.SparseTensor.on_sites(features, self.sites)).features


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_export_for_fixed_sites(name: str, strict: bool) -> None:
    torch._dynamo.reset()
    x = _scan(200, 16)
    module = _OnSites(NETWORKS[name]().eval(), x.sites)
    exported = torch.export.export(module, (x.features,), strict=strict)
    torch.testing.assert_close(
        exported.module()(x.features), module(x.features), rtol=1e-4, atol=1e-5
    )


def test_offsets_on_other_sites_are_refused_in_a_graph_too() -> None:
    """As many sites as the output has, but others."""
    torch._dynamo.reset()
    x = _scan(100, 8)
    moved = sc.SparseTensor(x.features, x.coords.flip(1).roll(1, 1), x.spatial_shape, 1)
    offset = moved.replace(torch.zeros(x.num_sites, 3))
    kernel = torch.ones(2, 2, 1, 1, 1)

    def deformed(x: sc.SparseTensor, offset: sc.SparseTensor) -> sc.SparseTensor:
        return sc.functional.deform_conv(x, offset, kernel, submanifold=True)

    compiled = torch.compile(deformed, fullgraph=True, dynamic=True, backend="eager")
    right = x.replace(offset.features)
    torch.testing.assert_close(compiled(x, right).features, deformed(x, right).features)
    with pytest.raises(sc.SparseConvValueError, match=r"^offset"):
        compiled(x, offset)


def test_one_graph_serves_dense_input_of_every_size() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = sc.nn.DeformConv2d(4, 6, (3, 2), (1, 2), 1, 2, 2, modulated=True, offset_groups=2)
    torch.nn.init.normal_(network.offset.weight)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((3, 4, 7, 8), (2, 4, 9, 12)):
        x = torch.randn(shape, requires_grad=True)
        leaves = [x, *network.parameters()]
        expected = network(x)
        y = compiled(x)
        torch.testing.assert_close(y, expected)
        got = torch.autograd.grad(y.square().sum(), leaves)
        wanted = torch.autograd.grad(expected.square().sum(), leaves)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1


def test_operators_pass_torchs_own_check() -> None:
    x = _scan(60, 6).double()
    geometry = make_geometry((2, 2, 2), stride=2)
    target, _ = x.sites.convolve(geometry)
    place = handle_of(x.sites), handle_of(target), encoded(geometry), False
    rows = x.features.new_empty(target.num_sites, 0)
    features = x.features.clone().requires_grad_()
    weight = torch.randn(8, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = features, weight, rows, *place
    torch.library.opcheck(traced_ops.gather_gemm_scatter, arguments, test_utils=checks)
    torch.library.opcheck(traced_ops.window_sum, (features, rows, *place), test_utils=checks)
    torch.autograd.gradcheck(
        lambda f, w: traced_ops.gather_gemm_scatter(f, w, *arguments[2:]), arguments[:2]
    )
    torch.autograd.gradgradcheck(
        lambda f, w: traced_ops.gather_gemm_scatter(f, w, *arguments[2:]), arguments[:2]
    )


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_weight_gradients_lie_as_a_graph_was_told(dtype: torch.dtype, groups: int) -> None:
    """Whatever layout an engine likes: of wide channels, narrow groups and depthwise ones."""
    x = _scan(60, 6)
    x = x.replace(torch.randn(x.num_sites, 16)).to(dtype)
    geometry = make_geometry((3, 3, 3), kind=Kind.SUBMANIFOLD)
    target, _ = x.sites.convolve(geometry)
    place = handle_of(x.sites), handle_of(target), encoded(geometry), False
    arguments = x.features, x.features.clone(), *place, [27, groups, 16 // groups, 16 // groups]
    checks = "test_schema", "test_faketensor"
    torch.library.opcheck(traced_ops.gather_gemm_reduce, arguments, test_utils=checks)


def test_the_deformable_operator_passes_torchs_own_check() -> None:
    rows = torch.tensor([0, -1, 1, 2, 2, 4, 3, 3], dtype=torch.int32).reshape(1, 2, 2, 2)
    splits = torch.tensor([0, 1, 2])
    shapes = ((5, 4), (1, 2, 2, 2), (2, 2, 2, 3))
    factors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (*factors, rows, splits)
    torch.library.opcheck(traced_taps.sample_gemm, arguments, test_utils=checks)
    assert torch.autograd.gradcheck(
        lambda *leaves: traced_taps.sample_gemm(*leaves, rows, splits), factors
    )


class _Pipeline(torch.nn.Module):
    """Points in, scores for points out."""

    def __init__(self, place: dict[str, object]) -> None:
        super().__init__()
        self.net, self.place = UNet(2, 3, widths=(4, 8)), place

    def forward(
        self, xyz: torch.Tensor, features: torch.Tensor, batch: torch.Tensor | None
    ) -> torch.Tensor:
        x, to_points = sc.voxelize(xyz, 0.5, features, batch, **self.place)  # type: ignore[arg-type]
        scores: torch.Tensor = to_points(self.net(x).features, fill=-1)
        return scores


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch 2.12 does not trace a PointMap")
@pytest.mark.parametrize(
    ("place", "batched"),
    [({"bounds": ((0, 0, 0), (6, 7, 8))}, False), ({}, True), ({"origin": (0.1, 0, 0)}, False)],
)
def test_points_to_points_is_one_graph(place: dict[str, object], batched: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = _Pipeline(place).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for count in (100, 150, 60):
        xyz, features = 8 * torch.rand(count, 3), torch.randn(count, 2, requires_grad=True)
        batch = torch.arange(count) % 3 if batched else None
        results = []
        for run in (model, compiled):
            scores = run(xyz, features, batch)
            results.append((scores, *torch.autograd.grad(scores.square().sum(), features)))
        torch.testing.assert_close(*results)
    with pytest.raises(Exception, match="NaN or infinite"):
        compiled(xyz / 0, features, batch)


@pytest.mark.slow
def test_points_of_a_list_compile_into_several_graphs() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    net = UNet(1, 3, widths=(4, 8)).eval()

    def pipeline(clouds: list[torch.Tensor]) -> torch.Tensor:
        x, to_points = sc.voxelize(clouds, 0.5)
        return to_points(net(x).features)

    compiled = torch.compile(pipeline, backend="aot_eager")
    for counts in ((50, 70), (60, 40)):
        clouds = [8 * torch.rand(count, 3) for count in counts]
        torch.testing.assert_close(compiled(clouds), pipeline(clouds))

"""Exports to ONNX: ONNX Runtime computes what PyTorch does, for any number of sites."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import MinkUNet, SECONDEncoder
from sparseconv.models.residual import BasicBlock

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter warns of its own affairs

EXTENT = (8, 9, 16)
Way = Callable[[Any], Tensor]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)  # the exporter says which packages it misses
    yield
    logging.disable(logging.NOTSET)


def features_of(y: Any) -> Tensor:
    rows: Tensor = y.features
    return rows


class FromCoordinates(nn.Module):
    """A network that takes plain tensors."""

    def __init__(
        self, net: nn.Module, extent: Sequence[int] | None = EXTENT, way: Way = features_of
    ) -> None:
        super().__init__()
        self.net, self.extent, self.way = net, extent, way
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm3d):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, features: Tensor, coords: Tensor) -> Tensor:
        batch_size = None if self.extent is None else 2
        return self.way(self.net(sc.SparseTensor(features, coords, self.extent, batch_size)))


def scan(count: int, low: int = 0, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    columns = [torch.randint(low * (size > 2), size, (count,)) for size in (2, *EXTENT)]
    coords = torch.unique(torch.stack(columns, dim=1), dim=0)
    coords = coords[torch.randperm(len(coords))]
    return torch.randn(len(coords), 2), coords.to(dtype)


def exported(model: nn.Module, args: tuple[Tensor, Tensor], **options: Any) -> Any:
    shapes = {0: "count"}, {0: "count"}
    return torch.onnx.export(
        model, args, dynamo=True, dynamic_shapes=shapes, verbose=False, **options
    )


def check(model: nn.Module, program: Any, scans: Sequence[tuple[Tensor, Tensor]]) -> None:
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [entry.name for entry in session.get_inputs()]
    for args in scans:
        found = session.run(None, dict(zip(names, (t.numpy() for t in args), strict=True)))[0]
        expected = model(*args).detach()
        assert found.shape == tuple(expected.shape)
        scale = max(float(expected.abs().max()), 1e-6) if expected.numel() else 1.0
        torch.testing.assert_close(
            torch.from_numpy(found) / scale, expected / scale, rtol=0, atol=1e-5
        )


def some_scans(**options: Any) -> list[tuple[Tensor, Tensor]]:
    return [scan(count, **options) for count in (150, 400, 1, 0)]


class Blocks(nn.Module):
    """A MinkUNet in small: residual blocks, strides, inverse convolutions, skips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = BasicBlock(2, 4)
        self.down, self.deep = nn.Conv3d(4, 6, 2, 2), BasicBlock(6, 6)
        self.up, self.head = sc.nn.InverseConv3d(6, 4, 2, 2), sc.nn.SubmConv3d(8, 3, 1)

    def forward(self, x: Any) -> Any:
        skip = self.stem(x)
        return self.head(torch.cat([self.up(self.deep(self.down(skip))), skip], dim=1))


class Others(nn.Module):
    """Pooling, groups, dilation, a transposed convolution, a union of sites, gates."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.mean = nn.MaxPool3d(3, 2, 1), nn.AvgPool3d(3, 2, 1)
        self.grouped = sc.nn.SubmConv3d(2, 4, 3, groups=2, dilation=2)
        self.transposed = nn.ConvTranspose3d(4, 4, 3, 2, 1, (1, 0, 1))
        self.widened = nn.Conv3d(4, 4, 3, padding=1)
        self.pool, self.top = nn.AdaptiveAvgPool3d(1), nn.AdaptiveMaxPool3d(1)
        self.gate = nn.Conv3d(4, 4, 1)

    def forward(self, x: Any) -> Any:
        blocks = sc.functional.max_pool(x, 3, stride=2, padding=1, sites="strided")
        x = self.transposed(self.grouped(self.largest(x) + self.mean(x) + blocks))
        y = self.widened(x) - 0.5 * x
        return y * torch.sigmoid(self.gate(self.pool(y) + self.top(y)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [Blocks, Others])
@pytest.mark.parametrize("extent", [EXTENT, None])
def test_any_number_of_sites(make: Any, extent: Any) -> None:
    torch.manual_seed(0)
    model = FromCoordinates(make(), extent)
    program = exported(model, scan(200))
    assert {node.domain for node in program.model.graph} == {""}
    scans = some_scans(low=0 if extent else -8)
    check(model, program, scans)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "extent", "way"),
    [
        (lambda: MinkUNet(2, 3, "14A"), (16, 16, 16), features_of),
        (lambda: SECONDEncoder(2), (41, 16, 16), lambda y: y.dense().flatten(1, 2)),
    ],
)
def test_published_networks(make: Any, extent: Any, way: Way) -> None:
    torch.manual_seed(0)
    model = FromCoordinates(make(), extent, way)
    check(model, exported(model, scan(200)), some_scans())


def test_layers_share_a_rulebook() -> None:
    torch.manual_seed(0)
    model = FromCoordinates(nn.Sequential(*(sc.nn.SubmConv3d(2, 2, 3) for _ in range(4))))
    program = exported(model, scan(200, dtype=torch.int32))
    names = [node.op_type for node in program.model.graph]
    # keys sorted once, asked for once, searched once; then one loop over the cells a layer
    assert [names.count(name) for name in ("TopK", "Scan", "Loop")] == [1, 1, 1 + 4]
    check(model, program, some_scans(dtype=torch.int32))


def test_rows_that_share_a_site_merge() -> None:
    class Merged(nn.Module):
        def forward(self, features: Tensor, coords: Tensor) -> Tensor:
            parts = [
                sc.SparseTensor(features, coords // 2, (4, 5, 8), 2, reduce=reduce).dense()
                for reduce in ("sum", "mean", "max")
            ]
            return torch.cat(parts, dim=1)

    torch.manual_seed(0)
    check(Merged(), exported(Merged(), scan(200)), some_scans())


def test_a_program_of_fixed_sites_and_one_that_was_exported_before(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self, x: sc.SparseTensor) -> None:
            super().__init__()
            self.net, self.x = nn.Conv3d(2, 3, 3, 2, 1), x

        def forward(self, features: Tensor) -> Tensor:
            rows: Tensor = self.net(self.x.replace(features)).features
            return rows

    features, coords = scan(200)
    model = Fixed(sc.SparseTensor(features, coords, EXTENT, 2))
    program = torch.export.export(model, (features,))
    path = tmp_path / "fixed.onnx"
    torch.onnx.export(program, (features,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: features.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(features).detach())


def test_what_has_no_translation_is_named() -> None:
    model = FromCoordinates(sc.nn.DeformConv3d(2, 3, 3, padding=1))
    with pytest.raises(Exception, match=r"torch\.onnx\.export: leave sparseconv\.nn\.DeformConv"):
        exported(model, scan(50))

    class Voxelized(nn.Module):
        def forward(self, xyz: Tensor) -> Tensor:
            return sc.voxelize(xyz, 0.5, bounds=((0, 0, 0), (4, 4, 4)))[0].features

    with pytest.raises(Exception, match=r"torch\.onnx\.export: leave sparseconv\.voxelize"):
        torch.onnx.export(Voxelized().eval(), (torch.rand(50, 3),), dynamo=True, verbose=False)


def test_the_old_exporter_is_refused_in_one_line(tmp_path: Path) -> None:
    model = FromCoordinates(sc.nn.SubmConv3d(2, 3, 3))
    with pytest.raises(sc.SparseConvNotImplementedError, match="dynamo=True") as raised:
        torch.onnx.export(model, scan(50), tmp_path / "old.onnx", dynamo=False)
    assert "\n" not in str(raised.value)

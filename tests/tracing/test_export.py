"""Exported programs make sites from coordinates, in any process and for any number of sites."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sparseconv as sc
from sparseconv.models import UNet

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own affairs

EXTENT = (12, 12, 12)


def scan(count: int) -> tuple[Tensor, Tensor]:
    coords = torch.unique(torch.randint(0, EXTENT[0], (count, 3)), dim=0)
    coords = torch.cat([torch.zeros(len(coords), 1, dtype=torch.int64), coords], dim=1)
    coords = coords[torch.randperm(len(coords))]
    return torch.randn(len(coords), 2), coords


class FromCoordinates(torch.nn.Module):
    """A U-Net that takes plain tensors."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.net, self.sparse = UNet(2, 3, widths=(4, 8)).eval(), sparse

    def forward(self, features: Tensor, coords: Tensor) -> Any:
        y = self.net(sc.SparseTensor(features, coords, EXTENT, 1))
        return y if self.sparse else y.features


class Bev(torch.nn.Module):
    """An encoder whose output is a dense map from above."""

    def __init__(self) -> None:
        super().__init__()
        norm = torch.nn.BatchNorm3d(4)
        layers = sc.nn.SubmConv3d(2, 4, 3), norm, torch.nn.ReLU(), torch.nn.Conv3d(4, 4, 3, 2, 1)
        self.net = torch.nn.Sequential(*layers).eval()

    def forward(self, features: Tensor, coords: Tensor) -> Tensor:
        dense: Tensor = self.net(sc.SparseTensor(features, coords, EXTENT, 1)).dense().flatten(1, 2)
        return dense


def saved(program: Any) -> Any:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def dynamic() -> Any:
    count = torch.export.Dim("count", min=2, max=100_000)
    return {0: count}, {0: count}


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [FromCoordinates, Bev, lambda: FromCoordinates(True)])
def test_a_program_takes_any_number_of_sites(make: Any, strict: bool) -> None:
    torch.manual_seed(0)
    model, first, second = make(), scan(200), scan(350)
    program = torch.export.export(model, first, dynamic_shapes=dynamic(), strict=strict)
    for run in (program.module(), saved(program).module()):
        for args in (first, second):
            found, expected = run(*args), model(*args)
            if isinstance(expected, sc.SparseTensor):
                assert found.shape == expected.shape
                assert torch.equal(found.coords, expected.coords)
                found, expected = found.features, expected.features
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("strict", [False, True])
def test_a_sparse_argument_fixes_the_sites(strict: bool) -> None:
    torch.manual_seed(0)
    net, (features, coords) = FromCoordinates(True).net, scan(200)
    x = sc.SparseTensor(features, coords, EXTENT, 1)
    program = saved(torch.export.export(net, (x,), strict=strict))
    assert not [name for name in program.constants if "handle" in name]
    same = sc.SparseTensor(2 * features, coords, EXTENT, 1)
    torch.testing.assert_close(program.module()(same).features, net(same).features)
    with pytest.raises(sc.SparseConvValueError, match=r"is for the .* sites") as raised:
        program.module()(sc.SparseTensor(*scan(150), EXTENT, 1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("strict", [False, True])
def test_a_sparse_argument_of_any_size_is_refused(strict: bool) -> None:
    torch.manual_seed(0)
    x, count = sc.SparseTensor(*scan(200), EXTENT, 1), torch.export.Dim("count", min=2, max=1000)
    with pytest.raises(Exception, match="dynamic_shapes: a program that takes a SparseTensor"):
        torch.export.export(
            FromCoordinates().net, (x,), dynamic_shapes=([{0: count}],), strict=strict
        )


OTHER_PROCESS = """
import sys, torch, sparseconv as sc
coords = torch.arange(800).reshape(200, 4) * (torch.arange(4) > 0)
living = sc.SparseTensor(torch.ones(200, 2), coords)
case = torch.load(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
torch.testing.assert_close(program(case["features"]), case["expected"])
"""


@pytest.mark.slow
def test_fixed_sites_travel_to_another_process(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, x: sc.SparseTensor) -> None:
            super().__init__()
            self.net, self.x = UNet(2, 3, widths=(4, 8)).eval(), x

        def forward(self, features: Tensor) -> Tensor:
            rows: Tensor = self.net(self.x.replace(features)).features
            return rows

    features, coords = scan(200)
    model = Fixed(sc.SparseTensor(features, coords, EXTENT, 1))
    program, case = tmp_path / "program.pt2", tmp_path / "case.pt"
    torch.export.save(torch.export.export(model, (features,)), program)
    torch.save({"features": features, "expected": model(features).detach()}, case)
    command = [sys.executable, "-c", OTHER_PROCESS, str(program), str(case)]
    subprocess.run(command, check=True, timeout=120)


def test_one_graph_from_coordinates_to_features() -> None:
    torch._dynamo.reset()
    model, first, second = FromCoordinates(), scan(200), scan(350)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for args in (first, second):
        torch.testing.assert_close(compiled(*args), model(*args))


def test_sites_that_a_graph_makes_are_freed() -> None:
    model = FromCoordinates()
    run = torch.export.export(model, scan(200), dynamic_shapes=dynamic()).module()
    run(*scan(200))
    before = len(sc.core.handles.LIVING)  # type: ignore[attr-defined]
    for _ in range(5):
        run(*scan(300))
    assert len(sc.core.handles.LIVING) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.jit.trace(FromCoordinates(), scan(50)),
        lambda: torch.jit.script(FromCoordinates().net),
        lambda: torch.jit.script(torch.nn.Conv2d(2, 3, 3))(
            sc.SparseTensor(torch.ones(1, 2), torch.tensor([[0, 1, 1]]))
        ),
    ],
)
def test_torch_jit_is_refused_in_one_line(call: Any) -> None:
    with pytest.raises(sc.SparseConvNotImplementedError) as raised:
        call()
    assert "\n" not in str(raised.value)

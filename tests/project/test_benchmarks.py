"""The benchmark runs, and counts what it says that it counts; no time is asserted."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseconv as sc
from benchmarks import (
    cpu,
    cpu_dense,
    cpu_growth,
    cpu_memory,
    files,
    floors,
    peers,
    profile,
    readers,
    readme,
    serve,
)
from benchmarks.apart import peak_during
from benchmarks.nets import NETS
from benchmarks.rows import Row, show
from benchmarks.scenes import load
from benchmarks.works import Work, works_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny() -> sc.SparseTensor:
    x = load("tiny")
    return x.replace(torch.randn(x.num_sites, 4, generator=torch.Generator().manual_seed(0)))


def quick(group: str) -> list[Row]:
    options = argparse.Namespace(
        only=[group], scene=["tiny"], threads=[1], quick=True, cpu_time=False
    )
    return list(cpu.measure(options))


def in_this_process(module: str, function: str, *arguments: Any) -> Any:
    """Do what ``apart`` does in a process of its own, which takes seconds to start."""
    return getattr(importlib.import_module(module), function)(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("group", cpu.GROUPS)
def test_every_group_yields_rows(
    group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_growth, "apart", in_this_process)  # memory and start keep theirs
    rows = quick(group)
    assert {row.group for row in rows} == {group}
    assert len({row.key for row in rows}) == len(rows), "two rows of one name"
    assert all(row.reference > 0 and row.threads == 1 for row in rows)
    assert [row for row in rows if row.bar is not None], "a group without a bar judges nothing"
    show(rows)
    assert rows[0].scene in capsys.readouterr().out


def multiplied(run: Any, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the FLOPs of all products that ``run`` makes."""
    flops = [0]

    def mm(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        assert a.shape[1] == b.shape[0]
        assert out.shape == (a.shape[0], b.shape[1])
        flops.append(2 * a.shape[0] * a.shape[1] * b.shape[1])

    monkeypatch.setattr(torch, "mm", mm)
    run()
    return sum(flops)


@pytest.mark.parametrize("name", NETS)
def test_floor_of_a_network_makes_the_flops_that_summary_counts(
    name: str, tiny: sc.SparseTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = NETS[name](4)
    works = list(works_of(net, tiny).values())
    counted = sc.summary(net, tiny, show=False).flops
    assert sum(work.gflop for work in works) == pytest.approx(1e-9 * counted, rel=1e-12)
    assert multiplied(floors.products(works), monkeypatch) == counted
    training = multiplied(floors.products(works, floors.TRAINING), monkeypatch)
    assert training == 3 * counted - round(1e9 * works[0].gflop), "the first needs no gradient"
    assert [work.first for work in works] == [True] + [False] * (len(works) - 1)


def test_floor_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work((3, 0, 5), 4, 2, groups=3)
    assert multiplied(floors.products([work]), monkeypatch) == 2 * 8 * 4 * 2 * 3
    assert work.gflop == pytest.approx(2e-9 * 8 * 4 * 2 * 3)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("peer", peers.available())
def test_a_peer_has_the_same_numbers(name: str, peer: str, tiny: sc.SparseTensor) -> None:
    net = NETS[name](4).eval()
    module = peers.available()[peer]
    theirs = peers.converted(net, module).eval()
    with torch.no_grad():
        ours = net(tiny).features
        other = theirs(module.input(tiny.features, tiny.coords, tiny, net)).features
    if name == "second":  # its sites are new, and each library has its own order
        ours, other = (torch.stack([x.abs().sum(0), x.square().sum(0)]) for x in (ours, other))
    torch.testing.assert_close(other, ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))


def test_plain_torch_is_always_there() -> None:
    assert "plain torch" in peers.available()


def test_a_peer_that_warns_at_import_is_a_peer(tmp_path: Path) -> None:
    """Its warnings are its own affair: tests, where warnings are errors, find it all the same."""
    folder = tmp_path / "spconv"
    (folder / "pytorch").mkdir(parents=True)
    warns = "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)\n"
    (folder / "__init__.py").write_text(warns)
    (folder / "core.py").write_text("class ConvAlgo:\n    Native = None\n")
    (folder / "pytorch" / "__init__.py").write_text("")
    (folder / "pytorch" / "ops.py").write_text(warns)
    program = "from benchmarks import peers; print(*peers.available(), sep=',')"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "spconv" in done.stdout.strip().split(",")


def row(what: str = "a", value: float = 1.5, scene: str = "tiny") -> Row:
    return Row("layer", what, scene, 2, value, "mm", 3.0, 1.1, gflop=0.25, sites=7)


def test_rows_come_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu.json"
    rows = [row("a"), row("b", 2.0), row("b", 3.0, scene="other")]
    files.write(rows, files.read(path), path)
    assert [Row.from_json(entry) for entry in files.read(path)] == rows
    assert files.read(path)[0]["ratio"] == 0.5
    files.write([row("b", 9.0)], files.read(path), path)
    again = [Row.from_json(entry) for entry in files.read(path)]
    assert again == [rows[0], row("b", 9.0), rows[2]], "a run replaces its own rows"
    assert {"processor", "torch", "numba", "cores"} <= json.loads(path.read_text())[
        "machine"
    ].keys()


def test_readme_tables() -> None:
    what = "submanifold 3x3x3, 64 to 64 channels, forward"
    place = ("layer", what, "tiny", 2, 30.0)
    rows = [Row(*place, "mm", 25.0, 1.1, sites=1234), Row(*place, "spconv", 90.0, sites=1234)]
    rows.append(Row(*place, "plain torch", 75.0, sites=1234))
    machine = {"processor": "a processor", "torch": "2"}
    made = readme.block({"machine": machine, "rows": [row.as_json() for row in rows]})
    assert "|  | tiny, 1,234 sites |" in made
    assert "| 64 channels | 30 (1.20) |" in made
    assert "| 64 channels | 2.5 (plain torch) |" in made


@pytest.mark.slow
def test_latencies_of_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "apart", in_this_process)
    monkeypatch.setattr(serve, "VOXEL", 2.0)
    torch.use_deterministic_algorithms(False)
    serve.main(["--scans", "3", "--threads", "1"], tmp_path / "serve.json")
    found = json.loads((tmp_path / "serve.json").read_text())["ms"]
    assert list(found) == ["eager, 1 thread", "optimized, 1 thread"]
    for figures in found.values():
        assert 0 < figures["p50"] <= figures["p99"] <= figures["slowest"]
        assert figures["first"] > 0 and figures["MB after all"] > 50
    assert "p99" in capsys.readouterr().out


def test_scans_of_a_service_differ() -> None:
    sizes = {len(points) for points in serve.scans(12)}
    assert len(sizes) == 12 and min(sizes) > 1000
    assert [len(points) for points in serve.scans(3)] == [len(p) for p in serve.scans(12)[:3]]


@pytest.mark.slow
def test_readers_beside_other_libraries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readers.main(["--points", "500", "--rounds", "1"], tmp_path / "readers.json")
    found = json.loads((tmp_path / "readers.json").read_text())["ms"]
    assert {"bin", "npy", "npz", "ply", "pcd", "las", "laz", "text, 4 columns"} <= found.keys()
    assert all(times["sparseconv"] > 0 for times in found.values())
    assert found["laz"]["laspy"] > 0 and found["npy"]["NumPy"] > 0
    assert "laz | sparseconv" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value, text", [(0.12345, "0.123"), (3.0, "3"), (1041.0, "1,040"), (14_849.0, "14,800")]
)
def test_figures_are_those_that_people_write(value: float, text: str) -> None:
    assert readme.figure(value) == text


def test_crossing() -> None:
    assert cpu_dense.crossing((0.2, 0.4, 0.8), [0.5, 0.75, 1.25]) == pytest.approx(0.6)
    assert cpu_dense.crossing((0.5, 1.0), [0.4, 0.9]) == 1.0
    assert cpu_dense.crossing((0.5,), [2.0]) == pytest.approx(0.25)


def test_peak_is_that_of_the_call() -> None:
    size = 64 * 2**20

    def run() -> None:
        torch.ones(size // 4)

    peak = peak_during(run)  # the kernel counts pages in batches
    assert 0.9 * size <= peak < 1.5 * size


def test_memory_that_must_be_there_is_counted(tiny: sc.SparseTensor) -> None:
    net = torch.nn.Sequential(sc.nn.SubmConv3d(4, 8, 3), torch.nn.BatchNorm3d(8), torch.nn.ReLU())
    x = sc.SparseTensor(tiny.features, tiny.coords, tiny.spatial_shape)
    pairs = works_of(net, x)["0"].pairs
    features = x.num_sites * (4 + 8 + 8)  # read by convolution and normalisation, kept by ReLU
    parameters = sum(p.numel() for p in net.parameters())
    gradients = x.num_sites * (8 + 8)
    expected = 4 * (features + parameters + gradients + 2 * pairs) + 8 * x.num_sites
    assert cpu_memory.counted(net, x) == expected


def test_profile_names_every_layer(
    tiny: sc.SparseTensor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "ROUNDS", 1)
    profile.profile("second", "tiny", tiny)
    printed = capsys.readouterr().out
    leaves = [name for name, module in NETS["second"]().named_modules() if name]
    assert all(f"│ {name} " in printed for name in leaves)
    assert "everything" in printed


def test_readme_holds_what_the_results_say() -> None:
    document = json.loads(files.RESULTS.read_text(encoding="utf-8"))
    text = readme.README.read_text(encoding="utf-8")
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert readme.replaced(text, readme.block(document)) == text

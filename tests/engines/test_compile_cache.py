"""The compiled kernels on disk: a second process compiles nothing, several may start at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparseconv as sc
from sparseconv.engines.numba.machine import cache as kept

# one group: its cache takes a minute to fill, and two workers would fill one each
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("warm cache")]

COUNTED = """
import torch, sparseconv as sc
from sparseconv.engines.numba.machine.compile import compilations

def report(what):
    print("compiled", what, compilations(), sep="|")
"""

# Few layers, forward and backward; reports how many kernels had to be compiled so far.
LAYERS = """
for channels in (1, 4):
    x, to_points = sc.voxelize(torch.rand(500, 3), 0.2, torch.rand(500, channels))
    net = torch.nn.Sequential(
        sc.nn.SubmConv3d(channels, 20, 3), torch.nn.Conv3d(20, 32, 2, stride=2),
        torch.nn.ConvTranspose3d(32, 8, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Conv3d(8, 32, 3, padding=1, groups=8), torch.nn.Conv3d(32, 24, 1, groups=8),
    )
    net(x).features.sum().backward()
    x.at(x.coords.flip(0))
    report(f"layers of {channels} channels")
"""

# The layers of whole networks in training, on enough sites that no tensor counts as small.
NETWORKS = """
import itertools
coords = torch.cartesian_prod(torch.arange(3), *[torch.arange(20)] * 3)
coords = coords[torch.randperm(len(coords))]
for partial, dtype in itertools.product((False, True), (torch.float32, torch.bfloat16)):
    net = sc.models.UNet(4, 3, partial=partial).to(dtype)
    for step in range(2):
        x = sc.SparseTensor(torch.rand(len(coords), 4, dtype=dtype), coords, (20, 20, 20))
        y = net(x)
        for pool in (torch.nn.functional.max_pool3d, torch.nn.functional.avg_pool3d):
            pool(y, 2).features.float().sum().backward(retain_graph=True)
    with torch.no_grad():
        net.eval()(x)
    report(f"a network, partial={partial}, {dtype}")
"""

WARMUP = """
from sparseconv.cli import main
main(["warmup"])
report("warmup")
"""


def _run(program: str, cache: Path, package: Path | None = None) -> subprocess.Popen[str]:
    """Start a program, with the package that lies in a folder instead of this one."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "SPARSECONV_ENGINE": "numba"}
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    return subprocess.Popen(
        [sys.executable, "-c", COUNTED + program],
        cwd=package,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _compilations(process: subprocess.Popen[str]) -> dict[str, int]:
    """Return how many kernels a process had compiled, by what it had run until then."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    reports = (line.split("|") for line in printed.splitlines() if line.startswith("compiled|"))
    return {what: int(count) for _, what, count in reports}


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that ``sparseconv warmup`` filled."""
    cache = tmp_path_factory.mktemp("numba")
    assert _compilations(_run(WARMUP, cache))["warmup"] > 0
    assert list(cache.rglob("*.nbc")), "NUMBA_CACHE_DIR is respected"
    return cache


def test_nothing_is_compiled_after_warmup(warm_cache: Path) -> None:
    compiled = _compilations(_run(LAYERS + NETWORKS, warm_cache))
    assert len(compiled) == 6
    assert set(compiled.values()) == {0}, compiled


def test_two_versions_keep_their_kernels_side_by_side(warm_cache: Path, tmp_path: Path) -> None:
    """As after an upgrade that changed a helper, whose kernels' own files stayed.

    Two processes start together, and neither trips over what the other writes.
    """
    cache = shutil.copytree(warm_cache, tmp_path / "cache")
    ignored = shutil.ignore_patterns("__pycache__")
    other = shutil.copytree(Path(sc.__path__[0]), tmp_path / "sparseconv", ignore=ignored)
    with (other / "engines" / "numba" / "machine" / "vectors.py").open("a") as file:
        file.write("# another version\n")
    racers = [_run(LAYERS, cache, tmp_path) for _ in range(2)]
    assert sum(max(_compilations(racer).values()) for racer in racers) > 0
    for package in (tmp_path, None):
        assert set(_compilations(_run(LAYERS, cache, package)).values()) == {0}


def test_the_version_that_was_used_least_recently_goes(tmp_path: Path) -> None:
    folders = [tmp_path / f"{kept.PREFIX}{number}" for number in range(kept.KEPT + 2)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / "another program").mkdir()
    kept._drop_oldest(tmp_path)
    assert [folder.exists() for folder in folders] == [True] * kept.KEPT + [False] * 2
    assert (tmp_path / "another program").exists()


@pytest.mark.parametrize("filled", [True, False])
def test_what_cannot_be_written_is_read_or_told_in_one_line(
    filled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / f"{kept.PREFIX}{kept._sources()[:16]}"
    folder.mkdir()
    if filled:
        (folder / "a.nbi").write_bytes(b"")
    monkeypatch.setattr(kept, "_roots", lambda: iter([tmp_path]))
    monkeypatch.setattr(kept, "writable", lambda path: False)
    kept.cannot_keep.cache_clear()
    for _ in range(2):
        assert kept.folder.__wrapped__() == (folder if filled else None)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (0 if filled else 1)
    assert all("cannot be kept" in line and "\n" not in line for line in lines)
    kept.cannot_keep.cache_clear()

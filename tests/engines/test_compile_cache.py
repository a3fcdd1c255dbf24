"""The compiled kernels on disk: a second process compiles nothing, several may start at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Runs forward and backward on sparse input and prints how many kernels had to be compiled.
PROGRAM = """
import torch, sparseconv as sc
from sparseconv.engines.numba.machine import compile as numba_compile
x, to_points = sc.voxelize(torch.rand(500, 3), 0.2, torch.rand(500, {channels}))
net = torch.nn.Sequential(
    sc.nn.SubmConv3d({channels}, 20, 3), torch.nn.Conv3d(20, 32, 2, stride=2),
    torch.nn.ConvTranspose3d(32, 8, 3, stride=2), torch.nn.ReLU(),
    torch.nn.Conv3d(8, 32, 3, padding=1, groups=8), torch.nn.Conv3d(32, 24, 1, groups=8),
)
net(x).features.sum().backward()
x.at(x.coords.flip(0))
print(numba_compile.compilations())
"""

# The layers of a whole network in training, on enough sites that no tensor counts as small.
NETWORK = """
import torch, sparseconv as sc
from sparseconv.engines.numba.machine import compile as numba_compile
coords = torch.cartesian_prod(torch.arange(3), *[torch.arange(20)] * 3)
coords = coords[torch.randperm(len(coords))]
net = sc.models.UNet(4, 3, partial={partial}).to({dtype})
for step in range(2):
    x = sc.SparseTensor(torch.rand(len(coords), 4, dtype={dtype}), coords, (20, 20, 20))
    y = net(x)
    for pool in (torch.nn.functional.max_pool3d, torch.nn.functional.avg_pool3d):
        pool(y, 2).features.float().sum().backward(retain_graph=True)
with torch.no_grad():
    net.eval()(x)
print(numba_compile.compilations())
"""

WARMUP = """
from sparseconv.cli import main
from sparseconv.engines.numba.machine import compile as numba_compile
main(["warmup"])
print(numba_compile.compilations())
"""


def _run(program: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "SPARSECONV_ENGINE": "numba"}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _compilations(process: subprocess.Popen[str]) -> int:
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return int(printed.split()[-1])


@pytest.fixture(scope="module")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache filled by ``sparseconv warmup``, by two processes that start together."""
    cache = tmp_path_factory.mktemp("numba")
    racers = [_run(WARMUP, cache) for _ in range(2)]
    assert sum(_compilations(racer) for racer in racers) > 0
    return cache


@pytest.mark.parametrize("channels", [1, 4])
def test_nothing_is_compiled_after_warmup(warm_cache: Path, channels: int) -> None:
    assert list(warm_cache.rglob("*.nbc")), "NUMBA_CACHE_DIR is respected"
    assert _compilations(_run(PROGRAM.format(channels=channels), warm_cache)) == 0


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_network_compiles_nothing_after_warmup(
    warm_cache: Path, dtype: str, partial: bool
) -> None:
    program = NETWORK.format(dtype=dtype, partial=partial)
    assert _compilations(_run(program, warm_cache)) == 0


def test_what_other_sources_compiled_to_is_dropped(warm_cache: Path, tmp_path: Path) -> None:
    """As after an upgrade that changed a helper, whose kernels' own files stayed."""
    cache = shutil.copytree(warm_cache, tmp_path / "cache")
    stamps = list(cache.rglob("sparseconv.sources"))
    assert stamps
    for stamp in stamps:
        stamp.write_text("of other sources", encoding="ascii")
    program = PROGRAM.format(channels=4)
    assert _compilations(_run(program, cache)) > 0
    assert _compilations(_run(program, cache)) == 0

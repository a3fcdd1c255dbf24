"""The phases of ``benchmarks.gpu``: what each measures, and for how many seconds."""

from __future__ import annotations

import functools
import importlib
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sparseconv as sc
from benchmarks.nets import NETS
from benchmarks.scenes import lidar
from sparseconv.core.geometry import Kind, make_geometry

CASE_SECONDS = 0.4  # of repetitions of one case
LEAST, MOST = 3, 50  # repetitions
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

Case = tuple[str, Callable[[], dict[str, Any]]]


class Unmeasured(Exception):
    """Why a case has no figure."""


@dataclass
class Bench:
    """Where everything runs.

    Attributes:
        device: of all tensors.
        toy: whether few sites and one repetition are enough.
        until: when the phase ends, in seconds of the clock.
    """

    device: torch.device
    toy: bool
    until: float = 0.0

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ms(self, call: Callable[[], Any]) -> float:
        """Return the median milliseconds of a call, from an idle device to an idle one."""
        times: list[float] = []
        call()
        begin = time.perf_counter()
        while len(times) < (1 if self.toy else LEAST) or (
            not self.toy and len(times) < MOST and time.perf_counter() < begin + CASE_SECONDS
        ):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - start)
        return round(1e3 * statistics.median(times), 4)

    def numbers(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return normal numbers on the device."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return values.to(self.device, dtype)

    @functools.cached_property
    def scan(self) -> sc.SparseTensor:
        """A made LiDAR scan of 4 channels; of a small box where few sites are enough."""
        x = lidar()
        if self.toy:
            middle = x.coords[:, 1:].float().mean(0).long()
            near = (x.coords[:, 1:] - middle).abs().amax(1) < 40
            x = sc.prune(x, near)
        values = torch.randn(x.num_sites, 4, generator=torch.Generator().manual_seed(0))
        return x.replace(values).to(self.device)

    def fresh(self, x: sc.SparseTensor) -> sc.SparseTensor:
        """Return the same tensor on sites of its own, without maps."""
        return sc.SparseTensor.on_sites(x.features, x.sites.on_grid(x.grid))


def machine(bench: Bench) -> Iterator[Case]:
    """Rates that the model of the documentation takes from data sheets."""
    side = 64 if bench.toy else 8192
    big = bench.numbers(side, side)

    def copy() -> dict[str, Any]:
        ms = bench.ms(big.clone)
        return {"ms": ms, "GB/s": round(2 * big.numel() * 4 / ms / 1e6, 1)}

    def product(dtype: torch.dtype) -> dict[str, Any]:
        x = big.to(dtype)
        ms = bench.ms(lambda: x @ x)
        return {"ms": ms, "TFLOP/s": round(2 * side**3 / ms / 1e9, 2)}

    def rows(size: int) -> dict[str, Any]:
        table = bench.numbers(1000 if bench.toy else 90_000, size // 4)
        picked = torch.randint(0, len(table), (27 * len(table),)).to(bench.device)
        ms = bench.ms(lambda: table.index_select(0, picked))
        return {"ms": ms, "GB/s": round(2 * picked.numel() * size / ms / 1e6, 1)}

    yield "copy", copy
    for name, dtype in DTYPES.items():
        yield f"matrix product, {name}", functools.partial(product, dtype)
    for size in (64, 128, 256, 512):
        yield f"rows of {size} bytes", functools.partial(rows, size)
    small = bench.numbers(16)
    yield "100 launches", lambda: {"ms": bench.ms(lambda: [small.add(1) for _ in range(100)])}
    yield "wait", lambda: {"ms": bench.ms(lambda: float(small[0]))}


def tests(bench: Bench) -> Iterator[Case]:
    """The tests marked ``gpu``: laws, bits twice, a sample alone and in a batch."""

    def marked() -> dict[str, Any]:
        if bench.device.type != "cuda":
            raise Unmeasured("the tests marked gpu need CUDA")
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x", "tests/devices"]
        folder = Path(__file__).parents[1]
        seconds = max(bench.until - time.perf_counter(), 1)
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "quick"}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                timeout=seconds,
                capture_output=True,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unmeasured(f"not done in {seconds:.0f} s") from error
        return {"exit": done.returncode, "last line": done.stdout.strip().splitlines()[-1:]}

    yield "pytest -m gpu", marked


def maps(bench: Bench) -> Iterator[Case]:
    """Maps of 3x3x3 windows at two strides, on random surfaces of several sizes."""
    for side in (16,) if bench.toy else (100, 300, 600, 1000):
        x, y = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"))
        z = (20 + 9 * torch.sin(x / 9) * torch.cos(y / 7)).long()
        coords = torch.stack([torch.zeros_like(x), x, y, z], 1).to(bench.device)
        features = bench.numbers(side**2, 1)
        yield (
            f"sites, {side**2}",
            lambda f=features, c=coords: {"ms": bench.ms(lambda: sc.SparseTensor(f, c))},
        )
        for name, geometry in (
            ("stride 1", make_geometry((3, 3, 3), kind=Kind.SUBMANIFOLD)),
            ("stride 2", make_geometry((3, 3, 3), stride=2, padding=1)),
        ):
            source = sc.SparseTensor(features, coords)
            yield (
                f"map, {name}, {side**2} sites",
                lambda s=source, g=geometry: {
                    "ms": bench.ms(lambda: bench.fresh(s).sites.convolve(g))
                },
            )


def layers(bench: Bench) -> Iterator[Case]:
    """Submanifold layers with known maps: forward, and both gradients."""
    for channels in (16,) if bench.toy else (16, 32, 64, 96, 128, 256):
        for name, dtype in DTYPES.items():
            yield (
                f"3x3x3, {channels} channels, {name}",
                functools.partial(_layer, bench, channels, dtype),
            )


def _layer(bench: Bench, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    x = bench.scan.replace(bench.numbers(bench.scan.num_sites, channels)).to(dtype)
    x.requires_grad_()
    weight = bench.numbers(channels, channels, 3, 3, 3, dtype=dtype).requires_grad_()
    y = sc.functional.subm_conv(x, weight).features
    cotangent = torch.ones_like(y)

    def back(leaf: Tensor) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(y, leaf, cotangent, retain_graph=True)

    with torch.no_grad():
        forward = bench.ms(lambda: sc.functional.subm_conv(x, weight))
    of_input, of_weight = bench.ms(back(x.features)), bench.ms(back(weight))
    (geometry,) = x.sites.rulebooks
    flop = 2 * x.sites.rulebooks[geometry].num_pairs * channels**2
    return {
        "ms": forward, "input gradient, ms": of_input, "weight gradient, ms": of_weight,
        "sites": x.num_sites, "TFLOP/s": round(flop / forward / 1e9, 3),
    }  # fmt: skip


def networks(bench: Bench) -> Iterator[Case]:
    """Whole networks: a new scan, known maps, joined, captured; and a training step."""
    for name in ("second",) if bench.toy else ("minkunet", "second"):
        for half in (True, False):
            kind = "bfloat16" if half else "float32"
            yield f"{name}, evaluation, {kind}", functools.partial(_evaluation, bench, name, half)
            yield f"{name}, training step, {kind}", functools.partial(_training, bench, name, half)


def _evaluation(bench: Bench, name: str, half: bool) -> dict[str, Any]:
    dtype = torch.bfloat16 if half else torch.float32
    net = NETS[name]().to(bench.device, dtype).eval()
    x = bench.scan.to(dtype)
    joined = sc.optimize(net)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the row says why nothing was captured
        captured = sc.capture(joined, x)
        row = {
            "new maps, ms": bench.ms(lambda: net(bench.fresh(x))),
            "known maps, ms": bench.ms(lambda: net(x)),
            "optimized, ms": bench.ms(lambda: joined(x)),
            "captured, ms": bench.ms(lambda: captured(x)),
            "captured, new maps, ms": bench.ms(lambda: captured(bench.fresh(x))),
        }
    return {**row, "not captured": captured.reason, "sites": x.num_sites}


def _training(bench: Bench, name: str, half: bool) -> dict[str, Any]:
    net, x = NETS[name]().to(bench.device), bench.scan
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    classes = torch.zeros(x.num_sites, dtype=torch.int64, device=bench.device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
            scores = net(bench.fresh(x)).features.float()
        F.cross_entropy(scores, classes[: len(scores)]).backward()
        optimizer.step()

    on_card = bench.device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats(bench.device)
    row: dict[str, Any] = {"ms": bench.ms(step), "sites": x.num_sites}
    if on_card:
        row["peak, GB"] = round(torch.cuda.max_memory_allocated(bench.device) / 1e9, 2)
    return row


def peer(bench: Bench) -> Iterator[Case]:
    """Spconv's submanifold layer in the same process, where its CUDA wheel is installed."""
    for channels in (16,) if bench.toy else (16, 32, 64, 128, 256):
        for name in ("float16", "float32"):  # it has no bfloat16
            yield (
                f"spconv, 3x3x3, {channels} channels, {name}",
                functools.partial(_spconv, bench, channels, DTYPES[name]),
            )


def _spconv(bench: Bench, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    if bench.device.type != "cuda":
        raise Unmeasured("spconv's CUDA wheel needs CUDA")
    try:
        spconv: Any = importlib.import_module("spconv.pytorch")
    except ImportError as error:
        raise Unmeasured(f"spconv is not installed: {error}") from error
    layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="k")
    layer = layer.to(bench.device, dtype)
    rows = bench.numbers(bench.scan.num_sites, channels).to(dtype).requires_grad_()
    shape = list(bench.scan.spatial_shape)
    x = spconv.SparseConvTensor(rows, bench.scan.coords.int(), shape, 1)
    y = layer(x)
    known = y.replace_feature(rows)

    def both() -> Any:
        return torch.autograd.grad(layer(known).features.sum(), (rows, layer.weight))

    with torch.no_grad():
        forward = bench.ms(lambda: layer(known))
    return {"ms": forward, "forward and gradients, ms": bench.ms(both), "sites": len(rows)}


# name: what it yields, and how many seconds it has; eight minutes in all
PHASES: dict[str, tuple[Callable[[Bench], Iterator[Case]], float]] = {
    "machine": (machine, 20),
    "tests": (tests, 100),
    "maps": (maps, 50),
    "layers": (layers, 120),
    "networks": (networks, 120),
    "peer": (peer, 70),
}

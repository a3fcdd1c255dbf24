"""What the factor costs: sparse partial layers against the plain ones, on the benchmark scenes.

    python -m benchmarks.partial            # prints the table and writes results/partial.json

Both layers share weights, input and rulebook, and take turns in one process; rulebook and factor
are in the cache, as they are from the second step of a training run on. On one thread and on all.
With ``--cpu-time`` the processor's time is taken instead of the clock's, on one thread alone: for
a machine that others work on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import sparseconv as sc
from benchmarks.scenes import SCENES
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).resolve().parent / "results" / "partial.json"
CHANNELS = (16, 32, 64)
TARGET = 1.05

Step = Callable[[], object]


def layers(channels: int) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    """Return (plain, partial) pairs of layers with the same weights."""
    pairs = {
        "subm 3x3x3": (
            sc.nn.SubmConv3d(channels, channels, 3),
            sc.nn.SubmPartialConv3d(channels, channels, 3),
        ),
        "conv 3x3x3 stride 2": (
            torch.nn.Conv3d(channels, channels, 3, 2, 1),
            sc.nn.PartialConv3d(channels, channels, 3, 2, 1),
        ),
    }
    for plain, partial in pairs.values():
        partial.load_state_dict(plain.state_dict())
    return pairs


def forward(layer: torch.nn.Module, x: sc.SparseTensor) -> Step:
    """Return a forward pass without a tape."""

    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def training(layer: torch.nn.Module, x: sc.SparseTensor) -> Step:
    """Return a forward and a backward pass, gradients of input and parameters."""
    leaf = x.replace(x.features.clone().requires_grad_())
    cotangent = torch.ones_like(layer(leaf).features)

    def run() -> object:
        y = layer(leaf)
        return torch.autograd.grad(y.features, [leaf.features, *layer.parameters()], cotangent)

    return run


def rows(
    scene: str, threads: int, rounds: int, clock: Callable[[], float]
) -> list[dict[str, object]]:
    """Return one row per layer, width and pass."""
    torch.set_num_threads(threads)
    sites = SCENES[scene]()
    table: list[dict[str, object]] = []
    for channels in CHANNELS:
        generator = torch.Generator().manual_seed(0)
        x = sites.replace(torch.randn(sites.num_sites, channels, generator=generator))
        for name, (plain, partial) in layers(channels).items():
            for step in (forward, training):
                contenders = {"plain": step(plain, x), "partial": step(partial, x)}
                median = interleaved(contenders, rounds, warm_up=2, clock=clock)
                ratio = median["partial"] / median["plain"]
                row = {
                    "scene": scene,
                    "sites": sites.num_sites,
                    "threads": threads,
                    "layer": name,
                    "channels": channels,
                    "pass": step.__name__,
                    "plain_ms": round(median["plain"], 3),
                    "partial_ms": round(median["partial"], 3),
                    "ratio": round(ratio, 3),
                }
                print(
                    f"{scene:8}{threads:2} {name:22}{channels:4} {step.__name__:9}"
                    f"{median['plain']:9.2f} ms {median['partial']:9.2f} ms {ratio:7.3f}",
                    flush=True,
                )
                table.append(row)
    return table


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--scenes", nargs="+", default=["lidar", "indoor"], choices=SCENES)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    counts = (1,) if options.cpu_time else sorted({1, torch.get_num_threads()})
    table = [
        row
        for scene in options.scenes
        for threads in counts
        for row in rows(scene, threads, options.rounds, clock)
    ]
    largest = max(float(str(row["ratio"])) for row in table)
    print(f"largest ratio {largest:.3f}, target {TARGET}")
    RESULTS.parent.mkdir(exist_ok=True)
    measured = "cpu time, one thread" if options.cpu_time else "wall clock"
    result = {
        "machine": machine(),
        "measured": measured,
        "target": TARGET,
        "largest": largest,
        "rows": table,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

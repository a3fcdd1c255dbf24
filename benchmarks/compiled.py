"""Inference by ``torch.compile`` and by ``sc.optimize`` against eager, and where eager's time goes.

    python -m benchmarks.compiled [--threads 2] [--rounds 5]

Networks of ``benchmarks.nets`` and ``sparseconv.models`` on the scene ``lidar``; compiled with
default arguments. ``products`` is the share of eager's time that sparse products take by
``torch.profiler``: engines multiply, and no compiler changes that. Writes
``benchmarks/results/compiled.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import sparseconv as sc
from benchmarks.scenes import load
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).parent / "results" / "compiled.json"
CHANNELS = 4
NETS: dict[str, Callable[[], nn.Module]] = {
    "UNet": lambda: sc.models.UNet(CHANNELS, 8, widths=(16, 32, 64, 64)),
    "MinkUNet14A": lambda: sc.models.MinkUNet(CHANNELS, 8, "14A"),
}


def share_of_products(run: Callable[[], Any]) -> float:
    """Return the share of a call's time that sparse products take."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return float(times["sparseconv::convolution"] / sum(times.values()))


def measure(name: str, scene: str, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of each way to run a network, and the share of the products."""
    torch.manual_seed(0)
    x = load(scene)
    x = x.replace(torch.randn(x.num_sites, CHANNELS))
    net = NETS[name]().eval()
    ways = {"eager": net, "compiled": torch.compile(net), "optimized": sc.optimize(net)}
    with torch.no_grad():
        calls = {way: lambda run=run: run(x) for way, run in ways.items()}
        times = interleaved(calls, rounds)
        share = share_of_products(calls["eager"])
    return {"sites": x.num_sites, "milliseconds": times, "products": share}


def main() -> None:
    """Measure every network, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scene", default="lidar")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: measure(name, options.scene, options.rounds) for name in NETS}
    for name, result in found.items():
        times = ", ".join(f"{way} {ms:.1f} ms" for way, ms in result["milliseconds"].items())
        print(f"{name}, {result['sites']} sites: {times}; products {result['products']:.0%}")
    text = json.dumps({"machine": machine(), "threads": options.threads, **found}, indent=2)
    RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

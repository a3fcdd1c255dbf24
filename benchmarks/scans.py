"""A stream of scans: stages at the same time against the sum of their parts; memory over 10,000.

    python -m benchmarks.scans                     # two to three minutes on two cores

The street scans of ``data/`` are read again and again, voxelized at 0.25 m, their rulebooks built,
and the demo's U-Net, optimized, runs on them: one part after the other in one thread, then as
``sc.pipeline``, each thread of one processor, interleaved by rounds; and as much again on windows
of four sweeps in 4D. A second process streams 10,000 small scans and looks at its resident memory.
Figures go to ``results/scans.json``.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseconv as sc
from benchmarks.apart import ROOT, _status, apart
from benchmarks.timing import machine
from sparseconv.models import UNet

RESULTS = Path(__file__).parent / "results" / "scans.json"
PATHS = sorted((ROOT / "data").glob("*/*.npz"))
VOXEL, SWEEPS, MOVED = 0.25, 4, 0.5  # metres, scans of a window, metres between them
SMALL = 2000  # points of a small scan

Stages = dict[str, Callable[[Any], Any]]


def voxels(points: sc.io.Points) -> sc.SparseTensor:
    """Return the voxels of a scan."""
    return sc.voxelize(points, VOXEL)[0]


def window(points: sc.io.Points) -> sc.SparseTensor:
    """Return a window of sweeps: one scan as if it were four, of a sensor that moves."""
    poses = np.tile(np.eye(4), (SWEEPS, 1, 1))
    poses[:, 0, 3] = MOVED * np.arange(SWEEPS)
    return sc.sweeps([points] * SWEEPS, poses, 2 * VOXEL)[0]


def stages(kind: str) -> Stages:
    """Return the parts, by name."""
    torch.manual_seed(0)
    read: Callable[[Any], Any] = sc.io.read_points
    to_voxels = voxels if kind == "scans" else window
    x = to_voxels(read(PATHS[0]))
    if kind == "scans":
        net: torch.nn.Module = UNet(x.channels, 6, (16, 32, 64, 64), convolutions=1)
    else:
        net = sc.models.MinkUNet(x.channels, 6, "14A", dimensions=4)
        net = torch.nn.Sequential(net.conv0p1s1, net.bn0, net.conv1p1s2, net.bn1, net.block1)
    net = sc.optimize(net.eval())
    plan = sc.plan(net, x)

    def maps(x: sc.SparseTensor) -> sc.SparseTensor:
        x.sites.prepare(plan)
        return x

    return {"read": read, "voxelize": to_voxels, "rulebooks": maps, "network": net}


def one_after_the_other(parts: Stages, paths: Sequence[Path]) -> dict[str, float]:
    """Return the seconds of each part."""
    seconds = dict.fromkeys(parts, 0.0)
    for path in paths:
        value: Any = path
        for name, part in parts.items():
            begin = time.perf_counter()
            value = part(value)
            seconds[name] += time.perf_counter() - begin
    return seconds


def at_the_same_time(parts: Stages, paths: Sequence[Path]) -> float:
    """Return the seconds of the pipeline."""
    begin = time.perf_counter()
    for _ in sc.pipeline(paths, *parts.values()):
        pass
    return time.perf_counter() - begin


def throughput(kind: str, count: int, rounds: int) -> dict[str, Any]:
    """Return scans a second, both ways: medians over rounds."""
    torch.set_num_threads(1)
    parts = stages(kind)
    paths = [PATHS[n % len(PATHS)] for n in range(count)]
    with torch.no_grad():
        one_after_the_other(parts, paths[:2])
        apart_, together = [], []
        for _ in range(rounds):
            apart_.append(one_after_the_other(parts, paths))
            together.append(at_the_same_time(parts, paths))
    median = {n: statistics.median(s[n] for s in apart_) / count for n in parts}
    whole = statistics.median(sum(s.values()) for s in apart_) / count
    pipeline = statistics.median(together) / count
    return {
        "milliseconds_a_scan": {name: 1e3 * value for name, value in median.items()},
        "scans_a_second_one_after_the_other": 1 / whole,
        "scans_a_second_pipeline": 1 / pipeline,
        "scans_a_second_of_the_longest_part": 1 / max(median.values()),
        "pipeline_over_sum_of_parts": whole / pipeline,
    }


def memory(count: int) -> dict[str, Any]:
    """Return the resident memory after each tenth of so many small scans, in MB."""
    torch.set_num_threads(1)
    parts = stages("scans")
    whole = [parts["read"](path) for path in PATHS]

    def small(number: int) -> sc.io.Points:
        points = whole[number % len(whole)]
        first = number * 997 % (len(points) - SMALL)
        return points[np.arange(first, first + SMALL)]

    stream = sc.pipeline(range(count), small, *list(parts.values())[1:])
    resident, begin = [], time.perf_counter()
    with torch.no_grad():
        for _ in range(10):
            for _ in islice(stream, count // 10):
                pass
            gc.collect()
            resident.append(_status("VmRSS") / 1e6)
    return {
        "scans": count,
        "points": SMALL,
        "scans_a_second": count / (time.perf_counter() - begin),
        "megabytes_after_each_tenth": resident,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=18, help="scans of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=10_000, help="small scans")
    options = parser.parse_args()
    result = {
        "machine": machine(),
        "scans": apart("benchmarks.scans", "throughput", "scans", options.count, options.rounds),
        "sweeps in 4D": apart("benchmarks.scans", "throughput", "sweeps", 8, options.rounds),
        "memory": apart("benchmarks.scans", "memory", options.many),
    }
    print(json.dumps(result, indent=1))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How long a scan takes in a service: 200 different scans, one after the other, in one process.

    python -m benchmarks.serve                  # 200 scans, on one thread and on two
    python -m benchmarks.serve --scans 1000     # does it get slower, or larger?

For each number of threads a fresh process labels the scans from points to labels by the network of
``sparseconv train``, as it is and after ``sparseconv.optimize``: milliseconds of the first scan
(its kernels come from the disk), and of all later ones the median, the 99th percentile and the
slowest; and the resident memory after the first tenth of the scans and after all. The scans are the
sample streets, turned and cut at random. Figures go to ``results/serve.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseconv as sc
from benchmarks.apart import apart, resident
from benchmarks.timing import machine
from sparseconv.models.point_labeller import PointLabeller, Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "serve.json"
VOXEL = 0.25  # metres
CLASSES = 6
LEAST_SHARE = 0.5  # of a street's points in a scan


def scans(count: int, seed: int = 0) -> list[sc.io.Points]:
    """Return different scans: streets turned about the sensor, and cut to a part of the turn."""
    streets = [sc.io.read_points(path) for path in sorted((ROOT / "data" / "test").glob("*.npz"))]
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        street = streets[number % len(streets)]
        angle, share = rng.uniform(-np.pi, np.pi), rng.uniform(LEAST_SHARE, 1)
        cos, sin = np.cos(angle), np.sin(angle)
        turned = street.xyz.copy()
        turned[:, :2] = street.xyz[:, :2] @ np.array([[cos, sin], [-sin, cos]], np.float32)
        seen = np.abs(np.arctan2(turned[:, 1], turned[:, 0])) <= share * np.pi
        found.append(sc.io.Points(turned[seen], np.zeros((int(seen.sum()), 0), np.float32)))
    return found


def measure(count: int, threads: int, optimized: bool) -> dict[str, float]:
    """Return the latencies in milliseconds, and the memory, of scans that come one by one."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = PointLabeller(Settings(VOXEL, labels=tuple(range(CLASSES)))).eval()
    if optimized:
        network.network = sc.optimize(network.network)
    times, memory = [], []
    for points in scans(count):
        begin = time.perf_counter()
        network.label(points)
        times.append(1e3 * (time.perf_counter() - begin))
        memory.append(resident())
    later = np.array(times[1:])
    return {
        "first": times[0],
        "p50": float(np.median(later)),
        "p99": float(np.quantile(later, 0.99)),
        "slowest": float(later.max()),
        "points": float(np.mean([len(points) for points in scans(count)])),
        "MB after a tenth": memory[len(memory) // 10] / 2**20,
        "MB after all": memory[-1] / 2**20,
    }


def rows(count: int, threads: list[int]) -> dict[str, dict[str, float]]:
    """Return the figures of each way, each from a process of its own."""
    return {
        f"{'optimized' if optimized else 'eager'}, {number} thread{'s' * (number > 1)}": {
            name: float(f"{value:.4g}")
            for name, value in apart(
                "benchmarks.serve", "measure", count, number, optimized
            ).items()
        }
        for number in threads
        for optimized in (False, True)
    }


def main(arguments: list[str] | None = None, path: Path = RESULTS) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    apart("benchmarks.serve", "measure", 2, 1, True)  # compiles what is not on the disk yet
    found = rows(options.scans, options.threads)
    about: dict[str, Any] = {"machine": machine(), "scans": options.scans, "voxel": VOXEL}
    path.write_text(json.dumps({**about, "ms": found}, indent=1) + "\n", encoding="utf-8")
    names = list(next(iter(found.values())))
    print(" | ".join(["", *names]))
    for way, figures in found.items():
        print(" | ".join([way, *(f"{figures[name]:.4g}" for name in names)]))


if __name__ == "__main__":
    main()

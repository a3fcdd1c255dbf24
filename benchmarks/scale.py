"""Tiles against one run over the whole cloud, from 10^5 points to what fits; runners; bytes.

    python -m benchmarks.scale                       # 10^5 and 10^6 points
    python -m benchmarks.scale --points 1e7 1e8      # what fits into memory: 1e8 takes 60 GB whole
    python -m benchmarks.scale --net minkunet        # the deep network, whose halo is wide

Each figure comes from a process of its own with one thread: the processor's seconds of voxelizing
(or of cutting the cloud into tiles) and of the network, the clock's seconds of the runners, and the
highest resident memory above what was there before, per point and per site. (The C library keeps
what is freed of blocks below some megabytes; there it is told to give all of it back.) The cloud is
that of ``benchmarks.scale_large``. Figures go to ``results/scale.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseconv as sc
from benchmarks.apart import apart, peak_during
from benchmarks.nets import MinkUNet
from benchmarks.scale_large import VOXEL, generate
from benchmarks.timing import machine
from sparseconv.models import UNet
from sparseconv.tiles.runners import Here, Pool

RESULTS = Path(__file__).parent / "results" / "scale.json"
CORE = 256  # voxels
NETS = ("unet", "minkunet", "minkunet optimized")
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": "0"}


def network(name: str) -> torch.nn.Module:
    """Return a network in evaluation, of random weights."""
    torch.manual_seed(0)
    if name.startswith("minkunet"):
        net = MinkUNet(1, 5).eval()
        return sc.optimize(net) if name.endswith("optimized") else net
    return UNet(1, 5, (16, 32, 64, 64), convolutions=1).eval()


def _clouds(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*.npy"))


def _warm(net: torch.nn.Module) -> None:
    """Compile what a run needs."""
    torch.set_num_threads(1)
    x, _ = sc.voxelize(torch.rand(2000, 3) * 20, VOXEL, torch.rand(2000, 1))
    with torch.no_grad():
        net(x)
    sc.memory.release()


def whole(folder: str, name: str) -> dict[str, float]:
    """Return seconds and bytes of one run over the whole cloud."""
    net = network(name)
    _warm(net)
    rows = torch.from_numpy(np.concatenate([np.load(path) for path in _clouds(folder)]))
    voxels: list[Any] = []
    begin = time.process_time()
    voxelized = peak_during(lambda: voxels.extend(sc.voxelize(rows[:, :3], VOXEL, rows[:, 3:])))
    between = time.process_time()
    x = voxels[0]
    with torch.no_grad():
        ran = peak_during(lambda: net(x))
    return {
        "points": len(rows),
        "sites": x.num_sites,
        "voxelize_seconds": between - begin,
        "network_seconds": time.process_time() - between,
        "voxelize_bytes_a_point": voxelized / len(rows),
        "network_bytes_a_site": ran / x.num_sites,
    }


def tiles(folder: str, name: str, workers: int) -> dict[str, float]:
    """Return seconds and bytes of tiles, here (no workers) or on a pool of processes."""
    net = network(name)
    _warm(net)
    runner = Pool(workers) if workers else Here()
    result: dict[str, float] = {}

    def label() -> None:
        begin, clock = time.process_time(), time.perf_counter()
        job = sc.tiled(net, folder, VOXEL, CORE, runner=runner)
        result["partition_seconds"] = time.process_time() - begin
        begin = time.process_time()
        job.run()
        result["network_seconds"] = time.process_time() - begin
        result["seconds_by_the_clock"] = time.perf_counter() - clock
        result["tiles"], result["sites_read"] = job.num_tiles, job.num_sites_read

    result["peak_bytes"] = peak_during(label)
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--net", choices=NETS, default="unet")
    parser.add_argument("--workers", type=int, default=2, help="of the pool; 0 leaves it out")
    options = parser.parse_args()
    everything = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for count in map(int, options.points):
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), count)
            row: dict[str, Any] = {
                "machine": machine(),
                "core": CORE,
                "whole": apart("benchmarks.scale", "whole", folder, options.net, **GIVES_BACK),
                "tiles": apart("benchmarks.scale", "tiles", folder, options.net, 0, **GIVES_BACK),
            }
            row["tiles"]["sites_read_over_sites"] = (
                row["tiles"]["sites_read"] / row["whole"]["sites"]
            )
            if options.workers:
                row[f"pool of {options.workers}"] = apart(
                    "benchmarks.scale", "tiles", folder, options.net, options.workers, **GIVES_BACK
                )
        everything[f"{options.net}, {count} points"] = row
        print(json.dumps({f"{options.net}, {count} points": row}, indent=1))
        RESULTS.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

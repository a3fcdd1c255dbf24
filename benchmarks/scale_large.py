"""A cloud that does not fit: labelled under a memory limit, killed, gone on with, compared.

    python -m benchmarks.scale_large --folder DIR                  # 200 million points
    python -m benchmarks.scale_large --folder DIR --points 2000000 --engine torch

It writes a cloud of airborne lines into files of ten million points, labels it in a process whose
address space is limited (``RLIMIT_AS``), kills that process after a third of the tiles, starts it
again, and compares the labels of two parts, bit for bit, with a run over each alone, without tiles
and without a limit. Figures go to ``results/scale_large.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import sparseconv as sc
from benchmarks.apart import ROOT
from benchmarks.timing import machine
from sparseconv.models import UNet

Points = npt.NDArray[np.float32]

PER_FILE = 10_000_000
PER_SQUARE_METRE = 20
VOXEL = 0.5  # metres
LIMIT = 5 * 2**29  # bytes of address space, less than the cloud takes on disk
SIDE = 120.0  # metres, of the parts that are compared
MARGIN = 24.0  # metres around them: more than the network's reach
RESULTS = Path(__file__).parent / "results" / "scale_large.json"


def network() -> torch.nn.Module:
    """Return the demo's U-Net, optimized, of random weights."""
    torch.manual_seed(0)
    return sc.optimize(UNet(1, 5, (16, 32, 64, 64), convolutions=1).eval())


def generate(folder: Path, count: int) -> None:
    """Write a terrain with houses and trees, scanned in lines, in centimetres: x, y, z, intensity.

    Args:
        folder: where the files go; those that are there stay.
        count: number of points.
    """
    folder.mkdir(parents=True, exist_ok=True)
    width = 1000.0  # metres, of a line
    for number, first in enumerate(range(0, count, PER_FILE)):
        path = folder / f"part_{number:04d}.npy"
        if path.exists():
            continue
        n = min(PER_FILE, count - first)
        rng = np.random.default_rng(number)
        length = n / PER_SQUARE_METRE / width
        along = np.sort(rng.random(n)) * length + first / PER_SQUARE_METRE / width
        across = rng.random(n) * width
        z = 20 * np.sin(along / 310) * np.cos(across / 270) + rng.normal(0, 0.03, n)
        kind = (np.floor(along / 25) * 7 + np.floor(across / 25) * 13) % 5
        z += np.where(kind == 1, 8.0, 0.0) + np.where(kind == 3, rng.random(n) * 12, 0.0)
        rows = np.stack([along, across, z, rng.random(n)], axis=1)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.save(file, np.round(rows, 2).astype(np.float32))
        unfinished.replace(path)


def label(cloud: Path, work: Path, limit: int) -> None:
    """Label the cloud under a limit; talks about its progress. Called in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(2)
    begin = time.perf_counter()
    tiles = sc.tiled(network(), cloud, VOXEL, folder=work)
    planned = time.perf_counter()
    say(planned=planned - begin, tiles=tiles.num_tiles, core=tiles.core, before=tiles.num_done)
    tiles.run(lambda done, total: say(done=done, of=total))
    ran = time.perf_counter()
    tiles.write(work.parent / "labels.npy")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say(ran=ran - planned, wrote=time.perf_counter() - ran, peak=peak, cpu=time.process_time())


def say(**values: object) -> None:
    """Print a line of JSON for the process that waits."""
    print(json.dumps(values), flush=True)


def run(options: argparse.Namespace, kill_after: float) -> dict[str, Any]:
    """Run :func:`label` in a process, kill it after a share of the tiles, return what it said."""
    arguments = [sys.executable, "-m", "benchmarks.scale_large", "--folder", str(options.folder)]
    variables = {**os.environ, "SPARSECONV_ENGINE": options.engine, "PYTHONPATH": str(ROOT)}
    command = [*arguments, "--label", "--limit", str(options.limit)]
    said: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said |= json.loads(line)
            if "done" in said and said["done"] >= kill_after * said["of"] and "ran" not in said:
                child.kill()
                break
    if child.returncode and kill_after > 1:
        raise SystemExit(f"the process that labels ended with {child.returncode}")
    return said


def compare(cloud: Path, labels: Path) -> int:
    """Return how many points of two parts were compared; raises where a label differs."""
    found, net, compared = np.load(labels, mmap_mode="r"), network(), 0
    files = [np.load(path, mmap_mode="r") for path in sorted(cloud.glob("*.npy"))]
    end = max(float(file[-1, 0]) for file in files)
    for corner in ((end / 3, 300.0), (2 * end / 3, 600.0)):
        rows, points = _within(files, np.asarray(corner) - MARGIN, SIDE + 2 * MARGIN)
        x, to_points = sc.voxelize(points[:, :3], VOXEL, points[:, 3:])
        with torch.no_grad():
            expected = to_points(net(x)).argmax(1).numpy()
        inside = ((points[:, :2] >= corner) & (points[:, :2] < np.asarray(corner) + SIDE)).all(1)
        if not np.array_equal(found[rows[inside]], expected[inside]):
            raise SystemExit("labels differ from those of a run without tiles")
        compared += int(inside.sum())
    return compared


def _within(files: list[Any], corner: Any, side: float) -> tuple[npt.NDArray[np.int64], Points]:
    """Return the rows in a square, and their points."""
    rows, points, first = [], [], 0
    for file in files:
        low, high = np.searchsorted(file[:, 0], [corner[0], corner[0] + side])
        part = np.array(file[low:high])
        inside = (part[:, 1] >= corner[1]) & (part[:, 1] < corner[1] + side)
        rows.append(np.flatnonzero(inside) + first + low)
        points.append(part[inside])
        first += len(file)
    return np.concatenate(rows), np.concatenate(points)


def main() -> None:
    """Run everything, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="room for 30 bytes a point")
    parser.add_argument("--points", type=int, default=200_000_000)
    parser.add_argument("--engine", default="numba")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes of address space")
    parser.add_argument("--label", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cloud, work = options.folder / "cloud", options.folder / "work"
    if options.label:
        label(cloud, work, options.limit)
        return
    generate(cloud, options.points)
    shutil.rmtree(work, ignore_errors=True)
    killed = run(options, 1 / 3)
    finished = run(options, 2)
    compared = compare(cloud, options.folder / "labels.npy")
    result = {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "points": options.points,
        "bytes_on_disk": sum(path.stat().st_size for path in cloud.glob("*.npy")),
        "voxel_size": VOXEL,
        "engine": options.engine,
        "limit_bytes": options.limit,
        "peak_resident_bytes": max(killed.get("peak", 0), finished["peak"]),
        "core": finished["core"],
        "tiles": finished["tiles"],
        "killed_after_tiles": killed["done"],
        "found_by_the_second_run": finished["before"],
        "seconds": {
            "partition": killed["planned"],
            "tiles_of_the_second_run": finished["ran"],
            "labels": finished["wrote"],
            "processor_of_the_second_run": finished["cpu"],
        },
        "labels_compared_bit_for_bit": compared,
    }
    everything = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    everything[f"{options.engine}, {options.points} points"] = result
    RESULTS.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

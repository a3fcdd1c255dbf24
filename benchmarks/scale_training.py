"""How large a scene one process can train on: peak memory of a step, with activations kept or not.

    python -m benchmarks.scale_training                  # a million points: 362,489 sites
    python -m benchmarks.scale_training --points 3e5

One step of MinkUNet18A (forward, loss, backward) on the cloud of ``benchmarks.scale_large``, in a
process of its own for each way, with one thread: the highest resident memory above what was there
before, rulebooks included, and the processor's seconds. Figures go to
``results/scale_training.json``, and as a table to the terminal.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

import sparseconv as sc
from benchmarks.apart import apart, peak_during
from benchmarks.scale_large import VOXEL, generate
from benchmarks.timing import machine
from sparseconv.models.residual import BasicBlock

RESULTS = Path(__file__).parent / "results" / "scale_training.json"
RECOMPUTED: dict[str, type[torch.nn.Module] | None] = {
    "all activations kept": None,
    "each residual block computed again": BasicBlock,
    "each level computed again": torch.nn.Sequential,
}
WAYS = [(way, dtype) for way in RECOMPUTED for dtype in ("float32", "bfloat16")]


def network(way: str) -> torch.nn.Module:
    """Return MinkUNet18A, whose modules of one kind keep their inputs alone."""
    torch.manual_seed(0)
    net = sc.models.MinkUNet(1, 5, "18A")
    kind = RECOMPUTED[way]
    for name, module in net.named_modules():
        if kind and isinstance(module, kind) and "downsample" not in name:
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    return net


def step(net: torch.nn.Module, x: sc.SparseTensor, dtype: str) -> None:
    """Make the gradients of a loss."""
    with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
        scores = net(x).features
    target = torch.arange(x.num_sites) % scores.shape[1]
    torch.nn.functional.cross_entropy(scores.float(), target).backward()


def measure(folder: str, way: str, dtype: str) -> dict[str, float]:
    """Return the bytes and the seconds of one step."""
    torch.set_num_threads(1)
    net = network(way)
    small, _ = sc.voxelize(torch.rand(3000, 3) * 20, VOXEL, torch.rand(3000, 1))
    step(net, small, dtype)  # compiles, and makes room for the gradients of the weights
    sc.memory.release()
    rows = np.concatenate([np.load(path) for path in sorted(Path(folder).glob("*.npy"))])
    x, _ = sc.voxelize(torch.from_numpy(rows[:, :3]), VOXEL, torch.from_numpy(rows[:, 3:]))
    del rows
    begin = time.process_time()
    peak = peak_during(lambda: step(net, x, dtype))
    seconds = time.process_time() - begin
    return {"sites": x.num_sites, "bytes_a_site": peak / x.num_sites, "seconds": seconds}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the figures in Markdown."""
    lines = [
        "| one training step | bytes a site | seconds a million sites |",
        "| --- | --- | --- |",
    ]
    for name, row in rows.items():
        rate = 1e6 * row["seconds"] / row["sites"]
        lines.append(f"| {name} | {row['bytes_a_site']:,.0f} | {rate:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=float, default=1e6)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), int(options.points))
        for way, dtype in WAYS:
            rows[f"{way}, {dtype}"] = apart(
                "benchmarks.scale_training", "measure", folder, way, dtype
            )
    print(table(rows))
    result = {"machine": machine(), "points": int(options.points), "steps": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

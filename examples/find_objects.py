"""From a labelled scan to oriented boxes of its vehicles: connected voxels of one class.

    python examples/find_objects.py                       # a street of data/test
    python examples/find_objects.py labelled.ply --label 2

Labels come from the file (as `sparseconv label` writes them). A page shows the objects.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import sparseconv as sc

DATA = Path(__file__).resolve().parent.parent / "data" / "test"
VEHICLE = 2
VOXEL = 0.3  # metres: gaps of less than two voxels are bridged
SMALLEST = 8  # voxels


def box_of(xyz: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return centre, size and yaw of the upright box of the smallest ground area around points."""
    best = (np.inf, 0.0)
    for yaw in np.linspace(0, np.pi / 2, 91):
        turned = xyz[:, :2] @ np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        best = min(best, (float(np.prod(np.ptp(turned, axis=0))), float(yaw)))
    yaw = best[1]
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    turned = xyz.astype(np.float64) @ turn
    low, high = turned.min(axis=0), turned.max(axis=0)
    return turn @ (low + high) / 2, high - low, yaw


def main() -> None:
    """Find the objects of one class, print their boxes, and write a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scan", nargs="?", type=Path, help="a labelled scan")
    parser.add_argument("--label", type=int, default=VEHICLE, help="of the class (2, vehicles)")
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder (out)")
    parser.add_argument("--quick", action="store_true", help="the same: it takes a second")
    options = parser.parse_args()
    points = sc.io.read_points(options.scan or sorted(DATA.glob("*.npz"))[0]).finite()
    if points.labels is None:
        parser.error("the scan has no labels: sparseconv label writes them")
    chosen = points[points.labels == options.label]
    if not len(chosen):
        parser.error(f"no point has the label {options.label}")
    x, to_points = sc.voxelize(chosen, VOXEL)
    objects, count = sc.components(x, smallest=SMALLEST)
    found = objects[to_points.rows].numpy()
    print(f"{count} objects of {SMALLEST} voxels or more, {len(chosen):,} points")
    print(f"{'points':>8}{'x':>8}{'y':>8}{'z':>7}{'length':>8}{'width':>7}{'height':>8}{'yaw':>6}")
    for number in range(count):
        xyz = chosen.xyz[found == number]
        centre, size, yaw = box_of(xyz)
        if size[0] < size[1]:
            size[:2], yaw = size[1::-1].copy(), yaw + np.pi / 2
        print(f"{len(xyz):>8,}{centre[0]:>8.1f}{centre[1]:>8.1f}{centre[2]:>7.1f}", end="")
        print(f"{size[0]:>8.1f}{size[1]:>7.1f}{size[2]:>8.1f}{np.degrees(yaw):>5.0f}°")
    options.output.mkdir(parents=True, exist_ok=True)
    labels = torch.from_numpy(found)
    path = options.output / "objects.html"
    sc.view(chosen, labels, title="objects", output=path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

"""The scenes that the benchmarks run on; all of them are made, none is measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import sparseconv as sc

DATA = Path(__file__).resolve().parents[1] / "data"
AZIMUTHS = 2048


def lidar(scans: int = 1) -> sc.SparseTensor:
    """Return ray-cast 64-beam scans of random streets at 5 cm, one sample each."""
    sys.path.insert(0, str(DATA))
    import make_scans  # noqa: PLC0415  # the generator lies beside its data, outside the package

    layouts = make_scans.LAYOUTS["train"]
    samples = []
    for number in range(scans):
        xyz = make_scans.make_scan(100 + number, layouts[number], AZIMUTHS).xyz
        samples.append(sc.voxelize(xyz, 0.05)[0])
    return sc.collate(samples)


def indoor() -> sc.SparseTensor:
    """Return the surfaces of a furnished room at 2 cm: planes turned against the grid."""
    rng = np.random.default_rng(0)
    boxes = [((0.0, 0.0, 0.0), (3.7, 3.2, 2.4))]  # the room, seen from inside
    for _ in range(8):
        size = rng.uniform((0.4, 0.4, 0.4), (1.2, 0.9, 1.6))
        corner = rng.uniform((0.0, 0.0, 0.0), (2.5, 2.3, 0.01))
        boxes.append((tuple(corner), tuple(size)))
    points = np.concatenate([_faces(rng, corner, size) for corner, size in boxes])
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    return sc.voxelize(points @ turn.T, 0.02)[0]


def _faces(
    rng: np.random.Generator, corner: tuple[float, ...], size: tuple[float, ...]
) -> np.ndarray:
    """Return points ``[N, 3]`` on the six faces of a box, about 2 a 2 cm cell, 1 mm of noise."""
    faces = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        area = size[others[0]] * size[others[1]]
        for side in (0.0, 1.0):
            points = rng.random((int(area / 0.02**2 * 2), 3)) * size
            points[:, axis] = side * size[axis] + rng.normal(0, 0.001, len(points))
            faces.append(points + corner)
    return np.concatenate(faces)


def tiny() -> sc.SparseTensor:
    """Return a corner of the room, to see that a benchmark runs."""
    x = indoor()
    near = (x.coords[:, 1:] < 48).all(dim=1)
    return sc.SparseTensor(x.features[near], x.coords[near], (48, 48, 48), batch_size=1)


SCENES = {"lidar": lidar, "lidar4": lambda: lidar(4), "indoor": indoor, "tiny": tiny}


def load(scene: str) -> sc.SparseTensor:
    """Return a scene by its name, or a real scan by its path, at 5 cm."""
    if scene in SCENES:
        return SCENES[scene]()
    xyz = sc.io.read_points(scene).xyz
    return sc.voxelize(xyz[np.isfinite(xyz).all(axis=1) & xyz.any(axis=1)], 0.05)[0]


def shuffled(x: sc.SparseTensor) -> torch.Tensor:
    """Return the coordinates of ``x`` in random order, as a sensor would hand them over."""
    generator = torch.Generator().manual_seed(0)
    return x.coords[torch.randperm(x.num_sites, generator=generator)]

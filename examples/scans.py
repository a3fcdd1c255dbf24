"""Scans for `segment_lidar.py`: read, varied, and turned into voxels with features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from drawing import CLASSES, elevation, rows_without_gaps
from numpy.typing import NDArray
from torch import Tensor

import sparseconv as sc

GROUND_CELL = 4.0  # metres; wide enough that most cells show some ground
NO_LABEL = -1
MOST_BEAMS = 64
LIKE = 1.5  # a scan that differs by this factor is unlike the others


@dataclass(frozen=True)
class Settings:
    """What a training run depends on; saved with the weights."""

    kernel_size: int = 3
    voxel_size: float = 0.25
    widths: tuple[int, ...] = (16, 32, 64, 64)
    convolutions: int = 1
    channels: int = 6
    steps: int = 400
    batch_size: int = 1  # scans of a process in a step
    learning_rate: float = 6e-3
    train_scans: int = 14
    test_scans: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Scan:
    """The usable points of a scan.

    Attributes:
        name: of the file, without its suffix.
        xyz: float32 ``[N, 3]``, metres, sensor at the origin.
        intensity: float32 ``[N]``, 0 to 1.
        height: float32 ``[N]``, metres above the ground around.
        labels: int64 ``[N]``; all ``NO_LABEL`` where the file has none.
        rows: int64 ``[N]``, which rows of the file these points are.
        rows_in_file: how many rows the file has.
    """

    name: str
    xyz: Tensor
    intensity: Tensor
    height: Tensor
    labels: Tensor
    rows: Tensor
    rows_in_file: int

    def keep(self, chosen: Tensor) -> Scan:
        """Return the points where bool ``chosen`` ``[N]`` is true."""
        per_point = ("xyz", "intensity", "height", "labels", "rows")
        return replace(self, **{name: getattr(self, name)[chosen] for name in per_point})

    def to_file(self, labels: Tensor) -> NDArray[np.int64]:
        """Return ``labels`` ``[N]`` in the rows of the file, ``NO_LABEL`` in rows left out."""
        all_rows = torch.full((self.rows_in_file,), NO_LABEL)
        all_rows[self.rows] = labels
        return all_rows.numpy()


def load(path: Path) -> Scan:
    """Read a scan; rows that hold no place (NaN, or (0, 0, 0) for no echo) are left out.

    Raises:
        SparseConvValueError: the file cannot be read, or no point is left; OSError: no such file.
    """
    points = sc.io.read_points(path)
    xyz = torch.from_numpy(points.xyz).float()
    usable = torch.isfinite(xyz).all(dim=1) & (xyz != 0).any(dim=1)
    rows = torch.nonzero(usable)[:, 0]
    if len(rows) == 0:
        raise sc.SparseConvValueError(f"{path.name!r} holds no point with a place")
    if len(rows) < len(xyz):
        dropped = len(xyz) - len(rows)
        print(f"{path.name}: {dropped} points are NaN or (0, 0, 0), their label is {NO_LABEL}")
    labels = torch.full((len(xyz),), NO_LABEL)
    if points.labels is not None:
        labels = torch.from_numpy(points.labels)
    intensity, height = intensities(points, path.name)[rows], above_ground(xyz[rows])
    return Scan(path.stem, xyz[rows], intensity, height, labels[rows], rows, len(xyz))


def intensities(points: sc.io.Points, name: str) -> Tensor:
    """Return the intensity ``[N]`` of each point, 0 to 1; zeros where the file has none."""
    columns = [i for i, feature in enumerate(points.feature_names) if "intensity" in feature]
    if not columns:
        print(f"{name}: no intensity among its features {points.feature_names}, taking 0")
        return torch.zeros(len(points))
    values = torch.from_numpy(points.features[:, columns[0]]).nan_to_num()
    counts_to_255 = len(points) > 0 and bool(values.max() > 1)  # nuScenes; KITTI goes up to 1
    return (values / 255 if counts_to_255 else values).clamp(0, 1)


def above_ground(xyz: Tensor) -> Tensor:
    """Return the height ``[N]`` of points over the ground: over the lowest 5 % of z around.

    The minimum would be simpler, but real scans have stray echoes from below the ground.
    """
    cells, to_points = sc.voxelize(xyz[:, :2], GROUND_CELL)
    order = torch.from_numpy(np.lexsort((xyz[:, 2].numpy(), to_points.rows.numpy())))
    counts = torch.bincount(to_points.rows, minlength=cells.num_sites)
    lowest = order[counts.cumsum(0) - counts + counts // 20]
    return xyz[:, 2] - xyz[lowest, 2][to_points.rows]


def augmented(scan: Scan, generator: torch.Generator) -> Scan:
    """Return the scan thinned, jittered, turned, mirrored, scaled, its intensity distorted.

    More of it costs accuracy on scans of the training set's kind, and gains as much on others.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    scan = scan.keep(torch.rand(len(scan.xyz), generator=generator) < uniform(0.5, 1.0))
    jitter = 0.02 * torch.randn(scan.xyz.shape, generator=generator)
    yaw, scale = uniform(0, 2 * np.pi), uniform(0.85, 1.15)
    mirror = 1 if uniform(0, 1) < 0.5 else -1
    cos, sin = scale * np.cos(yaw), scale * np.sin(yaw)
    turn = torch.tensor([[cos, sin, 0], [-sin * mirror, cos * mirror, 0], [0, 0, scale]])
    # intensities differ from sensor to sensor by more than a factor: learn to do without them too
    gain = uniform(0.3, 2.0) if uniform(0, 1) < 0.5 else 0.0
    return replace(
        scan,
        xyz=(scan.xyz + jitter) @ turn.float(),
        intensity=(scan.intensity * gain).clamp(max=1),
        height=scan.height * scale + uniform(-0.2, 0.2),
    )


def sizes_of(scan: Scan) -> dict[str, float]:
    """Return what a network that was trained on other sizes may not transfer to."""
    ends = torch.tensor([0.02, 0.98])
    low, high = np.quantile(scan.xyz.numpy(), ends.numpy(), axis=0)
    return {
        "extent in metres": float(max(high[0] - low[0], high[1] - low[1])),
        "height in metres": float(high[2] - low[2]),
        "beams": float(rows_without_gaps(elevation(scan.xyz.numpy()), MOST_BEAMS)),
        "mean intensity": float(scan.intensity.mean()),
    }


def spans(scans: list[Scan]) -> dict[str, list[float]]:
    """Return the smallest and the largest of each size among ``scans``."""
    sizes = [sizes_of(scan) for scan in scans]
    return {name: [op(size[name] for size in sizes) for op in (min, max)] for name in sizes[0]}


def unlike(scan: Scan, seen: dict[str, list[float]]) -> list[str]:
    """Return how a scan differs from those that :func:`spans` describes, a sentence each."""
    sizes = sizes_of(scan)
    return [
        f"{name} {sizes[name]:.2g}, they have {low:.2g} to {high:.2g}"
        for name, (low, high) in seen.items()
        if not low / LIKE <= sizes[name] <= high * LIKE
    ]


def voxels(scan: Scan, settings: Settings) -> tuple[sc.SparseTensor, sc.PointMap]:
    """Return the voxels ``[1, channels, *spatial]`` of a scan and the way back to its points.

    Of all features only the height looks beyond the voxel (see `above_ground`).
    """
    edge = settings.voxel_size
    # an extent of whole windows on every level: strided layers read nothing beyond the last one
    coarsest = edge * 2 ** (len(settings.widths) - 1)
    low = torch.floor(scan.xyz.amin(0).double() / coarsest) * coarsest
    high = (torch.floor(scan.xyz.amax(0).double() / coarsest) + 1) * coarsest
    z = (scan.xyz[:, 2].double() - low[2]) / edge
    columns = [
        scan.height / 2,
        (scan.height / 8).clamp(max=1),
        scan.intensity,
        (z - torch.floor(z)).float(),
        (scan.xyz[:, :2].norm(dim=1) / 40).clamp(max=2),
    ]
    features = torch.stack(columns, dim=1)
    x, to_points = sc.voxelize(scan.xyz, edge, features, bounds=(low.tolist(), high.tolist()))
    count = torch.bincount(to_points.rows, minlength=x.num_sites)[:, None]
    return x.replace(torch.cat([x.features, count.float().log() / 2], dim=1)), to_points


def majority(scan: Scan, to_points: sc.PointMap) -> Tensor:
    """Return the commonest label ``[S]`` among the points of each voxel."""
    votes = to_points.rows * len(CLASSES) + scan.labels
    counts = torch.bincount(votes, minlength=to_points.num_sites * len(CLASSES))
    return counts.reshape(-1, len(CLASSES)).argmax(dim=1)

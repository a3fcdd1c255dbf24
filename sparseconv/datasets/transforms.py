"""Changes at random that every pipeline makes, on points before they are voxelized.

Each is called with points and a NumPy generator, and returns new points: labels and further columns
stay with their points, normals turn with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from sparseconv.datasets.base import Transform, at
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points

Random = np.random.Generator
Matrix = npt.NDArray[np.float64]

NORMALS = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)


@dataclass(frozen=True)
class Compose:
    """One change after the other.

    Example:
        >>> import numpy as np, sparseconv as sc
        >>> points = sc.io.Points(np.ones((9, 3), "f4"), np.ones((9, 1), "f4"), ("intensity",))
        >>> vary = Compose([Rotate(), Flip(), Scale(), Jitter(0.01), Drop(0.2)])
        >>> len(vary(points, np.random.default_rng(0)))
        8
    """

    steps: Sequence[Transform]

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points after all steps."""
        for step in self.steps:
            points = step(points, random)
        return points


@dataclass(frozen=True)
class Rotate:
    """Turn around an axis by an angle from `low` to `high` (radians)."""

    low: float = -np.pi
    high: float = np.pi
    axis: int = 2

    def __post_init__(self) -> None:
        """Check the axis."""
        _check(self.axis in (0, 1, 2), f"axis: must be 0, 1 or 2, got {self.axis!r}")

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points turned."""
        angle = random.uniform(self.low, self.high)
        first, second = (axis for axis in range(3) if axis != self.axis)
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
        return linear(points, matrix)


@dataclass(frozen=True)
class Flip:
    """Mirror along each of `axes` with a probability."""

    axes: Sequence[int] = (0, 1)
    probability: float = 0.5

    def __post_init__(self) -> None:
        """Check the axes."""
        _check(set(self.axes) <= {0, 1, 2}, f"axes: must be 0, 1 or 2, got {self.axes!r}")

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points, mirrored or not."""
        signs = np.ones(3)
        for axis in self.axes:
            signs[axis] = -1 if random.random() < self.probability else 1
        return linear(points, np.diag(signs))


@dataclass(frozen=True)
class Scale:
    """Multiply all positions by one number from `low` to `high`."""

    low: float = 0.95
    high: float = 1.05

    def __post_init__(self) -> None:
        """Check the range."""
        _check(0 < self.low <= self.high, f"low, high: got {self.low}, {self.high}")

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points scaled."""
        return at(points, points.xyz * random.uniform(self.low, self.high))


@dataclass(frozen=True)
class Jitter:
    """Move each point by noise of `deviation` (metres), cut off at `most` deviations."""

    deviation: float = 0.01
    most: float = 3.0

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points moved."""
        noise = random.standard_normal(points.xyz.shape).clip(-self.most, self.most)
        return at(points, points.xyz + self.deviation * noise)


@dataclass(frozen=True)
class Drop:
    """Leave out each point with a probability."""

    share: float = 0.1

    def __post_init__(self) -> None:
        """Check the share."""
        _check(0 <= self.share <= 1, f"share: must lie from 0 to 1, got {self.share}")

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points that stay."""
        kept: Points = points[random.random(len(points)) >= self.share]
        return kept


@dataclass(frozen=True)
class Crop:
    """Keep the points in a box of `size` (metres, one number or three) around one of them."""

    size: float | Sequence[float]

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points in the box."""
        if not len(points):
            return points
        half = np.broadcast_to(np.asarray(self.size, np.float64) / 2, (3,))
        middle = points.xyz[random.integers(len(points))]
        kept: Points = points[(np.abs(points.xyz - middle) <= half).all(axis=1)]
        return kept


@dataclass(frozen=True)
class Elastic:
    """Bend space: smooth noise on a grid of `spacing` moves points by about `magnitude` (metres).

    Source: Simard et al. 2003, "Best Practices for Convolutional Neural Networks", in 3-D.
    """

    spacing: float = 0.2
    magnitude: float = 0.4

    def __post_init__(self) -> None:
        """Check the spacing."""
        _check(self.spacing > 0, f"spacing: must be positive, got {self.spacing}")

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points moved."""
        finite = np.isfinite(points.xyz).all(axis=1)
        if not finite.any():
            return points
        low = points.xyz[finite].min(axis=0)
        extent = points.xyz[finite].max(axis=0) - low
        # noise of few cells for scans of large extent: memory stays bounded
        cells = np.clip(np.ceil(extent / self.spacing).astype(int) + 3, 3, 128)
        noise = torch.from_numpy(random.standard_normal((1, 3, *cells)))
        for _ in range(2):
            noise = F.avg_pool3d(F.pad(noise, (1,) * 6, mode="replicate"), 3, 1)
        noise = noise / noise.std()
        place = (points.xyz - low) / np.maximum(extent, 1e-9) * 2 - 1
        grid = torch.from_numpy(np.nan_to_num(place)[:, ::-1].astype(np.float64).copy())
        moves = F.grid_sample(
            noise, grid[None, :, None, None], align_corners=True, padding_mode="border"
        )
        shift = moves[0, :, :, 0, 0].T.numpy()
        return at(points, points.xyz + self.magnitude * shift)


def linear(points: Points, matrix: Matrix) -> Points:
    """Return points, and their normals where they have some, times a matrix ``[3, 3]``."""
    features = points.features
    for names in NORMALS:
        if all(name in points.feature_names for name in names):
            columns = [points.feature_names.index(name) for name in names]
            features = features.copy()
            features[:, columns] = features[:, columns] @ matrix.T
    return replace(at(points, points.xyz @ matrix.T), features=features)


def _check(fits: bool, message: str) -> None:
    if not fits:
        raise SparseConvValueError(message)

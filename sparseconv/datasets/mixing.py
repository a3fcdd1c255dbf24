"""Changes that put something of another scan into this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparseconv.datasets.transforms import Random, Rotate
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points, join_points


@dataclass(frozen=True)
class Mix:
    """Add all points of another scan, drawn at random, with a probability.

    Args:
        scans: a data set (or list) of points with the same columns.
        probability: of adding one.

    Source: Nekrasov et al. 2021, "Mix3D" (arXiv 2110.02210).
    """

    scans: Any
    probability: float = 0.5

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points of both scans, or of this one."""
        if random.random() >= self.probability:
            return points
        return join_points([points, _scan(self.scans, random)])


@dataclass(frozen=True)
class CutAndPaste:
    """Add instances of another scan: each is turned around z, and so keeps its distance.

    Args:
        scans: a data set (or list) of points with labels and ``points["instance"]``.
        classes: labels of the instances that are worth it, the rare ones.
        count: instances to add, at most.

    Raises:
        SparseConvValueError: A scan has no labels or no instances.

    Source: Xiao et al. 2022, "PolarMix" (arXiv 2208.00223).
    """

    scans: Any
    classes: Sequence[int]
    count: int = 3

    def __call__(self, points: Points, random: Random) -> Points:
        """Return the points and those of the instances."""
        other = _scan(self.scans, random)
        if other.labels is None or "instance" not in other:
            raise SparseConvValueError("scans: need labels and instances, got none")
        wanted = np.isin(other.labels, np.asarray(self.classes)) & (other["instance"] > 0)
        both = np.stack([other.labels, other["instance"]], axis=1)
        found = np.unique(both[wanted], axis=0)
        chosen = random.permutation(len(found))[: self.count]
        parts = [points]
        first = int(points["instance"].max(initial=0)) if "instance" in points else 0
        for number, place in enumerate(chosen.tolist(), first + 1):
            piece = other[wanted & (both == found[place]).all(axis=1)]
            piece = Rotate()(piece, random)
            extra = {**piece.extra, "instance": np.full(len(piece), number, np.int64)}
            parts.append(replace(piece, extra=extra))
        return join_points(parts)


def _scan(scans: Any, random: Random) -> Points:
    """Return a scan as it lies on disk: another change must not change it once more."""
    place = int(random.integers(len(scans)))
    points: Points = scans.scan(place) if hasattr(scans, "scan") else scans[place]
    return points

"""What all data sets share: a list of scans, a map of labels, seeded changes, sweeps by poses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io import Points, join_points
from sparseconv.io.labels import NO_LABEL

Transform: TypeAlias = Callable[[Points, np.random.Generator], Points]
Pose: TypeAlias = npt.NDArray[np.float64]


class PointDataset(Dataset[Points]):
    """Scans of one split, as :class:`sparseconv.io.Points` with labels from 0 on, -1 for none.

    What `transform` draws at random depends on `seed`, :attr:`epoch` and the index alone: the same
    scan comes from any worker, in any order.

    Attributes:
        root: the folder.
        split: which part.
        classes: a name for each label, none where the layout has no names.
        epoch: set it before each pass, so that each pass varies the scans anew.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Transform | None = None,
        seed: int = 0,
        sweeps: int = 1,
    ) -> None:
        """Find the scans.

        Args:
            root: the folder that the data set lies in.
            split: which part of it.
            transform: from points and a generator to points.
            seed: of what `transform` draws.
            sweeps: scans that are joined, this one and those before it, moved into its frame; each
                point says by ``points["sweep"]`` how many scans ago it was seen.

        Raises:
            SparseConvError: There is no such split, it holds no scans, or it has no poses.
        """
        check_int("sweeps", sweeps, least=1)
        self.root, self.split, self.transform = Path(root), split, transform
        self.seed, self.sweeps, self.epoch = seed, sweeps, 0
        if not self.root.is_dir():
            raise SparseConvValueError(f"root: there is no folder {str(self.root)!r}")
        self.scans = self._scans()
        if not self.scans:
            raise SparseConvError(
                f"root: {self.root.name!r} holds no scans of the split {split!r} of "
                f"{type(self).__name__}"
            )

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.scans)

    def __getitem__(self, index: int) -> Points:
        """Return a scan, varied by `transform`."""
        points = self.scan(index)
        if self.transform is None:
            return points
        place = range(len(self))[index]
        return self.transform(points, np.random.default_rng((self.seed, self.epoch, place)))

    def scan(self, index: int) -> Points:
        """Return a scan (with its sweeps) as it lies on disk."""
        index = range(len(self))[index]
        points = self._read(index)
        if self.sweeps == 1:
            return points
        inverse = np.linalg.inv(self.pose(index))
        parts = [_with_sweep(points, 0)]
        for ago, (past, pose) in enumerate(self._before(index, self.sweeps - 1), 1):
            parts.append(_with_sweep(moved(past, inverse @ pose), ago))
        return join_points(parts)

    def pose(self, index: int) -> Pose:
        """Return the matrix ``[4, 4]`` from a scan's frame into the world.

        Raises:
            SparseConvError: The data set has no poses.
        """
        raise SparseConvError(f"{type(self).__name__} has no poses, scan {index} stands alone")

    def _scans(self) -> list[Any]:
        raise NotImplementedError

    def _read(self, index: int) -> Points:
        raise NotImplementedError

    def _before(self, index: int, count: int) -> list[tuple[Points, Pose]]:
        """Return up to ``count`` scans before one, the latest first, with their poses."""
        raise SparseConvError(f"{type(self).__name__} has no poses: {index} has no {count} sweeps")


def _with_sweep(points: Points, ago: int) -> Points:
    return replace(points, extra={**points.extra, "sweep": np.full(len(points), ago, np.int64)})


def moved(points: Points, matrix: Pose) -> Points:
    """Return points moved by a matrix ``[4, 4]``."""
    xyz = points.xyz @ matrix[:3, :3].T + matrix[:3, 3]
    return at(points, xyz)


def at(points: Points, xyz: npt.NDArray[Any]) -> Points:
    """Return points at other positions, in the dtype of theirs."""
    same: Any = xyz.astype(points.xyz.dtype)
    return replace(points, xyz=same)


def with_labels(points: Points, labels: Any, mapping: Mapping[int, int] | None) -> Points:
    """Return points with labels that `mapping` translates: what it does not name becomes -1.

    >>> points = Points(np.zeros((3, 3)), np.zeros((3, 0), np.float32))
    >>> with_labels(points, np.array([10, 0, 40]), {10: 0, 40: 8}).labels.tolist()
    [0, -1, 8]
    """
    if labels is None:
        return points
    labels = np.asarray(labels, np.int64)
    if mapping is not None:
        names, places = np.unique(labels, return_inverse=True)
        new = np.array([mapping.get(int(name), NO_LABEL) for name in names], np.int64)
        labels = new[places.reshape(-1)] if len(names) else labels
    return replace(points, labels=labels)


def check_split(split: str, splits: Mapping[str, Any]) -> None:
    """Raise where a data set has no such split.

    Raises:
        SparseConvValueError: Its message lists those that there are.
    """
    if split not in splits:
        raise SparseConvValueError(f"split: must be one of {', '.join(splits)}, got {split!r}")

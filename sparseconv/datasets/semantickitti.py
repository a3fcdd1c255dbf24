"""SemanticKITTI: sequences of scans with labels of classes and instances, and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseconv.datasets.base import PointDataset, Pose, check_split, with_labels
from sparseconv.errors import SparseConvError
from sparseconv.io import Points, read_points

SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{number:02}" for number in range(11, 22)),
}
CLASSES = (
    *("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist"),
    *("motorcyclist", "road", "parking", "sidewalk", "other-ground", "building", "fence"),
    *("vegetation", "trunk", "terrain", "pole", "traffic-sign"),
)
# what a file says -> number of the class; all else (unlabelled, outlier, ...) is not learnt
LABELS = {
    10: 0, 11: 1, 13: 4, 15: 2, 16: 4, 18: 3, 20: 4, 30: 5, 31: 6, 32: 7, 40: 8, 44: 9, 48: 10,
    49: 11, 50: 12, 51: 13, 60: 8, 70: 14, 71: 15, 72: 16, 80: 17, 81: 18, 252: 0, 253: 6, 254: 5,
    255: 7, 256: 4, 257: 4, 258: 3, 259: 4,
}  # fmt: skip


class SemanticKITTI(PointDataset):
    """Scans ``sequences/00/velodyne/000000.bin`` with ``labels/000000.label`` beside.

    Splits: ``train``, ``val`` (sequence 08), ``test`` (without labels). ``points["instance"]`` has
    the numbers of instances.

    Source: Behley et al. 2019, "SemanticKITTI" (arXiv 1904.01416).
    """

    classes = CLASSES

    def _scans(self) -> list[Path]:
        check_split(self.split, SPLITS)
        folders = [self.root / "sequences" / name / "velodyne" for name in SPLITS[self.split]]
        return [path for folder in folders for path in sorted(folder.glob("*.bin"))]

    def _read(self, index: int) -> Points:
        return _read(self.scans[index])

    def pose(self, index: int) -> Pose:
        """Return the matrix ``[4, 4]`` from a scan's frame into the sequence's first one.

        Raises:
            SparseConvError: ``poses.txt`` or ``calib.txt`` is missing or too short.
        """
        return _pose(self.scans[index])

    def _before(self, index: int, count: int) -> list[tuple[Points, Pose]]:
        path, found = self.scans[index], list[tuple[Points, Pose]]()
        for ago in range(1, count + 1):
            past = path.with_name(f"{int(path.stem) - ago:06}.bin")
            if not past.is_file():
                break
            found.append((_read(past), _pose(past)))
        return found


def _read(path: Path) -> Points:
    points = read_points(path, layout="kitti")
    return with_labels(points, points.labels, LABELS)


def _pose(path: Path) -> Pose:
    folder = path.parent.parent
    try:
        lines = (folder / "calib.txt").read_text().splitlines()
        camera = next(line for line in lines if line.startswith("Tr:")).split()[1:]
        row = (folder / "poses.txt").read_text().splitlines()[int(path.stem)].split()
        to_camera, to_world = (_matrix(numbers) for numbers in (camera, row))
    except (OSError, StopIteration, IndexError, ValueError) as error:
        raise SparseConvError(
            f"{path.name}: no pose in poses.txt and calib.txt of {folder.name}"
        ) from error
    pose: Pose = np.linalg.inv(to_camera) @ to_world @ to_camera
    return pose


def _matrix(numbers: list[str]) -> Pose:
    return np.vstack([np.array(numbers, np.float64).reshape(3, 4), (0, 0, 0, 1)])

"""nuScenes: key frames with lidarseg labels, sweeps and poses by its tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.datasets.base import PointDataset, Pose, Transform, with_labels
from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io import Points, read_points

CHANNEL = "LIDAR_TOP"
MINI = {
    "mini_train": (61, 553, 655, 757, 796, 1077, 1094, 1100),
    "mini_val": (103, 916),
}
# of v1.0-trainval, first and last number of each run of scenes; all others are to learn from
VALIDATION = (
    (3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332), (344, 346),
    (519, 524), (552, 565), (625, 627), (629, 630), (632, 638), (770, 771), (775, 775), (777, 778),
    (780, 784), (794, 800), (802, 802), (904, 917), (919, 931), (962, 963), (966, 969), (971, 972),
    (1059, 1073),
)  # fmt: skip
ALL = "all"
FOLDERS = {  # of the tables of a split
    **dict.fromkeys(MINI, "v1.0-mini"), "train": "v1.0-trainval", "val": "v1.0-trainval",
    "test": "v1.0-test",
}  # fmt: skip
CLASSES = (
    *("barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian"),
    *("traffic_cone", "trailer", "truck", "driveable_surface", "other_flat", "sidewalk"),
    *("terrain", "manmade", "vegetation"),
)
# lidarseg's 32 classes -> those of its challenge; all else is not learnt
LABELS = {
    2: 6, 3: 6, 4: 6, 6: 6, 9: 0, 12: 7, 14: 1, 15: 2, 16: 2, 17: 3, 18: 4, 21: 5, 22: 8, 23: 9,
    24: 10, 25: 11, 26: 12, 27: 13, 28: 14, 30: 15,
}  # fmt: skip


class NuScenes(PointDataset):
    """Key frames of the upper lidar, as the tables of ``v1.0-…`` list them.

    Splits: ``train``, ``val``, ``test``, ``mini_train``, ``mini_val``, and ``all`` scenes of the
    tables; `scenes` names any other.

    Source: Caesar et al. 2020, "nuScenes" (arXiv 1903.11027); Fong et al. 2022, "Panoptic
        nuScenes" (arXiv 2109.03805).
    """

    classes = CLASSES

    def __init__(
        self,
        root: str | Path,
        split: str = ALL,
        transform: Transform | None = None,
        seed: int = 0,
        sweeps: int = 1,
        version: str | None = None,
        scenes: Sequence[str] | None = None,
    ) -> None:
        """Find the key frames.

        Args:
            root, split, transform, seed, sweeps: as of :class:`PointDataset`; the sweeps between
                key frames count.
            version: name of the folder of tables; None for the one that the split is in, or of
                all scenes for the only one there is.
            scenes: names of scenes, such as ``"scene-0061"``, instead of a split.

        Raises:
            SparseConvError: A table is missing, or the split is unknown.
        """
        if scenes is None and split not in (*FOLDERS, ALL):
            raise SparseConvValueError(
                f"split: must be one of {', '.join((*FOLDERS, ALL))}, got {split!r}: scenes= names "
                f"the scenes of another"
            )
        whole = scenes is not None or split == ALL
        folder = version or (_only_folder(Path(root)) if whole else FOLDERS[split])
        if not whole and folder in FOLDERS.values() and folder != FOLDERS[split]:
            raise SparseConvValueError(
                f"version: {split!r} is a split of {FOLDERS[split]}, got {folder!r}"
            )
        self._folder = Path(root) / folder
        self._scenes = None if scenes is None else set(scenes)
        super().__init__(root, split, transform, seed, sweeps)

    def _table(self, name: str) -> dict[str, dict[str, Any]]:
        path = self._folder / f"{name}.json"
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            return {row["token"]: row for row in rows}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SparseConvError(
                f"root: {self._folder.name}/{path.name} is missing or damaged"
            ) from error

    def _scans(self) -> list[dict[str, Any]]:
        samples, self._data = self._table("sample"), self._table("sample_data")
        self._poses, self._sensors = self._table("ego_pose"), self._table("calibrated_sensor")
        scenes = self._table("scene")
        self._labels: dict[str, str] = {}
        if (self._folder / "lidarseg.json").is_file():
            table = self._table("lidarseg").values()
            self._labels = {row["sample_data_token"]: row["filename"] for row in table}
        found = [
            row
            for row in self._data.values()
            if row["is_key_frame"]
            and Path(row["filename"]).parent.name == CHANNEL
            and self._has(scenes[samples[row["sample_token"]]["scene_token"]]["name"])
        ]
        return sorted(found, key=lambda row: row["timestamp"])

    def _has(self, scene: str) -> bool:
        """Return whether a scene belongs to the split."""
        if self._scenes is not None:
            return scene in self._scenes
        number = int(scene.rpartition("-")[2])
        held_out = any(first <= number <= last for first, last in VALIDATION)
        if self.split in MINI:
            return number in MINI[self.split]
        return {"train": not held_out, "val": held_out}.get(self.split, True)

    def _read(self, index: int) -> Points:
        return self._points(self.scans[index])

    def _points(self, row: dict[str, Any]) -> Points:
        labels = self._labels.get(row["token"])
        path = None if labels is None else self.root / labels
        points = read_points(
            self.root / row["filename"], layout="nuscenes", label=False if path is None else path
        )
        return with_labels(points, points.labels, LABELS)

    def pose(self, index: int) -> Pose:
        """Return the matrix ``[4, 4]`` from the lidar's frame into the map's."""
        return self._pose(self.scans[index])

    def _pose(self, row: dict[str, Any]) -> Pose:
        ego = self._poses[row["ego_pose_token"]]
        pose: Pose = _matrix(ego) @ _matrix(self._sensors[row["calibrated_sensor_token"]])
        return pose

    def _before(self, index: int, count: int) -> list[tuple[Points, Pose]]:
        row, found = self.scans[index], list[tuple[Points, Pose]]()
        has_labels = row["token"] in self._labels
        while len(found) < count and row["prev"]:
            row = self._data[row["prev"]]
            points = self._points(row)
            if has_labels and points.labels is None:
                points = with_labels(points, np.full(len(points), -1), None)
            found.append((points, self._pose(row)))
        return found


def _only_folder(root: Path) -> str:
    """Return the name of the folder of tables.

    Raises:
        SparseConvError: There are several, or none.
    """
    found = sorted(path.name for path in root.glob("v1.0-*") if (path / "sample.json").is_file())
    if len(found) != 1:
        raise SparseConvError(
            f"root: must have one folder of tables, v1.0-mini or such, found "
            f"{', '.join(found) or 'none'}: version= names it"
        )
    return found[0]


def _matrix(row: dict[str, Any]) -> Pose:
    """Return the matrix of a rotation (a quaternion, w first) and a translation."""
    w, x, y, z = np.array(row["rotation"], np.float64) / np.linalg.norm(row["rotation"])
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = row["translation"]
    return matrix

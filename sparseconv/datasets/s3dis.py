"""S3DIS: rooms as text, an instance a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sparseconv.datasets.base import PointDataset, check_split
from sparseconv.errors import SparseConvError
from sparseconv.io import Points, join_points, read_points

AREAS = range(1, 7)
HELD_OUT = 5  # the area that the literature validates on
CLASSES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa"),
    *("bookcase", "board", "clutter"),
)
OTHERS = {"stairs": "clutter"}  # the benchmark has no class for them
SPLITS = {
    "train": tuple(f"Area_{area}" for area in AREAS if area != HELD_OUT),
    "val": (f"Area_{HELD_OUT}",),
    **{f"Area_{area}": (f"Area_{area}",) for area in AREAS},
}
COLUMNS = ("x", "y", "z", "red", "green", "blue")


class S3DIS(PointDataset):
    """Rooms ``Area_1/office_1/Annotations/chair_1.txt``: lines ``x y z red green blue``.

    Splits: ``val`` is area 5, ``train`` the others; ``Area_1`` and so on for one of them.
    ``points["instance"]`` numbers the files of a room.

    Source: Armeni et al. 2016, "3D Semantic Parsing of Large-Scale Indoor Spaces".
    """

    classes = CLASSES

    def _scans(self) -> list[Path]:
        check_split(self.split, SPLITS)
        folders = [self.root / name for name in SPLITS[self.split]]
        return [path for folder in folders for path in sorted(folder.glob("*/Annotations"))]

    def _read(self, index: int) -> Points:
        parts = []
        for number, path in enumerate(sorted(self.scans[index].glob("*.txt"))):
            name = path.stem.rpartition("_")[0]
            name = OTHERS.get(name, name)
            if name not in CLASSES:
                raise SparseConvError(f"{path.name}: {name!r} is no class of S3DIS")
            points = read_points(path, columns=COLUMNS)
            labels = np.full(len(points), CLASSES.index(name))
            parts.append(
                replace(points, labels=labels, extra={"instance": np.full(len(points), number)})
            )
        return join_points(parts)

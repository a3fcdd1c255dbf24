"""ScanNet: rooms as meshes with a label a vertex."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparseconv.datasets.base import PointDataset, check_split, with_labels
from sparseconv.errors import SparseConvError
from sparseconv.io import Points, read_points

MESH = "_vh_clean_2.ply"
LABELLED = "_vh_clean_2.labels.ply"
FOLDERS = {"train": "scans", "val": "scans", "test": "scans_test"}
CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink"),
    *("bathtub", "other furniture"),
)
NYU40 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
LABELS = {number: place for place, number in enumerate(NYU40)}


class ScanNet(PointDataset):
    """Meshes ``scans/scene0000_00/scene0000_00_vh_clean_2.ply``, labels in ``…labels.ply``.

    Splits: ``train`` and ``val`` are the lists ``scannetv2_train.txt`` and ``scannetv2_val.txt``
    beside ``scans``, as the benchmark publishes them; ``test`` is ``scans_test``.

    Source: Dai et al. 2017, "ScanNet" (arXiv 1702.04405).
    """

    classes = CLASSES

    def _scans(self) -> list[Path]:
        check_split(self.split, FOLDERS)
        folder = self.root / FOLDERS[self.split]
        if self.split == "test":
            return sorted(folder.glob(f"*/*{MESH}"))
        path = self.root / f"scannetv2_{self.split}.txt"
        if not path.is_file():
            raise SparseConvError(f"root: needs {path.name}, the list of the split's scenes")
        names = path.read_text().split()
        return [folder / name / f"{name}{MESH}" for name in names]

    def _read(self, index: int) -> Points:
        path = self.scans[index]
        points = replace(read_points(path), labels=None)
        labelled = path.with_name(path.name.replace(MESH, LABELLED))
        if not labelled.is_file():
            return points
        labels = read_points(labelled, fields=("label",)).labels
        return with_labels(points, labels, LABELS)
